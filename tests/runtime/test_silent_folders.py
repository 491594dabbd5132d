import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from llama_router.catalog.tiny import write_model
from llama_router.config.schema import Config
from llama_router.runtime import scan_process, silent_folders, stock
from llama_router.runtime.stock import Stock
from tests.support.dead_folder import DeadFolder

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(sys.platform == "win32", reason="a FIFO stands for the disk"),
]
PATIENCE_S = 50.0


class World:
    """Two folders of models; the disk of one of them may die."""

    def __init__(self, folder: Path) -> None:
        self.dead = DeadFolder(folder / "nas", folder / "gate")
        self.live = folder / "live"
        self.stock = Stock(env={}, home=folder / "home", index=folder / "index", has_caches=False)
        self.answers: asyncio.Queue[bool] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self.stock.silent.on_change = lambda answers: loop.call_soon_threadsafe(
            self.answers.put_nowait, answers
        )

    def write(self, folder: Path, name: str) -> None:
        folder.mkdir(exist_ok=True)
        write_model(folder / f"{name}.gguf", "one two three", name=name)

    @property
    def config(self) -> Config:
        folders = [str(self.dead.folder), str(self.live)]
        return Config.model_validate({"router": {"models_dirs": folders}})


@pytest_asyncio.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    made = World(tmp_path)
    monkeypatch.setattr(scan_process, "start_helper", made.dead.start)
    monkeypatch.setattr(silent_folders, "_FIRST_PAUSE_S", 0.01)
    made.write(made.dead.folder, "x")
    made.write(made.dead.folder, "far")
    made.write(made.live, "x")
    async with asyncio.timeout(PATIENCE_S):
        yield made
        made.stock.close()
        made.dead.answer()
        for process in made.dead.processes:
            process.kill()
            await asyncio.to_thread(process.wait)


def die(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.dead.die()
    # A second in place of a minute.
    monkeypatch.setattr(scan_process, "_STILL_MAX_COUNT", 4)


async def test_a_dead_folder_is_left_out_its_models_stay_and_it_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = await world.stock.take(world.config)
    assert [one.id for one in before.models] == ["far", "live/x", "x"]
    die(world, monkeypatch)
    world.write(world.live, "near")

    during = await world.stock.take(world.config)

    assert [one.id for one in during.models] == ["far", "live/x", "near", "x"]
    assert (during.added, during.changed, during.removed) == (("near",), (), ())
    assert during.models[0] is before.models[0]
    assert (during.silent, during.problem) == ((world.dead.folder,), "")
    told = f"{world.dead.folder} does not answer"
    assert told in during.warnings[0]
    assert "models known of it stay listed: 2" in during.warnings[0]
    assert told in caplog.text
    assert await world.answers.get() is False

    # Nobody who scans asks it any more.
    again = await world.stock.take(world.config)
    assert again.is_same
    assert caplog.text.count(told) == 1

    world.dead.answer()
    assert await world.answers.get() is True
    world.write(world.dead.folder, "new")
    (world.dead.folder / "far.gguf").unlink()
    after = await world.stock.take(world.config)
    assert (after.added, after.removed, after.silent, after.warnings) == (
        ("new",),
        ("far",),
        (),
        (),
    )


async def test_what_the_config_no_longer_names_does_not_stay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.stock.take(world.config)
    die(world, monkeypatch)
    await world.stock.take(world.config)

    router = {"models_dirs": [str(world.live)]}
    scan = await world.stock.take(Config.model_validate({"router": router}))

    assert [one.id for one in scan.models] == ["x"]
    assert (scan.silent, scan.warnings) == ((), ())


async def test_a_file_that_the_config_names_is_not_asked_for_either(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = str(world.dead.folder / "far.gguf")
    config = Config.model_validate(
        {
            "router": {"models_dirs": [str(world.live)]},
            "models": [{"name": "mine", "path": far, "state": "manual"}],
        }
    )
    before = await world.stock.take(config)
    assert [one.id for one in before.models] == ["x", far]
    die(world, monkeypatch)

    during = await world.stock.take(config)

    assert during.models == before.models
    assert during.silent == (world.dead.folder,)


async def test_processes_that_cannot_be_killed_are_left_and_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silent_folders, "_HANGING_MAX_COUNT", 1)
    started = world.dead.start

    def start(module: str) -> "subprocess.Popen[bytes]":
        process = started(module)
        # As the system does with who waits for a dead mount.
        process.kill = lambda: None  # type: ignore[method-assign]
        return process

    monkeypatch.setattr(scan_process, "start_helper", start)
    await world.stock.take(world.config)
    die(world, monkeypatch)
    monkeypatch.setattr(stock, "_END_TIMEOUT_S", 0)

    first = await world.stock.take(world.config)
    assert first.problem.startswith("too many processes")
    assert len(first.models) == 3
    stuck = world.dead.processes[-1]
    assert stuck.poll() is None
    refused = await world.stock.take(world.config)
    assert (refused.problem, refused.models) == (first.problem, first.models)
    assert world.dead.processes[-1] is stuck

    # It ends when the disk answers, and is reaped; then the folder is tried, by another process.
    world.dead.answer()
    assert [await world.answers.get(), await world.answers.get()] == [False, True]
    monkeypatch.undo()
    after = await world.stock.take(world.config)
    assert (after.problem, after.silent) == ("", ())
    assert stuck.returncode is not None
