import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from llama_router.catalog.synthetic import Shape, write_synthetic
from llama_router.config.schema import Config
from llama_router.core.events import (
    BudgetsChanged,
    EngineExited,
    EngineReady,
    EngineReaped,
    EngineSpawned,
    Event,
    ExitCause,
    FootprintMeasured,
    LoadRequested,
    ModelsPatched,
    RequestArrived,
    RequestFinished,
    UnloadRequested,
)
from llama_router.core.machine import Core
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.core.settings import CoreSettings
from llama_router.engines import measure
from llama_router.engines.devices import Device
from llama_router.runtime import machine as machines
from llama_router.runtime import memory as memories
from llama_router.runtime.appraisal import Appraiser
from llama_router.runtime.machine import Machine
from llama_router.runtime.memory import Memory
from llama_router.runtime.roster import Roster, build_roster, device_bytes
from llama_router.store.store import Store

pytestmark = pytest.mark.asyncio

GIB = 2**30
MACHINE = Machine(devices=(Device("cpu", 32 * GIB, 30 * GIB),), measurable=frozenset({"cpu"}))
COMMAND = ["engine", "--model", "$model", "--port", "$port"]
LLAMA = ["/x/llama-server", "-m", "$path", "--port", "$port"]


class Engines:
    """Processes that hold what a test says; the pid of each is its generation."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.measured_count = 0
        self.measured: Callable[[], object]

    def pid(self, generation: int) -> int | None:
        return generation if generation in self.held else None

    def pids(self) -> list[int]:
        return list(self.held)

    def memory_of(self, pids: Any) -> dict[str, int]:  # noqa: ANN401 - any iterable
        self.measured_count += 1
        self.measured()
        return {"cpu": sum(self.held.get(pid, 0) for pid in pids)}


class World:
    """A real core, and a Memory that tells it of engines that do not exist."""

    def __init__(self, engines: Engines, store: Store | None) -> None:
        self.engines = engines
        self.store = store
        self.events: list[Event] = []
        self.memory: Memory
        self.core: Core
        self.roster: Roster
        self._news = asyncio.Event()
        self._last_request = 0
        loop = asyncio.get_running_loop()
        engines.measured = lambda: loop.call_soon_threadsafe(self._news.set)

    async def open(
        self,
        models: Mapping[str, Mapping[str, Any]],
        *,
        wait_s: float = 10.0,
        command: list[str] | None = None,
        **router: object,
    ) -> None:
        entries = [{"name": name, **settings} for name, settings in models.items()]
        config = Config.model_validate(
            {
                "models": entries,
                "router": {"memory": {"cpu": "8GiB"}, **router},
                "default_spawn": {"command": command or COMMAND},
            }
        )
        self.roster = build_roster(config, [])
        appraiser = Appraiser(
            machine=MACHINE,
            env={},
            found_llama_server=None,
            remembered=self.store.footprints if self.store is not None else dict,
        )
        self.memory = Memory(
            roster=self.roster,
            settings=config.router,
            machine=MACHINE,
            appraiser=appraiser,
            store=self.store,
            post=self.post,
            engines=self.engines,
        )
        specs = await self.memory.appraise(wait_s)
        budgets = device_bytes(self.memory.budgets)
        self.core = Core(specs, BenefitOrder(), CoreSettings(budgets=budgets))
        self.memory.open(self.core)

    def post(self, event: Event) -> None:
        self.events.append(event)
        self.core.handle(event, 0.0)
        self._news.set()

    def load(self, model: str, *, held: int, load_s: float = 1.0) -> int:
        """Have a request start the model's engine; give its generation."""
        self._last_request += 1
        self.post(RequestArrived(self._last_request, model))
        generation = self.core.ledger.models[model].generation
        self.engines.held[generation] = held
        self.post(EngineSpawned(model, generation))
        self.post(EngineReady(model, generation))
        self.memory.ready(model, generation, load_s)
        self.post(RequestFinished(self._last_request))
        return generation

    def end(self, model: str, generation: int, cause: ExitCause = ExitCause.EXITED) -> None:
        self.post(EngineExited(model, generation, "it ended", cause))
        del self.engines.held[generation]
        self.post(EngineReaped(model, generation))
        self.memory.gone(model, generation)

    async def until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(15):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    def expected(self, model: str) -> dict[str, int]:
        memory = self.core.ledger.models[model].memory
        return {part.device: part.size_bytes for part in memory}

    def group(self, model: str) -> str:
        return self.core.ledger.models[model].spec.group

    def told(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store", batch_interval_s=0.0)
    yield opened
    opened.close()


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch, store: Store) -> AsyncIterator[World]:
    engines = Engines()
    monkeypatch.setattr(measure, "memory_of", engines.memory_of)
    monkeypatch.setattr(memories, "tree_of", lambda pid: (pid,))
    monkeypatch.setattr(memories, "FIRST_PAUSE_S", 0.001)
    world = World(engines, store)
    yield world
    world.memory.close()


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "a.gguf"
    write_synthetic(path, Shape())
    return str(path)


@pytest.fixture
def large(tmp_path: Path) -> str:
    """A model whose context of 128 Ki tokens takes 32 GiB."""
    path = tmp_path / "large.gguf"
    shape = Shape(
        layers=32, embedding_length=1024, heads=8, kv_heads=8, key_length=256, context_length=131072
    )
    write_synthetic(path, shape)
    return str(path)


async def test_what_is_said_or_estimated_is_known_from_the_start(world: World, file: str) -> None:
    llama = {"path": file, "spawn": {"command": ["/x/llama-server", "-m", "$path", "$port"]}}
    await world.open({"llama": llama, "said": {"memory": "2GiB"}, "other": {}})
    assert 16 * 2**20 < world.expected("llama")["cpu"] < GIB
    assert world.expected("said") == {"cpu": 2 * GIB}
    assert [world.group(name) for name in ("llama", "said", "other")] == ["", "", "model other"]
    assert "8.0 of 32.0 GiB of RAM" in world.memory.in_words()


async def test_a_file_whose_disk_does_not_answer_is_not_estimated(
    world: World, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Roster, "silence_of", lambda _roster, _model: "it does not answer")
    llama = {"path": file, "spawn": {"command": ["/x/llama-server", "-m", "$path", "$port"]}}
    await world.open({"llama": llama})
    assert (world.group("llama"), world.expected("llama")) == ("model llama", {})


async def test_estimates_that_are_late_follow_and_until_then_the_model_runs_alone(
    world: World, file: str
) -> None:
    llama = {"path": file, "spawn": {"command": ["/x/llama-server", "-m", "$path", "$port"]}}
    await world.open({"llama": llama}, wait_s=0.0)
    assert (world.group("llama"), world.expected("llama")) == ("model llama", {})
    await world.until(lambda: world.told(ModelsPatched))
    assert world.group("llama") == ""
    assert world.expected("llama")["cpu"] > 16 * 2**20


async def test_an_unknown_engine_runs_alone_until_it_was_measured_in_use(
    world: World, store: Store
) -> None:
    await world.open({"a": {}, "b": {}})
    generation = world.load("a", held=GIB)
    await world.until(lambda: world.told(FootprintMeasured))
    assert world.group("a") == ""
    assert world.expected("a") == {"cpu": GIB * 5 // 4}
    assert world.core.ledger.memory.reserved == {"cpu": GIB * 5 // 4}
    assert world.group("b") == "model b"
    (kept,) = store.footprints().values()
    assert (kept.memory_bytes, kept.load_time_s) == ({"cpu": GIB}, 1.0)
    # It grows, and that is booked as well.
    world.engines.held[generation] = 2 * GIB
    world.post(RequestArrived(100, "a"))
    await world.until(lambda: world.expected("a") == {"cpu": GIB * 5 // 2})
    # What it holds while it ends is not what it needs.
    world.end("a", generation)
    assert world.expected("a") == {"cpu": GIB * 5 // 2}


async def test_an_unknown_engine_that_fills_the_machine_is_started_again(world: World) -> None:
    await world.open({"a": {}, "b": {"memory": "1GiB"}})
    # As vLLM takes nine tenths of a card, whatever the model.
    generation = world.load("a", held=7 * GIB)
    await world.until(lambda: world.told(FootprintMeasured))
    assert world.expected("a") == {"cpu": 8 * GIB}
    world.post(UnloadRequested(100, "a"))
    world.end("a", generation)
    world.load("a", held=7 * GIB)
    assert world.core.ledger.models["a"].has_process


async def test_what_an_earlier_router_measured_is_known_as_measured(
    world: World, store: Store
) -> None:
    await world.open({"a": {}, "b": {}})
    world.load("a", held=GIB)
    await world.until(lambda: world.told(FootprintMeasured))
    world.memory.close()
    later = World(Engines(), store)
    await later.open({"a": {}, "b": {}})
    later.memory.close()
    assert (later.group("a"), later.expected("a")) == ("", {"cpu": GIB * 5 // 4})
    assert later.core.view("a").is_measured
    assert not later.core.view("b").is_measured


async def test_an_engine_whose_processes_may_not_be_its_own_stays_alone(world: World) -> None:
    spawn = {"command": COMMAND, "owner_check": "port"}
    await world.open({"a": {"spawn": spawn}, "b": {}})
    world.load("a", held=GIB)
    world.post(RequestArrived(100, "a"))
    await world.until(lambda: world.engines.measured_count > 3)
    assert world.group("a") == "model a"


async def test_the_configs_word_holds_until_more_is_seen(world: World) -> None:
    await world.open({"a": {"memory": "2GiB"}})
    generation = world.load("a", held=GIB)
    world.post(RequestArrived(100, "a"))
    world.engines.held[generation] = 3 * GIB
    await world.until(lambda: world.expected("a") == {"cpu": 3 * GIB})
    assert world.told(ModelsPatched) == []


async def test_a_load_that_took_longer_or_shorter_is_told(world: World) -> None:
    await world.open({"a": {"memory": "2GiB"}, "b": {"memory": "2GiB"}})
    world.load("a", held=GIB, load_s=1.1)
    assert world.told(FootprintMeasured) == []
    world.load("b", held=GIB, load_s=7.5)
    assert world.told(FootprintMeasured) == [FootprintMeasured("b", load_cost_s=7.5)]
    assert world.core.view("b").load_cost_s == 7.5


async def test_an_engine_that_ran_out_of_memory_is_not_taken_for_smaller_again(
    world: World,
) -> None:
    await world.open({"a": {"memory": "2GiB"}})
    generation = world.load("a", held=GIB)
    world.end("a", generation, ExitCause.OUT_OF_MEMORY)
    raised = {"cpu": 2 * GIB * 5 // 4 + 1}
    assert world.expected("a") == raised
    await world.memory._change_budgets({"cpu": 6 * GIB})
    assert world.expected("a") == raised


async def test_who_orders_a_load_after_that_has_it_tried_as_it_was(world: World) -> None:
    await world.open({"a": {"memory": "8GiB"}})
    world.end("a", world.load("a", held=GIB), ExitCause.OUT_OF_MEMORY)
    assert world.expected("a") == {"cpu": 8 * GIB * 5 // 4 + 1}
    # More than there is: only an order has it tried again.
    world.post(LoadRequested(100, "a"))
    generation = world.core.ledger.models["a"].generation
    world.engines.held[generation] = GIB
    world.post(EngineReady("a", generation))
    world.memory.ready("a", generation, 1.0)
    world.engines.held[generation] = 9 * GIB
    await world.until(lambda: world.told(FootprintMeasured))
    assert world.expected("a") == {"cpu": 9 * GIB}


async def test_an_order_counts_though_the_estimate_has_followed_a_budget_meanwhile(
    world: World, large: str
) -> None:
    await world.open({"a": {"path": large}}, command=LLAMA)
    world.end("a", world.load("a", held=GIB), ExitCause.OUT_OF_MEMORY)
    raised = world.expected("a")
    await world.memory._change_budgets({"cpu": 5 * GIB})
    # Nobody but an operator has it tried again.
    assert world.expected("a") == raised
    world.post(LoadRequested(100, "a"))
    assert world.core.ledger.models["a"].has_process
    assert world.expected("a")["cpu"] <= 5 * GIB < raised["cpu"]


class Looks:
    """What is free when the machine is looked at again: one value after the other, then None."""

    def __init__(self, *free_gib: int) -> None:
        self.left = list(free_gib)
        self.done = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, machine: Machine, _pids: object) -> tuple[Machine, dict[str, int]]:
        free_gib = self.left.pop(0) if self.left else 30
        if not self.left:
            self._loop.call_soon_threadsafe(self.done.set)
        device = Device("cpu", 32 * GIB, free_gib * GIB)
        return Machine(devices=(device,), measurable=machine.measurable), {}


@pytest.mark.parametrize(
    ("looks", "budget_gib"),
    [
        # Once is an engine that ended between two looks, or a compiler's moment.
        ((20, 30, 30), None),
        ((20, 22, 22, 22), 22),
        ((20, 20, 20, 20), 20),
    ],
)
async def test_a_budget_changes_when_it_is_seen_twice(
    world: World, monkeypatch: pytest.MonkeyPatch, looks: tuple[int, ...], budget_gib: int | None
) -> None:
    monkeypatch.setattr(memories, "LOOK_INTERVAL_S", 0.001)
    monkeypatch.setattr(memories, "_CONFIRM_PAUSE_S", 0.001)
    following = Looks(*looks)
    monkeypatch.setattr(machines, "look_again", following)
    await world.open({"a": {}}, memory={}, memory_reserve=0)
    async with asyncio.timeout(15):
        await following.done.wait()
    if budget_gib is None:
        assert world.told(BudgetsChanged) == []
    else:
        await world.until(lambda: world.told(BudgetsChanged))
        first = world.told(BudgetsChanged)[0]
        assert first == BudgetsChanged(device_bytes({"cpu": budget_gib * GIB}))


async def test_a_fitted_context_follows_the_budget(world: World, large: str) -> None:
    await world.open({"a": {"path": large}}, command=LLAMA)
    before, variables = world.expected("a")["cpu"], world.memory.environment_of("a")
    assert before <= 8 * GIB
    await world.memory._change_budgets({"cpu": 5 * GIB})
    assert world.expected("a")["cpu"] <= 5 * GIB
    assert world.memory.environment_of("a") != variables
    # A model may be gone from the config by the time that its turn comes.
    world.memory._figures["gone"] = world.memory._figures["a"]
    await world.memory._change_budgets({"cpu": 6 * GIB})
    world.memory.forget("gone")
    # One that runs keeps what it was started with, until it is gone.
    generation = world.load("a", held=4 * GIB)
    variables = world.memory.environment_of("a")
    await world.memory._change_budgets({"cpu": 8 * GIB})
    assert world.memory.environment_of("a") == variables
    world.end("a", generation)
    await world.until(lambda: world.memory.environment_of("a") != variables)


async def test_without_memory_awareness_models_run_alone_and_only_loads_are_timed(
    world: World, store: Store
) -> None:
    await world.open({"a": {"memory": "2GiB"}}, memory_aware=False)
    assert (world.group("a"), world.expected("a")) == ("model a", {})
    assert not world.memory.is_aware
    world.load("a", held=GIB, load_s=9.0)
    world.post(RequestArrived(100, "a"))
    await world.until(lambda: world.engines.measured_count > 1)
    (kept,) = store.footprints().values()
    assert (kept.memory_bytes, kept.load_time_s) == ({}, 9.0)
    assert world.core.view("a").load_cost_s == 9.0
