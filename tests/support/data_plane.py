"""The data plane as a whole, in this process: server, gate, a scripted engine, raw clients."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from llama_router.proxy.client_connection import ClientConnection
from llama_router.proxy.guard import Guard
from llama_router.proxy.limits import SWEEP_S
from llama_router.proxy.server import ProxyServer, Services
from llama_router.proxy.upstream import Upstream
from tests.support.fake_gate import FakeGate
from tests.support.raw_client import Answer, RawClient
from tests.support.scripted_engine import ScriptedEngine, answer

DEADLINE_S = 60.0


def post(
    path: bytes = b"/v1/chat/completions",
    body: bytes = b'{"model":"tiny"}',
    fields: bytes = b"",
    *,
    version: bytes = b"1.1",
) -> bytes:
    """A request in one piece."""
    return b"POST %b HTTP/%b\r\nhost: localhost\r\n%bcontent-length: %d\r\n\r\n%b" % (
        path,
        version,
        fields,
        len(body),
        body,
    )


def get(path: bytes = b"/v1/models", fields: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nhost: localhost\r\n%b\r\n" % (path, fields)


STREAM = b'{"model":"tiny","stream":true}'


@dataclass
class DataPlane:
    server: ProxyServer
    services: Services
    gate: FakeGate
    engine: ScriptedEngine
    upstream: Upstream
    port: int
    control: ScriptedEngine
    clients: list[RawClient] = field(default_factory=list)

    async def client(self, *, receive_buffer_bytes: int = 0) -> RawClient:
        client = await RawClient.connect(self.port, receive_buffer_bytes=receive_buffer_bytes)
        self.clients.append(client)
        return client

    async def ask(self, request: bytes) -> Answer:
        """One request on a connection of its own."""
        client = await self.client()
        client.send(request)
        found = await client.answer()
        await client.close()
        return found

    @property
    def connections(self) -> list[ClientConnection]:
        return list(self.services.connections)

    async def connection(self) -> ClientConnection:
        """The router's side of the only connection."""
        await until(lambda: len(self.services.connections) == 1)
        return self.connections[0]

    def sweep(self, seconds: float = SWEEP_S) -> None:
        """Let time pass for every connection, at once."""
        for _ in range(round(seconds / SWEEP_S)):
            for connection in self.connections:
                connection.sweep()

    async def settled(self) -> None:
        """Wait until no connection is left, and check that nothing else is."""
        for client in self.clients:
            await client.close()
        await until(lambda: not self.services.connections)
        await until(lambda: all(one.outcomes for one in self.gate.submissions))
        self.gate.check()
        assert self.services.budget.used_bytes == 0


async def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells, turn of the loop by turn."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0)


@asynccontextmanager
async def data_plane(
    engine_answer: bytes | None = None,
    *,
    guard: Guard | None = None,
    **settings: Any,  # noqa: ANN401  # those of Services
) -> AsyncIterator[DataPlane]:
    """Run one. Whatever the test leaves open is closed and counted at its end."""
    async with (
        asyncio.timeout(DEADLINE_S),
        ScriptedEngine(engine_answer) as engine,
        ScriptedEngine(answer(b'{"control":true}')) as control,
    ):
        upstream = Upstream(host="127.0.0.1", port=engine.port, connect_timeout_s=5.0)
        to_control = Upstream(host="127.0.0.1", port=control.port, connect_timeout_s=5.0)
        gate = FakeGate(upstream, to_control)
        services = Services(gate=gate, guard=guard or Guard(), **settings)
        server = ProxyServer(services)
        server.bind("127.0.0.1", 0)
        port = server.addresses[0][1]
        server.start()
        # Time passes when the test lets it, however long that takes.
        assert server._sweep_handle is not None
        server._sweep_handle.cancel()
        plane = DataPlane(server, services, gate, engine, upstream, port, control)
        try:
            yield plane
            await plane.settled()
        finally:
            for client in plane.clients:
                with contextlib.suppress(OSError):
                    await client.close()
            await server.close()
            await until(lambda: not services.connections)
            upstream.close()
            to_control.close()
