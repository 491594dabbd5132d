"""One request's life: find its model, wait for its engine, send it, relay the answer, end.

Whatever happens, the client gets exactly one of: the engine's answer, an error answer, or a stream
that visibly broke off; and the core hears exactly once that it is over.
"""

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import IO, TYPE_CHECKING

from llama_router.core.commands import NoticeKind
from llama_router.proxy import answer
from llama_router.proxy.answer import Framing
from llama_router.proxy.body import Body
from llama_router.proxy.client import Client
from llama_router.proxy.ending import ended_now, log_end
from llama_router.proxy.engine_connection import EngineConnection
from llama_router.proxy.errors import (
    LOG_HINT,
    BadUpstreamError,
    BodyTooLargeError,
    EngineCrashedError,
    EngineTimeoutError,
    InternalError,
    RequestError,
)
from llama_router.proxy.keep_alive import bounded
from llama_router.proxy.limits import HEARTBEAT_S, MAX_CONTROL_BODY_BYTES, SWEEP_S
from llama_router.proxy.notice_stream import NoticeStream
from llama_router.proxy.notices import notice_text
from llama_router.proxy.own_tasks import OwnTasks
from llama_router.proxy.peek import QUICK_FORM_BYTES, Peek
from llama_router.proxy.prepared import PreparedRequest, PreparedResponse, request_head
from llama_router.proxy.routes import RouteKind, takes_slot
from llama_router.proxy.silence import Verdict, judge
from llama_router.proxy.targets import find_destination, is_quick_to_peek, model_of_body, peek_body
from llama_router.proxy.upstream import Upstream

if TYPE_CHECKING:
    from llama_router.proxy.server import Services

_NOTICE_PATHS = (b"/v1/chat/completions", b"/chat/completions")


class Exchange:
    """See the module. Implements Waiter (for the runtime) and Receiver (for the connection)."""

    __slots__ = (
        "_arrived_s",
        "_body",
        "_bounceable",
        "_bounced",
        "_client",
        "_connection",
        "_dispatched_s",
        "_done",
        "_first_byte_s",
        "_framing",
        "_is_counted",
        "_model",
        "_path",
        "_prepared",
        "_probed_s",
        "_request",
        "_request_id",
        "_sending",
        "_services",
        "_silent_s",
        "_started",
        "_status",
        "_stream",
        "_tasks",
        "_upstream",
    )

    def __init__(self, client: Client, prepared: PreparedRequest, services: "Services") -> None:
        self._client = client
        self._prepared = prepared
        self._request = request = prepared.head
        self._services = services
        self._body: Body | None = None
        self._model = ""
        self._path = request.path
        self._request_id: int | None = None
        self._upstream: Upstream | None = None
        self._connection: EngineConnection | None = None
        self._tasks: OwnTasks | None = None
        self._sending: asyncio.Task[None] | None = None
        self._framing = Framing.NONE
        self._status = 0
        self._bounceable = False
        self._bounced = False
        # The client has got (or is getting) a head; and the router's own stream, if it is one.
        self._started = False
        self._stream: NoticeStream | None = None
        self._silent_s = 0.0
        # How much of the silence was over when it was last looked into.
        self._probed_s = 0.0
        # When the request was whole, and what became of it when (0: not yet).
        self._arrived_s = monotonic()
        self._dispatched_s = 0.0
        self._first_byte_s = 0.0
        self._is_counted = False
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
        self._submit(model, may_load=True, wants_stream=peek.stream, keep_alive_s=peek.keep_alive_s)

    def _submit_routed(self) -> None:
        destination = find_destination(self._prepared, self._services.gate)
        if destination is None:
            if self._body is not None and self._body.size_bytes > MAX_CONTROL_BODY_BYTES:
                raise BodyTooLargeError(f"the body is larger than {MAX_CONTROL_BODY_BYTES} bytes")
            self._send_to_control()
            return
        self._path = destination.path
        self._submit(destination.model, may_load=destination.may_load)

    def _submit(
        self,
        model: str,
        *,
        may_load: bool,
        wants_stream: bool = False,
        keep_alive_s: float | None = None,
    ) -> None:
        services, prepared, path = self._services, self._prepared, self._path
        needs_slot, path_text = prepared.takes_slot, prepared.path_text
        if path is not self._request.path:
            needs_slot = takes_slot(self._request.method, path)
            path_text = path.decode("latin-1")
        services.gate.check_endpoint(model, path_text)
        self._model = model
        self._bounceable = may_load
        self._is_counted = may_load and needs_slot
        wants_notices = (
            services.notify_model_swap and wants_stream and may_load and path in _NOTICE_PATHS
        )
        if keep_alive_s is not None:
            keep_alive_s = bounded(keep_alive_s, services.max_keep_alive_s)
        request_id = services.gate.submit(
            self,
            model,
            may_load=may_load,
            wants_notices=wants_notices,
            caller=prepared.caller,
            keep_alive_s=keep_alive_s,
            takes_slot=needs_slot,
        )
        if self._done:
            # It was dispatched and ended within.
            self._tell_end(request_id)
        else:
            self._request_id = request_id

    # --- Waiter: what the runtime says

    def dispatch(self, upstream: Upstream) -> None:
        """Send the request to its engine now."""
        self._dispatched_s = monotonic()
        self._send_to(upstream)

    def reject(self, error: RequestError) -> None:
        """The request gets no engine."""
        self._request_id = None
        self._fail(error, "router.queue")

    def abort(self, error: RequestError) -> None:
        """The time of a dispatched request is over."""
        self._fail(error, "router.stream")

    def notify(
        self, kind: NoticeKind, model: str, fraction: float | None, position: int | None = None
    ) -> None:
        """Tell the client in its own stream how its load is going."""
        if self._done or self._dispatched_s:
            return
        if self._stream is None:
            self._stream = NoticeStream(self._client, self._request, self._model)
            self._framing = self._stream.framing
            self._started = True
        self._stream.say(notice_text(kind, model, fraction, position))

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
        self._first_byte_s = monotonic()
        if self._body is not None and self._body.file is None:
            # Nothing will be sent again.
            self._body.release()
        write = self._client.transport.write
        connection.write_first = write
        if self._stream is not None:
            self._framing = self._stream.join(connection, head, self._on_too_long)
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
            connection.relay = answer.in_chunks(write) if framing is Framing.CHUNKED else write
        return prepared.fields + answer.head_end(
            self._request, content_length, framing, close=close
        )

    def _on_too_long(self) -> None:
        if self._connection is not None:
            self._connection.release()
            self.on_end()

    def on_end(self) -> None:
        """The engine's answer is whole."""
        connection, self._connection = self._connection, None
        if self._stream is not None and self._stream.is_collecting:
            self._stream.tell_collected(self._status)
        end = answer.end_of(self._framing)
        if end:
            self._client.transport.write(end)
        self._end("-.-", close=self._framing is Framing.CLOSE, whole=connection)

    def on_lost(self, reason: str, *, malformed: bool) -> None:
        """The engine's connection ended, or made no sense, before the answer was whole."""
        connection, self._connection = self._connection, None
        if connection is None or self._done:
            return
        if malformed:
            text = f"the engine's answer cannot be passed on: {reason}"
            self._fail(self._blamed(BadUpstreamError(text)), "engine.head", connection)
        elif connection.got_bytes:
            error = EngineCrashedError(f"the engine went away while it was answering{LOG_HINT}")
            self._fail(self._blamed(error), "engine.stream", connection)
        elif connection.reused and self._upstream is not None:
            # The engine closed an idle connection just as it was taken up again.
            self._spawn_task(self._connect(self._upstream), "connect to engine")
        else:
            self._on_no_answer(reason)

    def _on_no_answer(self, reason: str) -> None:
        if self._bounceable and self._request_id is not None:
            # Once: the core keeps count.
            self._dispatched_s = 0.0
            self._bounced = True
            self._services.gate.bounced(self._request_id)
        else:
            error = EngineCrashedError(f"the engine gave no answer: {reason}{LOG_HINT}")
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
            self._silent_s = self._probed_s = 0.0
            return
        self._silent_s += SWEEP_S
        is_due = self._silent_s % HEARTBEAT_S == 0
        if is_due and self._stream is not None and self._status == 0 and not is_blocked:
            self._stream.beat()
        if connection is not None:
            self._weigh_silence(connection)

    def _weigh_silence(self, connection: EngineConnection) -> None:
        services, request_id = self._services, self._request_id
        # The router itself has nothing to read before it answers.
        first_byte_timeout_s = services.read_timeout_s
        if request_id is not None:
            first_byte_timeout_s = services.first_byte_timeout_s
        elif not self.is_own or self._status or self._request.method == b"POST":
            # A log may have nothing to say, and an order takes as long as the load it waits for.
            return
        verdict = judge(
            self._silent_s,
            self._probed_s,
            has_begun=self._status != 0,
            read_timeout_s=services.read_timeout_s,
            first_byte_timeout_s=first_byte_timeout_s,
        )
        if verdict is Verdict.WAIT:
            return
        self._probed_s = self._silent_s
        if request_id is not None:
            services.gate.silent(request_id)
        if verdict is Verdict.GIVE_UP:
            text = f"the engine has been silent for {self._silent_s:g} s{LOG_HINT}"
            end = "timeout.stream" if self._started else "timeout.first_byte"
            self._fail(self._blamed(EngineTimeoutError(text)), end, connection)

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
        elif self._stream is not None and (self._status == 0 or self._stream.is_collecting):
            self._stream.end_with(error)
            self._end(end, close=self._framing is Framing.CLOSE)
        else:
            can_say = connection is not None and connection.at_event_boundary
            if can_say:
                framing = Framing.CLOSE if self._framing is Framing.CLOSE else Framing.CHUNKED
                client.transport.write(answer.error_event(error, framing))
            # Without the last chunk, or short of the length: the client sees that it is cut.
            self._end(end, close=True, abort=self._framing is Framing.CLOSE and not can_say)

    def _end(
        self,
        end: str,
        *,
        close: bool,
        abort: bool = False,
        client_gone: bool = False,
        whole: EngineConnection | None = None,
    ) -> None:
        self._done = True
        if self._connection is not None:
            self._connection.release()
            self._connection = None
        if self._tasks is not None:
            self._tasks.cancel()
        if self._body is not None:
            self._body.release()
        if end != "-.-" or self._services.logs_every_request:
            log_end(self._request, self._model, self._status, end)
        request_id, self._request_id = self._request_id, None
        if not client_gone:
            self._client.exchange_done(close=close, abort=abort)
        if self._is_counted and self._services.gate.wants_record():
            ended = ended_now(
                self._model,
                self._prepared.caller.key,
                end,
                arrived_s=self._arrived_s,
                dispatched_s=self._dispatched_s,
                first_byte_s=self._first_byte_s,
                whole=whole if self._status == 200 else None,  # noqa: PLR2004
            )
            self._services.gate.remember(ended)
        self._tell_end(request_id)

    def _tell_end(self, request_id: int | None) -> None:
        if request_id is not None:
            if self._dispatched_s:
                self._services.gate.finished(request_id)
            else:
                self._services.gate.cancel(request_id)

    def _spawn_task(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        if self._tasks is None:
            self._tasks = OwnTasks(self._on_fault)
        return self._tasks.spawn(work, name)

    def _on_fault(self) -> None:
        self._fail(InternalError("the router made a mistake; its log says more"), "router.body")
