import asyncio

import pytest

from llama_router.proxy.limits import MAX_HEAD_BYTES, MAX_INTERIM_RESPONSES
from tests.support.data_plane import STREAM, DataPlane, data_plane, get, post, until
from tests.support.raw_client import RawClient
from tests.support.scripted_engine import STREAM_HEAD, EngineSide, answer, event

pytestmark = pytest.mark.asyncio


async def asked(plane: DataPlane, request: bytes = b"") -> tuple[RawClient, EngineSide]:
    """A client whose request its engine has just read."""
    client = await plane.client()
    client.send(request or post(body=STREAM))
    return client, await plane.engine.begin()


async def test_a_crash_between_events_is_told_in_an_event_and_then_cut() -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane)
        await engine.send(STREAM_HEAD + event(b"1"))
        await client.head()
        engine.close()
        rest = await client.rest()
        assert rest.startswith(event(b"1"))
        assert rest.count(b'data: {"error"') == 1
        assert b"engine_crashed" in rest
        # No last chunk and no [DONE]: it did not end well.
        assert not rest.endswith(b"0\r\n\r\n")
        assert b"[DONE]" not in rest


@pytest.mark.parametrize("cut", [1, 4, 9, 13, 15])
async def test_a_crash_within_an_event_only_cuts(cut: int) -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane)
        await engine.send(STREAM_HEAD + event(b"1") + event(b"half")[:cut])
        await client.head()
        engine.reset() if cut % 2 else engine.close()
        rest = await client.rest()
        assert rest.startswith(event(b"1")[:-2])
        assert b"error" not in rest
        assert not rest.endswith(b"0\r\n\r\n")


async def test_no_event_is_put_into_what_is_no_event_stream() -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
        chunk = b"7\r\npart1\n\n\r\n"
        await engine.send(head + chunk)
        await client.head()
        engine.close()
        assert await client.rest() == chunk


async def test_a_crash_within_a_counted_body_cuts_it_short() -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane)
        await engine.send(answer(b"x" * 100)[:-50])
        engine.close()
        with pytest.raises(asyncio.IncompleteReadError):
            await client.answer()


async def test_a_crash_resets_a_client_that_only_the_close_tells_the_end() -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane, post(body=STREAM, version=b"1.0"))
        await engine.send(STREAM_HEAD + event(b"1") + b"5\r\nha")
        await client.head()
        assert await client.reader.readexactly(9) == b"data: 1\n\n"
        engine.close()
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_request_without_an_answer_is_given_back_once() -> None:
    async with data_plane() as plane:
        client, first = await asked(plane)
        first.close()
        second = await plane.engine.begin()
        assert plane.gate.submissions[0].bounce_count == 1
        assert plane.engine.requests[0].body == plane.engine.requests[1].body
        await second.send(answer(b"[]"))
        assert (await client.answer()).body == b"[]"


async def test_a_request_without_an_answer_twice_is_an_error() -> None:
    async with data_plane() as plane:
        client, first = await asked(plane)
        first.reset()
        (await plane.engine.begin()).close()
        found = await client.answer()
        assert (found.status, b"engine_crashed" in found.body) == (502, True)
        assert plane.engine.connection_count == 2


async def test_an_engine_that_is_not_there_is_an_error() -> None:
    async with data_plane() as plane:
        assert plane.engine._server is not None
        plane.engine._server.close()
        found = await plane.ask(post())
        assert (found.status, b"engine_crashed" in found.body) == (502, True)
        found = await plane.ask(get(b"/health?model=tiny"))
        assert found.status == 502
        assert plane.gate.submissions[1].bounce_count == 0


async def test_half_a_head_is_no_answer_and_is_not_tried_again() -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane)
        await engine.send(b"HTTP/1.1 200 OK\r\n")
        engine.close()
        assert (await client.answer()).status == 502
        assert plane.gate.submissions[0].bounce_count == 0


async def test_a_connection_that_went_stale_is_replaced() -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane)
        await engine.send(answer(b"1"))
        await client.answer()
        # The engine closes just as the connection is taken up again.
        plane.gate.holds = True
        client.send(post())
        submission = await plane.gate.arrived()
        submission = await plane.gate.arrived()
        assert plane.upstream.idle_count == 1
        engine.close()
        plane.gate.dispatch(submission)
        fresh = await plane.engine.begin()
        await fresh.send(answer(b"2"))
        assert (await client.answer()).body == b"2"
        assert submission.bounce_count == 0
        assert submission.dispatch_count == 1


async def test_a_spooled_body_is_sent_again_whole() -> None:
    body = b'{"model":"tiny","x":"' + bytes(range(97, 123)) * 100_000 + b'"}'
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post())
        engine = await plane.engine.begin()
        await engine.send(answer(b"1"))
        await client.answer()
        client.send(post(body=body))
        # It takes some of the body and leaves.
        await engine.head()
        engine.reset()
        fresh = await plane.engine.begin()
        assert plane.engine.requests[-1].body == body
        await fresh.send(answer(b"2"))
        assert (await client.answer()).body == b"2"


MALFORMED = {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12",
    "two lengths in two spellings": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n12"
    ),
    "length and chunked": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "another coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
    "bare CR in a field": b"HTTP/1.1 200 OK\r\na: b\rset: c\r\ncontent-length: 0\r\n\r\n",
    "bare LF in a field": b"HTTP/1.1 200 OK\r\na: b\nset: c\r\ncontent-length: 0\r\n\r\n",
    "NUL in a field": b"HTTP/1.1 200 OK\r\na: b\0\r\ncontent-length: 0\r\n\r\n",
    "folded field": b"HTTP/1.1 200 OK\r\na: b\r\n c\r\ncontent-length: 0\r\n\r\n",
    "switched protocols": (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
    ),
    "endless interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INTERIM_RESPONSES + 1),
    "huge head": b"HTTP/1.1 200 OK\r\na: " + b"b" * MAX_HEAD_BYTES + b"\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\na: " + b"b" * (MAX_HEAD_BYTES + 1),
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_an_answer_that_makes_no_sense_is_not_passed_on(name: str) -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane)
        engine.writer.write(MALFORMED[name])
        found = await client.answer()
        assert found.status == 502
        assert b"bad_upstream" in found.body
        await engine.closed()
        assert plane.upstream.idle_count == 0


async def test_interim_answers_are_overlooked() -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane)
        early = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
        await engine.send(early * MAX_INTERIM_RESPONSES + answer(b"[]"))
        found = await client.answer()
        assert (found.status, found.body) == (200, b"[]")


@pytest.mark.parametrize("bad", [b"zz\r\n", b"5\r\nhello!!", b"\r\n", b"ffffffffffffffffff\r\n"])
async def test_a_malformed_chunk_is_not_passed_on(bad: bytes) -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane)
        await engine.send(STREAM_HEAD + event(b"1"))
        await client.head()
        await client.reader.readexactly(len(event(b"1")))
        await engine.send(bad)
        rest = await client.rest()
        assert bad.strip() not in rest or not bad.strip()
        assert b"bad_upstream" in rest
        assert not rest.endswith(b"0\r\n\r\n")
        assert plane.upstream.idle_count == 0


async def test_a_chunk_in_the_trailer_is_not_passed_on() -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane)
        await engine.send(STREAM_HEAD + event(b"1") + b"0\r\n")
        await client.head()
        await client.reader.readexactly(len(event(b"1")) + 3)
        await engine.send(event(b"2"))
        assert b"data: 2" not in await client.rest()


@pytest.mark.parametrize(
    "whole", [answer(b"[]"), STREAM_HEAD + event(b"1") + b"0\r\n\r\n"], ids=["counted", "chunked"]
)
async def test_bytes_behind_an_answer_cost_the_connection(whole: bytes) -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane)
        await engine.send(whole + b"HTTP/1.1 200 OK\r\n\r\n")
        assert b"HTTP" not in (await client.answer()).body
        await engine.closed()
        assert plane.upstream.idle_count == 0


async def test_an_unasked_answer_costs_the_connection() -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane)
        await engine.send(answer(b"[]"))
        await client.answer()
        assert plane.upstream.idle_count == 1
        await engine.send(answer(b"poison"))
        await engine.closed()
        assert plane.upstream.idle_count == 0


async def test_an_engine_that_wants_to_close_is_not_asked_again() -> None:
    async with data_plane() as plane:
        client, engine = await asked(plane)
        await engine.send(answer(b"[]", fields=b"connection: close\r\n"))
        assert b"connection" not in (await client.answer()).fields
        assert plane.upstream.idle_count == 0


async def test_an_engine_that_does_not_begin_to_answer_in_time_is_given_up() -> None:
    async with data_plane(read_timeout_s=10.0, first_byte_timeout_s=30.0) as plane:
        client, engine = await asked(plane)
        plane.sweep(31)
        assert plane.gate.submissions[0].outcome == ""
        plane.sweep(1)
        found = await client.answer()
        assert (found.status, b"engine_timeout" in found.body) == (504, True)
        await engine.closed()


async def test_a_long_prompt_is_not_given_up_but_its_engine_is_looked_after() -> None:
    async with data_plane(read_timeout_s=30.0) as plane:
        client, engine = await asked(plane)
        submission = plane.gate.submissions[0]
        # Within the first second the request was sent, which is no silence.
        for looks, seconds in enumerate((32, 31, 31), 1):
            plane.sweep(seconds - 1)
            assert submission.silent_count == looks - 1
            plane.sweep(1)
            assert submission.silent_count == looks
        assert submission.outcome == ""
        await engine.send(answer(b"[]"))
        assert (await client.answer()).body == b"[]"


async def test_an_engine_that_falls_silent_in_its_stream_is_given_up() -> None:
    async with data_plane(read_timeout_s=30.0) as plane:
        client, engine = await asked(plane)
        await engine.send(STREAM_HEAD + event(b"1"))
        await client.head()
        await client.reader.readexactly(len(event(b"1")))
        plane.sweep(33)
        rest = await client.rest()
        assert b"engine_timeout" in rest
        assert not rest.endswith(b"0\r\n\r\n")


async def test_an_answer_before_the_whole_body_ends_both() -> None:
    body = b'{"model":"tiny","x":"' + b"y" * 8_000_000 + b'"}'
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post(body=body))
        engine = await plane.engine.accept()
        await engine.head()
        await engine.send(answer(b"no", status=b"413 Content Too Large"))
        assert (await client.answer()).status == 413
        await engine.closed()
        assert plane.upstream.idle_count == 0
        client.send(post())
        again = await plane.engine.begin()
        await again.send(answer(b"[]"))
        assert (await client.answer()).body == b"[]"


async def test_an_operator_can_end_a_dispatched_request() -> None:
    from llama_router.proxy.errors import ModelUnloadedError

    async with data_plane() as plane:
        client, engine = await asked(plane)
        plane.gate.submissions[0].waiter.abort(ModelUnloadedError("stopped", should_retry=False))
        found = await client.answer()
        assert (found.status, found.fields[b"x-should-retry"]) == (503, b"false")
        await engine.closed()
        await until(lambda: plane.gate.submissions[0].outcome == "finished")
