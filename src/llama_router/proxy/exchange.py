"""One request's life: find its model, wait for its engine, send it, relay the answer, end.

Whatever happens, the client gets exactly one of: the engine's answer, an error answer, or a stream
that visibly broke off; and the core hears exactly once that it is over.
"""

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import TYPE_CHECKING

from llama_router.core.commands import NoticeKind
from llama_router.proxy import answer
from llama_router.proxy.answer import CHUNKED, CLOSE, NO_BODY, RAW
from llama_router.proxy.blame import blamed, refuse_remote
from llama_router.proxy.body import Body
from llama_router.proxy.client import Client
from llama_router.proxy.ending import ended_now, log_end, prompt_of, tell_error
from llama_router.proxy.engine_connection import EngineConnection
from llama_router.proxy.errors import (
    BadUpstreamError,
    EngineCrashedError,
    EngineTimeoutError,
    InternalError,
    RequestError,
)
from llama_router.proxy.gate import Door, Target
from llama_router.proxy.keep_alive import bounded
from llama_router.proxy.key_limits import KeyUse
from llama_router.proxy.limits import MAX_PROMPT_BYTES
from llama_router.proxy.notice_stream import NoticeStream
from llama_router.proxy.notices import notice_text
from llama_router.proxy.outgoing import request_head
from llama_router.proxy.own_tasks import OwnTasks
from llama_router.proxy.prepared import PreparedRequest, PreparedResponse
from llama_router.proxy.reading import Order, read_aside, read_now, refusal
from llama_router.proxy.routes import CONTROL, NAMED, ROOT, takes_slot
from llama_router.proxy.silence import Silence, Verdict
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
        "_door",
        "_first_byte_s",
        "_form_type",
        "_framing",
        "_is_counted",
        "_is_rejected",
        "_path",
        "_prepared",
        "_prompt",
        "_request",
        "_request_id",
        "_sending",
        "_services",
        "_silence",
        "_started",
        "_status",
        "_stream",
        "_target",
        "_tasks",
        "_upstream",
        "_use",
    )

    def __init__(self, client: Client, prepared: PreparedRequest, services: "Services") -> None:
        self._client = client
        self._prepared = prepared
        self._request = request = prepared.head
        self._services = services
        self._body: Body | None = None
        self._target: Target | None = None
        self._door: Door = services.gate
        self._path = request.path
        # The Content-Type of a form that has been written anew.
        self._form_type: bytes | None = None
        self._use: KeyUse | None = None
        self._prompt: bytes | None = None
        self._request_id: int | None = None
        self._upstream: Upstream | None = None
        self._connection: EngineConnection | None = None
        self._tasks: OwnTasks | None = None
        self._sending: asyncio.Task[None] | None = None
        self._framing = NO_BODY
        self._status = 0
        self._bounceable = False
        self._bounced = False
        # The client has got (or is getting) a head; and the router's own stream, if it is one.
        self._started = False
        self._stream: NoticeStream | None = None
        self._silence: Silence | None = None
        # When the request was whole, and what became of it when (0: not yet).
        self._arrived_s = monotonic()
        self._dispatched_s = 0.0
        self._first_byte_s = 0.0
        self._is_counted = False
        # The runtime knows that it is over.
        self._is_rejected = False
        self._done = False

    @property
    def is_waiting(self) -> bool:
        """Whether nothing of the engine's answer has come yet, be there notices or not."""
        return self._status == 0

    @property
    def _model(self) -> str:
        return "" if self._target is None else self._target.model

    @property
    def is_own(self) -> bool:
        """Whether the router itself answers: a log that is followed may have nothing to say."""
        return self._upstream is self._services.gate.control

    # --- from body to model

    def start(self, body: Body) -> None:
        """The request is whole: send it on its way."""
        self._body = body
        prepared, services = self._prepared, self._services
        kind = prepared.route.kind
        if prepared.caller.key:
            services.used_keys.add(prepared.caller.key)
        if kind is CONTROL:
            self._send_to(services.gate.control)
            return
        try:
            if prepared.use is not None:
                prepared.use.enter(self._arrived_s)
                self._use = prepared.use
            if services.history_prompts and prepared.form_type is None:
                self._prompt = body.data[:MAX_PROMPT_BYTES]
            order = read_now(prepared, body, services)
            if order is None:
                self._spawn_task(self._read_aside(body), "read body")
            else:
                self._submit(order)
        except RequestError as error:
            self._fail(error, "client.head" if kind in (ROOT, NAMED) else "client.body")

    async def _read_aside(self, body: Body) -> None:
        try:
            if self._prompt is not None:
                self._prompt = await prompt_of(body)
            self._submit(await read_aside(self._prepared, body, self._services))
        except RequestError as error:
            self._fail(error, "client.body")

    def _submit(self, order: Order) -> None:
        if order.rewritten is not None:
            self._body = order.rewritten.body
            self._form_type = order.rewritten.form_type
        target = order.target
        if target is None:
            self._send_to(self._services.gate.control)
            return
        path = self._path = order.path
        services, prepared = self._services, self._prepared
        may_load, needs_slot, path_text = order.may_load, prepared.takes_slot, prepared.path_text
        if path is not self._request.path:
            needs_slot = takes_slot(self._request.method, path)
            path_text = path.decode("latin-1")
        self._target = target
        if target.door is None:
            if not target.is_open:
                services.gate.check_endpoint(target.model, path_text)
            self._bounceable = may_load
        else:
            self._door = target.door
        self._is_counted = may_load and needs_slot
        notifies = services.notify_model_swap if target.notify is None else target.notify
        wants_notices = notifies and order.wants_stream and may_load and path in _NOTICE_PATHS
        keep_alive_s = order.keep_alive_s
        if keep_alive_s is not None:
            keep_alive_s = bounded(keep_alive_s, services.max_keep_alive_s)
        request_id = self._door.submit(
            self,
            target.model,
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
        self._is_rejected = True
        self._fail(refusal(error, self._prepared, self._path, self._services), "router.queue")

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
                self._on_no_answer(f"no connection to {upstream.label} ({reason})")
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
        prepared, method = self._prepared, self._request.method
        is_own, form_type = self.is_own, self._form_type
        head = request_head(prepared, self._path, upstream, body.size_bytes, form_type, is_own)
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
        upstream = self._upstream
        if upstream is not None and upstream.is_remote:
            fault = refuse_remote(head, upstream)
            if fault is not None:
                self._fail(fault, "engine.head", connection)
                return b""
        if self._body is not None and self._body.file is None:
            # Nothing will be sent again.
            self._body.release()
        write = self._client.transport.write
        connection.write_first = write
        if self._stream is not None:
            self._framing = self._stream.join(connection, head, self._on_too_long)
            return b""
        framing = self._framing = answer.choose_framing(self._request, head)
        close = self._client.wants_close or framing is CLOSE
        self._started = True
        if framing is RAW or framing is NO_BODY:
            connection.relay = write
            if head.status == 204:  # noqa: PLR2004
                # Such an answer has no length, not even 0 (RFC 9110, section 8.6).
                content_length = None
        else:
            connection.decode = True
            connection.relay = answer.in_chunks(write) if framing is CHUNKED else write
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
        self._end("-.-", close=self._framing is CLOSE, whole=connection)

    def on_lost(self, reason: str, *, malformed: bool) -> None:
        """The engine's connection ended, or made no sense, before the answer was whole."""
        connection, self._connection = self._connection, None
        if connection is None or self._done:
            return
        if malformed:
            text = f"the answer of {{who}} cannot be passed on: {reason}"
            self._fail(self._blamed(BadUpstreamError, text), "engine.head", connection)
        elif connection.got_bytes:
            text = "{who} went away while it was answering"
            self._fail(self._blamed(EngineCrashedError, text), "engine.stream", connection)
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
            self._door.bounced(self._request_id)
        else:
            text = f"{{who}} gave no answer: {reason}"
            self._fail(self._blamed(EngineCrashedError, text), "engine.first_byte")

    def _blamed(self, kind: type[RequestError], text: str) -> RequestError:
        return blamed(kind, text, self._upstream, is_own=self.is_own)

    # --- watching

    def sweep(self) -> None:
        """Called every SWEEP_S: notice silence, keep waiting streams alive."""
        connection, is_blocked = self._connection, self._client.is_blocked
        silence = self._silence
        if silence is None:
            silence = self._silence = Silence()
        if connection is not None and (connection.active or is_blocked):
            connection.active = False
            silence.end()
            return
        is_due = silence.grow()
        if is_due and self._stream is not None and self._status == 0 and not is_blocked:
            self._stream.beat()
        if connection is not None:
            self._weigh_silence(connection, silence)

    def _weigh_silence(self, connection: EngineConnection, silence: Silence) -> None:
        request_id, services = self._request_id, self._services
        timeouts = None if self._target is None else self._target.timeouts
        read_timeout_s, first_byte_timeout_s = services.patience(timeouts)
        if request_id is None:
            # A log may have nothing to say, and an order takes as long as the load it waits for.
            if not self.is_own or self._status or self._request.method == b"POST":
                return
            # The router itself has nothing to read before it answers.
            first_byte_timeout_s = read_timeout_s
        verdict = silence.judge(
            has_begun=self._status != 0,
            read_timeout_s=read_timeout_s,
            first_byte_timeout_s=first_byte_timeout_s,
        )
        if verdict is Verdict.WAIT:
            return
        if request_id is not None:
            self._door.silent(request_id)
        if verdict is Verdict.GIVE_UP:
            text = f"{{who}} has been silent for {silence.seconds:g} s"
            end = "timeout.stream" if self._started else "timeout.first_byte"
            self._fail(self._blamed(EngineTimeoutError, text), end, connection)

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
            framing = CLOSE if self._framing is CLOSE else CHUNKED
            self._client.transport.write(answer.probe(framing))

    def cancel(self, end: str) -> None:
        """The client is gone."""
        if self._done:
            return
        self._end(end, close=True, client_gone=True)

    # --- endings

    def _fail(self, error: RequestError, end: str, via: EngineConnection | None = None) -> None:
        """End with an error: as an answer, as an event, or by breaking off."""
        if self._done:
            return
        close, abort = tell_error(
            error,
            self._client,
            self._request,
            via or self._connection,
            stream=self._stream,
            framing=self._framing,
            has_begun=self._started,
            is_waiting=self.is_waiting,
        )
        if not self._started:
            self._status = error.status
        self._end(end, close=close, abort=abort)

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
        if self._use is not None:
            self._use.leave()
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
                path=self._path,
                status=self._status,
                request_id=request_id,
                times_s=(self._arrived_s, self._dispatched_s, self._first_byte_s),
                whole=whole,
                prompt=self._prompt,
            )
            self._services.gate.remember(ended)
        self._tell_end(request_id)

    def _tell_end(self, request_id: int | None) -> None:
        if request_id is not None and not self._is_rejected:
            if self._dispatched_s:
                self._door.finished(request_id)
            else:
                self._door.cancel(request_id)

    def _spawn_task(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        if self._tasks is None:
            self._tasks = OwnTasks(self._on_fault)
        return self._tasks.spawn(work, name)

    def _on_fault(self) -> None:
        self._fail(InternalError("the router made a mistake; its log says more"), "router.body")
