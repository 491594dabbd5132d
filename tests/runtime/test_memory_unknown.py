"""Of thousands of models, those that nobody has asked for are not looked at."""

import asyncio
from pathlib import Path

import pytest

from llama_router.catalog.synthetic import Shape, write_synthetic
from llama_router.config.schema import Config
from llama_router.core.events import Event, LoadRequested, ModelsPatched, RequestArrived
from llama_router.core.machine import Core
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.core.settings import CoreSettings
from llama_router.engines.devices import Device
from llama_router.runtime import appraisal
from llama_router.runtime.appraisal import Appraised, Appraiser, choose_unasked
from llama_router.runtime.foresight import Foresight
from llama_router.runtime.machine import Machine
from llama_router.runtime.memory import Memory
from llama_router.runtime.roster import RosterModel, build_roster, device_bytes

GIB = 2**30
MACHINE = Machine(
    devices=(Device("cpu", 32 * GIB, 30 * GIB),),
    measurable=frozenset({"cpu"}),
    configured={"cpu": 8 * GIB},
)
COMMAND = ["/x/llama-server", "-m", "$path", "--port", "$port"]


class Nobody:
    def pid(self, generation: int) -> int | None:  # noqa: ARG002
        return None

    def pids(self) -> list[int]:
        return []


class World:
    """A real core over many models of one file, of which most are unknown at first."""

    def __init__(self, file: Path, count: int) -> None:
        entries = [{"name": f"m{number}", "path": str(file)} for number in range(count)]
        self.config = Config.model_validate(
            {
                "models": entries,
                "router": {"memory": {"cpu": "8GiB"}},
                "default_spawn": {"command": COMMAND},
            }
        )
        self.roster = build_roster(self.config, [])
        self.appraised: list[str] = []
        self.events: list[Event] = []
        self._news = asyncio.Event()
        appraiser = Appraiser(machine=MACHINE, env={}, found_llama_server=None, remembered=dict)
        appraise = appraiser.appraise

        def watched(model: RosterModel, budgets: dict[str, int]) -> Appraised:
            self.appraised.append(model.found.id)
            return appraise(model, budgets)

        appraiser.appraise = watched  # type: ignore[method-assign,assignment]  # to see who asks
        self.memory = Memory(
            roster=self.roster,
            settings=self.config.router,
            machine=MACHINE,
            appraiser=appraiser,
            store=None,
            post=self.post,
            engines=Nobody(),
        )
        self.core: Core

    async def open(self) -> None:
        specs = await self.memory.appraise(10.0)
        budgets = device_bytes(self.memory.budgets)
        self.core = Core(specs, BenefitOrder(), CoreSettings(budgets=budgets))
        self.memory.open(self.core)

    def post(self, event: Event) -> None:
        self.events.append(event)
        self.core.handle(event, 0.0)
        self._news.set()

    async def until(self, count: int) -> None:
        while len(self.events) < count:
            self._news.clear()
            await self._news.wait()

    def group(self, name: str) -> str:
        return self.core.ledger.models[name].spec.group


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_synthetic(tmp_path / "a.gguf", Shape())


@pytest.mark.asyncio
async def test_only_some_are_looked_at_unasked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appraisal, "MAX_UNASKED_COUNT", 5)
    world = World(file, 100)
    await world.open()

    assert len(world.appraised) == 5
    assert len(world.memory.unknown) == 95
    assert len(world.core.ledger.models) == 100
    (one, *_) = world.memory.unknown
    assert world.group(one) == f"model {one}"
    world.memory.close()


@pytest.mark.asyncio
async def test_core_knows_what_a_model_needs_before_it_decides(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appraisal, "MAX_UNASKED_COUNT", 0)
    world = World(file, 10)
    await world.open()
    foresight = Foresight(world.memory.unknown, world.memory.know, world.post)

    assert foresight.holds(RequestArrived(1, "m3"))
    assert foresight.holds(LoadRequested(2, "m3"))
    async with asyncio.timeout(20):
        await world.memory.know("m3")
        await world.until(3)

    patched, arrived, ordered = world.events
    assert isinstance(patched, ModelsPatched)
    assert [spec.name for spec in patched.changed] == ["m3"]
    assert patched.changed[0].memory
    assert (arrived, ordered) == (RequestArrived(1, "m3"), LoadRequested(2, "m3"))
    assert world.group("m3") == ""
    assert world.appraised == ["m3"]
    assert not foresight.holds(RequestArrived(3, "m3"))
    world.memory.close()


@pytest.mark.asyncio
async def test_model_that_is_gone_is_not_looked_at(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appraisal, "MAX_UNASKED_COUNT", 0)
    world = World(file, 2)
    await world.open()
    world.memory.forget("m1")

    await world.memory.know("m1")
    await world.memory.know("never there")

    assert world.appraised == []
    world.memory.close()


def test_what_the_config_speaks_of_comes_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appraisal, "MAX_UNASKED_COUNT", 2)
    models = list(World(file, 4).roster.models)

    assert choose_unasked(models[:2]) == models[:2]
    assert choose_unasked(models) == models[:2]
