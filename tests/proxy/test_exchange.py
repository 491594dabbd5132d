import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llama_router.proxy.errors import ModelUnloadedError
from llama_router.proxy.gate import Waiter
from llama_router.proxy.upstream import Upstream
from tests.support.data_plane import STREAM, DataPlane, data_plane, get, post
from tests.support.fake_gate import FakeGate
from tests.support.scripted_engine import STREAM_HEAD, ScriptedEngine, answer, event

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


@asynccontextmanager
async def with_control(**settings: Any) -> AsyncIterator[tuple[DataPlane, ScriptedEngine]]:  # noqa: ANN401  # those of Services
    """A data plane whose control plane is played by the test."""
    async with data_plane(**settings) as plane, ScriptedEngine() as control:
        plane.gate.control = Upstream(host="127.0.0.1", port=control.port, connect_timeout_s=5.0)
        yield plane, control
        plane.gate.control.close()


async def test_a_fault_of_the_control_plane_is_the_routers_own() -> None:
    async with with_control() as (plane, control):
        for reply in (b"", b"HTTP/1.1 200", b"no HTTP\r\n\r\n"):
            client = await plane.client()
            client.send(get())
            side = await control.begin()
            await side.send(reply)
            side.close()
            found = await client.answer()
            assert found.status == 500
            assert json.loads(found.body)["error"]["code"] == "internal_error"
            assert b"router's own API" in found.body


async def test_a_silent_control_plane_is_given_up() -> None:
    async with with_control(read_timeout_s=30.0) as (plane, control):
        client = await plane.client()
        client.send(get())
        await control.begin()
        plane.sweep(32)
        assert (await client.answer()).status == 500


async def test_an_order_may_take_as_long_as_the_load_that_it_waits_for() -> None:
    async with with_control(read_timeout_s=4.0) as (plane, control):
        client = await plane.client()
        client.send(post(b"/admin/load"))
        side = await control.begin()
        plane.sweep(3600)
        await side.send(answer(b'{"success":true}'))
        assert (await client.answer()).body == b'{"success":true}'


async def test_a_log_may_be_silent_for_as_long_as_it_likes() -> None:
    async with with_control(read_timeout_s=30.0) as (plane, control):
        client = await plane.client()
        client.send(get(b"/logs?follow=1"))
        side = await control.begin()
        await side.send(STREAM_HEAD)
        await client.head()
        plane.sweep(60)
        await side.send(event(b"1"))
        assert await client.reader.readexactly(len(event(b"1"))) == event(b"1")


async def test_the_gate_is_asked_about_an_engine_before_it_is_given_up() -> None:
    async with data_plane(read_timeout_s=60.0, first_byte_timeout_s=30.0) as plane:
        client = await plane.client()
        client.send(post())
        await plane.engine.begin()
        plane.sweep(31)
        assert plane.gate.submissions[0].silent_count == 0
        plane.sweep(1)
        assert plane.gate.submissions[0].silent_count == 1
        assert (await client.answer()).status == 504


class HastyGate(FakeGate):
    """Ends a request before it has told its id."""

    def submit(self, waiter: Waiter, model: str, **rest: Any) -> int | None:  # noqa: ANN401  # as in FakeGate
        found = super().submit(waiter, model, **rest)
        waiter.abort(ModelUnloadedError("stopped"))
        return found


async def test_a_request_that_ends_while_it_is_submitted_is_told_to_be_over() -> None:
    async with data_plane() as plane:
        plane.gate = plane.services.gate = HastyGate(plane.upstream, plane.gate.control)
        assert (await plane.ask(post())).status == 503
        assert plane.gate.submissions[0].outcome == "finished"


async def test_a_request_is_sent_three_times_at_most_and_then_on_fresh_connections() -> None:
    async with data_plane() as plane:
        clients = [await plane.client() for _ in range(3)]
        sides = []
        for client in clients:
            client.send(post())
            sides.append(await plane.engine.begin())
        for client, side in zip(clients, sides, strict=True):
            await side.send(answer(b"1"))
            await client.answer()
        assert plane.upstream.idle_count == 3
        clients[0].send(post())
        # The pool gives the connection that was last used.
        await sides[2].request()
        sides[2].close()
        (await plane.engine.begin()).close()
        (await plane.engine.begin()).close()
        assert (await clients[0].answer()).status == 502
        assert plane.engine.connection_count == 5
        assert plane.upstream.idle_count == 2
