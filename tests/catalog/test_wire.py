import io
import os
from pathlib import Path

import msgspec
import pytest

from llama_router.catalog import wire
from llama_router.catalog.model import CatalogModel, Metadata, ModelSource


def model(number: int, parts: int = 0) -> CatalogModel:
    return CatalogModel(
        id=f"m{number:05d}",
        path=Path(os.fsdecode(b"/m/\xff.gguf")),
        source=ModelSource.MODELS_DIR,
        names=("a", "b"),
        parts=tuple(Path(f"/m/{part}") for part in range(parts)),
        metadata=Metadata(architecture="llama", tags=("x",)),
    )


def test_models_come_back_as_they_were_sent() -> None:
    sent = wire.Portion((model(1), model(2, parts=3)))
    file = io.BytesIO(wire.frame(sent) + wire.frame(wire.Done(2, 1, 1, ("note",))))

    answers = []
    while (content := wire.read_frame(file)) is not None:
        answers.append(wire.answer_decoder.decode(content))

    assert answers == [sent, wire.Done(2, 1, 1, ("note",))]


def test_request_comes_back_as_it_was_sent() -> None:
    request = wire.Request(
        models_dirs=(Path(os.fsdecode(b"/\xfe")),), env={"A": "b"}, home=Path("/h"), platform="x"
    )
    content = wire.read_frame(io.BytesIO(wire.frame(request)))

    assert content is not None
    assert wire.decode(content, wire.Request) == request


def test_portions_are_small_and_hold_everything_once() -> None:
    models = [model(number, parts=1000 if number == 5 else 0) for number in range(300)]

    portions = list(wire.portions(models))

    assert [one for portion in portions for one in portion.models] == models
    assert max(len(portion.models) for portion in portions) <= 40
    # A model of so many parts ends its portion.
    assert portions[0].models[-1] is models[5]


@pytest.mark.parametrize("content", [b"\0\0", b"\0\0\0\5abc", b"\xff\xff\xff\xffabc"])
def test_half_a_frame_is_refused(content: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.read_frame(io.BytesIO(content))


def test_nonsense_is_refused() -> None:
    with pytest.raises(msgspec.MsgspecError):
        wire.answer_decoder.decode(b"\x93\x01\x02\x03")
    with pytest.raises(msgspec.MsgspecError):
        wire.decode(msgspec.msgpack.encode({"home": 1}), wire.Request)
