import asyncio

import pytest

from llama_router.proxy.upstream import Upstream
from tests.support.data_plane import data_plane, get, until
from tests.support.scripted_engine import STREAM_HEAD, ScriptedEngine

pytestmark = pytest.mark.asyncio


async def test_what_a_slow_client_has_still_to_be_sent_is_waited_for_within_the_time() -> None:
    async with data_plane() as plane:
        slow = await plane.client(receive_buffer_bytes=4096)
        connection = await plane.connection()
        slow.pause()
        connection.transport.set_write_buffer_limits(2**30)
        sent_bytes = 0
        while connection.transport.get_write_buffer_size() == 0:
            connection.transport.write(b"x" * 65536)
            sent_bytes += 65536
            await asyncio.sleep(0)
        await plane.server.stop_accepting()
        await plane.server.flush(0.0)
        assert plane.connections == [connection]
        flushing = asyncio.create_task(plane.server.flush(20.0), name="flush")
        await asyncio.sleep(0)
        assert not flushing.done()
        slow.resume()
        assert len(await slow.rest()) == sent_bytes
        await flushing
        await until(lambda: not plane.services.connections)


async def test_answers_of_the_routers_own_are_waited_for_within_the_time() -> None:
    async with data_plane() as plane, ScriptedEngine() as control:
        plane.gate.control = Upstream(host="127.0.0.1", port=control.port, connect_timeout_s=5.0)
        client = await plane.client()
        client.send(get(b"/logs?follow=1"))
        side = await control.begin()
        await side.send(STREAM_HEAD)
        await client.head()
        await plane.server.stop_accepting()
        await plane.server.finish_own(0.0)
        assert len(plane.connections) == 1
        finishing = asyncio.create_task(plane.server.finish_own(20.0), name="finish")
        await asyncio.sleep(0)
        assert not finishing.done()
        await side.send(b"3\r\nend\r\n0\r\n\r\n")
        await finishing
        assert await client.rest() == b"3\r\nend\r\n0\r\n\r\n"
        plane.gate.control.close()


async def test_nothing_to_be_sent_is_not_waited_for() -> None:
    async with data_plane() as plane:
        await plane.client()
        await plane.connection()
        await plane.server.flush(3600.0)
