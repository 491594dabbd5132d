"""One client's connection: requests are cut out of its bytes one at a time, and answered in order.

While a request is in flight the connection goes on being read, because a paused transport reports
no disconnect; what comes early is kept unparsed, up to a limit.
"""

import asyncio
import logging
import re
import socket
import struct
import sys
from enum import Enum
from typing import TYPE_CHECKING

from llama_router.proxy import answer
from llama_router.proxy.body import Body, BodyReader
from llama_router.proxy.errors import (
    HeadTooLargeError,
    InternalError,
    MalformedRequestError,
    RequestError,
    RequestTimeoutError,
    TargetTooLongError,
)
from llama_router.proxy.exchange import Exchange
from llama_router.proxy.limits import (
    BODY_GRACE_S,
    CHUNKED_SLICE_BYTES,
    HEAD_DEADLINE_S,
    IDLE_TIMEOUT_S,
    MAX_EARLY_BYTES,
    MAX_EARLY_PAUSE_S,
    MAX_HEAD_BYTES,
    MIN_BODY_RATE_BYTES_PER_S,
    SWEEP_S,
    WRITE_HIGH_WATER_BYTES,
    WRITE_LOW_WATER_BYTES,
)
from llama_router.proxy.prepared import PreparedRequest, fault_since

if TYPE_CHECKING:
    from llama_router.proxy.server import Services

_log = logging.getLogger(__name__)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_READS = (b"GET", b"HEAD")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
# How long a refused client may go on sending, so that it gets to read why (RFC 9112, section 9.6).
_LINGER_S = 2.0
# Enough to find out within 100 ms that a client has not only stopped sending.
_PROBE_COUNT = 3
_PROBE_INTERVAL_S = 0.02
# struct linger (an int each; a short each on Windows): on, for no time. Closing then resets.
_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class _State(Enum):
    HEAD = 0
    BODY = 1
    # A request is in flight.
    BUSY = 2
    # An error has been written; what still comes is thrown away.
    LINGER = 3
    # Closed by us, as soon as the client has taken what is written.
    CLOSING = 4
    CLOSED = 5


# Looking a member up by name costs many times the comparison, and each request does it often.
_HEAD, _BODY, _BUSY, _LINGER, _CLOSING, _CLOSED = _State


class ClientConnection(asyncio.Protocol):
    """See the module. One instance for each connection that a client opens."""

    __slots__ = (
        "_blocked",
        "_body_paused",
        "_buffer",
        "_close_after",
        "_early_paused_s",
        "_exchange",
        "_half_closed",
        "_head_begun",
        "_prepared",
        "_reader",
        "_services",
        "_stalled_s",
        "_state",
        "_state_s",
        "_unsent_bytes",
        "transport",
    )

    def __init__(self, services: "Services") -> None:
        self._services = services
        self._state = _HEAD
        # Seconds spent in the state (for HEAD: since the first byte), in steps of SWEEP_S.
        self._state_s = 0.0
        self._buffer = b""
        self._prepared: PreparedRequest | None = None
        self._head_begun = False
        self._reader: BodyReader | None = None
        self._exchange: Exchange | None = None
        self._close_after = False
        self._half_closed = False
        self._blocked = False
        self._body_paused = False
        self._stalled_s = 0.0
        self._unsent_bytes = 0
        self._early_paused_s = -1.0
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set when connected

    @property
    def is_blocked(self) -> bool:
        """Whether the client does not take what is written to it."""
        return self._blocked

    @property
    def gets_own_answer(self) -> bool:
        """Whether it is being answered by the router itself."""
        return self._exchange is not None and self._exchange.is_own

    @property
    def leans_on_key(self) -> bool:
        """Whether what it has asked for is lost with the key that it came with.

        That is a request whose body is still to come, and what is to be seen of the router itself,
        which may go on for ever. Orders, and requests to models, have been taken.
        """
        if self._state is _BODY:
            return True
        prepared = self._prepared
        return self.gets_own_answer and prepared is not None and prepared.head.method in _READS

    @property
    def wants_close(self) -> bool:
        """Whether the answer under way is this connection's last."""
        return self._close_after or self._services.closing

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to listen."""
        self.transport = transport  # type: ignore[assignment]  # it is a stream's
        self.transport.set_write_buffer_limits(WRITE_HIGH_WATER_BYTES, WRITE_LOW_WATER_BYTES)
        self._services.connections[self] = None

    def data_received(self, data: bytes) -> None:
        """Take what the client sends."""
        state = self._state
        if state is _BUSY:
            self._hold_early(data)
        elif state is _HEAD or state is _BODY:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            self._advance(data)

    def eof_received(self) -> bool:
        """The client will send no more; it may still want its answer."""
        if self._state is _BUSY and self._exchange is not None:
            self._close_after = True
            exchange = self._exchange
            if self._services.abort_on_half_close and (exchange.is_waiting or exchange.is_own):
                exchange.cancel("client.queue" if exchange.is_waiting else "client.stream")
                return False
            self._half_closed = True
            self._probe(_PROBE_COUNT)
            return True
        return False

    def _probe(self, left_count: int) -> None:
        # A peer that has closed answers the first bytes with a reset, and the next write finds it.
        if self._exchange is not None:
            self._exchange.probe()
            if left_count > 1:
                loop = asyncio.get_running_loop()
                loop.call_later(_PROBE_INTERVAL_S, self._probe, left_count - 1)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The client is gone: nobody waits for an answer any more."""
        self._state = _CLOSED
        self._services.connection_closed(self)
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.cancel("client.queue" if exchange.is_waiting else "client.stream")
        self._buffer = b""

    def pause_writing(self) -> None:
        """The client is slower than its engine."""
        self._blocked = True
        self._stalled_s = 0.0
        self._unsent_bytes = self.transport.get_write_buffer_size()
        if self._exchange is not None:
            self._exchange.on_client_blocked()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._blocked = False
        if self._exchange is not None:
            self._exchange.on_client_unblocked()
        elif self._state is _BUSY:
            self.exchange_done(close=False)

    # --- requests

    def _advance(self, data: bytes) -> None:
        """Make as much of ``data`` into a request as there is of one."""
        try:
            if self._state is _HEAD:
                data = self._take_head(data)
            if self._state is _BODY:
                self._take_body(data)
            elif data:
                self._keep(data)
        except RequestError as error:
            self._refuse(error)

    def _take_head(self, data: bytes) -> bytes:
        if data[:1] in (b"\r", b"\n"):
            # Empty lines before a request are to be overlooked (RFC 9112, section 2.2).
            data = data.lstrip(b"\r\n")
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or end > MAX_HEAD_BYTES:  # noqa: PLR2004
            if len(data) > MAX_HEAD_BYTES:
                if b"\r\n" not in data[:MAX_HEAD_BYTES]:
                    raise TargetTooLongError("the request line is too long")
                raise HeadTooLargeError(f"the head is larger than {MAX_HEAD_BYTES} bytes")
            if _BARE_LINE_FEED.search(data):
                raise MalformedRequestError("a line of the head ends without a carriage return")
            if data and not self._head_begun:
                self._head_begun = True
                self._state_s = 0.0
            self._buffer = data
            return b""
        self._prepared, length = self._services.requests.get(data[:end])
        return self._begin(self._prepared, length, data[end:])

    def _begin(self, prepared: PreparedRequest, length: int | None, rest: bytes) -> bytes:
        """Go on with a request whose head is known; return what is left of ``rest``."""
        services = self._services
        head = prepared.head
        if length is None:
            length = head.content_length
        self._close_after = not head.keep_alive
        if not prepared.has_body or length == 0:
            self._start(prepared, Body(services.budget, b"", None, 0))
            return rest
        if length is not None and length <= len(rest) and length <= prepared.body_limit_bytes:
            # The usual request has come in one piece; reads are too small to need the disk.
            services.budget.take(length)
            whole = len(rest) == length
            body = Body(services.budget, rest if whole else rest[:length], None, length)
            self._start(prepared, body)
            return b"" if whole else rest[length:]
        self._reader = BodyReader(
            content_length=length,
            limit_bytes=prepared.body_limit_bytes,
            budget=services.budget,
            pause=self._pause_body,
            resume=self._resume_body,
            on_done=self._on_spooled,
        )
        self._set_state(_BODY)
        if prepared.expects_continue:
            self.transport.write(_CONTINUE)
        return rest

    def _take_body(self, data: bytes) -> None:
        reader = self._reader
        if reader is None or not data:
            return
        if reader.ended:
            # It is on its way to the disk.
            self._hold_early(data)
            return
        rest = b""
        if reader.is_chunked and len(data) > CHUNKED_SLICE_BYTES:
            data, rest = data[:CHUNKED_SLICE_BYTES], data[CHUNKED_SLICE_BYTES:]
        used, body = reader.feed(data)
        if body is not None:
            self._reader = None
            self._start_read(body)
        if used < len(data) or rest:
            self._keep(data[used:] + rest)

    def _on_spooled(self, result: Body | RequestError) -> None:
        self._reader = None
        if isinstance(result, RequestError):
            self._refuse(result)
            return
        self._resume_body()
        try:
            self._start_read(result)
        except RequestError as error:
            self._refuse(error)

    def _start_read(self, body: Body) -> None:
        if self._prepared is not None:
            self._start(self._prepared, body)

    def _start(self, prepared: PreparedRequest, body: Body) -> None:
        self._state = _BUSY
        self._exchange = exchange = Exchange(self, prepared, self._services)
        try:
            exchange.start(body)
        except Exception:  # noqa: BLE001  # a mistake of ours must cost one request only
            _log.exception("fault while starting a request")
            self._exchange = None
            exchange.cancel("router.head")
            body.release()
            raise InternalError("the router made a mistake; its log says more") from None

    def exchange_done(self, *, close: bool, abort: bool = False) -> None:
        """The answer has been written: go on with what came early, or close."""
        self._exchange = None
        self._prepared = None
        if self._state is _CLOSED:
            return
        if abort:
            self._reset()
        elif close or self.wants_close:
            # Closing on bytes that were not read would reset, and could cost the answer.
            self._linger() if self._buffer else self._close()
        elif not self._blocked:
            self._set_state(_HEAD)
            if self._buffer:
                # Not at once: each request gets its turn of the event loop.
                asyncio.get_running_loop().call_soon(self._go_on)
        # Else nothing more is done for a client until it has taken what it has been given.

    def _go_on(self) -> None:
        if self._buffer and self._state in (_HEAD, _BODY):
            data, self._buffer = self._buffer, b""
            self._advance(data)
            self._go_on_reading()

    def _refuse(self, error: RequestError) -> None:
        """Answer what cannot be taken, and end: where the next request begins is not known."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        prepared = self._prepared
        if self._exchange is not None or self.transport.is_closing():
            return
        head_only = prepared is not None and prepared.head.method == b"HEAD"
        self.transport.write(answer.error_response(error, close=True, head_only=head_only))
        _log.info("refused: %d %s", error.status, error.code)
        self._linger()

    # --- flow

    def _keep(self, data: bytes) -> None:
        """Keep what cannot be taken at once, and go on with it if nothing is in flight."""
        state = self._state
        if state in (_HEAD, _BODY, _BUSY):
            self._hold_early(data)
            if state is not _BUSY:
                asyncio.get_running_loop().call_soon(self._go_on)

    def _hold_early(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > MAX_EARLY_BYTES and self._early_paused_s < 0:
            self._early_paused_s = 0.0
            self.transport.pause_reading()

    def _go_on_reading(self) -> None:
        if self._early_paused_s < 0:
            return
        # What was sent ahead is being worked off: the time begins anew.
        self._early_paused_s = 0.0
        if len(self._buffer) <= MAX_EARLY_BYTES:
            self._early_paused_s = -1.0
            self._resume()

    def _pause_body(self) -> None:
        self._body_paused = True
        self.transport.pause_reading()

    def _resume_body(self) -> None:
        self._body_paused = False
        self._resume()

    def _resume(self) -> None:
        if self._early_paused_s < 0 and not self._body_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    # --- time

    def sweep(self) -> None:
        """Called every SWEEP_S: hold the client to its deadlines."""
        state = self._state
        if state is _CLOSED:
            return
        self._state_s += SWEEP_S
        if state is _HEAD:
            self._sweep_head()
        elif state is _BODY:
            self._sweep_body()
        elif state is _LINGER and self._state_s > _LINGER_S:
            self._close()
        if self._exchange is not None:
            self._exchange.sweep()
        if self._half_closed:
            self._probe(1)
        if self._blocked or state is _CLOSING:
            self._sweep_blocked()
        if self._early_paused_s >= 0:
            self._early_paused_s += SWEEP_S
            if self._early_paused_s > MAX_EARLY_PAUSE_S and self._state is _BUSY:
                self.transport.abort()

    def _sweep_head(self) -> None:
        if self._buffer:
            if self._state_s > HEAD_DEADLINE_S:
                self._refuse(RequestTimeoutError("the request's head did not come in time"))
        elif self._state_s > IDLE_TIMEOUT_S:
            self._close()

    def _sweep_body(self) -> None:
        received = self._reader.received_bytes if self._reader is not None else 0
        if self._state_s > BODY_GRACE_S + received / MIN_BODY_RATE_BYTES_PER_S:
            self._refuse(RequestTimeoutError("the request's body did not come in time"))

    def _sweep_blocked(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._stalled_s = self._stalled_s + SWEEP_S if unsent >= self._unsent_bytes else 0.0
        self._unsent_bytes = unsent
        if self._stalled_s > self._services.client_stall_timeout_s:
            _log.info("a client has taken nothing for %g s; its connection is cut", self._stalled_s)
            self.transport.abort()

    # --- endings

    def check_again(self) -> None:
        """End what leans on a key that does not open it any more, and say so."""
        prepared = self._prepared
        if prepared is None or not self.leans_on_key:
            return
        fault = fault_since(prepared, self._services.guard)
        if fault is None:
            return
        if self._exchange is None:
            self._refuse(fault)
        else:
            self._exchange.abort(fault)

    def close_if_idle(self) -> None:
        """Close unless a request is under way."""
        if self._state is _HEAD:
            self._close()

    def _set_state(self, state: _State) -> None:
        self._state = state
        self._state_s = 0.0
        self._head_begun = False

    def _linger(self) -> None:
        self._set_state(_LINGER)
        self._buffer = b""
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._early_paused_s = -1.0
            self._resume_body()
        else:
            self._close()

    def _close(self) -> None:
        self._set_state(_CLOSING)
        self._buffer = b""
        self._stalled_s = 0.0
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self.transport.close()

    def _reset(self) -> None:
        """Break off so that the client sees it though the connection's end would be the body's."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()
