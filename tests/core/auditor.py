"""Reads the log of events and commands and checks what no single moment of the core can show."""

from llama_router.core.commands import (
    Abort,
    CancelTimer,
    Command,
    Dispatch,
    Emit,
    Kill,
    Notify,
    Reject,
    SetTimer,
    Settled,
    ShutdownComplete,
    Spawn,
    Terminate,
)
from llama_router.core.events import (
    Event,
    LoadRequested,
    RequestArrived,
    RequestBounced,
    RequestCancelled,
    RequestFinished,
    Timer,
    TimerFired,
    UnloadRequested,
)


class Auditor:
    """Give it every event with its commands, in order; it asserts."""

    def __init__(self) -> None:
        self.models: dict[int, str] = {}
        """Requests and tickets that have not ended, with their models."""
        self.visitors: dict[int, None] = {}
        self.dispatched: dict[int, int] = {}
        self.bounced: dict[int, None] = {}
        self.tickets: dict[int, None] = {}
        self.timers: dict[Timer, float] = {}
        self.states: dict[str, str] = {}
        self.generations: dict[str, int] = {}
        self.last_first_dispatch: dict[str, int] = {}
        self.spawns: list[str] = []
        self.rejects: list[Reject] = []
        self.completed = False

    def observe(self, event: Event, commands: list[Command]) -> None:
        self._take_in(event)
        for command in commands:
            self._check(command)

    def _take_in(self, event: Event) -> None:
        match event:
            case RequestArrived(request_id, model, may_load):
                self.models.setdefault(request_id, model)
                if not may_load:
                    self.visitors[request_id] = None
            case LoadRequested(request_id, model) | UnloadRequested(request_id, model):
                self.models.setdefault(request_id, model)
                self.tickets[request_id] = None
            case RequestCancelled(request_id):
                self._end(request_id)
            case RequestFinished(request_id) if request_id in self.dispatched:
                self._end(request_id)
            case RequestBounced(request_id) if request_id in self.dispatched:
                del self.dispatched[request_id]
                self.bounced[request_id] = None
            case TimerFired(timer):
                self.timers.pop(timer, None)
            case _:
                pass

    def _end(self, request_id: int) -> None:
        for book in (self.models, self.dispatched, self.tickets):
            book.pop(request_id, None)

    def _check(self, command: Command) -> None:  # noqa: PLR0912 - one case for each command
        if self.completed:
            late_reap = isinstance(command, Emit) and command.old == "stuck"
            assert late_reap or isinstance(command, Reject | Settled), command
        match command:
            case Spawn(model, generation):
                assert generation > max(self.generations.values(), default=0), command
                assert self.states[model] == "starting", command
                self.generations[model] = generation
                self.spawns.append(model)
            case Terminate(model, generation) | Kill(model, generation):
                assert self.generations[model] == generation, command
                assert self.states[model] == "stopping", command
            case Dispatch():
                self._check_dispatch(command)
            case Reject(request_id):
                assert request_id in self.models, f"a second outcome: {command}"
                assert request_id not in self.tickets, command
                assert request_id not in self.dispatched, command
                assert command.reason
                assert command.retry_after_s is None or command.retry_after_s >= 0
                self._end(request_id)
                self.rejects.append(command)
            case Settled(request_id, error, reason):
                assert request_id in self.tickets, f"a second outcome: {command}"
                assert (error is None) == (reason == ""), command
                self._end(request_id)
            case Abort(request_id):
                # Its engine is gone already when it was not reported as ended yet.
                assert request_id in self.dispatched, command
            case Notify(request_id):
                assert request_id in self.models, command
                assert request_id not in self.dispatched, command
            case SetTimer(timer, at):
                assert timer not in self.timers, f"set twice: {command}"
                self.timers[timer] = at
            case CancelTimer(timer):
                assert self.timers.pop(timer, None) is not None, f"not set: {command}"
            case Emit(model, old, new):
                assert self.states.get(model, "unloaded") == old, command
                self.states[model] = new
            case ShutdownComplete():
                assert not self.timers
                self.completed = True
            case _:
                raise AssertionError(command)

    def _check_dispatch(self, command: Dispatch) -> None:
        request_id, model, generation = command.request_id, command.model, command.generation
        assert self.models.get(request_id) == model, f"has ended or is not its model: {command}"
        assert request_id not in self.dispatched, f"twice: {command}"
        assert self.generations[model] == generation, f"not the present engine: {command}"
        allowed = ("ready", "draining") if request_id in self.visitors else ("ready",)
        assert self.states[model] in allowed, f"{self.states[model]}: {command}"
        if request_id not in self.visitors and request_id not in self.bounced:
            assert self.last_first_dispatch.get(model, 0) < request_id, f"overtakes: {command}"
            self.last_first_dispatch[model] = request_id
        self.dispatched[request_id] = generation
