import pytest

from llama_router.stress.fake_engine.connection import Hangup
from llama_router.stress.fake_engine.streams import Dialect, stream_answer, token_event
from tests.support.fake_engine_parts import connected, engine_of


@pytest.mark.parametrize(
    ("dialect", "last"),
    [
        (Dialect.CHAT, b"data: [DONE]\n\n"),
        (Dialect.COMPLETIONS, b"data: [DONE]\n\n"),
        (Dialect.NATIVE, b'"tokens_evaluated":1}\n\n'),
        (Dialect.ANTHROPIC, b'"message_stop"}\n\n'),
    ],
)
def test_a_stream_says_its_tokens_and_ends_in_its_dialect(dialect: Dialect, last: bytes) -> None:
    engine = engine_of("--tokens", "2")
    with connected(engine) as (connection, client):
        with pytest.raises(Hangup):
            stream_answer(connection, {}, dialect)
        said = client.recv(65536)
    assert said.endswith(last + b"\r\n0\r\n\r\n")
    assert b'" alpha"' in said
    assert b'" 1"' in said
    assert engine.streams_ended == {"done": 1}


def test_a_token_is_one_event() -> None:
    assert token_event("m", Dialect.NATIVE, "x").count(b"\n\n") == 1
