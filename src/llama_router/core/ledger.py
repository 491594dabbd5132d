"""The core's books: every record, the timers, the commands of the present step.

All changes of state go through :meth:`Ledger.move`, all timers through ``set_timer`` and
``cancel_timer``, all endings of waiters through ``refuse`` and ``settle``, so that the books cannot
contradict the commands. Everything that is iterated over is a dict or a list: the same events give
the same commands in the same order.
"""

from llama_router.core.commands import (
    CancelTimer,
    Command,
    Dispatch,
    Emit,
    NoticeKind,
    Notify,
    Reject,
    RejectKind,
    SetTimer,
    Settled,
)
from llama_router.core.events import Timer, TimerKind
from llama_router.core.line import Line
from llama_router.core.memory import Memory, lacks
from llama_router.core.model import Model, Request, RequestKind
from llama_router.core.settings import CoreSettings
from llama_router.core.states import TRANSITIONS, WITH_PROCESS, State, Trigger


class Ledger:
    """Records of all models and requests; ``now`` and ``out`` belong to the present step.

    ``running`` and ``waiting`` are the models that have a process and those that have waiters.
    ``claims`` are the models that are started as soon as there is room, in this order, ``going``
    those that make room: closing for a claim, draining or stopping. ``inflation`` is the loss of
    the costliest eviction so far, which lets what was not used since then grow old.
    """

    def __init__(self, settings: CoreSettings | None = None) -> None:
        self.settings = settings or CoreSettings()
        self.memory = Memory(self.settings.budgets)
        self.models: dict[str, Model] = {}
        self.running: dict[str, Model] = {}
        self.waiting: dict[str, Model] = {}
        self.claims: dict[str, Model] = {}
        self.going: dict[str, Model] = {}
        self.line = Line(self.waiting, self.claims)
        self.inflation = 0.0
        self.requests: dict[int, Request] = {}
        self.timers: dict[Timer, float] = {}
        self.now = 0.0
        self.out: list[Command] = []
        self.generation = 0
        self.dispatches = 0
        self.shutting_down = False
        self.shutdown_complete = False

    # Models and timers

    def move(self, model: Model, trigger: Trigger, reason: str) -> None:
        """Take the engine of ``model`` to its next state; a wrong trigger is a bug (KeyError)."""
        old = model.state
        new = TRANSITIONS[old, trigger]
        model.state = new
        if new in WITH_PROCESS:
            self.running[model.name] = model
            if new is State.STARTING:
                self.memory.reserve(model)
            elif new is not State.READY:
                self.going[model.name] = model
        else:
            self.running.pop(model.name, None)
            self.going.pop(model.name, None)
            model.closing = ""
            if new is not State.STUCK:
                self.memory.release(model)
            if new is State.UNLOADED and model.waiting:
                self.line.add(model)
        self.out.append(Emit(model.name, old.value, new.value, reason))

    def has_room_for(self, model: Model) -> bool:
        """Return whether the engine of ``model`` could be started as far as memory goes."""
        limit = self.settings.max_loaded
        if limit and len(self.running) >= limit:
            return False
        return not lacks(self.memory.free(), model.memory)

    def min_residency_end(self, model: Model) -> float:
        """Return when a READY model may go for others."""
        own_s = model.spec.min_residency_s
        return model.ready_since + (self.settings.min_residency_s if own_s is None else own_s)

    def forget(self, model: Model) -> None:
        """Drop a model that is not configured any more and has neither process nor waiters."""
        del self.models[model.name]

    def set_timer(self, kind: TimerKind, model: Model | None, delay_s: float) -> None:
        """Ask for a timer; ``model`` is None for the router's own."""
        self.set_timer_at(kind, model, self.now + delay_s)

    def set_timer_at(self, kind: TimerKind, model: Model | None, at: float) -> None:
        """Ask for a timer at a point in time."""
        timer = Timer(kind) if model is None else Timer(kind, model.name, model.generation)
        self.timers[timer] = at
        self.out.append(SetTimer(timer, at))

    def cancel_timer(self, kind: TimerKind, model: Model) -> None:
        """Cancel a timer if it is set."""
        timer = Timer(kind, model.name, model.generation)
        if self.timers.pop(timer, None) is not None:
            self.out.append(CancelTimer(timer))

    def set_switch_timer(self, at: float) -> None:
        """Look at the waiters again at ``at``, or before."""
        timer = Timer(TimerKind.SWITCH)
        set_at = self.timers.get(timer)
        if set_at is not None:
            if set_at <= at:
                return
            self.out.append(CancelTimer(timer))
        self.timers[timer] = at
        self.out.append(SetTimer(timer, at))

    def cancel_all_timers(self) -> None:
        """Cancel whatever is set."""
        self.out.extend([CancelTimer(timer) for timer in self.timers])
        self.timers.clear()

    # Requests and tickets

    def enqueue(self, request: Request) -> bool:
        """Let ``request`` wait for its model; return whether it is the only one there."""
        model = request.model
        self.requests[request.request_id] = request
        queue = model.waiting
        may_advance = request.bounced or not queue or request.rank > queue.rank
        if request.bounced:
            queue.give_back(request)
        else:
            queue.append(request)
        self.waiting[model.name] = model
        if may_advance and model.state is State.UNLOADED:
            self.line.add(model)
        if self.settings.max_queue_s:
            self.set_queue_timer(model)
        if model.state is State.STARTING:
            self.notify(request, NoticeKind.LOADING, model, model.fraction)
        return len(model.waiting) == 1

    def leave(self, request: Request) -> bool:
        """Take a waiter who left out of the queue; return whether anyone may profit from it."""
        model = request.model
        del self.requests[request.request_id]
        was_head = model.waiting.remove(request)
        if not model.waiting:
            self.nobody_waits_for(model)
        if model.held and not (model.waiting and model.waiting.head.bounced):
            self.release(model)
        return was_head

    def nobody_waits_for(self, model: Model) -> None:
        """The queue of ``model`` has become empty."""
        if self.waiting.pop(model.name, None) is not None and self.settings.max_queue_s:
            timer = Timer(TimerKind.QUEUE_TIMEOUT, model.name)
            if self.timers.pop(timer, None) is not None:
                self.out.append(CancelTimer(timer))

    def set_queue_timer(self, model: Model) -> None:
        """Ask to be told when the oldest client has waited for too long. Operators may wait."""
        timer = Timer(TimerKind.QUEUE_TIMEOUT, model.name)
        if timer in self.timers:
            return
        for request in model.waiting:
            if request.kind is RequestKind.CLIENT:
                at = request.arrived_at + self.settings.max_queue_s
                self.timers[timer] = at
                self.out.append(SetTimer(timer, at))
                return

    def release(self, model: Model) -> None:
        """End the hold after a bounce."""
        model.held = False
        self.cancel_timer(TimerKind.BOUNCE, model)

    def dispatch(self, request: Request) -> None:
        """Send ``request`` to the engine of its model."""
        model = request.model
        request.generation = generation = model.generation
        request_id = request.request_id
        self.requests[request_id] = request
        if request.kind is RequestKind.VISITOR:
            model.visitors[request_id] = request
        else:
            model.in_flight[request_id] = request
            self.dispatches = model.served = self.dispatches + 1
            model.uses += 1.0
            model.inflation = self.inflation
            if request.keep_alive_s is not None:
                model.keep_alive_s = request.keep_alive_s
        self.out.append(Dispatch(request_id, model.spec.name, generation))

    def serve(self, model: Model, at_most: int | None = None) -> None:
        """Give those who wait for a ready model what they wait for, as far as it has capacity."""
        limit = model.capacity if at_most is None else min(at_most, model.capacity)
        if model.closing:
            limit = min(limit, model.turn)
            model.turn -= limit
        if limit < len(model.waiting):
            self._settle_loads(model)
        requests = model.waiting.take(limit)
        if not model.waiting:
            self.nobody_waits_for(model)
        for request in requests:
            if request.kind is RequestKind.LOAD:
                self.settle(request)
                continue
            self.notify(request, NoticeKind.READY, model)
            self.dispatch(request)

    def _settle_loads(self, model: Model) -> None:
        """Settle the tickets in the queue of a ready model: they need no capacity."""
        for request in [each for each in model.waiting if each.kind is RequestKind.LOAD]:
            model.waiting.remove(request)
            self.settle(request)

    def refuse(
        self, request: Request, kind: RejectKind, reason: str, retry_after_s: float | None = None
    ) -> None:
        """End a request or ticket that is in no queue (any more) without an engine."""
        if request.kind in (RequestKind.LOAD, RequestKind.UNLOAD):
            self.settle(request, kind, reason)
            return
        self.requests.pop(request.request_id, None)
        self.out.append(Reject(request.request_id, kind, reason, retry_after_s))

    def refuse_waiters(
        self, model: Model, kind: RejectKind, reason: str, retry_after_s: float | None = None
    ) -> None:
        """End all who wait for ``model`` without an engine."""
        requests = model.waiting.take()
        self.nobody_waits_for(model)
        for request in requests:
            self.refuse(request, kind, reason, retry_after_s)

    def settle(self, request: Request, error: RejectKind | None = None, reason: str = "") -> None:
        """End an operator's ticket."""
        self.requests.pop(request.request_id, None)
        self.out.append(Settled(request.request_id, error, reason))

    def settle_unloads(
        self, model: Model, error: RejectKind | None = None, reason: str = ""
    ) -> None:
        """End all who wait for the engine of ``model`` to be gone."""
        tickets, model.unloads = model.unloads, {}
        for ticket in tickets.values():
            self.settle(ticket, error, reason)

    def notify(
        self, request: Request, kind: NoticeKind, about: Model, fraction: float | None = None
    ) -> None:
        """Tell one waiter how its load is going, if it wants to know."""
        if request.wants_notices:
            self.out.append(Notify(request.request_id, kind, about.name, fraction))

    def notify_waiters(
        self, model: Model, kind: NoticeKind, about: Model, fraction: float | None = None
    ) -> None:
        """Tell all who wait for ``model``."""
        for request in model.waiting:
            self.notify(request, kind, about, fraction)
