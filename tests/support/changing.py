"""A router's core under changes of its config: real files, a real core, engines that are not there.

async with changing(folder, models={"fox": {}}) as world:
    world.write(models={"fox": {"ttl_s": 5.0}})
    report = await world.changes.reload("a test")
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from llama_router.config.document import Document
from llama_router.core.events import EngineReady, EngineSpawned
from llama_router.core.machine import Core
from llama_router.proxy.upstream import Upstream
from llama_router.runtime.applying import Applier, core_settings
from llama_router.runtime.appraisal import Appraiser
from llama_router.runtime.changes import Changes
from llama_router.runtime.config_file import ConfigFile, ConfigSource, FixedConfig
from llama_router.runtime.desk import Desk
from llama_router.runtime.engine_room import EngineRoom
from llama_router.runtime.machine import Machine
from llama_router.runtime.memory import Memory
from llama_router.runtime.roster import build_roster
from llama_router.runtime.stock import Stock
from tests.support.waiter import Waiter

COMMAND = ["engine", "--model", "$model", "--port", "$port"]


class Room:
    """An engine room whose engines are ready when the test says so."""

    def __init__(self) -> None:
        self.spawned: list[tuple[str, int]] = []
        self.terminated: list[int] = []
        self.forgotten: list[str] = []

    def forget(self, model: str) -> None:
        self.forgotten.append(model)

    def spawn(self, model: str, generation: int) -> None:
        self.spawned.append((model, generation))

    def terminate(self, generation: int) -> None:
        self.terminated.append(generation)

    def kill(self, generation: int) -> None:
        self.terminated.append(generation)

    def doubt(self, model: str, generation: int) -> None:
        raise AssertionError(f"{model} {generation} was doubted")

    def upstream(self, generation: int) -> Upstream:
        return cast("Upstream", generation)

    def pid(self, generation: int) -> int | None:  # noqa: ARG002 - there is none
        return None

    def pids(self) -> list[int]:
        return []


class World:
    """What a test has its hands on. ``file`` is the config's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "router.yaml"
        self.models_dir = folder / "models"
        self.room = Room()
        self.desk: Desk
        self.changes: Changes
        self.stock: Stock

    def write(
        self, *, models: Mapping[str, Mapping[str, Any]] | None = None, **rest: object
    ) -> None:
        """Write the config anew."""
        entries = [{"name": name, **settings} for name, settings in (models or {}).items()]
        router = {
            "memory_aware": False,
            "models_dirs": [str(self.models_dir)],
            **cast("Mapping[str, Any]", rest.pop("router", {})),
        }
        spawn = {"command": COMMAND}
        content = {"router": router, "default_spawn": spawn, "models": entries, **rest}
        # JSON is YAML, and quicker to write.
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(content, indent=1))
        # Whole, as somebody may be reading it.
        fresh.replace(self.file)

    def content(self) -> dict[str, Any]:
        """Return what the config's file says now."""
        return Document(self.file.read_text(), self.file).plain()[0]

    def ask(self, model: str) -> tuple[Waiter, int | None]:
        """Let a request for a model arrive, as the data plane does."""
        waiter = Waiter()
        target = self.desk.resolve(model)
        request = self.desk.submit(waiter, target.model, may_load=True, wants_notices=False)
        return waiter, request

    def serve(self, model: str) -> tuple[Waiter, int]:
        """Let a request arrive and its engine come up; return the request, which goes on."""
        waiter, request = self.ask(model)
        name, generation = self.room.spawned[-1]
        self.desk.post(EngineSpawned(name, generation))
        self.desk.post(EngineReady(name, generation))
        assert request is not None
        assert waiter.log == [generation]
        return waiter, request

    def state(self, model: str) -> str:
        return self.desk.core.view(model).state

    async def start(self, source: ConfigSource | None, stock: Stock | None) -> None:
        """Do what a router does at its start."""
        source = source or ConfigFile(self.file)
        reading = source.read()
        config = reading.config
        env: dict[str, str] = {}
        self.stock = stock = stock or Stock(env=env, home=self.folder, index=None)
        finds = await stock.take(config, is_urgent=True)
        roster = build_roster(config, finds.models)
        self.desk = desk = Desk()
        machine = Machine()
        memory = Memory(
            roster=roster,
            settings=config.router,
            machine=machine,
            appraiser=Appraiser(machine=machine, env=env, found_llama_server=None, remembered=dict),
            store=None,
            post=desk.post,
            engines=self.room,
        )
        core = Core(await memory.appraise(), settings=core_settings(config, roster, memory.budgets))
        desk.open(core, roster, cast("EngineRoom", self.room))
        memory.open(core)
        self.changes = Changes(
            source=source,
            reading=reading,
            finds=finds,
            stock=stock,
            folders=Stock(env=env, home=self.folder, index=None, has_caches=False),
            applier=Applier(desk, memory),
            roster=roster,
            publish=desk.feed.publish,
        )
        self._memory = memory

    async def close(self) -> None:
        await self.changes.close()
        self._memory.close()
        self.desk.close()
        # Tasks that were cancelled come to their end.
        await asyncio.sleep(0)


@asynccontextmanager
async def changing(
    folder: Path,
    *,
    source: ConfigSource | None = None,
    stock: Stock | None = None,
    **content: Any,  # noqa: ANN401 - plain data
) -> AsyncIterator[World]:
    """Give a world that begins with this config; ``stock`` knows which models there are."""
    world = World(folder)
    world.models_dir.mkdir(exist_ok=True)
    world.write(**content)
    await world.start(source, stock)
    try:
        yield world
    finally:
        await world.close()


__all__ = ["COMMAND", "ConfigFile", "FixedConfig", "Room", "Waiter", "World", "changing"]
