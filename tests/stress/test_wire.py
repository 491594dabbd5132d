"""The raw client against servers that answer with fixed bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llama_router.stress.wire import Answer, AnswerEnd, connect, request_bytes

pytestmark = pytest.mark.asyncio
DEADLINE_S = 60.0


@asynccontextmanager
async def server(said: bytes) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    started = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with started:
        yield started.sockets[0].getsockname()[1]


async def ask(said: bytes, pace_s: float = 0.0) -> Answer:
    async with asyncio.timeout(DEADLINE_S), server(said) as port:
        client = await connect(port, pace_s=pace_s)
        answer = await client.request("GET", "/x")
        await client.close()
        return answer


@pytest.mark.parametrize(
    ("said", "end", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", AnswerEnd.WHOLE, 200, b"abc"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", AnswerEnd.CUT, 200, b"abc"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            AnswerEnd.WHOLE,
            200,
            b"abc",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            AnswerEnd.CUT,
            200,
            b"ab",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", AnswerEnd.WHOLE, 200, b"abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", AnswerEnd.WHOLE, 204, b""),
        (b"HTTP/1.1 200 OK\r\nConte", AnswerEnd.CUT, 0, b""),
        (b"", AnswerEnd.NONE, 0, b""),
        (b"no http\r\n\r\n", AnswerEnd.CUT, 0, b""),
    ],
)
async def test_what_came_and_how_it_ended(
    said: bytes, end: AnswerEnd, status: int, body: bytes
) -> None:
    answer = await ask(said)
    assert (answer.end, answer.status, answer.body) == (end, status, body)


async def test_a_slow_reader_gets_the_same_bytes() -> None:
    data = bytes(range(256)) * 40
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data)
    assert (await ask(head + data, pace_s=0.001)).body == data


async def test_a_request_is_framed() -> None:
    assert request_bytes("POST", "/x", {"a": 1}).endswith(
        b"Content-Length: 8\r\n\r\n" + b'{"a": 1}'
    )
