"""Reads the log of events and commands and checks what no single moment of the core can show.

It keeps books of its own and believes the core nothing: one outcome for each request, no engine
beyond the memory there is, timers that are fired or cancelled, generations that grow.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

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
    BudgetsChanged,
    DeviceBytes,
    EngineReady,
    EngineReaped,
    Event,
    FootprintMeasured,
    LoadRequested,
    ModelsChanged,
    ModelSpec,
    RequestArrived,
    RequestBounced,
    RequestCancelled,
    RequestFinished,
    SpawnFailed,
    Timer,
    TimerFired,
    UnloadRequested,
)
from llama_router.core.invariants import InvariantViolation

_Bytes = dict[str, int]


def _bytes(memory: Iterable[DeviceBytes]) -> _Bytes:
    return {part.device: part.size_bytes for part in memory}


class Auditor:
    """Give it every event with its commands, in order; it raises InvariantViolation."""

    def __init__(
        self, models: Iterable[ModelSpec] = (), budgets: Sequence[DeviceBytes] = ()
    ) -> None:
        self.open: dict[int, str] = {}
        """Requests and tickets that have had no outcome, with their models."""
        self.dispatched: dict[int, int] = {}
        """Of these, the ones that an engine has, with its generation."""
        self.alive: dict[int, str] = {}
        """Generations that were spawned and not yet reaped, with their models."""
        self.timers: dict[Timer, float] = {}
        self.outcomes: Counter[str] = Counter()
        self.completed = False
        self._visitors: set[int] = set()
        self._tickets: set[int] = set()
        self._aborted: set[int] = set()
        self._ready: set[int] = set()
        self._stopping: set[int] = set()
        self._states: dict[str, str] = {}
        self._last_generation = 0
        self._fired: Timer | None = None
        self._now = 0.0
        self._budgets = budgets
        self._needs: dict[str, _Bytes] = {}
        self._held: dict[int, _Bytes] = {}
        """What each living engine holds at least, by generation."""
        for spec in models:
            self._needs[spec.name] = _bytes(spec.memory)

    def observe(self, event: Event, commands: Sequence[Command], now: float = 0.0) -> None:
        """Take in one step of the core, at ``now``. Raises InvariantViolation."""
        self._now = now
        self._fired = None
        self._take_in(event)
        for command in commands:
            self._check(command)

    def _require(self, holds: object, rule: str, about: object) -> None:
        if not holds:
            raise InvariantViolation(f"{rule}: {about}")

    def _take_in(self, event: Event) -> None:
        match event:
            case RequestArrived(request_id, model, may_load):
                self.open.setdefault(request_id, model)
                if not may_load:
                    self._visitors.add(request_id)
            case LoadRequested(request_id, model) | UnloadRequested(request_id, model):
                self.open.setdefault(request_id, model)
                self._tickets.add(request_id)
            case RequestCancelled(request_id):
                self._end(request_id, "cancelled")
            case RequestFinished(request_id) if request_id in self.dispatched:
                self._end(request_id, "finished")
            case RequestBounced(request_id) if request_id in self.dispatched:
                del self.dispatched[request_id]
            case TimerFired(timer):
                self.timers.pop(timer, None)
                self._fired = timer
            case EngineReady() | EngineReaped() | SpawnFailed():
                if self.alive.get(event.generation) == event.model:
                    self._take_in_engine(event)
            case _:
                self._take_in_memory(event)

    def _take_in_engine(self, event: EngineReady | EngineReaped | SpawnFailed) -> None:
        generation = event.generation
        if not isinstance(event, EngineReady):
            del self.alive[generation]
            self._held.pop(generation, None)
            self._ready.discard(generation)
        elif generation not in self._stopping:
            self._ready.add(generation)

    def _take_in_memory(self, event: Event) -> None:
        match event:
            case BudgetsChanged(budgets):
                self._budgets = budgets
            case ModelsChanged(models):
                for spec in models:
                    self._lower(spec.name, _bytes(spec.memory))
            case FootprintMeasured(model, memory) if memory:
                self._lower(model, _bytes(memory))
            case _:
                pass

    def _lower(self, model: str, needs: _Bytes) -> None:
        """Note another figure for ``model``: which one the core goes by is its affair."""
        known = self._needs.get(model, needs)
        least = {device: min(size, needs.get(device, 0)) for device, size in known.items()}
        self._needs[model] = least
        for generation, name in self.alive.items():
            if name == model:
                self._held[generation] = least

    def _end(self, request_id: int, outcome: str) -> None:
        if self.open.pop(request_id, None) is not None:
            self.outcomes[outcome] += 1
        self.dispatched.pop(request_id, None)

    def _check(self, command: Command) -> None:
        match command:
            case Spawn(model, generation):
                self._check_spawn(model, generation)
            case Terminate(model, generation) | Kill(model, generation):
                self._require(self.alive.get(generation, model) == model, "ends its own", command)
                self._stopping.add(generation)
                self._ready.discard(generation)
            case Dispatch():
                self._check_dispatch(command)
            case Reject() | Settled() | Notify() | Abort():
                self._check_answer(command)
            case SetTimer(timer, at):
                self._require(timer not in self.timers, "no timer is set twice", command)
                later = timer != self._fired or at > self._now
                self._require(later, "a timer that fired is set for later", command)
                self.timers[timer] = at
            case CancelTimer(timer):
                known = self.timers.pop(timer, None) is not None
                self._require(known, "only a set timer is cancelled", command)
            case Emit(model, old, new):
                known_state = self._states.get(model, "unloaded")
                self._require(known_state == old, "states follow one another", command)
                self._states[model] = new
            case ShutdownComplete():
                self._require(not self.timers, "the end has no timers", command)
                self._require(not self.completed, "there is one end", command)
                self.completed = True
            case _:
                pass

    def _check_spawn(self, model: str, generation: int) -> None:
        about = (model, generation)
        self._require(not self.completed, "nothing starts after the end", about)
        self._require(generation > self._last_generation, "generations grow", about)
        self._require(self._states.get(model) == "starting", "who is spawned is starting", about)
        twin = [
            other
            for other, name in self.alive.items()
            if name == model and self._states.get(model) != "stuck"
        ]
        self._require(not twin, "a model has one engine", (about, twin))
        self._last_generation = generation
        self.alive[generation] = model
        self._held[generation] = self._needs.get(model, {})
        for budget in self._budgets:
            held = sum(held.get(budget.device, 0) for held in self._held.values())
            self._require(
                held <= budget.size_bytes or not self._held[generation].get(budget.device),
                f"nothing starts without room on {budget.device}",
                (about, held, budget.size_bytes),
            )

    def _check_dispatch(self, command: Dispatch) -> None:
        request_id, model, generation = command.request_id, command.model, command.generation
        self._require(self.open.get(request_id) == model, "has ended or another model", command)
        self._require(request_id not in self.dispatched, "is dispatched once", command)
        self._require(request_id not in self._tickets, "tickets need no engine", command)
        self._require(self.alive.get(generation) == model, "its engine is alive", command)
        self._require(generation in self._ready, "its engine is ready", command)
        allowed = ("ready", "draining") if request_id in self._visitors else ("ready",)
        self._require(self._states.get(model) in allowed, "its model is ready", command)
        self.dispatched[request_id] = generation

    def _check_answer(self, command: Reject | Settled | Notify | Abort) -> None:
        request_id = command.request_id
        is_open, is_dispatched = request_id in self.open, request_id in self.dispatched
        match command:
            case Reject():
                self._require(is_open, "a request has one outcome", command)
                self._require(request_id not in self._tickets, "tickets are settled", command)
                self._require(not is_dispatched, "who has an engine is not refused", command)
                self._require(command.reason, "a refusal has its reason", command)
                self._end(request_id, command.kind.value)
            case Settled():
                self._require(is_open, "a ticket has one outcome", command)
                self._require(request_id in self._tickets, "only tickets are settled", command)
                self._end(request_id, "settled")
            case Notify():
                self._require(is_open and not is_dispatched, "who waits is notified", command)
            case Abort():
                self._require(is_dispatched, "only who has an engine is cut", command)
                self._require(request_id not in self._aborted, "is cut once", command)
                self._aborted.add(request_id)
