"""A random world around the real core: everything that can go wrong does, then nothing any more.

One seed is one walk. In its first part clients, engines, operators and the clock are unreliable,
and after every event the invariants, the log and the timers are checked. In its second part every
fault stops, and then everything has to come to its end: each request has one outcome, a newcomer
is answered, and a shutdown leaves no engine and no timer.
"""

import random
from collections.abc import Callable, Sequence
from typing import Final

from llama_router.core.commands import (
    Abort,
    Command,
    Dispatch,
    Inspect,
    Kill,
    Spawn,
    Terminate,
)
from llama_router.core.events import (
    AddressStolen,
    BudgetsChanged,
    EngineExited,
    EngineProgress,
    EngineReady,
    EngineReaped,
    EngineSpawned,
    Event,
    ExitCause,
    FootprintMeasured,
    LoadRequested,
    ModelInspected,
    ModelsChanged,
    ModelsPatched,
    RequestArrived,
    RequestBounced,
    RequestCancelled,
    RequestFinished,
    SettingsChanged,
    ShutdownRequested,
    SpawnFailed,
    TimerFired,
    UnloadRequested,
)
from llama_router.core.invariants import InvariantViolation, check
from llama_router.core.machine import Core
from llama_router.core.policies.arrival import ArrivalOrder
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.simulator.auditor import Auditor
from llama_router.simulator.faults import (
    NAMES,
    Plan,
    chance,
    draw_budgets,
    draw_memory,
    draw_models,
    draw_plan,
    draw_settings,
)

STEPS_COUNT: Final = 400
"""Enough for a few dozen loads; what needs longer histories has shown in none of them."""
SETTLE_ROUNDS_COUNT: Final = 3000
"""Seconds of virtual time within which everything must have come to its end once faults stop."""
DRAIN_DEADLINE_S: Final = 30.0
_PUNCTUAL_COUNT: Final = 100
"""More moments than this with a timer in a single step are no life but a bug."""
_PAST_COUNT: Final = 200
"""How far back doubled and late events reach."""

CoreFactory = Callable[[Plan], Core]
Step = tuple[float, Event]


def make_core(plan: Plan) -> Core:
    """Return the core of a walk."""
    arrival = ArrivalOrder(is_strict=plan.is_strict)
    policy = arrival if plan.uses_arrival_order else BenefitOrder()
    return Core(plan.models, policy, plan.settings)


class _Process:
    """An engine's process, as unreliable as its seed wants it."""

    __slots__ = ("exited", "generation", "hangs", "model", "obeys", "ready", "told", "wait_until")

    def __init__(self, model: str, generation: int) -> None:
        self.model = model
        self.generation = generation
        self.ready = False
        self.hangs = False
        self.wait_until = 0.0
        self.obeys = "terminate"
        """What ends it: ``terminate``, ``kill`` or ``nothing``."""
        self.told = ""
        self.exited = False

    @property
    def ends(self) -> bool:
        """Whether it is on its way out."""
        if self.exited:
            return self.obeys != "nothing"
        return bool(self.told) and self.obeys in ("terminate", self.told)


class Swarm:
    """One walk. ``log`` holds every event with its time, for a replay."""

    def __init__(self, seed: int, factory: CoreFactory = make_core) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a reproducible walk, no secret
        self.plan = draw_plan(self.random)
        self.core = factory(self.plan)
        settings = self.plan.settings
        self.auditor = Auditor(self.plan.models, settings.budgets, settings)
        self.now = 0.0
        self.log: list[Step] = []
        self.faulty = True
        self._processes: dict[int, _Process] = {}
        self._aborted: dict[int, None] = {}
        self._hung: dict[int, None] = {}
        self._questions: list[Inspect] = []
        self._next_id = 0
        self._frozen_steps = 0
        self._clock_debt_s = 0.0

    # Running

    def run(self, steps_count: int = STEPS_COUNT) -> None:
        """Walk, then let everything come to its end. Raises InvariantViolation, or a bug's own."""
        weights = {name: rate for name, rate in self.plan.rates.items() if rate and name in _ACTS}
        acts = [*_BASE_ACTS, *(_ACTS[name] for name in weights)]
        odds = [self.plan.arrival_rate, *_BASE_ODDS, *weights.values()]
        for act in self.random.choices(acts, odds, k=steps_count):
            self._pass_time()
            act(self)
        self.settle()

    def replay(self, log: Sequence[Step]) -> None:
        """Feed a log, or a part of one, and let everything come to its end. Raises as ``run``."""
        for now, event in log:
            self.now = max(self.now, now)
            if isinstance(event, RequestArrived | LoadRequested | UnloadRequested):
                self._next_id = max(self._next_id, event.request_id)
            self.feed(event)
        self.settle()

    def feed(self, event: Event) -> list[Command]:
        """Hand one event to the core, carry its commands out, check everything."""
        self.log.append((self.now, event))
        commands = self.core.handle(event, self.now)
        self._know(event)
        for command in commands:
            self._carry_out(command)
        self.auditor.observe(event, commands, self.now)
        check(self.core)
        if self.core.ledger.timers != self.auditor.timers:
            raise InvariantViolation(f"the core knows its timers: {self.core.ledger.timers}")
        return commands

    def _know(self, event: Event) -> None:
        match event:
            case EngineReady(model, generation) if self._is_alive(model, generation):
                self._processes[generation].ready = True
            case EngineExited(model, generation) if self._is_alive(model, generation):
                self._processes[generation].exited = True
            case EngineReaped(model, generation) | SpawnFailed(model, generation):
                if self._is_alive(model, generation):
                    del self._processes[generation]
            case RequestFinished(request_id) | RequestCancelled(request_id):
                self._aborted.pop(request_id, None)
                self._hung.pop(request_id, None)
            case _:
                pass

    def _is_alive(self, model: str, generation: int) -> bool:
        # A part of a log may speak of generations that are another model's now.
        process = self._processes.get(generation)
        return process is not None and process.model == model

    def _carry_out(self, command: Command) -> None:
        match command:
            case Spawn(model, generation):
                self._processes[generation] = self._new_process(model, generation)
            case Terminate(_, generation) if generation in self._processes:
                process = self._processes[generation]
                process.told = process.told or "terminate"
            case Kill(_, generation) if generation in self._processes:
                self._processes[generation].told = "kill"
            case Inspect() if not self._fails("silent_inspection"):
                self._questions.append(command)
            case Dispatch(request_id) if self._fails("hang_request"):
                self._hung[request_id] = None
            case Abort(request_id):
                self._aborted[request_id] = None
                self._hung.pop(request_id, None)
            case _:
                pass

    def _new_process(self, model: str, generation: int) -> _Process:
        process = _Process(model, generation)
        process.hangs = self._fails("hang_load")
        if self._fails("slow_load"):
            process.wait_until = self.now + self.random.choice((5.0, 30.0))
        if self._fails("unkillable"):
            process.obeys = "nothing"
        elif self._fails("ignore_terminate"):
            process.obeys = "kill"
        return process

    def _fails(self, fault: str) -> bool:
        rate = self.plan.rates[fault]
        return self.faulty and rate > 0 and self.random.random() < rate

    # Time

    def _pass_time(self) -> None:
        elapsed_s = self.random.expovariate(1.0 / self.plan.step_s)
        if self._frozen_steps:
            self._frozen_steps -= 1
            if self._frozen_steps:
                return
            self.now += self._clock_debt_s
            self._clock_debt_s = 0.0
        self._advance(elapsed_s)

    def _advance(self, elapsed_s: float) -> None:
        """Let time pass; what comes due in it fires at its very moment."""
        end = self.now + elapsed_s
        for _ in range(_PUNCTUAL_COUNT):
            at = min(self.auditor.timers.values(), default=end)
            if at >= end:
                break
            self.now = max(self.now, at)
            self._fire_due()
        self.now = end
        self._fire_due()

    def _fire_due(self) -> None:
        timers = self.auditor.timers
        due = sorted((at, number) for number, at in enumerate(timers.values()) if at <= self.now)
        ordered = list(timers)
        for _, number in due:
            timer = ordered[number]
            if timers.get(timer, self.now + 1.0) <= self.now:
                self.feed(TimerFired(timer))

    def _stop_clock(self) -> None:
        self._frozen_steps = self.random.randint(2, 20)
        self._clock_debt_s = self.random.choice((0.0, 10.0, 700.0))

    # Clients

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _any_model(self) -> str:
        if chance(self.random, 0.02):
            return "nowhere"
        return self.random.choice(list(self.core.ledger.models) or ["nowhere"])

    def _arrive(self) -> None:
        rng = self.random
        self.feed(
            RequestArrived(
                self._new_id(),
                self._any_model(),
                may_load=not chance(rng, 0.05),
                wants_notices=chance(rng, 0.3),
                key=rng.choice(("", "x", "y")),
                priority=rng.choice((0, 0, 0, 1)),
                is_batch=chance(rng, 0.2),
                keep_alive_s=rng.choice((None, None, None, 0.0, 2.0, -1.0)),
                takes_slot=not chance(rng, 0.1),
            )
        )

    def _finish(self) -> None:
        done = [each for each in self.auditor.dispatched if each not in self._hung]
        if done:
            self.feed(RequestFinished(self.random.choice(done)))

    def _disconnect(self) -> None:
        if self.auditor.open:
            self.feed(RequestCancelled(self.random.choice(list(self.auditor.open))))

    def _bounce(self) -> None:
        if self.auditor.dispatched:
            self.feed(RequestBounced(self.random.choice(list(self.auditor.dispatched))))

    # Engines

    def _engine_works(self) -> None:
        if self._questions and chance(self.random, 0.5):
            self._answer(self._questions.pop(self.random.randrange(len(self._questions))))
        elif self._processes:
            self._work(self.random.choice(list(self._processes.values())))

    def _answer(self, question: Inspect) -> None:
        problem = "no such file" if self._fails("broken_model") else ""
        self.feed(ModelInspected(question.model, question.inspection, problem))

    def _work(self, process: _Process) -> None:
        model, generation = process.model, process.generation
        if process.ends:
            if not process.exited and chance(self.random, 0.7):
                self.feed(EngineExited(model, generation, "ended"))
            elif chance(self.random, 0.7):
                self.feed(EngineReaped(model, generation))
        elif not process.ready and not process.told and not process.exited:
            if chance(self.random, 0.2):
                self.feed(EngineSpawned(model, generation))
            elif chance(self.random, 0.25):
                fraction = self.random.choice((-1.0, 0.1, 0.5, 2.0, float("nan")))
                self.feed(EngineProgress(model, generation, fraction))
            elif not process.hangs and process.wait_until <= self.now:
                self.feed(EngineReady(model, generation))

    def _crash_where(self, suits: Callable[[_Process], bool], cause: ExitCause) -> None:
        able = [each for each in self._processes.values() if not each.exited and suits(each)]
        if able:
            process = self.random.choice(able)
            self.feed(EngineExited(process.model, process.generation, "crashed", cause))

    def _crash_loading(self) -> None:
        cause = self.random.choice((ExitCause.EXITED, ExitCause.ADDRESS_IN_USE))
        self._crash_where(lambda each: not each.ready and not each.told, cause)

    def _crash_ready(self) -> None:
        self._crash_where(lambda each: each.ready and not each.told, ExitCause.EXITED)

    def _crash_stopping(self) -> None:
        self._crash_where(lambda each: bool(each.told), ExitCause.EXITED)

    def _run_out_of_memory(self) -> None:
        self._crash_where(lambda _: True, ExitCause.OUT_OF_MEMORY)

    def _fail_to_spawn(self) -> None:
        young = [each for each in self._processes.values() if not each.ready and not each.exited]
        if young:
            process = self.random.choice(young)
            self.feed(SpawnFailed(process.model, process.generation, "no such file"))

    def _steal_address(self) -> None:
        young = [each for each in self._processes.values() if not each.ready and not each.exited]
        if young:
            process = self.random.choice(young)
            self.feed(AddressStolen(process.model, process.generation))

    # The rest

    def _repeat(self, events: Sequence[Step]) -> None:
        # A caller does not hand in an arrival twice: it is not heard of, it makes it.
        own = (RequestArrived, LoadRequested, UnloadRequested, ShutdownRequested)
        past = [event for _, event in events if not isinstance(event, own)]
        if past:
            self.feed(self.random.choice(past))

    def _duplicate(self) -> None:
        self._repeat(self.log[-1:])

    def _repeat_late(self) -> None:
        self._repeat(self.log[-_PAST_COUNT:])

    def _reload(self) -> None:
        self.feed(ModelsChanged(draw_models(self.random)))

    def _patch(self) -> None:
        models = draw_models(self.random)
        gone = [name for name in NAMES if chance(self.random, 0.2)]
        changed = tuple(model for model in models if chance(self.random, 0.5))
        self.feed(ModelsPatched(changed, tuple(gone)))

    def _change_settings(self) -> None:
        self.feed(SettingsChanged(draw_settings(self.random)))

    def _load(self) -> None:
        self.feed(LoadRequested(self._new_id(), self._any_model()))

    def _unload(self) -> None:
        self.feed(UnloadRequested(self._new_id(), self._any_model()))

    def _change_budgets(self) -> None:
        self.feed(BudgetsChanged(draw_budgets(self.random)))

    def _measure(self) -> None:
        memory = draw_memory(self.random)
        load_cost_s = self.random.choice((0.1, 1.0, 10.0))
        self.feed(FootprintMeasured(self._any_model(), memory, load_cost_s))

    # The end of all faults

    def settle(self) -> None:
        """Let everything work without faults or newcomers, and check that it comes to its end."""
        self.faulty = False
        self._hung.clear()
        for process in self._processes.values():
            process.hangs = False
            process.obeys = "terminate"
        self._until(lambda: not self.auditor.open, "every request has an outcome")
        for model in list(self.core.ledger.models):
            self.feed(RequestArrived(self._new_id(), model))
        self._until(lambda: not self.auditor.open, "newcomers are answered")
        self.feed(ShutdownRequested(DRAIN_DEADLINE_S))
        self._until(
            lambda: self.auditor.completed and not self._processes, "a shutdown comes to its end"
        )
        for rest in (self.auditor.timers, self.auditor.alive, self.core.ledger.requests):
            if rest:
                raise InvariantViolation(f"nothing is left after the end: {rest}")

    def _until(self, is_over: Callable[[], bool], rule: str) -> None:
        for _ in range(SETTLE_ROUNDS_COUNT):
            if is_over():
                return
            for request_id in list(self.auditor.dispatched):
                self.feed(RequestFinished(request_id))
            for process in list(self._processes.values()):
                self._let_work(process)
            while self._questions:
                self._answer(self._questions.pop())
            self._advance(1.0)
        raise InvariantViolation(f"{rule}: {self.auditor.open}, {self.core!r}")

    def _let_work(self, process: _Process) -> None:
        model, generation = process.model, process.generation
        if process.ends:
            if not process.exited:
                self.feed(EngineExited(model, generation, "ended"))
            self.feed(EngineReaped(model, generation))
        elif not process.ready:
            self.feed(EngineReady(model, generation))


_BASE_ACTS: Final = (Swarm._arrive, Swarm._finish, Swarm._engine_works)
_BASE_ODDS: Final = (2.0, 4.0)
_ACTS: Final[dict[str, Callable[[Swarm], None]]] = {
    "crash_loading": Swarm._crash_loading,
    "crash_ready": Swarm._crash_ready,
    "crash_stopping": Swarm._crash_stopping,
    "spawn_failure": Swarm._fail_to_spawn,
    "address_stolen": Swarm._steal_address,
    "out_of_memory": Swarm._run_out_of_memory,
    "duplicate_event": Swarm._duplicate,
    "late_event": Swarm._repeat_late,
    "disconnect": Swarm._disconnect,
    "bounce": Swarm._bounce,
    "reload": Swarm._reload,
    "load": Swarm._load,
    "unload": Swarm._unload,
    "budget": Swarm._change_budgets,
    "measurement": Swarm._measure,
    "clock_stop": Swarm._stop_clock,
    "patch": Swarm._patch,
    "settings": Swarm._change_settings,
}
"""Faults that happen by themselves; the others are drawn where something is spawned or sent."""
