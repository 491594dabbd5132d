import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from llama_router.catalog.tiny import write_model
from llama_router.config.edit import Edit
from llama_router.config.schema import Config
from llama_router.runtime import triggers
from llama_router.runtime.applying import Applier, Step
from llama_router.runtime.silent_folders import SilentFolders
from llama_router.runtime.stock import Stock
from llama_router.runtime.triggers import Triggers
from tests.support.changing import World, changing

pytestmark = pytest.mark.asyncio


class Watches:
    """What is watched, in the place of the system."""

    def __init__(self) -> None:
        self.open: dict[tuple[Path, ...], Callable[[], object]] = {}
        self.left_out: tuple[Path, ...] = ()

    def file(self, path: Path, on_change: Callable[[], object]) -> "Watch":
        return Watch(self, (path,), on_change)

    def folders(
        self,
        folders: Sequence[Path],
        on_change: Callable[[], object],
        *,
        left_out: Sequence[Path],
    ) -> "Watch":
        self.left_out = tuple(left_out)
        return Watch(self, tuple(folders), on_change)


class Watch:
    def __init__(
        self, watches: Watches, paths: tuple[Path, ...], on_change: Callable[[], object]
    ) -> None:
        self._watches, self._paths = watches, paths
        watches.open[paths] = on_change

    def close(self) -> None:
        self._watches.open.pop(self._paths, None)


@pytest.fixture
def watches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watches]:
    made = Watches()
    monkeypatch.setattr(triggers, "watch_file", made.file)
    monkeypatch.setattr(triggers, "watch_folders", made.folders)
    yield made
    assert made.open == {}


def stock_of(world: World) -> Stock:
    return Stock(env={}, home=world.folder, index=None, has_caches=False)


def config(world: World, **router: object) -> Config:
    content = {"models_dirs": [str(world.models_dir)], "watch_models": False, **router}
    return Config.model_validate({"router": content})


async def until(world: World, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            # Behind whatever change is under way.
            await world.changes.rescan()


async def test_only_what_the_config_says_is_watched(tmp_path: Path, watches: Watches) -> None:
    async with changing(tmp_path, models={"fox": {}}) as world:
        made = Triggers(world.changes, stock_of(world))
        made.follow(config(world))
        assert watches.open == {}
        made.follow(config(world, watch_config=True, watch_models=True))
        (file,), folders = watches.open
        assert file == world.file
        assert world.models_dir in folders
        before = dict(watches.open)
        made.follow(config(world, watch_config=True, watch_models=True))
        assert watches.open == before
        made.follow(config(world))
        assert watches.open == {}
        made.follow(config(world, watch_config=True))
        made.close()


async def test_a_changed_file_is_followed_but_not_what_the_router_wrote_itself(
    tmp_path: Path, watches: Watches, caplog: pytest.LogCaptureFixture
) -> None:
    async with changing(tmp_path, models={"fox": {}}) as world:
        made = Triggers(world.changes, stock_of(world))
        made.follow(config(world, watch_config=True))
        (changed,) = watches.open.values()
        await world.changes.override("fox", {"ttl_s": 5.0}, keep=True)
        changed()
        world.write(models={"fox": {}, "owl": {}})
        changed()
        await until(world, lambda: len(world.desk.roster) == 2)
        made.close()
    assert caplog.text.count("has changed") <= 1


async def test_changed_folders_are_looked_at(tmp_path: Path, watches: Watches) -> None:
    async with changing(tmp_path, models={"fox": {}}) as world:
        made = Triggers(world.changes, stock_of(world))
        made.follow(config(world, watch_models=True))
        (changed,) = watches.open.values()
        write_model(world.models_dir / "one.gguf", "one", name="one")
        changed()
        changed()
        async with asyncio.timeout(20):
            await asyncio.gather(*made._work)
        assert len(world.desk.roster) == 2
        made.close()


async def test_folders_that_do_not_answer_are_not_watched_until_they_do(
    tmp_path: Path, watches: Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with changing(tmp_path, models={"fox": {}}) as world:
        stock = stock_of(world)
        made = Triggers(world.changes, stock)
        made.follow(config(world, watch_models=True))
        assert watches.left_out == ()
        silent: tuple[Path, ...] = (world.models_dir / "far",)
        monkeypatch.setattr(SilentFolders, "folders", property(lambda _self: silent))
        await asyncio.to_thread(stock.silent.on_change, False)
        await asyncio.sleep(0)
        assert watches.left_out == silent
        assert made._work == set()

        silent = ()
        write_model(world.models_dir / "one.gguf", "one", name="one")
        await asyncio.to_thread(stock.silent.on_change, True)
        await asyncio.sleep(0)
        assert watches.left_out == ()
        async with asyncio.timeout(20):
            await asyncio.gather(*made._work)
        assert len(world.desk.roster) == 2
        made.close()
        stock.silent.on_change(True)
        await asyncio.sleep(0)
        assert made._work == set()


async def test_what_the_router_is_about_to_follow_is_not_somebody_elses_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with changing(tmp_path, models={"fox": {}}) as world:
        written, goes_on = asyncio.Event(), asyncio.Event()
        apply = Applier.apply

        async def held(self: Applier, step: Step) -> object:
            written.set()
            await goes_on.wait()
            return await apply(self, step)

        monkeypatch.setattr(Applier, "apply", held)
        edit = Edit("set", ("models", "name=fox", "ttl_s"), 5.0)
        editing = asyncio.create_task(world.changes.edit_config([edit], None))
        await written.wait()
        # Whoever watches the file sees it now.
        looking = asyncio.create_task(world.changes.is_read_already())
        await asyncio.sleep(0)
        goes_on.set()
        await editing
        assert await looking
