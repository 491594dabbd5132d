"""One connection to an engine: a request goes out, one answer comes back and is cut off right.

Whatever an engine sends is checked as far as its framing goes, and then relayed as it came.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import IO, TYPE_CHECKING, Protocol

from llama_router.proxy.chunked import ChunkedError, ChunkedScanner
from llama_router.proxy.head import ResponseHead, ResponseHeadError
from llama_router.proxy.limits import (
    CHUNKED_SLICE_BYTES,
    MAX_HEAD_BYTES,
    MAX_INTERIM_RESPONSES,
    READ_BUFFER_BYTES,
    SPOOL_PIECE_BYTES,
    TAIL_MAX_BYTES,
    WRITE_HIGH_WATER_BYTES,
    WRITE_LOW_WATER_BYTES,
)
from llama_router.proxy.prepared import PreparedResponse, responses

if TYPE_CHECKING:
    from llama_router.proxy.upstream import Upstream

# Whatever a transport reads is copied out before its callback ends, so one buffer serves all; the
# event loop has a single thread.
_READ_BUFFER = memoryview(bytearray(READ_BUFFER_BYTES))
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL_STATUS = 200
_NO_CONTENT = 204
_NOT_MODIFIED = 304
# An answer's counts, torn in two, and behind them "[DONE]" and the last chunk.
_TAIL_PIECE_COUNT = 4


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
    # As CHUNKED, but what has been read is still being worked through; nothing is read meanwhile.
    SLICED = 6


# Looking a member up by name costs more than the comparison; this is done for every read.
_IDLE, _HEAD, _CHUNKED, _LENGTH, _UNTIL_CLOSE, _CLOSED, _SLICED = _Phase


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
        "_final",
        "_held",
        "_held_back",
        "_interim_count",
        "_last",
        "_left",
        "_method",
        "_phase",
        "_receiver",
        "_rest",
        "_reusable",
        "_scanner",
        "_tail",
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
        self._rest = b""
        self._left = 0
        self._reusable = False
        self._scanner = ChunkedScanner()
        self._answer: ResponseHead | None = None
        self._interim_count = 0
        self._method = b""
        self._last = b""
        # The last pieces of the answer's body, as they were read; and the one that ended it, if the
        # body's length was known: most answers are one piece.
        self._tail: deque[bytes] = deque(maxlen=_TAIL_PIECE_COUNT)
        self._final = b""
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
            if self._phase is not _SLICED:
                self.transport.pause_reading()

    def unhold(self) -> None:
        """Go on reading."""
        if self._held_back:
            self._held_back = False
            if self._phase is not _SLICED and not self.transport.is_closing():
                self.transport.resume_reading()

    @property
    def at_event_boundary(self) -> bool:
        """Whether a server-sent event of one's own could follow what has been relayed."""
        if self._answer is None or not self._answer.takes_events:
            return False
        # Before the first event one may stand as well.
        if self._phase is _CHUNKED:
            is_between = not self._last or self._last.endswith(b"\n\n\r\n")
            return is_between and self._scanner.at_boundary
        return self._phase is _UNTIL_CLOSE and (not self._last or self._last.endswith(b"\n\n"))

    def tail(self) -> bytes:
        """Return the last bytes of the answer as they came; to be asked from within ``on_end``."""
        return b"".join((*self._tail, self._final))[-TAIL_MAX_BYTES:]

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
            self._tail.append(data[-TAIL_MAX_BYTES:])
            self.relay(data)
        elif phase is _SLICED:
            # Read before the transport was paused.
            self._rest += data
        elif phase is _IDLE:
            # An answer that nobody asked for: this engine and we disagree about its framing.
            self._upstream.discard(self)

    def eof_received(self) -> bool:
        """Close our side too."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End the answer, if one is expected, properly or not."""
        if self._phase is _SLICED and self._receiver is not None:
            # First what came before the end.
            asyncio.get_running_loop().call_soon(self.connection_lost, exc)
            return
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
        self._answer = answer.head
        self._last = b""
        self._expect_body(answer.head, content_length)
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
                self._tail.append(rest[-TAIL_MAX_BYTES:])
                self.relay(rest)

    def _expect_body(self, head: ResponseHead, content_length: int | None) -> None:
        self._reusable = head.keep_alive
        if self._method == b"HEAD" or head.status in (_NO_CONTENT, _NOT_MODIFIED):
            self._left = 0
            self._phase = _LENGTH
            if content_length is None and self._method == b"HEAD":
                # Servers are known to go on with the body, which ends nobody knows when.
                self._reusable = False
        elif head.chunked:
            self._scanner = ChunkedScanner()
            self._phase = _CHUNKED
        elif content_length is not None:
            self._left = content_length
            self._phase = _LENGTH
        else:
            self._phase = _UNTIL_CLOSE

    def _on_chunked(self, data: bytes) -> None:
        if len(data) > CHUNKED_SLICE_BYTES:
            # With a chunk to every byte the whole would hold the event loop for milliseconds.
            self._rest = data[CHUNKED_SLICE_BYTES:]
            self._take_chunks(data[:CHUNKED_SLICE_BYTES], is_last=False)
            if self._receiver is not None:
                self._phase = _SLICED
                if not self._held_back and not self.transport.is_closing():
                    self.transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._go_on)
            return
        self._take_chunks(data, is_last=True)

    def _go_on(self) -> None:
        """Take the next slice of what has been read."""
        data, self._rest = self._rest, b""
        if self._phase is not _SLICED or self._receiver is None:
            return
        self._phase = _CHUNKED
        self._on_chunked(data)
        if self._phase is not _SLICED and not self._held_back and not self.transport.is_closing():
            self.transport.resume_reading()

    def _take_chunks(self, data: bytes, *, is_last: bool) -> None:
        self._tail.append(data)
        pieces: list[bytes] | None = [] if self.decode else None
        try:
            end = self._scanner.scan(data, pieces)
        except ChunkedError as error:
            self._fail(str(error))
            return
        if pieces:
            self.relay(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if end < 0:
            self._last = data
            if pieces is None:
                self.relay(data)
            return
        if pieces is None:
            self.relay(data[:end] if end < len(data) else data)
        self._end(clean=is_last and end == len(data))

    def _on_counted(self, data: bytes, first: bytes) -> None:
        left = self._left
        size = len(data)
        if size < left:
            self._left = left - size
            # As a whole, long pieces would be held for as long as the answer lasts.
            self._tail.append(data if size <= TAIL_MAX_BYTES else data[-TAIL_MAX_BYTES:])
            self.relay(first + data)
            return
        self._left = 0
        self._final = data
        if size > left:
            data = data[:left]
        if first or data:
            self.relay(first + data)
        self._end(clean=size == left)

    def _end(self, *, clean: bool) -> None:
        receiver, self._receiver = self._receiver, None
        self._phase = _IDLE
        self.relay = self.write_first = _drop
        self.unhold()
        # A connection with bytes left over, or one whose engine has answered before it took the
        # whole request, is in no state to be used again.
        if clean and self._reusable and self.body_sent and not self.transport.is_closing():
            self._upstream.put(self)
        else:
            self.transport.abort()
        if receiver is not None:
            receiver.on_end()
        self._final = b""
        if self._tail:
            self._tail.clear()

    def _fail(self, reason: str) -> None:
        receiver, self._receiver = self._receiver, None
        self.transport.abort()
        if receiver is not None:
            receiver.on_lost(reason, malformed=True)


def _drop(data: bytes) -> None:
    """Take bytes that nobody wants."""
