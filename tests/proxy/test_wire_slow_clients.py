import asyncio

import pytest

from llama_router.proxy.limits import READ_BUFFER_BYTES, WRITE_HIGH_WATER_BYTES
from tests.support.data_plane import STREAM, data_plane, post, until
from tests.support.scripted_engine import STREAM_HEAD, answer, event

pytestmark = pytest.mark.asyncio
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


async def test_the_engine_is_held_and_other_clients_are_not() -> None:
    async with data_plane() as plane:
        slow = await plane.client(receive_buffer_bytes=4096)
        connection = await plane.connection()
        slow.send(post(body=STREAM))
        engine = await plane.engine.begin()
        slow.pause()
        engine.writer.write(STREAM_HEAD + CHUNK * 300 + b"0\r\n\r\n")
        await until(lambda: connection.is_blocked)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert connection.is_blocked
        unsent = connection.transport.get_write_buffer_size()
        assert unsent <= WRITE_HIGH_WATER_BYTES + READ_BUFFER_BYTES + 4096
        # Megabytes wait on the engine's side.
        assert engine.writer.transport.get_write_buffer_size() > 0

        other = await plane.client()
        other.send(post())
        second = await plane.engine.begin()
        await second.send(answer(b"[]"))
        assert (await other.answer()).body == b"[]"

        slow.resume()
        assert len((await slow.answer()).body) == 300 * 0x10000
        await until(lambda: not connection.is_blocked)
        assert plane.upstream.idle_count == 2


async def test_a_client_that_takes_nothing_is_cut_after_its_time() -> None:
    async with data_plane(client_stall_timeout_s=5.0) as plane:
        slow = await plane.client(receive_buffer_bytes=4096)
        connection = await plane.connection()
        slow.send(post(body=STREAM))
        engine = await plane.engine.begin()
        slow.pause()
        engine.writer.write(STREAM_HEAD + CHUNK * 300)
        await until(lambda: connection.is_blocked)
        for _ in range(1000):
            await asyncio.sleep(0)
        plane.sweep(5)
        assert plane.connections == [connection]
        plane.sweep(2)
        await engine.closed()
        assert plane.gate.submissions[0].outcome == "finished"


async def test_a_client_that_leaves_its_last_answer_is_cut_after_its_time() -> None:
    async with data_plane(client_stall_timeout_s=5.0) as plane:
        slow = await plane.client(receive_buffer_bytes=4096)
        connection = await plane.connection()
        slow.send(post(fields=b"connection: close\r\n"))
        engine = await plane.engine.begin()
        slow.pause()
        engine.writer.write(answer(b"x" * 8_000_000))
        await until(lambda: connection.is_blocked)
        for _ in range(1000):
            await asyncio.sleep(0)
        plane.sweep(8)
        await until(lambda: not plane.services.connections)


async def test_a_closing_connection_with_little_unsent_is_cut_after_its_time() -> None:
    async with data_plane(client_stall_timeout_s=5.0) as plane:
        slow = await plane.client(receive_buffer_bytes=4096)
        connection = await plane.connection()
        slow.pause()
        # Fill what the kernel holds, then let the router close with a little left over.
        connection.transport.set_write_buffer_limits(2**30)
        while connection.transport.get_write_buffer_size() == 0:
            connection.transport.write(b"x" * 65536)
            await asyncio.sleep(0)
        assert not connection.is_blocked
        connection.close_if_idle()
        for _ in range(100):
            await asyncio.sleep(0)
        assert plane.connections == [connection]
        plane.sweep(8)
        await until(lambda: not plane.services.connections)


async def test_silence_of_a_held_engine_is_not_its_fault() -> None:
    async with data_plane(read_timeout_s=3.0) as plane:
        slow = await plane.client(receive_buffer_bytes=4096)
        connection = await plane.connection()
        slow.send(post(body=STREAM))
        engine = await plane.engine.begin()
        slow.pause()
        engine.writer.write(STREAM_HEAD + CHUNK * 300 + event(b"end") + b"0\r\n\r\n")
        await until(lambda: connection.is_blocked)
        for _ in range(1000):
            await asyncio.sleep(0)
        plane.sweep(10)
        slow.resume()
        assert (await slow.answer()).body.endswith(b"data: end\n\n")
