"""Months of faults in a second: a random world around the real core, watched at every step."""

import random
from collections.abc import Callable

import pytest

from llama_router.core import events as ev
from llama_router.core.commands import (
    Command,
    Dispatch,
    Inspect,
    Kill,
    Settled,
    Spawn,
    Terminate,
)
from tests.core.playbook import Stage, specs

CONFIGS = ("a/g b/g c/h d", "a/g b/g c/h d:2", "a/h b/g c/h d", "a/g b/g c/h", "a b c d")


class World:
    """Clients, engines, operators and a clock, all of them unreliable."""

    def __init__(self, seed: int, stage: Stage | None = None) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a reproducible walk, no secret
        self.stage = stage or Stage(specs(CONFIGS[0]))
        self.stage.inspects = False
        self.questions: list[Inspect] = []
        """Inspections that nobody has answered."""
        self.next_id = 1
        self.dispatched: dict[int, None] = {}
        self.engines: dict[int, str] = {}
        """Processes that exist, by generation."""
        self.told_to_end: dict[int, None] = {}
        self.unreapable: dict[int, bool] = {}
        self.faulty = True
        self.past: list[ev.Event] = []
        self.log: list[tuple[ev.Event, list[Command]]] = []
        chance = self.random.random
        # Each kind of fault is rare, common or absent in a whole walk: all of them at once
        # would never let anything come far.
        self.long_time = self.random.choice((15.0, 60.0, 700.0))
        self.finish_rate = self.random.choice((0.1, 3.0))
        self.fault_rate = {
            name: self.random.choice((0.0, 0.3, 4.0)) * chance()
            for name in ("crash", "spawn", "timer", "operator", "late", "bounce")
        }
        self.problem_rate = self.random.choice((0.0, 0.1, 0.5))

    def feed(self, event: ev.Event) -> None:
        commands = self.stage.handle(event)
        self.log.append((event, commands))
        if isinstance(event, ev.RequestFinished | ev.RequestCancelled | ev.RequestBounced):
            self.dispatched.pop(event.request_id, None)
        if not isinstance(event, ev.RequestArrived | ev.LoadRequested | ev.UnloadRequested):
            self.past.append(event)
        for command in commands:
            match command:
                case Dispatch(request_id):
                    self.dispatched[request_id] = None
                case Spawn(model, generation):
                    self.engines[generation] = model
                case Terminate(_, generation) | Kill(_, generation):
                    self.told_to_end[generation] = None
                case Inspect():
                    self.questions.append(command)
                case _:
                    pass

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id

    # What can happen

    def arrive(self) -> None:
        model = self.random.choice(["a", "b", "c", "d", "nowhere"])
        coin = self.random.random()
        self.feed(ev.RequestArrived(self.new_id(), model, coin > 0.1, coin < 0.5))

    def finish(self) -> None:
        if self.dispatched:
            self.feed(ev.RequestFinished(self.random.choice(list(self.dispatched))))

    def cancel(self) -> None:
        open_ids = list(self.stage.auditor.models)
        if open_ids:
            self.feed(ev.RequestCancelled(self.random.choice(open_ids)))

    def bounce(self) -> None:
        if self.dispatched:
            self.feed(ev.RequestBounced(self.random.choice(list(self.dispatched))))

    def engine_works(self) -> None:
        if not self.engines:
            return
        generation, model = self.random.choice(list(self.engines.items()))
        if generation in self.told_to_end:
            self.reap(generation)
            return
        fraction = self.random.choice((-1.0, 0.1, 0.5, 2.0, float("nan")))
        what = self.random.choice(
            (
                ev.EngineSpawned(model, generation),
                ev.EngineProgress(model, generation, fraction),
                ev.EngineReady(model, generation),
            )
        )
        self.feed(what)

    def inspect(self) -> None:
        if self.questions:
            which = self.random.randrange(len(self.questions))
            self.answer(self.questions.pop(which), self.random.random() < self.problem_rate)

    def answer(self, question: Inspect, is_broken: bool = False) -> None:  # noqa: FBT001, FBT002
        problem = "no such file" if is_broken else ""
        self.feed(ev.ModelInspected(question.model, question.inspection, problem))

    def reap(self, generation: int) -> None:
        model = self.engines[generation]
        if self.random.random() < 0.7:
            self.feed(ev.EngineExited(model, generation, "ended"))
        if self.unreapable.setdefault(generation, self.random.random() < 0.3) and self.faulty:
            return
        del self.engines[generation]
        self.feed(ev.EngineReaped(model, generation))

    def crash(self) -> None:
        if self.engines:
            generation, model = self.random.choice(list(self.engines.items()))
            self.told_to_end[generation] = None
            if self.random.random() < 0.2:
                self.feed(ev.AddressStolen(model, generation))
            else:
                cause = self.random.choice(list(ev.ExitCause))
                self.feed(ev.EngineExited(model, generation, "crashed", cause))

    def spawn_fails(self) -> None:
        if self.engines:
            generation, model = self.random.choice(list(self.engines.items()))
            view = self.stage.core.ledger.models.get(model)
            if view is not None and view.state.value in ("starting", "stopping"):
                del self.engines[generation]
                self.feed(ev.SpawnFailed(model, generation, "no such file"))

    def time_passes(self) -> None:
        self.stage.now += self.random.choice((0.01, 0.5, 2.0, self.long_time))
        self.fire_due()

    def fire_due(self) -> None:
        timers = self.stage.auditor.timers
        for timer in [timer for timer, at in timers.items() if at <= self.stage.now]:
            if timer in timers:
                self.feed(ev.TimerFired(timer))

    def fire_any(self) -> None:
        if self.stage.auditor.timers:
            self.feed(ev.TimerFired(self.random.choice(list(self.stage.auditor.timers))))

    def operate(self) -> None:
        model = self.random.choice(["a", "b", "c", "d", "nowhere"])
        match self.random.randrange(3):
            case 0:
                self.feed(ev.LoadRequested(self.new_id(), model))
            case 1:
                self.feed(ev.UnloadRequested(self.new_id(), model))
            case _:
                self.feed(ev.ModelsChanged(specs(self.random.choice(CONFIGS))))

    def late_or_doubled(self) -> None:
        if self.past:
            self.feed(self.random.choice(self.past[-200:]))

    def step(self) -> None:
        happenings: dict[Callable[[], None], float] = {
            self.arrive: 3.0,
            self.finish: self.finish_rate,
            self.cancel: 0.7,
            self.engine_works: 4.0,
            self.inspect: 3.0,
            self.time_passes: 0.3,
            self.bounce: self.fault_rate["bounce"],
            self.crash: self.fault_rate["crash"],
            self.spawn_fails: self.fault_rate["spawn"],
            self.fire_any: self.fault_rate["timer"],
            self.operate: self.fault_rate["operator"],
            self.late_or_doubled: self.fault_rate["late"],
        }
        self.random.choices(list(happenings), list(happenings.values()))[0]()

    # The end of all faults

    def settle_down(self) -> None:
        """Let everything work for a while, without newcomers."""
        self.faulty = False
        for _ in range(200):
            for request_id in list(self.dispatched):
                self.feed(ev.RequestFinished(request_id))
            for generation, model in list(self.engines.items()):
                if generation in self.told_to_end:
                    self.reap(generation)
                else:
                    self.feed(ev.EngineReady(model, generation))
            while self.questions:
                self.answer(self.questions.pop())
            self.stage.now += 1.0
            self.fire_due()


def walk(seed: int, steps: int = 400) -> World:
    world = World(seed)
    for _ in range(steps):
        world.step()
    return world


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_everybody_is_answered_in_the_end(seed: int) -> None:
    print(f"seed={seed}")  # noqa: T201 - to run it again
    world = walk(seed)

    world.settle_down()

    assert world.stage.auditor.models == {}
    assert world.stage.auditor.timers == {}
    assert world.stage.core.ledger.requests == {}
    world.feed(ev.RequestArrived(world.new_id(), "a"))
    world.settle_down()
    assert world.stage.auditor.models == {}


@pytest.mark.parametrize("seed", range(60, 100))
@pytest.mark.parametrize("end", [ev.ShutdownRequested(30.0), ev.ShutdownForced()], ids=repr)
def test_a_shutdown_in_the_middle_of_it_comes_to_its_end(seed: int, end: ev.Event) -> None:
    print(f"seed={seed}")  # noqa: T201 - to run it again
    world = walk(seed)

    world.feed(end)
    for _ in range(50):
        world.step()
    world.settle_down()

    assert world.stage.auditor.completed
    assert world.stage.auditor.models == {}
    assert world.stage.auditor.timers == {}
    assert all(view.state in ("unloaded", "stuck") for view in world.stage.views().values())


def test_the_same_events_cause_the_same_commands() -> None:
    first, second = walk(7), walk(7)
    assert repr(first.log) == repr(second.log)  # NaN differs from itself
    assert len(first.log) > 100


def test_walks_see_what_they_are_for() -> None:
    seen: dict[str, None] = {}
    for seed in range(120):
        world = walk(seed)
        for _, commands in world.log:
            for command in commands:
                seen[type(command).__name__] = None
                if isinstance(command, Settled) and command.error:
                    seen[f"settled {command.error.value}"] = None
        for reject in world.stage.auditor.rejects:
            seen[reject.kind.value] = None
        for model in world.stage.auditor.states.values():
            seen[model] = None
    expected = {
        "Spawn Terminate Kill Dispatch Reject Notify Settled SetTimer CancelTimer Emit Abort",
        "model_not_found model_not_loaded model_load_failed load_timeout model_backing_off",
        "model_failed model_unloaded model_stuck engine_crashed stuck failed cooling",
    }
    assert {word for line in expected for word in line.split()} - set(seen) == set()
