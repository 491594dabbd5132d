"""Reads the log of events and commands and checks what no single moment of the core can show."""

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
    BudgetsChanged,
    DeviceBytes,
    EngineReaped,
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
    SpawnFailed,
    Timer,
    TimerFired,
    TimerKind,
    UnloadRequested,
)
from llama_router.core.settings import CoreSettings
from llama_router.simulator.neighbours import Neighbours


class Bookkeeper:
    """Memory as it must be by the log alone: booked with the spawn, free with the reap.

    A model that ran out of memory is expected to need more than is known here, never less.
    """

    def __init__(self, models: tuple[ModelSpec, ...], settings: CoreSettings) -> None:
        self.neighbours = Neighbours(models, settings)
        self.budgets = {each.device: each.size_bytes for each in settings.budgets}
        self.specs = {spec.name: spec for spec in models}
        self.needs = {spec.name: spec.memory for spec in models}
        self.configured = dict.fromkeys(self.specs)
        self.held: dict[str, tuple[int, tuple[DeviceBytes, ...]]] = {}
        """By model: the generation of its process, and what it holds."""
        self.is_stuck: dict[str, bool] = {}

    def take_in(self, event: Event, states: dict[str, str]) -> None:
        match event:
            case EngineReaped(model, generation) | SpawnFailed(model, generation):
                if self.held.get(model, (0,))[0] == generation:
                    del self.held[model]
                    self._forget_removed()
            case BudgetsChanged(budgets):
                self.budgets = {each.device: each.size_bytes for each in budgets}
            case FootprintMeasured(model, memory) if memory and model in self.needs:
                self.needs[model] = memory
                if states.get(model) in ("ready", "draining"):
                    self.held[model] = (self.held[model][0], memory)
            case ModelsChanged(models):
                self._configure(models)
                self.configured = {spec.name: None for spec in models}
                self._forget_removed()
            case ModelsPatched(models, removed):
                self._configure(models)
                kept = {name: None for name in self.configured if name not in removed}
                self.configured = kept | {spec.name: None for spec in models}
                self._forget_removed()
            case SettingsChanged(settings):
                self.neighbours.changed(settings)
            case _:
                pass

    def _configure(self, models: tuple[ModelSpec, ...]) -> None:
        self.neighbours.configured(models)
        for spec in models:
            old = self.specs.get(spec.name)
            keys = (spec.memory, spec.fingerprint)
            if old is None or (old.memory, old.fingerprint) != keys:
                self.needs[spec.name] = spec.memory
        self.specs |= {spec.name: spec for spec in models}

    def _forget_removed(self) -> None:
        # A removed model may come back before its process has gone.
        for name in [*self.specs]:
            if name not in self.configured and name not in self.held:
                del self.specs[name], self.needs[name]

    def spawn(self, model: str, generation: int) -> None:
        assert model not in self.held, f"two processes of {model}"
        beside = [name for name in self.held if not self.is_stuck.get(name)]
        why_not = self.neighbours.why_not(model, beside)
        assert not why_not, (why_not, model, beside)
        self.neighbours.started(model)
        need = self.needs[model]
        self.held[model] = (generation, need)
        for device, budget in self.budgets.items():
            sizes = [
                part.size_bytes
                for _, held in self.held.values()
                for part in held
                if part.device == device
            ]
            if any(part.device == device and part.size_bytes for part in need):
                assert sum(sizes) <= budget, f"{device} is overcommitted by {model}"


class Auditor:
    """Give it every event with its commands, in order; it asserts."""

    def __init__(
        self, models: tuple[ModelSpec, ...] = (), settings: CoreSettings | None = None
    ) -> None:
        self.memory = Bookkeeper(models, settings or CoreSettings())
        self.ranks: dict[int, tuple[str, int, bool]] = {}
        """What a request's place depends on besides its age: key, priority, batch."""
        self.models: dict[int, str] = {}
        """Requests and tickets that have not ended, with their models."""
        self.visitors: dict[int, None] = {}
        self.dispatched: dict[int, int] = {}
        self.bounced: dict[int, None] = {}
        self.beside: dict[int, None] = {}
        """Requests that take no slot."""
        self.tickets: dict[int, None] = {}
        self.timers: dict[Timer, float] = {}
        self.states: dict[str, str] = {}
        self.generations: dict[str, int] = {}
        self.last_first_dispatch: dict[tuple[str, str, int, bool], int] = {}
        self.spawns: list[str] = []
        self.rejects: list[Reject] = []
        self.completed = False
        self.inspections: dict[str, int] = {}
        """The question asked last for each model."""
        self.inspected: dict[str, None] = {}
        """The models that were inspected since they were started last, and could be started."""

    def observe(self, event: Event, commands: list[Command]) -> None:
        self._take_in(event)
        for command in commands:
            self._check(command)

    def _take_in(self, event: Event) -> None:
        self.memory.take_in(event, self.states)
        match event:
            case RequestArrived(request_id, model, may_load):
                self.models.setdefault(request_id, model)
                self.ranks[request_id] = (event.key, event.priority, event.is_batch)
                if not may_load:
                    self.visitors[request_id] = None
                if not event.takes_slot:
                    self.beside[request_id] = None
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
                known = self.timers.pop(timer, None) is not None
                if known and timer.kind is TimerKind.INSPECTION:
                    self.inspected[timer.model] = None
            case ModelInspected(model, inspection, ""):
                if self.inspections.get(model) == inspection:
                    self.inspected[model] = None
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
                self.inspected.pop(model, None)
                self.memory.spawn(model, generation)
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
            case Inspect(model, inspection):
                assert inspection > max(self.inspections.values(), default=0), command
                self.inspections[model] = inspection
                self.inspected.pop(model, None)
            case Emit(model, old, new, reason):
                assert self.states.get(model, "unloaded") == old, command
                if reason.startswith("swap for "):
                    sake_of = reason.removeprefix("swap for ").partition(":")[0]
                    assert sake_of in self.inspected, f"not inspected: {command}"
                self.states[model] = new
                self.memory.is_stuck = {each: s == "stuck" for each, s in self.states.items()}
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
        limit = self.memory.specs[model].max_in_flight
        if limit and request_id not in self.visitors and request_id not in self.beside:
            slots = [
                other
                for other, its_generation in self.dispatched.items()
                if its_generation == generation
                and other not in self.visitors
                and other not in self.beside
            ]
            assert len(slots) < limit, f"no slot is free: {command}"
        in_line = request_id not in self.visitors and request_id not in self.beside
        if in_line and request_id not in self.bounced:
            lane = (model, *self.ranks[request_id])
            assert self.last_first_dispatch.get(lane, 0) < request_id, f"overtakes: {command}"
            self.last_first_dispatch[lane] = request_id
        self.dispatched[request_id] = generation
