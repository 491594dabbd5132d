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
from llama_router.core.commands import Command, Reject, RejectKind
from llama_router.core.engine_events import EngineEvents
from llama_router.core.events import (
    AddressStolen,
    BudgetsChanged,
    EngineExited,
    EngineProgress,
    EngineReady,
    EngineReaped,
    EngineSpawned,
    Event,
    FootprintMeasured,
    LoadRequested,
    ModelInspected,
    ModelsChanged,
    ModelsPatched,
    ModelSpec,
    RequestArrived,
    RequestBounced,
    RequestCancelled,
    RequestFinished,
    SettingsChanged,
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
from llama_router.core.policies.base import Claim, Policy, Refuse, Serve, Start, Stop, Wake
from llama_router.core.preview import Plan, preview
from llama_router.core.refusals import MAX_RETRY_AFTER_S, Refusals
from llama_router.core.settings import CoreSettings
from llama_router.core.states import State, Trigger
from llama_router.core.swaps import Swaps

BOUNCE_HOLD_S: Final = 1.0
"""How long an engine that gave no byte is suspected dead before it is believed alive again."""

PLAN_PAUSE_S: Final = 0.05
"""After a look at the waiters that found nothing to do, the end of a request alone causes another
one no sooner than this: small against any load, and it keeps a busy router from doing little else.
"""

# Global names and not attributes: these are read for every request.
_READY: Final = State.READY
_CLIENT: Final = RequestKind.CLIENT


class Core:
    """All models, all requests, and what is to happen next."""

    def __init__(
        self,
        models: Iterable[ModelSpec] = (),
        policy: Policy | None = None,
        settings: CoreSettings | None = None,
    ) -> None:
        self.policy: Final[Policy] = policy or ArrivalOrder()
        self.ledger: Final = Ledger(settings)
        """The books, to be read by invariants and tests and written by nobody else."""
        self._engines = Lifecycle(self.ledger, serves_load=self.policy.serves_load)
        self._refusals = Refusals(self.ledger, self._engines)
        self._operators = operators = Operators(self.ledger, self._engines)
        self._swaps = Swaps(self.ledger, self._engines)
        engine_events = EngineEvents(self.ledger, self._engines, operators, self._schedule)
        self._serves_at_once = self.policy.serves_at_once
        self._plan_after = 0.0
        self._models = self.ledger.models
        self._waiting = self.ledger.waiting
        self._requests = self.ledger.requests
        for spec in models:
            self.ledger.add(spec)
        self._handlers: Mapping[type[Event], Callable[[Any], None]] = {
            RequestArrived: self._request_arrived,
            RequestFinished: self._request_finished,
            RequestCancelled: self._request_cancelled,
            RequestBounced: self._request_bounced,
            EngineSpawned: engine_events.spawned,
            SpawnFailed: engine_events.spawn_failed,
            EngineProgress: engine_events.progress,
            EngineReady: engine_events.ready,
            EngineExited: engine_events.exited,
            EngineReaped: engine_events.reaped,
            AddressStolen: engine_events.address_stolen,
            ModelInspected: self._model_inspected,
            TimerFired: self._timer_fired,
            LoadRequested: self._then_schedule(operators.load_requested),
            UnloadRequested: self._then_schedule(operators.unload_requested),
            ModelsChanged: self._then_schedule(operators.models_changed, anew=True),
            ModelsPatched: self._then_schedule(operators.models_patched, anew=True),
            SettingsChanged: self._then_schedule(operators.settings_changed, anew=True),
            BudgetsChanged: self._then_schedule(operators.budgets_changed, anew=True),
            FootprintMeasured: self._then_schedule(operators.footprint_measured, anew=True),
            ShutdownRequested: self._then_schedule(operators.shutdown_requested, anew=True),
            ShutdownForced: self._then_schedule(operators.shutdown_forced, anew=True),
        }
        self._timer_handlers: Mapping[TimerKind, Callable[[Model], None]] = MappingProxyType(
            {
                TimerKind.READY_TIMEOUT: self._engines.timed_out,
                TimerKind.STOP_GRACE: lambda model: self._engines.kill(model, "did not end"),
                TimerKind.REAP_DEADLINE: self._stuck,
                TimerKind.DRAIN_DEADLINE: lambda model: self._engines.cut(
                    model, "It had to end for the model to be unloaded"
                ),
                TimerKind.BACKOFF: lambda model: self.ledger.move(
                    model, Trigger.COOLED, "the back-off is over"
                ),
                TimerKind.BOUNCE: self._believe,
                TimerKind.TTL: self._engines.ttl_over,
                TimerKind.QUEUE_TIMEOUT: self._queue_timed_out,
                TimerKind.INSPECTION: self._swaps.inspected,
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
        if ledger.moved_on:
            ledger.tell_places()
        return out

    # Views

    def view(self, model: str) -> ModelView:
        """Return how ``model`` is doing. Raises KeyError for an unknown one."""
        return view_of(self._models[model])

    def root_target(self) -> str | None:
        """Return the model that root endpoints speak of, if any.

        That is the ready one dispatched to last; if none ever was, the ready one started last.
        """
        ready = [model for model in self.ledger.running.values() if model.state is _READY]
        if not ready:
            return None
        return max(ready, key=lambda model: (model.served, model.generation)).name

    def plan(self, model: str, now: float) -> Plan:
        """Return what a request for ``model`` would cause at ``now``. Changes nothing.

        Raises KeyError for an unknown model.
        """
        return preview(self.ledger, self._models[model], now)

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
            and event.may_load
            # Whoever waits may be older and want another model.
            and (not (waiting := self._waiting) or (self._serves_at_once and not model.closing))
            and event.model not in waiting
            and (
                not (limit := model.spec.max_in_flight)
                or len(model.in_flight) - model.extras < limit
            )
        ):
            self.ledger.dispatch(self._request_of(event, model))
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
        request = self._request_of(event, model)
        if model.is_set_back and self._refusals.by_history(request):
            return
        if model.state is State.STUCK:
            self.ledger.refuse(request, RejectKind.MODEL_STUCK, reasons.stuck(model))
            return
        if not event.takes_slot and self._is_served_beside(model):
            self.ledger.dispatch(request)
            return
        if self._refusals.for_want_of_room(request):
            return
        rank = model.waiting.rank if model.waiting else None
        if self.ledger.enqueue(request) or (rank is not None and request.rank > rank):
            self._schedule()

    def _request_of(self, event: RequestArrived, model: Model) -> Request:
        return Request(
            event.request_id,
            model,
            _CLIENT,
            event.wants_notices,
            self.ledger.now,
            event.key,
            2 * event.priority + (not event.is_batch),
            event.keep_alive_s,
            event.takes_slot,
        )

    def _is_served_beside(self, model: Model) -> bool:
        """Return whether a newcomer that takes no slot is served, whoever waits for one."""
        if model.state is not _READY or model.held or model.closing:
            return False
        others = len(self._waiting) - (model.name in self._waiting)
        return self._serves_at_once or not others

    def _visitor_arrived(self, request_id: int, model: Model) -> None:
        if model.state in (State.READY, State.DRAINING):
            self.ledger.dispatch(Request(request_id, model, RequestKind.VISITOR))
        else:
            text = f"Model '{model.name}' is not loaded, and this request does not load it"
            self._reject(request_id, RejectKind.MODEL_NOT_LOADED, text)

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
            self._serve_at_once(request.model)
            self._schedule()

    def _left_engine(self, request: Request) -> None:
        model = request.model
        if not self.ledger.ended(request):
            model.visitors.pop(request.request_id, None)
            return
        if not model.in_flight:
            model.idle_since = self.ledger.now
            if model.state is State.DRAINING:
                self._engines.stop(model, "drained")
                return
            if model.spec.ttl_s is not None or model.keep_alive_s is not None:
                self._engines.watch_idle(model)
        if self._waiting:
            self._slot_freed(model)

    def _slot_freed(self, model: Model) -> None:
        """Let somebody profit from it that a request of ``model`` has ended."""
        ledger = self.ledger
        if not self._serves_at_once:
            if not model.in_flight or model.waiting:
                self._schedule()
            return
        self._serve_at_once(model)
        if model.in_flight:
            return
        if model.closing:
            self._schedule()
        elif not model.spec.pinned and ledger.line:
            # It may go from now on.
            at = max(self._plan_after, ledger.min_residency_end(model))
            if at <= ledger.now:
                self._schedule()
            else:
                ledger.set_switch_timer(at)

    def _serve_at_once(self, model: Model) -> None:
        """Serve who waits for a ready model, as far as policy and capacity allow."""
        if not self._serves_at_once or model.state is not _READY:
            return
        if model.waiting and not model.held and not (model.closing and not model.turn):
            self.ledger.serve(model)

    def _request_bounced(self, event: RequestBounced) -> None:
        request = self._requests.get(event.request_id)
        if request is None or not request.generation:
            return
        model, generation = request.model, request.generation
        if not self._refusals.after_bounce(request):
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
        self._serve_at_once(model)
        self._schedule()

    def _forget_dispatch(self, request: Request) -> None:
        model = request.model
        model.visitors.pop(request.request_id, None)
        if self.ledger.ended(request) and not model.in_flight:
            model.idle_since = self.ledger.now
            self._engines.watch_idle(model)

    def _reject(self, request_id: int, kind: RejectKind, reason: str) -> None:
        self.ledger.out.append(Reject(request_id, kind, reason))

    # Scheduling

    def _schedule(self) -> None:
        """Do what the policy says can be done now."""
        ledger = self.ledger
        self._swaps.advance()
        # Each round but the last empties a queue or starts or claims something: there is an end.
        changed = True
        while changed and ledger.waiting:
            changed = False
            for step in self.policy.plan(ledger):
                match step:
                    case Serve(model, limit):
                        ledger.serve(model, limit)
                    case Start(model):
                        self._engines.start(model)
                    case Claim():
                        self._swaps.claim(step)
                    case Refuse(model, kind, reason):
                        ledger.refuse_waiters(model, kind, reason, MAX_RETRY_AFTER_S)
                    case Stop(model, sake_of):
                        self._swaps.make_way(model, sake_of)
                        continue
                    case Wake(at):
                        ledger.set_switch_timer(at)
                        continue
                changed = True
            changed = self._swaps.advance() or changed
        self._swaps.end_look()
        self._plan_after = ledger.now + PLAN_PAUSE_S

    def _then_schedule(
        self, handler: Callable[[Any], None], *, anew: bool = False
    ) -> Callable[[Any], None]:
        def handle(event: Event) -> None:
            handler(event)
            if anew:
                self._weigh_anew()
            else:
                self._schedule()

        return handle

    def _weigh_anew(self) -> None:
        """Decide as if nothing had been: sizes, limits or who there is have changed."""
        self._swaps.abandon()
        self._schedule()
        for model in list(self._waiting.values()):
            self._serve_at_once(model)

    def _believe(self, model: Model) -> None:
        """After a bounce, the engine has not ended: it gets requests again."""
        self.ledger.release(model)
        self._serve_at_once(model)

    def _stuck(self, model: Model) -> None:
        self._engines.overdue(model)
        self._swaps.abandon()  # what it holds is not going to be free soon

    def _queue_timed_out(self, model: Model) -> None:
        self._refusals.for_waiting_too_long(model)
        if model.waiting:
            self.ledger.set_queue_timer(model)
            self._serve_at_once(model)

    def _model_inspected(self, event: ModelInspected) -> None:
        model = self._swaps.inspections.answered(event)
        if model is None:
            return
        if event.problem:
            self._engines.inspection_failed(model, event.problem)
        else:
            self._swaps.inspected(model)
        self._schedule()

    def _timer_fired(self, event: TimerFired) -> None:
        timer = event.timer
        if self.ledger.timers.pop(timer, None) is None:
            return
        if timer.kind is TimerKind.SHUTDOWN_DEADLINE:
            self._operators.shutdown_deadline()
            return
        if timer.kind is TimerKind.SWITCH:
            self._schedule()
            return
        # A timer is cancelled when its model goes or leaves the state that it belongs to.
        self._timer_handlers[timer.kind](self._models[timer.model])
        self._schedule()
        self._operators.complete_shutdown()
