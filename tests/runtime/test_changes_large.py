"""What a router with thousands of models does to those who stream, while it changes."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.config.edit import Edit
from llama_router.config.schema import Config
from llama_router.runtime.stock import Scan, Stock
from tests.support.changing import World, changing
from tests.support.loop_guard import every_time, loop_guard

pytestmark = pytest.mark.asyncio

COUNT = 10_000


class Shelf(Stock):
    """Finds what it is told to, without looking."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(env={}, home=folder, index=None)
        self.found = tuple(_found(folder, number) for number in range(count))

    async def take(self, config: Config, *, is_urgent: bool = False) -> Scan:  # noqa: ARG002
        return Scan(models=self.found)


def _found(folder: Path, number: int) -> CatalogModel:
    path = folder / f"model-{number:05}.gguf"
    return CatalogModel(
        id=path.stem,
        path=path,
        source=ModelSource.MODELS_DIR,
        names=(path.name, f"m{number}"),
        size_bytes=1000,
    )


async def _guarded(work: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - what comes of it
    with loop_guard() as guard:
        guard.forget()
        outcome = await work()
    guard.check()
    return outcome


async def _change_one(world: World, model: str) -> None:
    changes = world.changes
    await _guarded(lambda: changes.override(model, {"ttl_s": 5.0}, keep=False))
    await _guarded(lambda: changes.resolved(model))
    await _guarded(lambda: changes.drop_override(model))
    await _guarded(lambda: changes.override(model, {"ttl_s": 6.0}, keep=True))
    assert world.desk.core.view(model).ttl_s == 6.0
    await _guarded(lambda: changes.edit_config([Edit("set", ("router", "max_waiting"), 9)], None))
    assert world.desk.core.ledger.settings.max_waiting == 9


@every_time
async def test_ten_thousand_models_on_disk_do_not_hold_the_loop_when_something_changes(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("many")
    shelf = Shelf(folder, COUNT)
    async with changing(folder, stock=shelf, models={}) as world:
        changes = world.changes
        await _change_one(world, "model-00007")
        for edit in (
            Edit("set", ("defaults", "ttl_s"), 9.0),
            Edit("set", ("defaults", "parameters"), {"ctx-size": 1}),
        ):
            _etag, report = await _guarded(partial(changes.edit_config, [edit], None))
            assert len(report.changed) >= COUNT - 1
        all_of_them, shelf.found = shelf.found, shelf.found[:1]
        report = await _guarded(changes.rescan)
        assert len(report.removed) == COUNT - 1
        shelf.found = all_of_them
        report = await _guarded(changes.rescan)
        assert len(report.new_models) == COUNT - 1
        assert (await _guarded(lambda: changes.reload("a test"))).changed == ()


@every_time
async def test_a_thousand_files_that_the_config_names_do_not_hold_the_loop_either(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("many")
    models = {f"fox-{number}": {"path": f"/models/fox-{number}.gguf"} for number in range(1000)}
    # One that can be run.
    models["owl"] = {}
    async with changing(folder, stock=Shelf(folder, 0), models=models) as world:
        await _change_one(world, "owl")
        await _guarded(world.changes.rescan)
        await _guarded(lambda: world.changes.reload("a test"))
