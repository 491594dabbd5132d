import asyncio

import pytest

from tests.support.data_plane import STREAM, data_plane, get, post
from tests.support.scripted_engine import STREAM_HEAD, answer, event

pytestmark = pytest.mark.asyncio


async def test_a_request_reaches_its_engine_and_the_answer_comes_back() -> None:
    async with data_plane(answer(b'{"ok":1}')) as plane:
        found = await plane.ask(post(fields=b"X-Own: a\r\n"))
        assert (found.status, found.body) == (200, b'{"ok":1}')
        request = plane.engine.requests[0]
        assert request.line == b"POST /v1/chat/completions HTTP/1.1"
        assert request.body == b'{"model":"tiny"}'
        assert request.fields[b"host"] == b"127.0.0.1:%d" % plane.engine.port
        assert request.fields[b"x-own"] == b"a"


@pytest.mark.parametrize("request_", [get(fields=b"connection: close\r\n"), b""])
async def test_a_connection_ends_when_its_client_says_so(request_: bytes) -> None:
    async with data_plane(answer()) as plane:
        client = await plane.client()
        client.send(request_ or post(fields=b"connection: close\r\n"))
        assert (await client.answer()).fields[b"connection"] == b"close"
        assert await client.rest() == b""


async def test_an_answer_without_a_body_can_be_a_connections_last() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post())
        engine = await plane.engine.begin()
        await engine.send(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        await client.answer()
        assert plane.upstream.idle_count == 0


async def test_what_is_no_inference_goes_to_the_control_plane() -> None:
    async with data_plane(answer()) as plane:
        assert (await plane.ask(get(b"/v1/models"))).body == b'{"control":true}'
        assert plane.engine.connection_count == 0


async def test_a_stream_is_relayed_byte_for_byte() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(body=STREAM))
        engine = await plane.engine.begin()
        await engine.send(STREAM_HEAD + event(b"1"))
        head = await client.head()
        assert b"x-accel-buffering: no" in head
        assert await client.reader.readexactly(len(event(b"1"))) == event(b"1")
        await engine.send(event(b"2") + b"0\r\n\r\n")
        assert await client.reader.readexactly(len(event(b"2")) + 5) == event(b"2") + b"0\r\n\r\n"
        client.send(post())
        # The same connection to the engine is taken up again.
        assert (await engine.request()).body == b'{"model":"tiny"}'
        await engine.send(answer(b"[]"))
        assert (await client.answer()).body == b"[]"


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_a_request_may_come_in_pieces(size: int) -> None:
    async with data_plane(answer(b'{"ok":1}')) as plane:
        client = await plane.client()
        request = b"\r\n" + post()
        for start in range(0, len(request), size):
            client.send(request[start : start + size])
            await asyncio.sleep(0)
        assert (await client.answer()).status == 200
        assert plane.engine.requests[0].body == b'{"model":"tiny"}'
