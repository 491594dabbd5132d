import asyncio
import errno
import socket

import pytest

from llama_router.proxy.limits import (
    BODY_GRACE_S,
    HEAD_DEADLINE_S,
    IDLE_TIMEOUT_S,
    MIN_BODY_RATE_BYTES_PER_S,
)
from llama_router.proxy.server import BindError, ProxyServer
from tests.support.data_plane import STREAM, data_plane, get, post, until
from tests.support.scripted_engine import STREAM_HEAD, answer, event

pytestmark = pytest.mark.asyncio


async def test_a_head_that_dribbles_is_timed_out() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        connection = await plane.connection()
        plane.sweep(HEAD_DEADLINE_S * 3)
        for byte in get()[:-2]:
            client.send(bytes([byte]))
        await until(lambda: len(connection._buffer) == len(get()) - 2)
        plane.sweep(HEAD_DEADLINE_S)
        assert connection in plane.services.connections
        plane.sweep()
        found = await client.answer()
        assert (found.status, found.fields[b"connection"]) == (408, b"close")
        assert await client.rest() == b""


async def test_a_body_that_dribbles_is_timed_out() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        connection = await plane.connection()
        sent = 2 * MIN_BODY_RATE_BYTES_PER_S
        client.send(post(body=b"x" * 10_000)[: sent - 10_000])
        await until(lambda: connection._reader is not None)
        plane.sweep(BODY_GRACE_S - 1)
        assert connection in plane.services.connections
        plane.sweep(15)
        assert (await client.answer()).status == 408
        assert plane.services.budget.used_bytes == 0


async def test_an_idle_connection_is_closed() -> None:
    async with data_plane(answer()) as plane:
        client = await plane.client()
        client.send(post())
        await client.answer()
        plane.sweep(IDLE_TIMEOUT_S)
        assert len(plane.services.connections) == 1
        plane.sweep()
        assert await client.rest() == b""


async def test_a_refused_client_that_stays_is_closed() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(b"\0\r\n\r\n")
        assert (await client.answer()).status == 400
        plane.sweep(4)
        await until(lambda: not plane.services.connections)


async def test_a_sweep_of_a_connection_that_is_gone_does_nothing() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        connection = await plane.connection()
        client.reset()
        await until(lambda: not plane.services.connections)
        connection._blocked = True
        connection.sweep()


async def test_a_long_request_is_not_timed_out_by_the_client_side() -> None:
    async with data_plane() as plane:
        plane.gate.holds = True
        client = await plane.client()
        client.send(post())
        submission = await plane.gate.arrived()
        plane.sweep(500)
        plane.gate.dispatch(submission)
        await (await plane.engine.begin()).send(answer(b"[]"))
        assert (await client.answer()).body == b"[]"


async def test_accepting_pauses_at_the_limit_and_goes_on_below_it() -> None:
    async with data_plane(answer(b"[]"), max_connection_count=2) as plane:
        clients = [await plane.client() for _ in range(2)]
        await until(lambda: len(plane.services.connections) == 2)
        third = await plane.client()
        third.send(post())
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(plane.services.connections) == 2
        clients[0].send(post())
        assert (await clients[0].answer()).status == 200
        assert len(plane.engine.requests) == 1
        await clients[0].close()
        assert (await third.answer()).status == 200


class FailsOnce:
    """Accepting, with the trouble that a system can have with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._accept = loop.sock_accept
        self.failures = 0

    async def __call__(self, sock: socket.socket) -> object:
        found = await self._accept(sock)
        if not self.failures:
            self.failures += 1
            found[0].close()
            raise OSError(errno.EMFILE, "too many open files")
        return found


async def test_accepting_goes_on_after_a_failure_though_nobody_is_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with data_plane(answer(b"[]")) as plane:
        services = plane.services
        failing = FailsOnce(asyncio.get_running_loop())

        class Loop:
            sock_accept = staticmethod(failing)
            connect_accepted_socket = staticmethod(
                asyncio.get_running_loop().connect_accepted_socket
            )

        server = ProxyServer(services)
        server.bind("127.0.0.1", 0)
        monkeypatch.setattr("llama_router.proxy.server.asyncio.get_running_loop", lambda: Loop)
        task = asyncio.ensure_future(server._accept(server._sockets[0]))
        await asyncio.sleep(0)
        monkeypatch.undo()
        lost = await asyncio.open_connection(*server.addresses[0])
        await until(lambda: failing.failures == 1 and not services.room.is_set())
        plane.server._sweep(0.0)
        reader, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(post())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        for one in (writer, lost[1]):
            one.close()
        task.cancel()
        await asyncio.wait([task])
        server._close_sockets()


async def test_shutting_down_closes_the_idle_and_lets_streams_end() -> None:
    async with data_plane() as plane:
        idle = await plane.client()
        half = await plane.client()
        half.send(get()[:-2])
        streaming = await plane.client()
        streaming.send(post(body=STREAM))
        engine = await plane.engine.begin()
        await engine.send(STREAM_HEAD + event(b"1"))
        await streaming.head()
        queued = await plane.client()
        plane.gate.holds = True
        queued.send(post())
        submission = await plane.gate.arrived()
        submission = await plane.gate.arrived()
        await plane.server.stop_accepting()
        assert await idle.rest() == b""
        assert await half.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await plane.client()
        await engine.send(event(b"2") + b"0\r\n\r\n")
        assert await streaming.rest() == event(b"1") + event(b"2") + b"0\r\n\r\n"
        plane.gate.dispatch(submission)
        await engine.request()
        await engine.send(answer(b"[]"))
        found = await queued.answer()
        assert (found.body, found.fields[b"connection"]) == (b"[]", b"close")
        assert await queued.rest() == b""


async def test_closing_ends_what_is_left() -> None:
    async with data_plane() as plane:
        client = await plane.client()
        client.send(post())
        engine = await plane.engine.begin()
        await plane.server.close()
        await engine.closed()
        await until(lambda: not plane.services.connections)
        assert plane.gate.submissions[0].outcome == "finished"


async def test_an_address_in_use_is_said_so() -> None:
    async with data_plane() as plane:
        server = ProxyServer(plane.services)
        with pytest.raises(BindError, match=f"cannot listen on 127.0.0.1 port {plane.port}"):
            server.bind("127.0.0.1", plane.port)
        assert server.addresses == []


async def test_a_host_that_is_none_is_said_so() -> None:
    async with data_plane() as plane:
        with pytest.raises(BindError, match=r"router\.host: 'no\.such\.host\.invalid'"):
            ProxyServer(plane.services).bind("no.such.host.invalid", 0)


async def test_a_mistake_of_ours_costs_one_request_and_says_nothing_of_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with data_plane(answer(b"[]")) as plane:

        def fail(name: str) -> None:
            raise LookupError(f"secret {name}")

        with monkeypatch.context() as patch:
            patch.setattr(plane.gate, "resolve", fail)
            small = await plane.ask(post())
            large = await plane.ask(post(body=STREAM[:-1] + b" " * 2_000_000 + b"}"))
        for found in (small, large):
            assert found.status == 500
            assert b"secret" not in found.body
        assert "LookupError" in caplog.text
        assert (await plane.ask(post())).body == b"[]"


async def test_a_mistake_of_ours_behind_a_spooled_body_costs_one_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with data_plane() as plane:

        def fail(*_: object) -> None:
            raise LookupError

        monkeypatch.setattr("llama_router.proxy.exchange.Exchange.start", fail)
        found = await plane.ask(post(body=STREAM[:-1] + b" " * 2_000_000 + b"}"))
        assert found.status == 500
