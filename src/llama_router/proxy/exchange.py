"""One request's life: find its model, wait for its engine, send it, relay the answer, end.

Whatever happens, the client gets exactly one of: the engine's answer, an error answer, or a stream
that visibly broke off; and the core hears exactly once that it is over.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import IO, TYPE_CHECKING

from llama_router.core.commands import NoticeKind
from llama_router.dialects import openai
from llama_router.proxy import answer
from llama_router.proxy.answer import Framing
from llama_router.proxy.body import Body
from llama_router.proxy.chunked import encode_chunk
from llama_router.proxy.client import Client
from llama_router.proxy.engine_connection import EngineConnection
from llama_router.proxy.errors import (
    BadUpstreamError,
    BodyTooLargeError,
    EngineCrashedError,
    EngineTimeoutError,
    InternalError,
    RequestError,
)
from llama_router.proxy.head import ResponseHead
from llama_router.proxy.limits import (
    HEARTBEAT_S,
    MAX_CONTROL_BODY_BYTES,
    MAX_ERROR_BODY_BYTES,
    SWEEP_S,
)
from llama_router.proxy.notices import notice_text
from llama_router.proxy.peek import QUICK_FORM_BYTES, Peek
from llama_router.proxy.prepared import PreparedRequest, PreparedResponse, request_head
from llama_router.proxy.routes import RouteKind
from llama_router.proxy.targets import find_destination, is_quick_to_peek, model_of_body, peek_body
from llama_router.proxy.upstream import Upstream

if TYPE_CHECKING:
    from llama_router.proxy.server import Services

_log = logging.getLogger(__name__)
_NOTICE_PATHS = (b"/v1/chat/completions", b"/chat/completions")


class Exchange:
    """See the module. Implements Waiter (for the runtime) and Receiver (for the connection)."""

    __slots__ = (
        "_body",
        "_bounceable",
        "_bounced",
        "_client",
        "_collected",
        "_collected_bytes",
        "_connection",
        "_dispatched",
        "_done",
        "_framing",
        "_model",
        "_notice_id",
        "_path",
        "_prepared",
        "_request",
        "_request_id",
        "_sending",
        "_services",
        "_silent_s",
        "_started",
        "_status",
        "_stream_open",
        "_tasks",
        "_upstream",
        "_wants_stream",
    )

    def __init__(self, client: Client, prepared: PreparedRequest, services: "Services") -> None:
        self._client = client
        self._prepared = prepared
        self._request = request = prepared.head
        self._services = services
        self._body: Body | None = None
        self._model = ""
        self._path = request.path
        self._wants_stream = False
        self._request_id: int | None = None
        self._upstream: Upstream | None = None
        self._connection: EngineConnection | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: asyncio.Task[None] | None = None
        self._framing = Framing.NONE
        self._status = 0
        self._dispatched = False
        self._bounceable = False
        self._bounced = False
        # The client has got (or is getting) a head; and whether it is a stream of the router's own.
        self._started = False
        self._stream_open = False
        self._notice_id = ""
        self._collected: list[bytes] | None = None
        self._collected_bytes = 0
        self._silent_s = 0.0
        self._done = False

    @property
    def is_waiting(self) -> bool:
        """Whether nothing of the engine's answer has come yet, be there notices or not."""
        return self._status == 0

    @property
    def is_own(self) -> bool:
        """Whether the router itself answers: a log that is followed may have nothing to say."""
        return self._upstream is self._services.gate.control

    # --- from body to model

    def start(self, body: Body) -> None:
        """The request is whole: send it on its way."""
        self._body = body
        prepared = self._prepared
        kind = prepared.route.kind
        if kind is RouteKind.CONTROL:
            self._send_to_control()
        elif kind is RouteKind.BODY_MODEL or kind is RouteKind.BODY_MODEL_OR_ROOT:
            if body.size_bytes > QUICK_FORM_BYTES and not is_quick_to_peek(prepared, body):
                self._spawn_task(self._inspect(body.file or body.data), "inspect body")
                return
            try:
                peek = peek_body(prepared, body)
                self._submit_peeked(peek)
            except RequestError as error:
                self._fail(error, "client.body")
        else:
            try:
                self._submit_routed()
            except RequestError as error:
                self._fail(error, "client.head")

    async def _inspect(self, source: IO[bytes] | bytes) -> None:
        try:
            peek = await self._services.inspector.inspect(source, self._prepared.form_type)
            if not self._done:
                self._submit_peeked(peek)
        except RequestError as error:
            self._fail(error, "client.body")

    def _submit_peeked(self, peek: Peek) -> None:
        model = model_of_body(self._prepared, peek, self._services.gate)
        self._wants_stream = peek.stream
        self._submit(model, may_load=True)

    def _submit_routed(self) -> None:
        destination = find_destination(self._prepared, self._services.gate)
        if destination is None:
            if self._body is not None and self._body.size_bytes > MAX_CONTROL_BODY_BYTES:
                raise BodyTooLargeError(f"the body is larger than {MAX_CONTROL_BODY_BYTES} bytes")
            self._send_to_control()
            return
        self._path = destination.path
        self._submit(destination.model, may_load=destination.may_load)

    def _submit(self, model: str, *, may_load: bool) -> None:
        services = self._services
        services.gate.check_endpoint(model, self._path.decode("latin-1"))
        self._model = model
        self._bounceable = may_load
        wants_notices = (
            services.notify_model_swap
            and self._wants_stream
            and may_load
            and self._path in _NOTICE_PATHS
        )
        request_id = services.gate.submit(
            self, model, may_load=may_load, wants_notices=wants_notices
        )
        if self._done:
            # It was dispatched and ended within.
            self._tell_end(request_id)
        else:
            self._request_id = request_id

    # --- Waiter: what the runtime says

    def dispatch(self, upstream: Upstream) -> None:
        """Send the request to its engine now."""
        self._dispatched = True
        self._send_to(upstream)

    def reject(self, error: RequestError) -> None:
        """The request gets no engine."""
        self._request_id = None
        self._fail(error, "router.queue")

    def abort(self, error: RequestError) -> None:
        """The time of a dispatched request is over."""
        self._fail(error, "router.stream")

    def notify(self, kind: NoticeKind, model: str, fraction: float | None) -> None:
        """Tell the client in its own stream how its load is going."""
        if self._done or self._dispatched:
            return
        now_s = int(time.time())
        parts = []
        if not self._started:
            head, self._framing = answer.stream_head(self._request, close=self._client.wants_close)
            self._notice_id = f"chatcmpl-notice-{id(self):x}-{now_s:x}"
            self._started = self._stream_open = True
            parts.append(head)
        text = notice_text(kind, model, fraction)
        event = openai.sse_reasoning_chunk(self._notice_id, now_s, self._model, text)
        parts.append(answer.framed(event, self._framing))
        self._client.transport.write(b"".join(parts))

    # --- to the engine

    def _send_to_control(self) -> None:
        self._send_to(self._services.gate.control)

    def _send_to(self, upstream: Upstream) -> None:
        self._upstream = upstream
        # Behind a bounce, what else is in the pool is as likely to be dead.
        connection = None if self._bounced else upstream.take()
        if connection is None:
            self._spawn_task(self._connect(upstream), "connect to engine")
        else:
            self._begin(connection)

    async def _connect(self, upstream: Upstream) -> None:
        try:
            connection = await upstream.connect()
        except OSError as error:
            if not self._done:
                reason = str(error) or "timed out"
                self._on_no_answer(f"no connection to the engine ({reason})")
            return
        if self._done:
            upstream.put(connection)
        else:
            self._begin(connection)

    def _begin(self, connection: EngineConnection) -> None:
        body, upstream = self._body, self._upstream
        if body is None or upstream is None:
            return
        self._connection = connection
        method = self._request.method
        head = request_head(self._prepared, self._path, upstream.head_fields, body.size_bytes)
        if body.file is None:
            connection.begin(self, method, head + body.data)
            return
        connection.begin(self, method, head)
        connection.body_sent = False
        sending = connection.send_file(body.file, body.size_bytes, self._sending)
        self._sending = self._spawn_task(sending, "send body")

    # --- Receiver: what the engine says

    def on_head(self, prepared: PreparedResponse, content_length: int | None) -> bytes:
        """The engine's head is whole: decide how the body goes on."""
        connection, head = self._connection, prepared.head
        if connection is None:
            return b""
        self._status = head.status
        if self._body is not None and self._body.file is None:
            # Nothing will be sent again.
            self._body.release()
        write = self._client.transport.write
        connection.write_first = write
        if self._stream_open:
            self._join_stream(connection, head)
            return b""
        framing = self._framing = answer.choose_framing(self._request, head)
        close = self._client.wants_close or framing is Framing.CLOSE
        self._started = True
        if framing is Framing.RAW or framing is Framing.NONE:
            connection.relay = write
            if head.status == 204:  # noqa: PLR2004
                # Such an answer has no length, not even 0 (RFC 9110, section 8.6).
                content_length = None
        else:
            connection.decode = True
            connection.relay = self._relay_chunk if framing is Framing.CHUNKED else write
        return prepared.fields + answer.head_end(
            self._request, content_length, framing, close=close
        )

    def _join_stream(self, connection: EngineConnection, head: ResponseHead) -> None:
        """Let the engine's events follow the notices, or turn its answer into one event."""
        connection.relay = self._client.transport.write
        if head.status == 200 and head.takes_events:  # noqa: PLR2004
            if head.chunked and self._framing is Framing.CHUNKED:
                self._framing = Framing.RAW
                return
            connection.decode = True
            if self._framing is Framing.CHUNKED:
                connection.relay = self._relay_chunk
            return
        self._collected = []
        connection.decode = True
        connection.relay = self._collect

    def _relay_chunk(self, data: bytes) -> None:
        if data:
            self._client.transport.write(encode_chunk(data))

    def _collect(self, data: bytes) -> None:
        connection, collected = self._connection, self._collected
        if connection is None or collected is None:
            return
        collected.append(data)
        self._collected_bytes += len(data)
        if self._collected_bytes > MAX_ERROR_BODY_BYTES:
            connection.release()
            self.on_end()

    def on_end(self) -> None:
        """The engine's answer is whole."""
        self._connection = None
        if self._collected is not None:
            error = answer.error_from_body(self._status, b"".join(self._collected))
            self._client.transport.write(answer.error_event(error, self._framing))
        end = answer.end_of(self._framing)
        if end:
            self._client.transport.write(end)
        self._end("-.-", close=self._framing is Framing.CLOSE)

    def on_lost(self, reason: str, *, malformed: bool) -> None:
        """The engine's connection ended, or made no sense, before the answer was whole."""
        connection, self._connection = self._connection, None
        if connection is None or self._done:
            return
        if malformed:
            error: RequestError = BadUpstreamError(
                f"the engine's answer cannot be passed on: {reason}"
            )
            self._fail(self._blamed(error), "engine.head", connection)
        elif connection.got_bytes:
            error = EngineCrashedError("the engine went away while it was answering")
            self._fail(self._blamed(error), "engine.stream", connection)
        elif connection.reused and self._upstream is not None:
            # The engine closed an idle connection just as it was taken up again.
            self._spawn_task(self._connect(self._upstream), "connect to engine")
        else:
            self._on_no_answer(reason)

    def _on_no_answer(self, reason: str) -> None:
        if self._bounceable and self._request_id is not None:
            # Once: the core keeps count.
            self._dispatched = False
            self._bounced = True
            self._services.gate.bounced(self._request_id)
        else:
            error = EngineCrashedError(f"the engine gave no answer: {reason}")
            self._fail(self._blamed(error), "engine.first_byte")

    def _blamed(self, error: RequestError) -> RequestError:
        """Return the error as the fault of whoever it was that did not answer."""
        if not self.is_own:
            return error
        return InternalError("the router's own API did not answer; its log may say more")

    # --- watching

    def sweep(self) -> None:
        """Called every SWEEP_S: notice silence, keep waiting streams alive."""
        connection, is_blocked = self._connection, self._client.is_blocked
        if connection is not None and (connection.active or is_blocked):
            connection.active = False
            self._silent_s = 0.0
            return
        self._silent_s += SWEEP_S
        if (
            self._stream_open
            and self._status == 0
            and not is_blocked
            and self._silent_s % HEARTBEAT_S == 0
        ):
            self._client.transport.write(answer.heartbeat(self._framing))
        limit_s = self._services.read_timeout_s
        if connection is None or self._silent_s <= limit_s:
            return
        if self._request_id is not None:
            self._services.gate.silent(self._request_id)
        elif not self.is_own or self._status:
            # A log that is followed may have nothing to say.
            return
        self._fail(
            self._blamed(EngineTimeoutError(f"the engine has been silent for {limit_s:g} s")),
            "timeout.stream" if self._started else "timeout.first_byte",
            connection,
        )

    def on_client_blocked(self) -> None:
        """The client does not take what is written: hold the engine."""
        if self._connection is not None:
            self._connection.hold()

    def on_client_unblocked(self) -> None:
        """The client has caught up."""
        if self._connection is not None:
            self._connection.unhold()

    def probe(self) -> None:
        """Find out whether a client that sends no more still reads.

        The end of what it sends looks the same when it has closed altogether, until something is
        written to it. In an event stream a comment does no harm; in any other answer, and in the
        middle of a chunk, the next bytes of the engine have to do.
        """
        connection = self._connection
        if connection is not None and connection.at_event_boundary:
            framing = Framing.CLOSE if self._framing is Framing.CLOSE else Framing.CHUNKED
            self._client.transport.write(answer.probe(framing))

    def cancel(self, end: str) -> None:
        """The client is gone."""
        if self._done:
            return
        self._end(end, close=True, client_gone=True)

    # --- endings

    def _fail(
        self, error: RequestError, end: str, connection: EngineConnection | None = None
    ) -> None:
        """End with an error: as an answer, as an event, or by breaking off."""
        if self._done:
            return
        connection = connection or self._connection
        client = self._client
        if not self._started:
            close = client.wants_close or error.closes
            head_only = self._request.method == b"HEAD"
            client.transport.write(answer.error_response(error, close=close, head_only=head_only))
            self._status = error.status
            self._end(end, close=close)
        elif self._stream_open and (self._status == 0 or self._collected is not None):
            client.transport.write(answer.error_event(error, self._framing))
            client.transport.write(answer.end_of(self._framing))
            self._end(end, close=self._framing is Framing.CLOSE)
        else:
            can_say = connection is not None and connection.at_event_boundary
            if can_say:
                framing = Framing.CLOSE if self._framing is Framing.CLOSE else Framing.CHUNKED
                client.transport.write(answer.error_event(error, framing))
            # Without the last chunk, or short of the length: the client sees that it is cut.
            self._end(end, close=True, abort=self._framing is Framing.CLOSE and not can_say)

    def _end(
        self, end: str, *, close: bool, abort: bool = False, client_gone: bool = False
    ) -> None:
        self._done = True
        if self._connection is not None:
            self._connection.release()
            self._connection = None
        for task in self._tasks:
            task.cancel()
        if self._body is not None:
            self._body.release()
        if end != "-.-" or self._services.logs_every_request:
            self._log_end(end)
        request_id, self._request_id = self._request_id, None
        if not client_gone:
            self._client.exchange_done(close=close, abort=abort)
        self._tell_end(request_id)

    def _tell_end(self, request_id: int | None) -> None:
        if request_id is not None:
            if self._dispatched:
                self._services.gate.finished(request_id)
            else:
                self._services.gate.cancel(request_id)

    def _log_end(self, end: str) -> None:
        _log.log(
            logging.DEBUG if end == "-.-" else logging.INFO,
            "%s %s model=%s status=%d end=%s",
            self._request.method.decode("ascii", "backslashreplace"),
            self._request.path.decode("ascii", "backslashreplace"),
            self._model or "-",
            self._status,
            end,
        )

    def _spawn_task(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("fault in '%s'", task.get_name(), exc_info=error)
            self._fail(InternalError("the router made a mistake; its log says more"), "router.body")
