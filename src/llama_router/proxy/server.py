"""The public port: accepting, counting, watching and draining clients' connections."""

import asyncio
import contextlib
import logging
import re
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TypedDict, Unpack

from llama_router.proxy.body import BodyBudget
from llama_router.proxy.client_connection import ClientConnection
from llama_router.proxy.gate import Gate, Timeouts
from llama_router.proxy.guard import Guard
from llama_router.proxy.inspector import BodyInspector
from llama_router.proxy.key_limits import KeyLimits
from llama_router.proxy.limits import SWEEP_S, SWEEP_SLICE_COUNT
from llama_router.proxy.prepared import request_cache

_log = logging.getLogger(__name__)
# What the kernel holds while the loop is busy or accepting is paused.
_BACKLOG = 1024
_NAME_BYTES = 8


class BindError(OSError):
    """The public address cannot be listened on."""


class PlaneSettings(TypedDict, total=False):
    """What of the config every connection goes by; see Services."""

    notify_model_swap: bool
    read_timeout_s: float
    first_byte_timeout_s: float
    max_keep_alive_s: float | None
    client_stall_timeout_s: float
    abort_on_half_close: bool
    history_prompts: bool
    upstream_ignore_paths: Sequence[str]


class Services:
    """What every connection shares: settings, limits and the way to the rest of the house.

    Times in seconds. ``first_byte_timeout_s``: until an answer begins; 0: an engine may take its
    time. ``max_keep_alive_s``: the most that a request may keep its model loaded for; None: as long
    as it says, 0: it has no say. ``history_prompts``: what was asked goes into the history.
    ``upstream_ignore_paths``: patterns of paths below /upstream that never load their model.
    ``closing`` makes every answer its connection's last.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        guard: Guard,
        max_connection_count: int = 1000,
        **settings: Unpack[PlaneSettings],
    ) -> None:
        self.gate = gate
        self.max_connection_count = max_connection_count
        self.budget = BodyBudget()
        self.inspector = BodyInspector()
        self.logs_every_request = _log.isEnabledFor(logging.DEBUG)
        self.connections: dict[ClientConnection, None] = {}
        self.closing = False
        self.room = asyncio.Event()
        self.room.set()
        # Set whenever a connection has ended.
        self.left = asyncio.Event()
        self._key_limits = KeyLimits()
        # By which peers, and their peers, know that a request has come from here.
        self._own_name = b"llama-router-" + secrets.token_hex(_NAME_BYTES).encode()
        # Names of keys that requests have come with.
        self.used_keys: set[str] = set()
        self.reconfigure(guard=guard, **settings)

    def reconfigure(
        self,
        *,
        guard: Guard,
        notify_model_swap: bool = False,
        read_timeout_s: float = 600.0,
        first_byte_timeout_s: float = 0.0,
        max_keep_alive_s: float | None = None,
        client_stall_timeout_s: float = 120.0,
        abort_on_half_close: bool = True,
        history_prompts: bool = False,
        upstream_ignore_paths: Sequence[str] = (),
    ) -> None:
        """Let these settings, all of them, hold from now on.

        Requests to models that are under way go on; of connections that are open already, the next
        request is held to the new keys, and so is whoever follows the router's own events or logs.
        """
        self.guard = guard
        self.notify_model_swap = notify_model_swap
        self.read_timeout_s = read_timeout_s
        self.first_byte_timeout_s = first_byte_timeout_s
        self.max_keep_alive_s = max_keep_alive_s
        self.client_stall_timeout_s = client_stall_timeout_s
        self.abort_on_half_close = abort_on_half_close
        self.history_prompts = history_prompts
        self.upstream_ignore_paths = [re.compile(pattern) for pattern in upstream_ignore_paths]
        self._key_limits.replace(guard.callers)
        self.requests = request_cache(guard, self._key_limits, self._own_name)
        _check_again([one for one in self.connections if one.leans_on_key])

    def take_used_keys(self) -> set[str]:
        """Return the names of the keys that requests have come with since the last call."""
        used, self.used_keys = self.used_keys, set()
        return used

    def patience(self, own: Timeouts | None) -> tuple[float, float]:
        """Return the read and first-byte timeouts where a model has these of its own."""
        read_s, first_byte_s = self.read_timeout_s, self.first_byte_timeout_s
        if own is None:
            return read_s, first_byte_s
        return (
            read_s if own.read_s is None else own.read_s,
            first_byte_s if own.first_byte_s is None else own.first_byte_s,
        )

    def connection_closed(self, connection: ClientConnection) -> None:
        """Forget a connection, and let accepting go on if it was paused."""
        self.connections.pop(connection, None)
        self.left.set()
        if len(self.connections) < self.max_connection_count:
            self.room.set()


class ProxyServer:
    """Listens on one address."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sockets: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._sweepers: list[Callable[[], None]] = []
        self._sweep_handle: asyncio.TimerHandle | None = None
        # The worst delay of a sweep: how long something else has held the event loop.
        self.max_loop_lag_s = 0.0

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listening socket."""
        return [one.getsockname()[:2] for one in self._sockets]

    def bind(self, host: str, port: int) -> None:
        """Take the address. Raises BindError, which says what to do."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except socket.gaierror as error:
            raise BindError(f"router.host: '{host}' cannot be resolved: {error}") from None
        try:
            for family, kind, protocol, _name, address in dict.fromkeys(found):
                self._sockets.append(_listening_socket(family, kind, protocol, address))
        except OSError as error:
            self._close_sockets()
            raise BindError(
                f"cannot listen on {host} port {port}: {error.strerror or error}; "
                "is a router already running? Choose another with --port"
            ) from None

    def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            task = loop.create_task(self._accept(listening), name="accept")
            self._tasks.append(task)
        self._sweep_handle = loop.call_later(SWEEP_S, self._sweep, loop.time() + SWEEP_S)

    def add_sweeper(self, sweep: Callable[[], None]) -> None:
        """Have something else called every SWEEP_S."""
        self._sweepers.append(sweep)

    async def stop_accepting(self) -> None:
        """Close the listening sockets and every idle connection."""
        self._services.closing = True
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []
        self._close_sockets()
        for connection in list(self._services.connections):
            connection.close_if_idle()

    async def flush(self, deadline_s: float) -> None:
        """Wait until every client has been sent its whole answer, or the time is over.

        Once accepting has been stopped: every answer is its connection's last then, so that a
        connection ends when it has been sent.
        """
        await self._until_none(lambda one: one.transport.get_write_buffer_size() > 0, deadline_s)

    async def finish_own(self, deadline_s: float) -> None:
        """Wait until the router's own answers have come to their end, as ``flush`` does."""
        await self._until_none(lambda one: one.gets_own_answer, deadline_s)

    async def _until_none(
        self, is_busy: Callable[[ClientConnection], bool], deadline_s: float
    ) -> None:
        services = self._services
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline_s)):
                while any(map(is_busy, services.connections)):
                    services.left.clear()
                    await services.left.wait()

    async def close(self) -> None:
        """End everything that is left."""
        await self.stop_accepting()
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for connection in list(self._services.connections):
            connection.transport.abort()
        await self._services.inspector.close()

    def _close_sockets(self) -> None:
        for listening in self._sockets:
            listening.close()
        self._sockets = []

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        services = self._services
        while True:
            if len(services.connections) >= services.max_connection_count:
                # The kernel's backlog holds further clients; those connected are not disturbed.
                services.room.clear()
                _log.warning("%d connections: accepting is paused", len(services.connections))
                await services.room.wait()
            try:
                connected, _address = await loop.sock_accept(listening)
            except OSError as error:
                _log.warning("accepting failed: %s", error)
                services.room.clear()
                await services.room.wait()
                continue
            try:
                connected.setblocking(False)
                await loop.connect_accepted_socket(lambda: ClientConnection(services), connected)
            except OSError:
                # It was gone before it was there.
                connected.close()

    def _sweep(self, due_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.max_loop_lag_s = max(self.max_loop_lag_s, loop.time() - due_s)
        self._sweep_handle = loop.call_later(SWEEP_S, self._sweep, loop.time() + SWEEP_S)
        if len(self._services.connections) < self._services.max_connection_count:
            # Accepting may have failed for lack of something that is there again.
            self._services.room.set()
        for sweeper in self._sweepers:
            sweeper()
        connections = list(self._services.connections)
        for start in range(0, len(connections), SWEEP_SLICE_COUNT):
            loop.call_soon(_sweep_slice, connections[start : start + SWEEP_SLICE_COUNT])


def _sweep_slice(connections: list[ClientConnection]) -> None:
    for connection in connections:
        connection.sweep()


def _check_again(connections: list[ClientConnection]) -> None:
    """Hold connections to keys that have changed, one for each callback: keys may be many."""
    if connections:
        asyncio.get_running_loop().call_soon(_check_next, connections)


def _check_next(connections: list[ClientConnection]) -> None:
    connection = connections.pop()
    _check_again(connections)
    connection.check_again()


def _listening_socket(
    family: int, kind: int, protocol: int, address: tuple[object, ...]
) -> socket.socket:
    listening = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":
            # There it would let a second router take the same port.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
