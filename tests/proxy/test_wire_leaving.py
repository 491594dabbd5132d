import asyncio

import pytest

from llama_router.proxy.gate import NoticeKind
from tests.support.data_plane import STREAM, DataPlane, data_plane, post, until
from tests.support.scripted_engine import STREAM_HEAD, answer, event

pytestmark = pytest.mark.asyncio


def stop_sweeping(plane: DataPlane) -> None:
    """Leave nothing to the sweeps: what happens then, happens at once."""
    handle = plane.server._sweep_handle
    assert handle is not None
    handle.cancel()


async def test_leaving_the_queue_cancels_once_and_asks_no_engine() -> None:
    async with data_plane() as plane:
        plane.gate.holds = True
        client = await plane.client()
        client.send(post())
        submission = await plane.gate.arrived()
        await client.close()
        await submission.ended.wait()
        assert submission.outcome == "cancelled"
        assert plane.engine.connection_count == 0


async def test_leaving_while_a_model_loads_cancels_once() -> None:
    async with data_plane(notify_model_swap=True) as plane:
        plane.gate.holds = True
        client = await plane.client()
        client.send(post(body=STREAM))
        submission = await plane.gate.arrived()
        plane.gate.notify(submission, NoticeKind.LOADING)
        await client.head()
        await client.close()
        await submission.ended.wait()
        assert submission.outcome == "cancelled"


async def test_leaving_before_the_first_byte_frees_the_engine_at_once() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post())
        engine = await plane.engine.begin()
        stop_sweeping(plane)
        await client.close()
        await engine.closed()
        assert plane.gate.submissions[0].outcome == "finished"


async def test_leaving_a_stream_frees_the_engine_at_once() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(body=STREAM))
        engine = await plane.engine.begin()
        await engine.send(STREAM_HEAD + event(b"1"))
        await client.head()
        stop_sweeping(plane)
        client.reset()
        await engine.closed()
        assert plane.gate.submissions[0].outcome == "finished"
        assert plane.upstream.idle_count == 0


async def test_closing_without_a_reset_is_noticed_as_tokens_come() -> None:
    # Until something is written, it cannot be told from half closing.
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(body=STREAM))
        engine = await plane.engine.begin()
        await engine.send(STREAM_HEAD + event(b"1"))
        assert await client.head()
        await client.reader.readexactly(len(event(b"1")))
        await client.close()
        submission = plane.gate.submissions[0]
        while not submission.outcomes:
            engine.writer.write(event(b"2"))
            await asyncio.sleep(0)
        assert submission.outcome == "finished"
        await engine.closed()


async def test_leaving_in_the_middle_of_a_body_leaves_nothing() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(body=b'{"model":"tiny"' + b" " * 3_000_000 + b"}")[:2_000_000])
        connection = await plane.connection()
        await until(lambda: connection._reader is not None and connection._reader.received_bytes)
        await client.close()
        await until(lambda: not plane.services.connections)
        await until(lambda: plane.services.budget.used_bytes == 0)
        assert plane.gate.submissions == []


async def test_half_closing_in_the_queue_cancels() -> None:
    async with data_plane() as plane:
        plane.gate.holds = True
        client = await plane.client()
        client.send(post())
        submission = await plane.gate.arrived()
        client.half_close()
        await submission.ended.wait()
        assert submission.outcome == "cancelled"
        assert await client.rest() == b""


async def test_half_closing_in_the_queue_can_be_allowed() -> None:
    async with data_plane(abort_on_half_close=False) as plane:
        plane.gate.holds = True
        client = await plane.client()
        client.send(post())
        submission = await plane.gate.arrived()
        client.half_close()
        for _ in range(20):
            await asyncio.sleep(0)
        assert submission.outcome == ""
        plane.gate.dispatch(submission)
        engine = await plane.engine.begin()
        await engine.send(answer(b"[]"))
        found = await client.answer()
        assert (found.body, found.fields[b"connection"]) == (b"[]", b"close")
        assert await client.rest() == b""
        assert submission.outcome == "finished"


@pytest.mark.parametrize("abort_on_half_close", [True, False])
async def test_half_closing_while_streaming_goes_on(*, abort_on_half_close: bool) -> None:
    async with data_plane(abort_on_half_close=abort_on_half_close) as plane:
        client = await plane.client()
        client.send(post(body=STREAM))
        engine = await plane.engine.begin()
        await engine.send(STREAM_HEAD + event(b"1"))
        await client.head()
        client.half_close()
        for _ in range(20):
            await asyncio.sleep(0)
        await engine.send(event(b"2") + b"0\r\n\r\n")
        rest = await client.rest()
        # Comments in between ask whether the client is there, and are nothing to it.
        assert rest.replace(b"3\r\n:\n\n\r\n", b"") == event(b"1") + event(b"2") + b"0\r\n\r\n"
        assert plane.gate.submissions[0].outcome == "finished"


async def test_closing_in_a_pause_of_the_stream_frees_the_engine_at_once() -> None:
    # A close without unread bytes sends the same as a half close; nothing more comes by itself.
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(body=STREAM))
        engine = await plane.engine.begin()
        await engine.send(STREAM_HEAD + event(b"1"))
        await client.head()
        await client.reader.readuntil(b"\n\n\r\n")
        await client.close()
        # Without a sweep.
        await engine.closed()
        await plane.gate.submissions[0].ended.wait()
        assert plane.gate.submissions[0].outcome == "finished"


async def test_leaving_as_the_engine_is_being_connected_to_leaves_nothing() -> None:
    async with data_plane(answer()) as plane:
        plane.gate.holds = True
        client = await plane.client()
        client.send(post())
        submission = await plane.gate.arrived()
        connection = await plane.connection()
        plane.gate.dispatch(submission)
        connection.transport.abort()
        await submission.ended.wait()
        assert submission.outcome == "finished"
        assert plane.engine.requests == []
