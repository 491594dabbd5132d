"""The core's books: every record, the timers, the commands of the present step.

All changes of state go through :meth:`Ledger.move`, all timers through ``set_timer`` and
``cancel_timer``, all endings of waiters through ``refuse`` and ``settle``, so that the books cannot
contradict the commands. Everything that is iterated over is a dict or a list: the same events give
the same commands in the same order.
"""

from itertools import islice
from typing import Final

from llama_router.core.coexistence import coexistence_of
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
from llama_router.core.events import ModelSpec, Timer, TimerKind
from llama_router.core.line import Line
from llama_router.core.memory import Memory, add, lacks
from llama_router.core.model import Inspection, Model, Request, RequestKind
from llama_router.core.settings import CoreSettings
from llama_router.core.states import TRANSITIONS, WITH_PROCESS, State, Trigger
from llama_router.core.usage import Usage

TOLD_AT_ONCE: Final = 32
"""So many of a queue's first are told their new place in one step, the others when they get there.
"""


class Ledger:
    """Records of all models and requests; ``now`` and ``out`` belong to the present step.

    ``running`` and ``waiting`` are the models that have a process and those that have waiters.
    ``claims`` are the models that are started as soon as there is room, in this order, ``going``
    those that make room: chosen for a claim or closing for it, draining or stopping.
    ``inspections`` are the questions asked for claims, by model. ``usage`` knows how often each
    model is used. ``moved_on`` are the models whose queue has changed in this step although
    somebody in it wants to know.
    """

    def __init__(self, settings: CoreSettings | None = None) -> None:
        self.models: dict[str, Model] = {}
        self.settings = settings or CoreSettings()
        self.coexistence = coexistence_of(self.settings)
        self.memory = Memory(self.settings.budgets)
        self.running: dict[str, Model] = {}
        self.waiting: dict[str, Model] = {}
        self.claims: dict[str, Model] = {}
        self.going: dict[str, Model] = {}
        self.line = Line(self.waiting, self.claims)
        self.inspections: dict[str, Inspection] = {}
        self.last_inspection = 0
        self.usage = Usage(self.models)
        self.moved_on: dict[str, Model] = {}
        self.requests: dict[int, Request] = {}
        self.timers: dict[Timer, float] = {}
        self.now = 0.0
        self.out: list[Command] = []
        self.generation = 0
        self.dispatches = 0
        self.shutting_down = False
        self.shutdown_complete = False

    # Models and timers

    def set_settings(self, settings: CoreSettings) -> None:
        """Go by these limits and rules from now on; the budgets are memory's."""
        before, self.settings = self.settings.eviction_costs, settings
        self.coexistence = coexistence_of(settings)
        for name in {*before, *settings.eviction_costs}:
            if (model := self.models.get(name)) is not None:
                model.eviction_cost = settings.eviction_cost_of(name)

    def add(self, spec: ModelSpec) -> None:
        """Take in a model that is new."""
        model = Model(spec)
        model.eviction_cost = self.settings.eviction_cost_of(spec.name)
        self.models[spec.name] = model

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
            model.closing = model.chosen_for = ""
            model.address = model.spec.address
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

    def max_waiting(self, model: Model) -> int:
        """Return how many may wait for ``model``."""
        return model.spec.max_waiting or self.settings.max_waiting

    def room_at_last(self) -> tuple[dict[str, int], int]:
        """Return the memory and the number of places that those leave who have to stay."""
        free = self.memory.free()
        limit = self.settings.max_loaded
        places = limit - len(self.running) if limit else 1
        for model in self.running.values():
            if not model.spec.pinned or model.name in self.going:
                add(free, model.reserved)
                places += 1
        return free, places

    def min_residency_end(self, model: Model) -> float:
        """Return when a READY model may go for others."""
        own_s = model.spec.min_residency_s
        return model.ready_since + (self.settings.min_residency_s if own_s is None else own_s)

    def turn_end(self, model: Model) -> float:
        """Return until when a READY model that has to go serves those who waited already.

        A load is used for as long as it took, so that however many models are wanted at the same
        time, half of the time is not spent on loading; but nobody's bound is stretched by more than
        itself.
        """
        turn_s = min(model.load_cost_s, self.settings.max_wait_s)
        return max(self.min_residency_end(model), model.ready_since + turn_s)

    def forget(self, model: Model) -> None:
        """Drop a model that is not configured any more and has neither process nor waiters."""
        del self.models[model.name]

    def set_timer(self, kind: TimerKind, model: Model | None, delay_s: float) -> None:
        """Ask for a timer; ``model`` is None for the router's own."""
        self.set_timer_at(kind, model, self.now + delay_s)

    def set_timer_at(self, kind: TimerKind, model: Model | None, at: float) -> None:
        """Ask for a timer at a point in time."""
        timer = Timer(kind) if model is None else Timer(kind, model.name, model.generation)
        self.set_named_timer(timer, at)

    def set_named_timer(self, timer: Timer, at: float) -> None:
        """Ask for a timer that goes by neither the model nor its generation alone."""
        self.timers[timer] = at
        self.out.append(SetTimer(timer, at))

    def cancel_timer(self, kind: TimerKind, model: Model) -> None:
        """Cancel a timer if it is set."""
        self.cancel_named_timer(Timer(kind, model.name, model.generation))

    def cancel_named_timer(self, timer: Timer) -> None:
        """Cancel a timer if it is set."""
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

    def forget_inspection(self, name: str) -> None:
        """Drop the question about a model, answered or not."""
        inspection = self.inspections.pop(name, None)
        if inspection is not None:
            self.cancel_named_timer(Timer(TimerKind.INSPECTION, name, inspection.number))

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
        if request.kind is RequestKind.LOAD or not request.takes_slot:
            model.riders[request.request_id] = request
        if request.wants_notices:
            model.listeners += 1
        if model.listeners:
            self.moved_on[model.name] = model
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
        self._left_queue(request)
        if not model.waiting:
            self.nobody_waits_for(model)
        if model.held and not (model.waiting and model.waiting.head.bounced):
            self.release(model)
        return was_head

    def _left_queue(self, request: Request) -> None:
        model = request.model
        if model.riders:
            model.riders.pop(request.request_id, None)
        if model.listeners:
            model.listeners -= request.wants_notices
            self.moved_on[model.name] = model

    def nobody_waits_for(self, model: Model) -> None:
        """The queue of ``model`` has become empty."""
        if self.waiting.pop(model.name, None) is not None and self.settings.max_queue_s:
            self.cancel_named_timer(Timer(TimerKind.QUEUE_TIMEOUT, model.name))

    def set_queue_timer(self, model: Model) -> None:
        """Ask to be told when the oldest client has waited for too long. Operators may wait."""
        timer = Timer(TimerKind.QUEUE_TIMEOUT, model.name)
        if timer in self.timers:
            return
        for request in model.waiting:
            if request.kind is RequestKind.CLIENT:
                self.set_named_timer(timer, request.arrived_at + self.settings.max_queue_s)
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
            if not request.takes_slot:
                model.extras += 1
            self.dispatches = model.served = self.dispatches + 1
            self.usage.count(model, self.now)
            if request.keep_alive_s is not None:
                model.keep_alive_s = request.keep_alive_s
        self.out.append(Dispatch(request_id, model.spec.name, generation))

    def serve(self, model: Model, at_most: int | None = None) -> None:
        """Give those who wait for a ready model what they wait for, as far as it has capacity."""
        limit = model.capacity if at_most is None else min(at_most, model.capacity)
        if model.closing:
            limit = min(limit, model.turn)
            model.turn -= limit
        requests: list[Request] = []
        if model.riders and limit < len(model.waiting):
            requests = self._take_riders(model, tickets_only=model.closing or at_most is not None)
        requests += model.waiting.take(limit)
        if not model.waiting:
            self.nobody_waits_for(model)
        for request in requests:
            self._left_queue(request)
            if request.kind is RequestKind.LOAD:
                self.settle(request)
                continue
            self.notify(request, NoticeKind.READY, model)
            self.dispatch(request)

    @staticmethod
    def _take_riders(model: Model, *, tickets_only: object) -> list[Request]:
        """Take out of the queue of a ready model who needs no capacity."""
        riders = list(model.riders.values())
        if tickets_only:
            riders = [each for each in riders if each.kind is RequestKind.LOAD]
        for request in riders:
            model.waiting.remove(request)
        return riders

    def ended(self, request: Request) -> bool:
        """Take a request out of what its engine has in flight; return whether it was there."""
        model = request.model
        if model.in_flight.pop(request.request_id, None) is None:
            return False
        if not request.takes_slot:
            model.extras -= 1
        return True

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
        model.riders.clear()
        model.listeners = 0
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

    def tell_places(self) -> None:
        """Tell those near the head of a queue that has changed where they stand now.

        A newcomer behind them is told once how many there are. While its model is being loaded,
        that is what a queue waits for.
        """
        for model in self.moved_on.values():
            if not model.listeners or model.state is State.STARTING:
                continue
            for position, request in enumerate(islice(model.waiting.upcoming(), TOLD_AT_ONCE), 1):
                self._tell_place(request, position)
            newest = model.waiting.newest
            if not newest.position:
                self._tell_place(newest, len(model.waiting))
        self.moved_on.clear()

    def _tell_place(self, request: Request, position: int) -> None:
        if request.wants_notices and request.position != position:
            request.position = position
            notice = Notify(
                request.request_id, NoticeKind.QUEUED, request.model.name, position=position
            )
            self.out.append(notice)
