"""Engines as the data plane sees them: an address, and a pool of connections to it.

A connection is reused only while it has been idle for clearly less time than engines keep idle
connections (llama-server: 5 s), and a reused one that closes without a byte is replaced by a fresh
one: the two halves of surviving the keep-alive race.
"""

import asyncio
from time import monotonic

from llama_router.proxy.engine_connection import EngineConnection
from llama_router.proxy.limits import POOL_IDLE_S, POOL_MAX_IDLE_COUNT
from llama_router.proxy.tls import Tls

_HTTP_PORT = 80
_HTTPS_PORT = 443


class Upstream:
    """One address that answers requests, and the connections to it.

    ``ready`` holds back the first connections until the address can be expected to answer.
    ``extra_head`` is added to every request's head, ``path_prefix`` stands before its path.
    ``tls`` encrypts the connections and checks who answers. ``is_remote``: it is somebody else's
    server, which sees no key of a client. ``label`` is how errors call whoever answers.
    """

    def __init__(
        self,
        *,
        host: str = "",
        port: int = 0,
        unix_path: str = "",
        connect_timeout_s: float,
        extra_head: bytes = b"",
        ready: asyncio.Event | None = None,
        tls: Tls | None = None,
        path_prefix: bytes = b"",
        is_remote: bool = False,
        label: str = "the engine",
        idle_s: float = POOL_IDLE_S,
    ) -> None:
        self._host = host
        self._port = port
        self._unix_path = unix_path
        self._connect_timeout_s = connect_timeout_s
        self._ready = ready
        self._loop = asyncio.get_running_loop()
        self._idle: list[EngineConnection] = []
        self._closed = False
        self._tls = tls
        self._idle_s = idle_s
        self.path_prefix = path_prefix
        self.is_remote = is_remote
        self.label = label
        authority = _authority(host, port, is_tls=tls is not None)
        self.head_fields = b"host: " + authority.encode() + b"\r\n" + extra_head

    def __repr__(self) -> str:
        return (
            f"<Upstream {self._unix_path or f'{self._host}:{self._port}'} idle={self.idle_count}>"
        )

    @property
    def idle_count(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    def take(self) -> EngineConnection | None:
        """Return an idle connection that can be expected to be alive, or None."""
        now = monotonic()
        while self._idle:
            connection = self._idle.pop()
            if (
                now - connection.idle_since_s < self._idle_s
                and not connection.transport.is_closing()
            ):
                connection.reused = True
                return connection
            connection.transport.abort()
        return None

    async def connect(self) -> EngineConnection:
        """Return a fresh connection. Raises OSError (TimeoutError is one)."""
        async with asyncio.timeout(self._connect_timeout_s):
            if self._ready is not None:
                await self._ready.wait()
            if self._unix_path:
                _, connection = await self._loop.create_unix_connection(
                    lambda: EngineConnection(self), self._unix_path
                )
            else:
                context = await self._tls.context() if self._tls is not None else None
                _, connection = await self._loop.create_connection(
                    lambda: EngineConnection(self), self._host, self._port, ssl=context
                )
        return connection

    def put(self, connection: EngineConnection) -> None:
        """Take a connection back after a whole answer."""
        if self._closed or len(self._idle) >= POOL_MAX_IDLE_COUNT:
            connection.transport.abort()
            return
        connection.idle_since_s = monotonic()
        self._idle.append(connection)

    def discard(self, connection: EngineConnection) -> None:
        """Close an idle connection that cannot be trusted."""
        self.forget(connection)
        connection.transport.abort()

    def forget(self, connection: EngineConnection) -> None:
        """A connection has closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def prune(self) -> None:
        """Close what has been idle for too long to be reused."""
        oldest_s = monotonic() - self._idle_s
        stale = [one for one in self._idle if one.idle_since_s < oldest_s]
        for connection in stale:
            self.discard(connection)

    def close(self) -> None:
        """Close the idle connections now and the others after their answers."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.transport.abort()


def _authority(host: str, port: int, *, is_tls: bool) -> str:
    """Return what Host says: without the port where that goes without saying (RFC 9110, 7.2)."""
    if not port:
        return "localhost"
    name = f"[{host}]" if ":" in host else host
    return name if port == (_HTTPS_PORT if is_tls else _HTTP_PORT) else f"{name}:{port}"
