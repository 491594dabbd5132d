import json

import pytest

from llama_router.stress.fake_engine.answers import answer
from llama_router.stress.fake_engine.connection import Hangup, Request
from tests.support.fake_engine_parts import connected, engine_of


def test_a_chat_carries_the_engines_words() -> None:
    engine = engine_of("--tokens", "2")
    body = json.dumps({"messages": [{"role": "user", "content": "a b"}]}).encode()
    with connected(engine) as (connection, client):
        answer(connection, Request("POST", "/v1/chat/completions", [], body))
        said = json.loads(client.recv(65536).partition(b"\r\n\r\n")[2])
    assert said["choices"][0]["message"]["content"] == " alpha 1"
    assert said["usage"]["prompt_tokens"] == 2
    assert engine.inference_requests == 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/nowhere", b"{}", b"404"), ("/v1/embeddings", b"{", b"400"), ("/completion", b"[]", b"400")],
)
def test_what_makes_no_sense_is_refused(path: str, body: bytes, status: bytes) -> None:
    with connected(engine_of()) as (connection, client):
        with pytest.raises(Hangup):
            answer(connection, Request("POST", path, [], body))
        assert client.recv(4096).startswith(b"HTTP/1.1 " + status)


def test_nothing_is_answered_before_it_is_loaded() -> None:
    engine = engine_of()
    engine.is_ready = False
    with connected(engine) as (connection, client):
        with pytest.raises(Hangup):
            answer(connection, Request("GET", "/health", [], b""))
        assert client.recv(4096).startswith(b"HTTP/1.1 503")
