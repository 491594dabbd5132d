import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_router.catalog.tiny import write_model
from llama_router.config.edit import Edit
from llama_router.config.problems import ConfigError, Issue
from llama_router.config.schema import Config
from llama_router.core.events import EngineReaped
from llama_router.proxy.errors import ModelNotFoundError, ShuttingDownError
from llama_router.runtime.changes import ImportReport, ReloadReport, RescanReport
from llama_router.runtime.config_editing import EditConflictError, NotEditableError
from llama_router.runtime.config_file import FixedConfig, ReadError
from llama_router.runtime.feed import ConfigRead, ModelsOnDisk
from llama_router.runtime.overrides import OverrideError
from tests.support.changing import COMMAND, World, changing
from tests.support.loop_guard import every_time, loop_guard

pytestmark = pytest.mark.asyncio

OTHER = [*COMMAND, "--other"]


def write_model_into(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    write_model(folder / f"{name}.gguf", name, name=name)


BOTH: dict[str, Any] = {"fox": {}, "owl": {}}


async def test_a_reload_restarts_what_is_changed_when_it_is_free_and_touches_nothing_else(
    tmp_path: Path,
) -> None:
    together: dict[str, Any] = {name: {"group": "all"} for name in ("fox", "owl", "cat")}
    async with changing(tmp_path, models=together) as world:
        fox, fox_request = world.serve("fox")
        owl, owl_request = world.serve("owl")
        cat, _request = world.serve("cat")
        models = dict(together) | {"owl": {"group": "all", "spawn": {"command": OTHER}}}
        del models["cat"]
        world.write(models={**models, "hen": {"group": "all"}})
        report = await world.changes.reload("a test")
        assert report == ReloadReport(changed=("owl",), added=("hen",), removed=("cat",))
        assert world.room.forgotten == ["cat"]
        assert (fox.log, owl.log, cat.log) == ([1], [2], [3])
        assert world.state("fox") == "loaded"
        assert world.room.terminated == []
        with pytest.raises(ModelNotFoundError):
            world.desk.resolve("cat")

        late, _late_request = world.ask("owl")
        assert late.log == []
        world.desk.finished(owl_request)
        assert world.room.terminated == [2]
        world.desk.post(EngineReaped("owl", 2))
        assert world.room.spawned[-1] == ("owl", 4)
        assert world.desk.roster["owl"].template.command == tuple(OTHER)
        world.serve("hen")
        world.desk.finished(fox_request)
        assert world.state("fox") == "loaded"


async def test_what_no_engine_depends_on_holds_without_a_restart(tmp_path: Path) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        world.serve("fox")
        world.write(models={"fox": {"ttl_s": 7.0, "aliases": ["red"]}, "owl": {}})
        report = await world.changes.reload("a test")
        assert report.changed == ("fox",)
        assert world.state("fox") == "loaded"
        assert world.desk.core.view("fox").ttl_s == 7.0
        assert world.desk.resolve("red").model == "fox"


async def test_a_broken_file_leaves_everything_and_says_where(tmp_path: Path) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        good = world.file.read_text()
        world.file.write_text("models:\n  - name: fox\n    ttl_s: soon\n")
        with pytest.raises(ConfigError, match=r"router\.yaml:3:\d+: models\[0\]\.ttl_s"):
            await world.changes.reload("a test")
        assert "router.yaml:3:" in world.changes.stale
        assert world.desk.resolve("owl").model == "owl"
        world.file.unlink()
        with pytest.raises(ConfigError, match="cannot be read"):
            await world.changes.reload("a test")
        world.file.write_text(good)
        assert await world.changes.reload("a test") == ReloadReport()
        assert world.changes.stale == ""


async def test_what_stands_beside_the_config_is_read_again_with_it_or_nothing_is_followed(
    tmp_path: Path,
) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        seen: list[int] = []

        def reread(config: Config) -> list[str]:
            assert world.changes.config is not config
            seen.append(len(config.models))
            if len(seen) > 1:
                raise ReadError("the keys make no sense")
            return ["a doubt"]

        world.changes._reread = reread
        report = await world.changes.reload("a test")
        assert (report.warnings, seen) == (("a doubt",), [2])
        world.write(models={**BOTH, "hen": {}})
        with pytest.raises(ReadError, match="the keys make no sense"):
            await world.changes.reload("a test")
        assert "hen" not in world.desk.roster
        assert world.changes.stale == "the keys make no sense"


async def test_who_wants_a_reload_while_one_waits_for_its_turn_joins_it(tmp_path: Path) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        first = asyncio.ensure_future(world.changes.reload("first"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        world.write(models={"fox": {}})
        second, third = (asyncio.ensure_future(world.changes.reload("more")) for _ in range(2))
        await first
        assert await second is await third
        assert len(world.desk.roster) == 1


async def test_a_reload_goes_on_when_who_asked_for_it_has_left(tmp_path: Path) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        world.write(models={"fox": {}})
        asked = asyncio.ensure_future(world.changes.reload("a test"))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await world.changes.rescan()
        assert len(world.desk.roster) == 1


async def test_settings_of_the_router_reach_the_core_and_those_of_the_start_are_named(
    tmp_path: Path,
) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        router = {"max_waiting": 3, "drain_deadline_s": 9.0, "port": 1, "policy": "arrival"}
        world.write(models=BOTH, router=router, groups={"g": {"swap": True}})
        report = await world.changes.reload("a test")
        assert report.restart_needed == ("router.port", "router.policy")
        ledger = world.desk.core.ledger
        assert ledger.settings.max_waiting == 3
        assert ledger.settings.groups[0].name == "group g"
        assert ledger.models["fox"].spec.drain_deadline_s == 9.0


async def test_files_named_since_the_last_scan_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        far = tmp_path / "far"
        far.mkdir()
        write_model(far / "lark.gguf", "one two three", name="lark")
        await world.changes.edit_config(
            [Edit("set", ("models", "name=lark", "path"), str(far / "lark.gguf"))], None
        )
        assert world.desk.roster["lark"].found.metadata is not None

        monkeypatch.setattr(sys, "executable", "/bin/false")
        report = await world.changes.reload("a test")
        assert "was not looked at" in report.warnings[-1]
        assert world.desk.roster["lark"].found.metadata is not None


async def test_a_model_that_is_gone_is_known_until_its_engine_is(tmp_path: Path) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        _waiter, request = world.serve("fox")
        world.write(models={"owl": {}})
        await world.changes.reload("a test")
        await world.changes.override("owl", {"ttl_s": 5.0}, keep=False)
        assert world.desk.roster["fox"].template.command == tuple(COMMAND)
        world.desk.finished(request)
        world.desk.post(EngineReaped("fox", 1))
        await world.changes.drop_override("owl")
        with pytest.raises(KeyError):
            world.desk.roster["fox"]


async def test_what_has_begun_is_done_in_full_when_who_asked_for_it_leaves(tmp_path: Path) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        changes = world.changes
        for keep in (False, True):
            settings = {"ttl_s": 5.0 + keep}
            asked = asyncio.ensure_future(changes.override("fox", settings, keep=keep))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            # It waits for its turn.
            await changes.rescan()
            assert world.desk.core.view("fox").ttl_s == settings["ttl_s"]
            assert (await changes.resolved("fox")).entry.ttl_s == settings["ttl_s"]
        assert world.content()["models"][0] == {"name": "fox", "ttl_s": 6.0}
        assert list(changes.overrides) == []


async def test_nothing_is_begun_when_the_router_ends(tmp_path: Path) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        world.changes.stop()
        world.changes.reload_soon("a test")
        for change in (
            world.changes.reload("a test"),
            world.changes.rescan(),
            world.changes.override("fox", {"ttl_s": 5.0}, keep=True),
        ):
            with pytest.raises(ShuttingDownError):
                await change
        assert world.desk.core.view("fox").ttl_s is None


async def test_a_look_at_the_disk_that_fails_is_told_and_takes_no_models_away(
    tmp_path: Path,
) -> None:
    write_model_into(tmp_path / "models", "one")
    async with changing(tmp_path, models=BOTH) as world:
        world.stock.close()
        with pytest.raises(ReadError, match="could not be looked at"):
            await world.changes.rescan()
        assert world.desk.resolve("one").model == "one"


async def test_who_follows_the_events_is_told_of_changes(tmp_path: Path) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        follower = world.desk.feed.subscribe(lambda: None)
        world.write(models={"fox": {"ttl_s": 5.0}}, router={"port": 1})
        await world.changes.reload("a test")
        (read,) = follower.take()
        assert isinstance(read, ConfigRead)
        assert (read.why, read.changed, read.removed) == ("a test", 1, 1)
        assert read.restart_needed == ("router.port",)

        write_model_into(tmp_path / "models", "two")
        await world.changes.rescan()
        (found,) = follower.take()
        assert isinstance(found, ModelsOnDisk)
        assert (found.added, found.removed) == (1, 0)

        world.file.write_text("models: [{}]\n")
        with pytest.raises(ConfigError):
            await world.changes.reload("a test")
        (refused,) = follower.take()
        assert isinstance(refused, ConfigRead)
        assert refused.error == world.changes.stale != ""


async def test_models_come_and_go_with_their_files_but_those_of_the_config_stay(
    tmp_path: Path,
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    write_model(models / "one.gguf", "one", name="one")
    async with changing(tmp_path, models={"mine": {"path": str(models / "one.gguf")}}) as world:
        write_model(models / "two.gguf", "two", name="two")
        report = await world.changes.rescan()
        assert report == RescanReport(new_models=("two",))
        waiter, request = world.serve("two")
        (models / "two.gguf").unlink()
        (models / "one.gguf").unlink()
        report = await world.changes.rescan()
        assert (report.removed, report.changed) == (("two",), ("mine",))
        assert world.desk.find("mine").invalid
        # Who is answered gets the whole answer.
        assert waiter.log == [1]
        assert world.room.terminated == []
        world.desk.finished(request)
        assert world.room.terminated == [1]
        assert await world.changes.rescan() == RescanReport()


async def test_edits_keep_comments_and_hold_at_once(tmp_path: Path) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        world.file.write_text("# mine\n" + world.file.read_text())
        await world.changes.reload("a test")
        text, etag = await world.changes.config_text()
        assert text.startswith("# mine\n")
        edit = Edit("set", ("models", "name=fox", "ttl_s"), 5.0)
        new_etag, report = await world.changes.edit_config([edit], etag)
        assert report.changed == ("fox",)
        assert (await world.changes.config_text())[1] == new_etag
        assert world.file.read_text().startswith("# mine\n")
        assert world.desk.core.view("fox").ttl_s == 5.0
        with pytest.raises(EditConflictError):
            await world.changes.edit_config([edit], etag)
        assert await world.changes.is_read_already()


async def test_an_edit_that_makes_no_config_is_not_written(tmp_path: Path) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        before = world.file.read_text()
        edit = Edit("set", ("models", "name=fox", "ttl_s"), -1.0)
        with pytest.raises(ConfigError, match="ttl_s"):
            await world.changes.edit_config([edit], None)
        assert world.file.read_text() == before
        problems = await world.changes.validate("models: [{}]\n")
        assert [problem.line for problem in problems] == [1]
        assert await world.changes.validate(before) == ()


async def test_overrides_hold_over_reloads_until_they_are_kept_or_dropped(tmp_path: Path) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        changes = world.changes
        resolved = await changes.override("fox", {"ttl_s": 5.0}, keep=False)
        assert resolved.entry.ttl_s == 5.0
        assert resolved.origins["ttl_s"].layer == "set while running"
        await changes.reload("a test")
        assert world.desk.core.view("fox").ttl_s == 5.0
        await changes.override("owl", {"pinned": True}, keep=False)
        await changes.drop_override("fox")
        assert world.desk.core.view("fox").ttl_s is None
        assert list(changes.overrides) == ["owl"]
        with pytest.raises(OverrideError):
            await changes.override("fox", {"spawn": {"command": ["sh"]}}, keep=False)


async def test_a_kept_override_stands_in_the_file(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    write_model(models / "one.gguf", "one", name="one")
    async with changing(tmp_path, models={"fox": {"priority": 3}}) as world:
        changes = world.changes
        await changes.override("fox", {"parameters": {"ctx-size": 9}}, keep=False)
        settings = {"priority": None, "parameters": {"top-k": 1}}
        await changes.override("fox", settings, keep=True)
        await changes.override("one", {"ttl_s": 5.0}, keep=True)
        content = world.content()
        assert content["models"] == [
            {"name": "fox", "parameters": {"ctx-size": 9, "top-k": 1}},
            {"name": "one", "state": "auto", "ttl_s": 5.0},
        ]
        assert list(changes.overrides) == []
        assert world.desk.core.view("one").ttl_s == 5.0
        await changes.override("fox", {"parameters": {"top-k": None}}, keep=True)
        assert world.content()["models"][0]["parameters"] == {"ctx-size": 9}


async def test_a_folder_is_imported_once(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "deep"
    folder.mkdir(parents=True)
    write_model(folder / "one.gguf", "one", name="one")
    async with changing(tmp_path, models={"fox": {}}) as world:
        report = await world.changes.import_dir(str(tmp_path / "elsewhere"))
        assert len(report.added) == 1
        (_fox, entry) = world.content()["models"]
        assert (entry["path"], entry["state"]) == (str(folder / "one.gguf"), "manual")
        assert world.desk.resolve(report.added[0]).model == report.added[0]
        before = world.file.read_text()
        again = await world.changes.import_dir(str(tmp_path / "elsewhere"))
        assert again == ImportReport(skipped=report.added)
        assert world.file.read_text() == before
        with pytest.raises(ConfigError, match="is not a folder"):
            await world.changes.import_dir(str(tmp_path / "nowhere"))


async def test_without_a_file_imports_last_as_long_as_the_router_and_nothing_is_edited(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    write_model(folder / "one.gguf", "one", name="one")
    config = Config.model_validate({"router": {"memory_aware": False}})
    async with changing(tmp_path, source=FixedConfig(config)) as world:
        report = await world.changes.import_dir(str(folder))
        await world.changes.reload("a test")
        assert world.desk.resolve(report.added[0]).model == report.added[0]
        with pytest.raises(NotEditableError):
            await world.changes.config_text()
        with pytest.raises(NotEditableError):
            await world.changes.edit_config([], None)
        (place,) = await world.changes.located([Issue(("router", "ttl_s"), "hm")])
        assert str(place) == "router.ttl_s: hm"
        model = report.added[0]
        await world.changes.override(model, {"ttl_s": 5.0}, keep=False)
        with pytest.raises(NotEditableError):
            await world.changes.override(model, {"priority": 3}, keep=True)
        assert dict(world.changes.overrides[model]) == {"ttl_s": 5.0}


async def test_a_name_that_leads_to_no_model_is_told_once_until_it_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        found = [record.message for record in caplog.records if "no model" in record.message]
        caplog.clear()
        return found

    async with changing(tmp_path, models=BOTH) as world:
        wrong: dict[str, Any] = {"preload": ["fax"]}
        world.write(models=BOTH, router=wrong)
        await world.changes.reload("a test")
        assert warnings() == ["router.preload[0]: there is no model fax; did you mean fox?"]
        await world.changes.reload("a test")
        assert warnings() == []
        world.write(models=BOTH)
        await world.changes.reload("a test")
        world.write(models=BOTH, router=wrong)
        await world.changes.reload("a test")
        assert len(warnings()) == 1


async def test_what_is_kept_is_no_macro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "canary-in-the-environment")
    said = {"description": "${env.CANARY}", "metadata": {"a": ["$${b", "${env.CANARY}"]}}
    async with changing(tmp_path, models=BOTH) as world:
        await world.changes.override("fox", said, keep=True)
        entry = (await world.changes.resolved("fox")).entry
        assert {"description": entry.description, "metadata": entry.metadata} == said
        folder = tmp_path / "imported"
        folder.mkdir()
        write_model(folder / "${env.CANARY}.gguf", "one", name="one")
        report = await world.changes.import_dir(str(folder))
        (model,) = report.added
        await world.changes.override(model, {"ttl_s": 5.0}, keep=True)
        assert (await world.changes.resolved(model)).entry.path == str(
            folder / "${env.CANARY}.gguf"
        )
        assert "canary-in" not in str(world.changes.config)


async def test_another_template_is_chosen_while_running_and_kept_or_dropped(
    tmp_path: Path,
) -> None:
    templates = {"slow": {"ttl_s": 7.0}, "quick": {"ttl_s": 3.0, "priority": 2}}
    models = {"fox": {"template": "slow"}, "owl": {}}
    async with changing(tmp_path, models=models, templates=templates) as world:
        changes = world.changes
        resolved = await changes.override("fox", {"template": "quick"}, keep=False)
        assert (resolved.entry.template, resolved.entry.ttl_s) == (("quick",), 3.0)
        assert resolved.origins["ttl_s"].layer == "template quick"
        assert world.desk.core.view("fox").ttl_s == 3.0
        with pytest.raises(OverrideError, match="no template 'none'"):
            await changes.override("owl", {"template": ["quick", "none"]}, keep=False)

        world.write(models=models, templates={"slow": templates["slow"]})
        await changes.reload("the chosen one is gone")
        assert world.desk.core.view("fox").ttl_s is None
        await changes.drop_override("fox")
        assert world.desk.core.view("fox").ttl_s == 7.0

        await changes.override("owl", {"template": ["slow"]}, keep=True)
        assert world.content()["models"][1] == {"name": "owl", "template": ["slow"]}
        assert world.desk.core.view("owl").ttl_s == 7.0


async def test_settings_of_a_model_that_is_gone_are_refused(tmp_path: Path) -> None:
    async with changing(tmp_path, models=BOTH) as world:
        for change in (
            world.changes.override("cat", {"ttl_s": 5.0}, keep=True),
            world.changes.drop_override("cat"),
        ):
            with pytest.raises(OverrideError, match="'cat' is gone"):
                await change
        assert len(world.content()["models"]) == 2


def _many(count: int, **settings: object) -> dict[str, dict[str, object]]:
    return {f"model-{number}": {"group": "all", **settings} for number in range(count)}


async def _under_guard(world: World, models: dict[str, dict[str, object]]) -> ReloadReport:
    world.write(models=models)
    with loop_guard() as guard:
        guard.forget()
        report = await world.changes.reload("a test")
    guard.check()
    return report


@every_time
async def test_a_reload_of_a_thousand_models_does_not_hold_the_loop(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with changing(tmp_path_factory.mktemp("many"), models=_many(1000)) as world:
        world.serve("model-7")
        report = await _under_guard(world, _many(1000, ttl_s=5.0))
        assert len(report.changed) == 1000
        report = await _under_guard(world, {"model-7": {"group": "all", "ttl_s": 5.0}})
        assert len(report.removed) == 999
        report = await _under_guard(world, _many(1000))
        assert len(report.added) == 999
        assert world.state("model-7") == "loaded"
