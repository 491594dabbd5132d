import struct

import pytest

from llama_router.engines.wire import (
    MAX_MESSAGE_BYTES,
    Decoder,
    Message,
    WireError,
    bytes_of,
    encode,
    text_of,
)


@pytest.mark.parametrize("step", [1, 3, 1_000])
def test_messages_survive_any_cutting(step: int) -> None:
    messages: list[Message] = [{"request": "kill", "generation": 1}, {"env": {"A": "\udcff é"}}, {}]
    stream = b"".join(encode(message) for message in messages)
    decoder = Decoder()
    got = []
    for start in range(0, len(stream), step):
        got += decoder.feed(stream[start : start + step])
    assert got == messages


def test_what_is_no_message_is_an_error() -> None:
    with pytest.raises(WireError, match="bytes"):
        Decoder().feed(struct.pack("!I", MAX_MESSAGE_BYTES + 1))
    with pytest.raises(WireError, match="JSON"):
        Decoder().feed(struct.pack("!I", 1) + b"{")


def test_any_bytes_can_be_carried() -> None:
    raw = bytes(range(256))
    assert bytes_of(text_of(raw)) == raw
