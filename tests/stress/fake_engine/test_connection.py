import pytest

from llama_router.stress.fake_engine.connection import Hangup
from tests.support.fake_engine_parts import connected, engine_of


def test_requests_are_read_in_either_framing() -> None:
    with connected(engine_of()) as (connection, client):
        client.sendall(b"POST /a?b HTTP/1.1\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nhi")
        client.sendall(
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        first, second = connection.read_request(), connection.read_request()
        client.close()
        with pytest.raises(Hangup):
            connection.read_request()
    assert (first.path, first.header("x-a"), first.body) == ("/a", "1", b"hi")
    assert (second.body, second.header("x-a")) == (b"abc", "")


def test_errors_end_the_connection_and_other_answers_keep_it() -> None:
    with connected(engine_of()) as (connection, client):
        connection.send_json({"a": 1})
        assert b"Keep-Alive" in client.recv(4096)
        with pytest.raises(Hangup):
            connection.send_error(503, "unavailable_error", "Loading model")
        assert b"Connection: close" in client.recv(4096)
