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
from llama_router.core.model import Model, Request, RequestKind
from llama_router.core.states import TRANSITIONS, WITH_PROCESS, State, Trigger


class Ledger:
    """Records of all models and requests; ``now`` and ``out`` belong to the present step.

    ``running`` and ``waiting`` are the models that have a process and those that have waiters.
    """

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.running: dict[str, Model] = {}
        self.waiting: dict[str, Model] = {}
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
        else:
            self.running.pop(model.name, None)
        self.out.append(Emit(model.name, old.value, new.value, reason))

    def forget(self, model: Model) -> None:
        """Drop a model that is not configured any more and has neither process nor waiters."""
        del self.models[model.name]

    def set_timer(self, kind: TimerKind, model: Model | None, delay_s: float) -> None:
        """Ask for a timer; ``model`` is None for the router's own."""
        timer = Timer(kind) if model is None else Timer(kind, model.name, model.generation)
        at = self.now + delay_s
        self.timers[timer] = at
        self.out.append(SetTimer(timer, at))

    def cancel_timer(self, kind: TimerKind, model: Model) -> None:
        """Cancel a timer if it is set."""
        timer = Timer(kind, model.name, model.generation)
        if self.timers.pop(timer, None) is not None:
            self.out.append(CancelTimer(timer))

    def cancel_all_timers(self) -> None:
        """Cancel whatever is set."""
        self.out.extend([CancelTimer(timer) for timer in self.timers])
        self.timers.clear()

    # Requests and tickets

    def enqueue(self, request: Request) -> bool:
        """Let ``request`` wait for its model; return whether it is the only one there."""
        model = request.model
        self.requests[request.request_id] = request
        if request.bounced:
            model.waiting.give_back(request)
        else:
            model.waiting.append(request)
        self.waiting[model.name] = model
        if model.state is State.STARTING:
            self.notify(request, NoticeKind.LOADING, model, model.fraction)
        return len(model.waiting) == 1

    def leave(self, request: Request) -> bool:
        """Take a waiter who left out of the queue; return whether anyone may profit from it."""
        model = request.model
        del self.requests[request.request_id]
        was_head = model.waiting.remove(request)
        if not model.waiting:
            del self.waiting[model.name]
        if model.held and not (model.waiting and model.waiting.head.bounced):
            self.release(model)
        return was_head

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
        self.out.append(Dispatch(request_id, model.spec.name, generation))

    def serve(self, model: Model) -> None:
        """Give all who wait for a ready model what they wait for."""
        self.waiting.pop(model.name, None)
        for request in model.waiting.take_all():
            if request.kind is RequestKind.LOAD:
                self.settle(request)
                continue
            self.notify(request, NoticeKind.READY, model)
            self.dispatch(request)

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
        self.waiting.pop(model.name, None)
        for request in model.waiting.take_all():
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
