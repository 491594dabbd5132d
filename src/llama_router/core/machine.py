"""The core: events in, commands out.

:meth:`Core.handle` is the whole interface: it does no I/O, reads no clock and rolls no dice, so a
log of events gives the same log of commands each time. Events may be late, doubled or out of
order: what belongs to an earlier generation of an engine, to a request that has ended or to a timer
that is not set is ignored.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from llama_router.core import reasons
from llama_router.core.commands import (
    Command,
    NoticeKind,
    Reject,
    RejectKind,
)
from llama_router.core.events import (
    AddressStolen,
    EngineExited,
    EngineProgress,
    EngineReady,
    EngineReaped,
    EngineSpawned,
    Event,
    ExitCause,
    LoadRequested,
    ModelsChanged,
    ModelSpec,
    RequestArrived,
    RequestBounced,
    RequestCancelled,
    RequestFinished,
    ShutdownForced,
    ShutdownRequested,
    SpawnFailed,
    TimerFired,
    TimerKind,
    UnloadRequested,
)
from llama_router.core.ledger import Ledger
from llama_router.core.lifecycle import Lifecycle
from llama_router.core.model import Model, ModelView, Request, RequestKind, view_of
from llama_router.core.operators import Operators
from llama_router.core.policies.arrival import ArrivalOrder
from llama_router.core.policies.base import Policy, Serve, Start, Stop
from llama_router.core.states import State, Trigger

BOUNCE_HOLD_S: Final = 1.0
"""How long an engine that gave no byte is suspected dead before it is believed alive again."""

# Global names and not attributes: these are read for every request.
_READY: Final = State.READY
_CLIENT: Final = RequestKind.CLIENT


MAX_WAITING_COUNT: Final = 1000
"""Who wait for one model, unless the caller sets another limit: many clients, few bytes."""

QUEUE_FULL_RETRY_S: Final = 5.0
"""About a load: by then a turn may have emptied the queue."""


class Core:
    """All models, all requests, and what is to happen next."""

    def __init__(
        self,
        models: Iterable[ModelSpec] = (),
        policy: Policy | None = None,
        *,
        max_waiting_count: int = MAX_WAITING_COUNT,
    ) -> None:
        self.policy: Final[Policy] = policy or ArrivalOrder()
        self._max_waiting_count = max_waiting_count
        self.ledger: Final = Ledger()
        """The books, to be read by invariants and tests and written by nobody else."""
        self._engines = Lifecycle(self.ledger)
        self._operators = operators = Operators(self.ledger, self._engines)
        self._models = self.ledger.models
        self._waiting = self.ledger.waiting
        self._requests = self.ledger.requests
        self._models.update((spec.name, Model(spec)) for spec in models)
        self._handlers: Mapping[type[Event], Callable[[Any], None]] = {
            RequestArrived: self._request_arrived,
            RequestFinished: self._request_finished,
            RequestCancelled: self._request_cancelled,
            RequestBounced: self._request_bounced,
            EngineSpawned: self._engine_spawned,
            SpawnFailed: self._spawn_failed,
            EngineProgress: self._engine_progress,
            EngineReady: self._engine_ready,
            EngineExited: self._engine_exited,
            EngineReaped: self._engine_reaped,
            AddressStolen: self._address_stolen,
            TimerFired: self._timer_fired,
            LoadRequested: self._then_schedule(operators.load_requested),
            UnloadRequested: self._then_schedule(operators.unload_requested),
            ModelsChanged: self._then_schedule(operators.models_changed),
            ShutdownRequested: operators.shutdown_requested,
            ShutdownForced: operators.shutdown_forced,
        }
        self._timer_handlers: Mapping[TimerKind, Callable[[Model], None]] = MappingProxyType(
            {
                TimerKind.READY_TIMEOUT: self._engines.timed_out,
                TimerKind.STOP_GRACE: lambda model: self._engines.kill(model, "did not end"),
                TimerKind.REAP_DEADLINE: self._engines.overdue,
                TimerKind.DRAIN_DEADLINE: lambda model: self._engines.cut(
                    model, "It had to end for the model to be unloaded"
                ),
                TimerKind.BACKOFF: lambda model: self.ledger.move(
                    model, Trigger.COOLED, "the back-off is over"
                ),
                TimerKind.BOUNCE: self.ledger.release,
            }
        )

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in what happened at ``now`` (seconds, monotonic); return what is to be done.

        The commands are to be carried out in their order, and before the next event is handed in.
        """
        ledger = self.ledger
        ledger.now = now
        out: list[Command] = []
        ledger.out = out
        self._handlers[type(event)](event)
        return out

    # Views

    def view(self, model: str) -> ModelView:
        """Return how ``model`` is doing. Raises KeyError for an unknown one."""
        return view_of(self._models[model])

    def views(self) -> dict[str, ModelView]:
        """Return how every model is doing, by name."""
        return {name: view_of(model) for name, model in self._models.items()}

    def root_target(self) -> str | None:
        """Return the model that root endpoints speak of, if any.

        That is the ready one dispatched to last; if none ever was, the ready one started last.
        """
        ready = [model for model in self.ledger.running.values() if model.state is _READY]
        if not ready:
            return None
        return max(ready, key=lambda model: (model.served, model.generation)).name

    def __repr__(self) -> str:
        ledger = self.ledger
        waiting = sum(len(model.waiting) for model in self._waiting.values())
        return (
            f"<Core models={len(self._models)} running={len(ledger.running)} waiting={waiting} "
            f"requests={len(self._requests)} timers={len(ledger.timers)} "
            f"generation={ledger.generation} shutting_down={ledger.shutting_down}>"
        )

    # Requests

    def _request_arrived(self, event: RequestArrived) -> None:
        model = self._models.get(event.model)
        if event.request_id in self._requests:
            return
        if (
            model is not None
            and model.state is _READY
            and not self._waiting  # whoever waits may be older and want another model
            and event.may_load
        ):
            self.ledger.dispatch(Request(event.request_id, model, _CLIENT, event.wants_notices))
            return
        self._request_arrived_to_wait(event, model)

    def _request_arrived_to_wait(self, event: RequestArrived, model: Model | None) -> None:
        if self.ledger.shutting_down:
            self._reject(event.request_id, RejectKind.SHUTTING_DOWN, reasons.SHUTTING_DOWN)
            return
        if model is None or model.removed:
            self._reject(
                event.request_id, RejectKind.MODEL_NOT_FOUND, reasons.not_found(event.model)
            )
            return
        if not event.may_load:
            self._visitor_arrived(event.request_id, model)
            return
        request = Request(event.request_id, model, _CLIENT, event.wants_notices)
        if model.is_set_back and self._is_refused_by_history(request):
            return
        if model.state is State.STUCK:
            self.ledger.refuse(request, RejectKind.MODEL_STUCK, reasons.stuck(model))
            return
        if len(model.waiting) >= self._max_waiting_count:
            reason = reasons.queue_full(model, self._max_waiting_count)
            self.ledger.refuse(request, RejectKind.QUEUE_FULL, reason, QUEUE_FULL_RETRY_S)
            return
        if self.ledger.enqueue(request):
            self._schedule()

    def _visitor_arrived(self, request_id: int, model: Model) -> None:
        if model.state in (State.READY, State.DRAINING):
            self.ledger.dispatch(Request(request_id, model, RequestKind.VISITOR))
        else:
            text = f"Model '{model.name}' is not loaded, and this request does not load it"
            self._reject(request_id, RejectKind.MODEL_NOT_LOADED, text)

    def _is_refused_by_history(self, request: Request) -> bool:
        """Refuse a newcomer for a model that crashed; a trial after a long ban is let in."""
        model = request.model
        retry_after_s = self._engines.retry_after(model)
        if not model.is_given_up:
            reason = reasons.backing_off(model)
            self.ledger.refuse(request, RejectKind.MODEL_BACKING_OFF, reason, retry_after_s)
            return True
        if retry_after_s > 0 or model.state is not State.FAILED:
            reason = reasons.given_up(model)
            self.ledger.refuse(request, RejectKind.MODEL_FAILED, reason, retry_after_s)
            return True
        model.crashes.begin_trial()
        self.ledger.move(model, Trigger.TRIAL, "a request may try it again")
        return False

    def _request_finished(self, event: RequestFinished) -> None:
        request = self._requests.get(event.request_id)
        if request is not None and request.generation:
            del self._requests[event.request_id]
            self._left_engine(request)

    def _request_cancelled(self, event: RequestCancelled) -> None:
        request = self._requests.get(event.request_id)
        if request is None:
            return
        if request.generation:
            del self._requests[event.request_id]
            self._left_engine(request)
        elif request.kind is RequestKind.UNLOAD:
            del self._requests[event.request_id]
            del request.model.unloads[event.request_id]
        elif self.ledger.leave(request):
            self._schedule()

    def _left_engine(self, request: Request) -> None:
        model = request.model
        in_flight = model.in_flight
        if in_flight.pop(request.request_id, None) is None:
            model.visitors.pop(request.request_id, None)
        elif not in_flight:
            if model.state is State.DRAINING:
                self._engines.stop(model, "drained")
            elif self._waiting:
                self._schedule()

    def _request_bounced(self, event: RequestBounced) -> None:
        request = self._requests.get(event.request_id)
        if request is None or not request.generation:
            return
        model, generation = request.model, request.generation
        if not self._is_bounce_final(request):
            suspect = model.state is _READY and model.generation == generation
            del self._requests[event.request_id]
            self._forget_dispatch(request)
            request.generation = 0
            request.bounced = True
            self.ledger.enqueue(request)
            if suspect and not model.held:
                model.held = True
                self.ledger.set_timer(TimerKind.BOUNCE, model, BOUNCE_HOLD_S)
        else:
            self._forget_dispatch(request)
        if model.state is State.DRAINING and not model.in_flight:
            self._engines.stop(model, "drained")
        self._schedule()

    @staticmethod
    def _forget_dispatch(request: Request) -> None:
        model = request.model
        model.in_flight.pop(request.request_id, None)
        model.visitors.pop(request.request_id, None)

    def _is_bounce_final(self, request: Request) -> bool:
        """Refuse a request that bounced and must not, or cannot, be tried again."""
        model = request.model
        refuse = self.ledger.refuse
        if self.ledger.shutting_down:
            refuse(request, RejectKind.SHUTTING_DOWN, reasons.SHUTTING_DOWN)
        elif model.removed:
            refuse(request, RejectKind.MODEL_NOT_FOUND, reasons.not_found(model.name))
        elif request.aborted:
            refuse(request, RejectKind.MODEL_UNLOADED, f"Model '{model.name}' was unloaded")
        elif request.bounced or request.kind is RequestKind.VISITOR:
            text = f"The engine of model '{model.name}' ended before it answered"
            refuse(request, RejectKind.ENGINE_CRASHED, text)
        elif model.state is State.STUCK:
            refuse(request, RejectKind.MODEL_STUCK, reasons.stuck(model))
        elif model.is_given_up:
            retry_after_s = self._engines.retry_after(model)
            refuse(request, RejectKind.MODEL_FAILED, reasons.given_up(model), retry_after_s)
        else:
            return False
        return True

    def _reject(self, request_id: int, kind: RejectKind, reason: str) -> None:
        self.ledger.out.append(Reject(request_id, kind, reason))

    # Scheduling

    def _schedule(self) -> None:
        """Do what the policy says can be done now."""
        ledger = self.ledger
        # Each round but the last empties a queue, so there is an end to it.
        served = True
        while served and ledger.waiting:
            served = False
            for step in self.policy.plan(ledger.waiting.values(), ledger.running.values()):
                match step:
                    case Serve(model):
                        ledger.serve(model)
                        served = True
                    case Start(model):
                        self._engines.start(model)
                    case Stop(model, sake_of):
                        self._make_way(model, sake_of)

    def _then_schedule(self, handler: Callable[[Any], None]) -> Callable[[Any], None]:
        def handle(event: Event) -> None:
            handler(event)
            self._schedule()

        return handle

    def _make_way(self, model: Model, sake_of: Model) -> None:
        if model.state is State.STOPPING:
            return  # for another model that waits as well
        self._engines.stop(model, f"swap for {sake_of.name}")
        self.ledger.notify_waiters(sake_of, NoticeKind.UNLOADING, model)

    # Engines

    def _current(self, name: str, generation: int) -> Model | None:
        """Return the model whose present engine an event is about, if it still is that one."""
        model = self._models.get(name)
        return model if model is not None and model.generation == generation else None

    def _engine_spawned(self, event: EngineSpawned) -> None:
        """Nothing depends on it: a stop that was asked for before it holds after it as well."""

    def _spawn_failed(self, event: SpawnFailed) -> None:
        model = self._current(event.model, event.generation)
        if model is None:
            return
        if model.state is State.STARTING:
            self._engines.spawn_failed(model, event.reason)
            self._schedule()
        elif model.has_process:
            self._reap(model, event.reason)

    def _engine_progress(self, event: EngineProgress) -> None:
        model = self._current(event.model, event.generation)
        if model is not None and model.state is State.STARTING:
            self._engines.progressed(model, event.fraction)

    def _engine_ready(self, event: EngineReady) -> None:
        model = self._current(event.model, event.generation)
        if model is not None and model.state is State.STARTING:
            self._engines.ready(model)
            self._schedule()

    def _engine_exited(self, event: EngineExited) -> None:
        model = self._current(event.model, event.generation)
        if model is None or not model.has_process or model.state is State.STOPPING:
            return
        if model.state is State.STARTING and event.cause is ExitCause.ADDRESS_IN_USE:
            self._engines.lost_address(model, event.reason, exited=True)
        else:
            self._engines.exited(model, event.reason)
        self._schedule()

    def _engine_reaped(self, event: EngineReaped) -> None:
        model = self._current(event.model, event.generation)
        if model is not None and (model.has_process or model.state is State.STUCK):
            self._reap(model, "the process is gone")

    def _reap(self, model: Model, reason: str) -> None:
        if model.has_process and model.state is not State.STOPPING:
            self._engines.exited(model, reason)  # the report of its exit is late or lost
        self._engines.reaped(model, reason)
        self._schedule()
        self._operators.complete_shutdown()

    def _address_stolen(self, event: AddressStolen) -> None:
        model = self._current(event.model, event.generation)
        if model is not None and model.state is State.STARTING:
            reason = "another process answers on its address"
            self._engines.lost_address(model, reason, exited=False)
            self._schedule()

    def _timer_fired(self, event: TimerFired) -> None:
        timer = event.timer
        if self.ledger.timers.pop(timer, None) is None:
            return
        if timer.kind is TimerKind.SHUTDOWN_DEADLINE:
            self._operators.shutdown_deadline()
            return
        # A timer is cancelled when its model goes or leaves the state that it belongs to.
        self._timer_handlers[timer.kind](self._models[timer.model])
        self._schedule()
        self._operators.complete_shutdown()
