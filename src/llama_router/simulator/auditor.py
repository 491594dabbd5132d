"""Reads the log of events and commands and checks what no single moment of the core can show.

It keeps books of its own and believes the core nothing: one outcome for each request, each in its
turn, no engine beyond the memory there is or started again and again, timers that are fired or
cancelled, generations that grow.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from llama_router.core.commands import (
    Abort,
    CancelTimer,
    Command,
    Dispatch,
    Emit,
    Inspect,
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
    AddressStolen,
    BudgetsChanged,
    DeviceBytes,
    EngineExited,
    EngineReady,
    EngineReaped,
    Event,
    ExitCause,
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
    SpawnFailed,
    Timer,
    TimerFired,
    TimerKind,
    UnloadRequested,
)
from llama_router.core.invariants import InvariantViolation
from llama_router.core.settings import CoreSettings
from llama_router.simulator.neighbours import Neighbours
from llama_router.simulator.restarts import Restarts

_Bytes = dict[str, int]
_Lane = tuple[str, str, int, bool]
"""Among the requests of one model, key, priority and class, the first come are first served."""


def _bytes(memory: Iterable[DeviceBytes]) -> _Bytes:
    return {part.device: part.size_bytes for part in memory}


class Auditor:
    """Give it every event with its commands, in order; it raises InvariantViolation."""

    def __init__(
        self,
        models: Sequence[ModelSpec] = (),
        budgets: Sequence[DeviceBytes] = (),
        settings: CoreSettings | None = None,
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
        self._lanes: dict[_Lane, dict[int, None]] = {}
        self._lane_of: dict[int, _Lane] = {}
        self._restarts = Restarts()
        self._neighbours = Neighbours(models, settings)
        self._fingerprints = {spec.name: spec.fingerprint for spec in models}
        self._inspected: set[str] = set()
        """Models that could be started when that was asked last, which was after their last start.
        """
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
            case RequestArrived():
                self._take_in_arrival(event)
            case LoadRequested(request_id, model) | UnloadRequested(request_id, model):
                self.open.setdefault(request_id, model)
                self._tickets.add(request_id)
                self._restarts.forget(model)
            case RequestCancelled(request_id):
                self._end(request_id, "cancelled")
            case RequestFinished(request_id) if request_id in self.dispatched:
                self._end(request_id, "finished")
            case RequestBounced(request_id) if request_id in self.dispatched:
                del self.dispatched[request_id]
            case TimerFired(timer):
                self._take_in_timer(timer)
            case ModelInspected():
                self._take_in_inspection(event)
            case EngineReady() | EngineReaped() | SpawnFailed() | EngineExited() | AddressStolen():
                if self.alive.get(event.generation) == event.model:
                    self._take_in_engine(event)
            case _:
                self._take_in_memory(event)

    def _take_in_timer(self, timer: Timer) -> None:
        is_set = self.timers.pop(timer, None) is not None
        self._fired = timer
        if is_set and timer.kind is TimerKind.READY_TIMEOUT:
            self._take_in_end(timer.model, timer.generation)
        if is_set and timer.kind is TimerKind.INSPECTION:
            self._inspected.add(timer.model)

    def _take_in_inspection(self, event: ModelInspected) -> None:
        model = event.model
        if Timer(TimerKind.INSPECTION, model, event.inspection) not in self.timers:
            return  # there is one as long as the answer is waited for
        if event.problem:
            self._restarts.crashed(model, self._now)
        else:
            self._inspected.add(model)

    def _take_in_arrival(self, event: RequestArrived) -> None:
        request_id = event.request_id
        self.open.setdefault(request_id, event.model)
        if not event.may_load:
            self._visitors.add(request_id)
        elif event.takes_slot:
            lane = (event.model, event.key, event.priority, event.is_batch)
            self._lane_of[request_id] = lane
            self._lanes.setdefault(lane, {})[request_id] = None

    def _take_in_engine(
        self, event: EngineReady | EngineReaped | SpawnFailed | EngineExited | AddressStolen
    ) -> None:
        model, generation = event.model, event.generation
        match event:
            case EngineReady():
                if generation not in self._stopping:
                    self._ready.add(generation)
                    self._restarts.became_ready(model)
            case EngineExited(cause=cause):
                lost = cause is ExitCause.ADDRESS_IN_USE and generation not in self._ready
                self._take_in_end(model, generation, has_lost_address=lost)
            case AddressStolen():
                if generation not in self._ready:
                    self._take_in_end(model, generation, has_lost_address=True)
            case _:
                # Reaped before anybody heard that it had exited.
                self._take_in_end(model, generation)
                del self.alive[generation]
                self._held.pop(generation, None)
                self._ready.discard(generation)

    def _take_in_end(self, model: str, generation: int, *, has_lost_address: bool = False) -> None:
        """Note that an engine ended, or failed to get ready, if it was not told to end before."""
        if generation in self._stopping or self._states.get(model) == "stuck":
            return
        self._stopping.add(generation)
        self._ready.discard(generation)
        if has_lost_address:
            self._restarts.lost_address(model, self._now)
        else:
            self._restarts.crashed(model, self._now)

    def _take_in_memory(self, event: Event) -> None:
        match event:
            case BudgetsChanged(budgets):
                self._budgets = budgets
            case ModelsChanged(models):
                self._take_in_models(models, {spec.name: spec.fingerprint for spec in models})
            case ModelsPatched(models, removed):
                kept = self._fingerprints.items()
                known = {name: text for name, text in kept if name not in removed}
                known |= {spec.name: spec.fingerprint for spec in models}
                self._take_in_models(models, known)
            case SettingsChanged(settings):
                self._neighbours.changed(settings)
            case FootprintMeasured(model, memory) if memory:
                self._lower(model, _bytes(memory))
            case _:
                pass

    def _take_in_models(self, models: Sequence[ModelSpec], known: dict[str, str]) -> None:
        """Note that these are new or changed, and that ``known`` are all of them."""
        self._neighbours.configured(models)
        for spec in models:
            self._lower(spec.name, _bytes(spec.memory))
        for name in self._fingerprints | known:
            if known.get(name) != self._fingerprints.get(name):
                self._restarts.forget(name)
        self._fingerprints = known

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
        lane = self._lane_of.pop(request_id, None)
        if lane is not None:
            del self._lanes[lane][request_id]
            if not self._lanes[lane]:
                del self._lanes[lane]

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
            case Inspect(model):
                self._inspected.discard(model)
            case Emit():
                self._check_transition(command)
            case ShutdownComplete():
                self._require(not self.timers, "the end has no timers", command)
                self._require(not self.completed, "there is one end", command)
                self.completed = True
            case _:
                pass

    def _check_transition(self, command: Emit) -> None:
        known_state = self._states.get(command.model, "unloaded")
        self._require(known_state == command.old, "states follow one another", command)
        self._states[command.model] = command.new
        if command.reason.startswith("swap for "):
            sake_of = command.reason.removeprefix("swap for ").partition(":")[0]
            is_known = sake_of in self._inspected
            self._require(is_known, "nobody goes for a model that was not inspected", command)

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
        why_not = self._restarts.why_not(model, self._now)
        self._require(not why_not, why_not, (about, self._now))
        beside = [each for each in self.alive.values() if self._states.get(each) != "stuck"]
        why_not = self._neighbours.why_not(model, beside)
        self._require(not why_not, why_not, (about, beside))
        self._neighbours.started(model)
        self._last_generation = generation
        self._inspected.discard(model)
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
        lane = self._lane_of.get(request_id)
        if lane is not None:
            waiting = (other for other in self._lanes[lane] if other not in self.dispatched)
            self._require(
                request_id <= next(waiting), "who came first is served first", (command, lane)
            )
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
