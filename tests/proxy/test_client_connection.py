import asyncio

import pytest

from llama_router.proxy.limits import MAX_EARLY_BYTES, MAX_EARLY_PAUSE_S
from tests.support.data_plane import STREAM, data_plane, get, post, until
from tests.support.scripted_engine import STREAM_HEAD, answer, event

pytestmark = pytest.mark.asyncio
READ_BYTES = 256 * 1024


async def test_answers_come_in_the_order_of_their_requests() -> None:
    async with data_plane(answer(b'{"engine":1}')) as plane:
        client = await plane.client()
        client.send(post() + get() + post(body=b'{"model":"nobody"}') + post() + get())
        statuses = [(await client.answer()) for _ in range(5)]
        assert [one.status for one in statuses] == [200, 200, 404, 200, 200]
        assert [b"engine" in one.body for one in statuses] == [True, False, False, True, False]


async def test_a_flood_of_answered_requests_is_worked_off() -> None:
    async with data_plane(answer()) as plane:
        client = await plane.client()
        client.send(post() * 500)
        for _ in range(500):
            assert (await client.answer()).status == 200
        assert len(plane.engine.requests) == 500


async def test_a_flood_behind_a_request_in_flight_is_bounded() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post())
        engine = await plane.engine.begin()
        connection = await plane.connection()
        client.send(post() * 40_000)
        await until(lambda: connection._early_paused_s >= 0)
        assert len(connection._buffer) <= MAX_EARLY_BYTES + READ_BYTES
        assert plane.engine.connection_count == 1
        plane.sweep(MAX_EARLY_PAUSE_S + 1)
        # The paused side could not see the client leave, so it is not waited for any longer.
        assert await engine.closed() == b""


async def test_a_flood_of_requests_that_are_answered_at_once_is_bounded() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        connection = await plane.connection()
        worst = 0
        keep = connection._hold_early

        client.send(post(body=b'{"model":"nobody"}') * 30_000)
        for _ in range(3000):
            assert (await client.answer()).status == 404
            worst = max(worst, len(connection._buffer))
        assert worst <= MAX_EARLY_BYTES + READ_BYTES
        assert keep is not None
        client.writer.transport.abort()


async def test_the_pause_of_a_flood_does_not_outlast_it() -> None:
    async with data_plane(answer()) as plane:
        client = await plane.client()
        client.send(post() * 3000)
        for number in range(3000):
            assert (await client.answer()).status == 200
            if number % 500 == 0:
                plane.sweep(MAX_EARLY_PAUSE_S - 1)
        connection = await plane.connection()
        assert connection._early_paused_s < 0
        assert connection.transport.is_reading()


async def test_garbage_behind_a_request_does_not_harm_its_answer() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(body=STREAM) + b"\0garbage\r\n\r\n" * 3)
        engine = await plane.engine.begin()
        await engine.send(STREAM_HEAD + event(b"1") + b"0\r\n\r\n")
        first = await client.answer()
        assert (first.status, first.body) == (200, b"data: 1\n\n")
        second = await client.answer()
        assert (second.status, second.fields[b"connection"]) == (400, b"close")
        assert await client.rest() == b""


async def test_what_follows_a_last_request_does_not_cost_its_answer() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(fields=b"connection: close\r\n") + post() * 3000)
        engine = await plane.engine.begin()
        await engine.send(answer(b'"' + b"x" * 100_000 + b'"'))
        found = await client.answer()
        assert found.fields[b"connection"] == b"close"
        assert len(found.body) == 100_002
        assert await client.rest() == b""
        assert len(plane.gate.submissions) == 1


async def test_a_client_that_takes_nothing_gets_no_further_answers_made() -> None:
    async with data_plane(answer(b"x" * 300_000)) as plane:
        client = await plane.client(receive_buffer_bytes=4096)
        connection = await plane.connection()
        client.pause()
        client.send(post() * 60)
        await until(lambda: connection.is_blocked)
        settled = len(plane.gate.submissions)
        for _ in range(2000):
            await asyncio.sleep(0)
        # The kernel takes a few megabytes; after that nothing moves.
        await until(lambda: connection.is_blocked)
        assert connection.transport.get_write_buffer_size() < 2 * 300_000 + 65536
        assert len(plane.gate.submissions) < 60
        assert settled >= 1
        client.resume()
        for _ in range(60):
            assert len((await client.answer()).body) == 300_000


async def test_a_client_that_takes_no_errors_gets_no_more_of_them() -> None:
    async with data_plane() as plane:
        client = await plane.client(receive_buffer_bytes=4096)
        connection = await plane.connection()
        client.pause()
        client.send(post(body=b'{"model":"nobody"}') * 60_000)
        await until(lambda: connection.is_blocked)
        for _ in range(500):
            await asyncio.sleep(0)
        assert connection.transport.get_write_buffer_size() < 2 * 65536
        plane.sweep(plane.services.client_stall_timeout_s + 1)
        await until(lambda: not plane.services.connections)
