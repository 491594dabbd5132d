"""Connections to engines: one protocol for each, and a pool for each engine.

A connection is reused only while it has been idle for clearly less time than engines keep idle
connections (llama-server: 5 s), and a reused one that closes without a byte is replaced by a fresh
one: the two halves of surviving the keep-alive race.
"""

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum
from time import monotonic
from typing import IO, Protocol

from llama_router.proxy.chunked import ChunkedError, ChunkedScanner
from llama_router.proxy.head import ResponseHead, ResponseHeadError
from llama_router.proxy.limits import (
    MAX_HEAD_BYTES,
    MAX_INTERIM_RESPONSES,
    POOL_IDLE_S,
    POOL_MAX_IDLE_COUNT,
    READ_BUFFER_BYTES,
    SPOOL_PIECE_BYTES,
    WRITE_HIGH_WATER_BYTES,
    WRITE_LOW_WATER_BYTES,
)
from llama_router.proxy.prepared import PreparedResponse, responses

# Whatever a transport reads is copied out before its callback ends, so one buffer serves all; the
# event loop has a single thread.
_READ_BUFFER = memoryview(bytearray(READ_BUFFER_BYTES))
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL_STATUS = 200
_NO_CONTENT = 204
_NOT_MODIFIED = 304


class Receiver(Protocol):
    """Takes one answer from an EngineConnection."""

    def on_head(self, answer: PreparedResponse, content_length: int | None) -> bytes:
        """The head is whole. Set ``EngineConnection.relay`` and ``decode``.

        Returns what is to be written before the first bytes of the body.
        """

    def on_end(self) -> None:
        """The answer is whole; the connection is already the pool's again."""

    def on_lost(self, reason: str, *, malformed: bool) -> None:
        """The connection has ended before the answer did."""


class _Phase(Enum):
    IDLE = 0
    HEAD = 1
    CHUNKED = 2
    LENGTH = 3
    UNTIL_CLOSE = 4
    CLOSED = 5


# Looking a member up by name costs more than the comparison; this is done for every read.
_IDLE, _HEAD, _CHUNKED, _LENGTH, _UNTIL_CLOSE, _CLOSED = _Phase


class EngineConnection(asyncio.BufferedProtocol):
    """One connection to an engine, used for one request at a time.

    ``relay`` takes the body's bytes as they came (with their framing); when ``decode`` is set, it
    takes the content instead. ``write_first`` takes what ``Receiver.on_head`` returned when that
    cannot go along with the body. ``got_bytes`` tells whether anything of the answer has come.
    ``active`` is set by every read; whoever watches for silence clears it.
    """

    __slots__ = (
        "_answer",
        "_drained",
        "_held",
        "_held_back",
        "_interim_count",
        "_last",
        "_left",
        "_method",
        "_phase",
        "_receiver",
        "_scanner",
        "_upstream",
        "active",
        "body_sent",
        "decode",
        "got_bytes",
        "idle_since_s",
        "relay",
        "reused",
        "transport",
        "write_first",
    )

    def __init__(self, upstream: "Upstream") -> None:
        self._upstream = upstream
        self._receiver: Receiver | None = None
        self._phase = _IDLE
        self._held = b""
        self._held_back = False
        self._left = 0
        self._scanner = ChunkedScanner()
        self._answer: ResponseHead | None = None
        self._interim_count = 0
        self._method = b""
        self._last = b""
        self._drained: asyncio.Event | None = None
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set when connected
        self.relay: Callable[[bytes], object] = _drop
        self.write_first: Callable[[bytes], object] = _drop
        self.decode = False
        self.got_bytes = False
        self.active = False
        self.reused = False
        self.body_sent = True
        self.idle_since_s = 0.0

    # --- what an exchange does with it

    def begin(self, receiver: Receiver, method: bytes, request: bytes) -> None:
        """Send a request's bytes and expect one answer for ``receiver``."""
        self._receiver = receiver
        self._phase = _HEAD
        self._method = method
        self._interim_count = 0
        self._held = b""
        self.decode = False
        self.got_bytes = False
        self.active = True
        self.body_sent = True
        self.transport.write(request)

    async def write_slowly(self, data: bytes) -> None:
        """Send more of a request's body, waiting while the engine does not take it."""
        if self._phase is _CLOSED:
            raise ConnectionResetError("the engine has closed the connection")
        self.active = True
        self.transport.write(data)
        if self._drained is not None:
            await self._drained.wait()

    async def send_file(
        self, file: IO[bytes], size_bytes: int, previous: asyncio.Task[None] | None
    ) -> None:
        """Send a request's body from a file. ``previous`` did so for an earlier try."""
        if previous is not None:
            # It fails at its next write; until then it moves the file's position.
            await asyncio.wait([previous])
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, file.seek, 0)
            while piece := await loop.run_in_executor(None, file.read, SPOOL_PIECE_BYTES):
                size_bytes -= len(piece)
                # The answer can be here before this goes on.
                self.body_sent = size_bytes <= 0
                await self.write_slowly(piece)
        except (ConnectionError, ValueError):
            # The engine has closed, or the exchange is over and the file with it: either is
            # noticed and dealt with where it happens.
            return

    def release(self) -> None:
        """Forget the receiver and close at once: the answer is not wanted any more."""
        self._receiver = None
        self.transport.abort()

    def hold(self) -> None:
        """Stop reading: whoever gets the answer is slower than the engine."""
        if not self._held_back and not self.transport.is_closing():
            self._held_back = True
            self.transport.pause_reading()

    def unhold(self) -> None:
        """Go on reading."""
        if self._held_back:
            self._held_back = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    @property
    def at_event_boundary(self) -> bool:
        """Whether a server-sent event of one's own could follow what has been relayed."""
        if self._answer is None or not self._answer.is_event_stream:
            return False
        if self._phase is _CHUNKED:
            return self._scanner.at_boundary and self._last.endswith(b"\n\n\r\n")
        return self._phase is _UNTIL_CLOSE and self._last.endswith(b"\n\n")

    # --- asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport  # type: ignore[assignment]  # it is a stream's
        self.transport.set_write_buffer_limits(WRITE_HIGH_WATER_BYTES, WRITE_LOW_WATER_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Lend the buffer to read into."""
        return _READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has been read."""
        data = bytes(_READ_BUFFER[:nbytes])
        self.active = True
        phase = self._phase
        if phase is _CHUNKED:
            self._on_chunked(data)
        elif phase is _HEAD:
            self._on_head_bytes(data)
        elif phase is _LENGTH:
            self._on_counted(data, b"")
        elif phase is _UNTIL_CLOSE:
            self._last = data
            self.relay(data)
        elif phase is _IDLE:
            # An answer that nobody asked for: this engine and we disagree about its framing.
            self._upstream.discard(self)

    def eof_received(self) -> bool:
        """Close our side too."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End the answer, if one is expected, properly or not."""
        phase, self._phase = self._phase, _CLOSED
        self._upstream.forget(self)
        if self._drained is not None:
            self._drained.set()
        receiver = self._receiver
        if receiver is None:
            return
        self._receiver = None
        if phase is _UNTIL_CLOSE and exc is None:
            receiver.on_end()
        else:
            # at_event_boundary is asked from within on_lost.
            self._phase = phase
            receiver.on_lost(f"the connection was lost ({exc or 'closed'})", malformed=False)
            self._phase = _CLOSED

    def pause_writing(self) -> None:
        """Hold whoever writes slowly."""
        self._drained = asyncio.Event()

    def resume_writing(self) -> None:
        """Let it go on."""
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    # --- the answer

    def _on_head_bytes(self, data: bytes) -> None:
        self.got_bytes = True
        if self._held:
            data = self._held + data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:  # noqa: PLR2004
            if len(data) > MAX_HEAD_BYTES:
                self._fail("its head is too large")
            else:
                self._held = data
            return
        if end > MAX_HEAD_BYTES:
            self._fail("its head is too large")
            return
        self._held = b""
        try:
            answer, length = responses.get(data[:end])
        except ResponseHeadError as error:
            self._fail(str(error))
            return
        rest = data[end:]
        status = answer.head.status
        if status < _FIRST_FINAL_STATUS:
            self._on_interim(status, rest)
            return
        if length is None:
            length = answer.head.content_length
        self._on_final_head(answer, length, rest)

    def _on_interim(self, status: int, rest: bytes) -> None:
        self._interim_count += 1
        if status == _SWITCHING_PROTOCOLS or self._interim_count > MAX_INTERIM_RESPONSES:
            self._fail(f"it answered {status}")
        elif rest:
            self._on_head_bytes(rest)

    def _on_final_head(
        self, answer: PreparedResponse, content_length: int | None, rest: bytes
    ) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        head = answer.head
        self._answer = head
        self._last = b""
        if self._method == b"HEAD" or head.status in (_NO_CONTENT, _NOT_MODIFIED):
            self._left = 0
            self._phase = _LENGTH
        elif head.chunked:
            self._scanner = ChunkedScanner()
            self._phase = _CHUNKED
        elif content_length is not None:
            self._left = content_length
            self._phase = _LENGTH
        else:
            self._phase = _UNTIL_CLOSE
        first = receiver.on_head(answer, content_length)
        if self._receiver is None:
            return
        if self._phase is _LENGTH and not self.decode:
            self._on_counted(rest, first)
            return
        self.write_first(first)
        if self._phase is _LENGTH:
            self._on_counted(rest, b"")
        elif rest:
            if self._phase is _CHUNKED:
                self._on_chunked(rest)
            else:
                self._last = rest
                self.relay(rest)

    def _on_chunked(self, data: bytes) -> None:
        pieces: list[bytes] | None = [] if self.decode else None
        try:
            end = self._scanner.scan(data, pieces)
        except ChunkedError as error:
            self._fail(str(error))
            return
        if pieces is not None:
            for piece in pieces:
                self.relay(piece)
        if end < 0:
            self._last = data
            if pieces is None:
                self.relay(data)
            return
        if pieces is None:
            self.relay(data[:end] if end < len(data) else data)
        self._end(clean=end == len(data))

    def _on_counted(self, data: bytes, first: bytes) -> None:
        left = self._left
        size = len(data)
        if size < left:
            self._left = left - size
            self.relay(first + data)
            return
        self._left = 0
        if size > left:
            data = data[:left]
        if first or data:
            self.relay(first + data)
        self._end(clean=size == left)

    def _end(self, *, clean: bool) -> None:
        receiver, self._receiver = self._receiver, None
        self._phase = _IDLE
        self.relay = _drop
        self.unhold()
        # A connection with bytes left over, or one whose engine has answered before it took the
        # whole request, is in no state to be used again.
        reusable = self._answer is not None and self._answer.keep_alive
        if clean and reusable and self.body_sent and not self.transport.is_closing():
            self._upstream.put(self)
        else:
            self.transport.abort()
        if receiver is not None:
            receiver.on_end()

    def _fail(self, reason: str) -> None:
        receiver, self._receiver = self._receiver, None
        self.transport.abort()
        if receiver is not None:
            receiver.on_lost(reason, malformed=True)


def _drop(data: bytes) -> None:
    """Take bytes that nobody wants."""


class Upstream:
    """One address that answers requests, and the connections to it.

    ``ready`` holds back the first connections until the address can be expected to answer.
    ``extra_head`` is added to every request's head.
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
    ) -> None:
        self._host = host
        self._port = port
        self._unix_path = unix_path
        self._connect_timeout_s = connect_timeout_s
        self._ready = ready
        self._loop = asyncio.get_running_loop()
        self._idle: list[EngineConnection] = []
        self._closed = False
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}" if port else "localhost"
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
                now - connection.idle_since_s < POOL_IDLE_S
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
                _, connection = await self._loop.create_connection(
                    lambda: EngineConnection(self), self._host, self._port
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
        oldest_s = monotonic() - POOL_IDLE_S
        stale = [one for one in self._idle if one.idle_since_s < oldest_s]
        for connection in stale:
            self.discard(connection)

    def close(self) -> None:
        """Close the idle connections now and the others after their answers."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.transport.abort()


__all__: Sequence[str] = ["EngineConnection", "Receiver", "Upstream"]
