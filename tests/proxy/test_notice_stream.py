import asyncio
from typing import cast

import pytest

from llama_router.proxy.answer import Framing
from llama_router.proxy.client import Client
from llama_router.proxy.engine_connection import EngineConnection
from llama_router.proxy.errors import LoadTimeoutError
from llama_router.proxy.head import RequestHead, ResponseHead
from llama_router.proxy.limits import MAX_ERROR_BODY_BYTES
from llama_router.proxy.notice_stream import NoticeStream
from llama_router.proxy.upstream import Upstream

pytestmark = pytest.mark.asyncio


class Transport:
    def __init__(self) -> None:
        self.out = b""

    def write(self, data: bytes) -> None:
        self.out += data


class FakeClient:
    wants_close = False

    def __init__(self) -> None:
        self.transport = Transport()


def begun(*, http_1_0: bool = False) -> tuple[NoticeStream, Transport]:
    client, request = FakeClient(), RequestHead()
    request.http_1_0 = http_1_0
    return NoticeStream(cast("Client", client), request, "tiny"), client.transport


def connection() -> EngineConnection:
    return EngineConnection(Upstream(host="127.0.0.1", port=1, connect_timeout_s=1.0))


EVENTS = ResponseHead(200, b"OK", [], keep_alive=True, chunked=True, takes_events=True)


@pytest.mark.parametrize(
    ("http_1_0", "chunked", "framing", "relayed"),
    [
        (False, True, Framing.RAW, b"abc"),
        (False, False, Framing.CHUNKED, b"3\r\nabc\r\n"),
        (True, True, Framing.CLOSE, b"abc"),
    ],
)
async def test_the_engines_events_follow_in_the_framing_that_was_begun(
    http_1_0: bool,  # noqa: FBT001
    chunked: bool,  # noqa: FBT001
    framing: Framing,
    relayed: bytes,
) -> None:
    stream, transport = begun(http_1_0=http_1_0)
    stream.say("[llama-router] Loading tiny\n")
    stream.beat()
    assert transport.out.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b": waiting" in transport.out
    engine, head = connection(), ResponseHead(200, b"OK", [], keep_alive=True, takes_events=True)
    assert stream.join(engine, EVENTS if chunked else head, pytest.fail) is framing
    assert not stream.is_collecting
    assert engine.decode is (framing is not Framing.RAW)
    transport.out = b""
    engine.relay(b"abc")
    assert transport.out == relayed


async def test_an_answer_that_is_no_stream_is_told_as_one_error() -> None:
    stream, transport = begun()
    engine = connection()
    stream.join(engine, ResponseHead(400, b"Bad Request", [], keep_alive=True), pytest.fail)
    assert (stream.is_collecting, engine.decode) == (True, True)
    transport.out = b""
    engine.relay(b'{"error":{"mess')
    engine.relay(b'age":"no"}}')
    assert transport.out == b""
    stream.tell_collected(400)
    assert b'"message":"no"' in transport.out


async def test_no_more_is_collected_than_an_error_can_be() -> None:
    ends: list[int] = []
    stream, _transport = begun()
    engine = connection()
    stream.join(engine, ResponseHead(200, b"OK", [], keep_alive=True), lambda: ends.append(1))
    engine.relay(b"x" * MAX_ERROR_BODY_BYTES)
    assert ends == []
    engine.relay(b"x")
    assert ends == [1]


async def test_an_error_ends_it_properly() -> None:
    stream, transport = begun()
    stream.end_with(LoadTimeoutError("too slow"))
    await asyncio.sleep(0)
    assert transport.out.endswith(b"\r\n0\r\n\r\n")
    assert b"load_timeout" in transport.out
