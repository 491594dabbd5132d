import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.config.edit import etag
from llama_router.config.schema import Config
from llama_router.control.facade import ControlError
from llama_router.control.facades import ConfigEdit, DeletedInfo
from llama_router.core.machine import Core
from llama_router.engines.parameters import Parameter, ParameterKind, table_of
from llama_router.runtime.bridge_config import ConfigBridge
from llama_router.runtime.changes import Changes
from llama_router.runtime.config_file import ConfigFile
from llama_router.runtime.desk import Desk
from llama_router.runtime.engine_room import EngineRoom
from llama_router.runtime.overrides import Overrides
from llama_router.runtime.roster import Roster, build_roster
from tests.runtime.test_bridge import elsewhere
from tests.runtime.test_desk import Room

pytestmark = pytest.mark.asyncio

SECRET = "the-secret-token"
CONTENT = {
    "version": "1.0",
    "router": {"admin_token": SECRET, "ttl_s": 60},
    "models": [
        {"name": "alpha", "path": "", "spawn": {"env": {"KEY": SECRET}}, "parameters": {"seed": 1}},
        {"name": "beta", "aliases": ["b"]},
    ],
    "selectors": {"first": {"strategy": "warm", "targets": ["alpha", "beta"]}},
    "profiles": {"work": {"description": "d", "pins": {"beta": "alpha"}}},
}
TABLE = table_of(
    [
        Parameter(name="ctx-size", kind=ParameterKind.INTEGER, aliases=("c",), minimum=0),
        Parameter(name="jinja", kind=ParameterKind.FLAG, opposites=("no-jinja",)),
        Parameter(name="api-key", kind=ParameterKind.TEXT),
    ]
)


class Tables:
    """What engines say of their options."""

    async def of(self, command: tuple[str, ...]) -> object:
        return None if command[0] == "mute" else TABLE


class Applier:
    """Follows at once, without a router that would be followed."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def compare(self, new: Roster) -> Any:  # noqa: ANN401 - a step, as far as it is looked at
        class Step:
            roster = new

            class other:  # noqa: N801 - a field
                changed = added = removed = ()

        return Step

    async def apply(self, step: Any) -> list[Any]:  # noqa: ANN401 - see above
        self._desk.roster.follow(step.roster)
        self._desk.rename()
        return []


class Finds:
    problem = ""
    silent: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    def __init__(self, models: tuple[CatalogModel, ...] = ()) -> None:
        self.models = models


class Shelves:
    def __init__(self, models: tuple[CatalogModel, ...] = ()) -> None:
        self._models = models

    async def take(self, _config: Config) -> Finds:
        return Finds(self._models)


class Cache:
    def holds(self, _path: Path) -> bool:
        return True

    async def delete(self, model: str, _paths: tuple[Path, ...]) -> DeletedInfo:
        return DeletedInfo(model=model, files=(), freed_bytes=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "router.json"
    path.write_text(json.dumps(CONTENT, indent=2))
    return path


def text_of(path: Path) -> str:
    return path.read_text()


def bridge_over(path: Path, *found: CatalogModel) -> ConfigBridge:
    source = ConfigFile(path)
    reading = source.read()
    desk, room = Desk(), Room()
    room.parameters = Tables()  # type: ignore[attr-defined]  # as far as it is asked here
    roster = build_roster(reading.config, found)
    desk.open(Core(roster.specs()), roster, cast("EngineRoom", room))
    bridge = ConfigBridge(desk, Cache())
    bridge.changes = Changes(
        source=source,
        reading=reading,
        finds=Finds(found),
        stock=Shelves(found),
        folders=Shelves(),
        applier=Applier(desk),  # type: ignore[arg-type]  # as far as it is asked here
        roster=roster,
        overrides=Overrides(),
    )
    return bridge


async def refusal(question: Any) -> tuple[int, str, str | None]:  # noqa: ANN401 - any question
    with pytest.raises(ControlError) as raised:
        await elsewhere(question)
    assert SECRET not in raised.value.message
    return raised.value.status, raised.value.code, raised.value.param


async def test_the_file_is_shown_without_its_secrets(path: Path) -> None:
    shown = await elsewhere(bridge_over(path).text())
    assert shown.path == str(path)
    assert shown.etag == etag(text_of(path))
    assert SECRET not in shown.text
    assert json.loads(shown.text)["router"] == {"admin_token": "********", "ttl_s": 60}


async def test_what_holds_for_a_model_is_told_with_its_place_and_without_secrets(
    path: Path,
) -> None:
    bridge = bridge_over(path)
    info = await elsewhere(bridge.resolved("b"))
    assert (info.model, info.settings["ttl_s"]) == ("beta", 60.0)
    line = text_of(path)[: text_of(path).index('"ttl_s"')].count("\n") + 1
    assert info.origins["ttl_s"] == f"router (router.ttl_s, {path}:{line})"
    assert info.origins["pinned"] == "built in"
    alpha = await elsewhere(bridge.settings("alpha"))
    assert alpha.origins["parameters.seed"] == "entry (models[alpha].parameters.seed)"
    assert SECRET not in repr(alpha)
    assert await refusal(bridge.resolved("nobody")) == (404, "model_not_found", "model")


async def test_edits_are_written_and_those_that_are_not_the_apis_are_not(path: Path) -> None:
    bridge = bridge_over(path)
    known = etag(text_of(path))
    edit = ConfigEdit("set", ("models", 1, "ttl_s"), 5)
    now, _report = await elsewhere(bridge.edit([edit], known))
    assert json.loads(text_of(path))["models"][1]["ttl_s"] == 5
    assert now == etag(text_of(path))
    assert await refusal(bridge.edit([edit], known)) == (412, "config_changed", "if-match")
    for place, value in (
        (("default_spawn", "command"), ["sh", "-c", "id"]),
        (("router", "admin_token"), "mine"),
        (("router",), {}),
        (("models", 0, "spawn", "env", "LD_PRELOAD"), "/tmp/x.so"),
    ):
        refused = await refusal(bridge.edit([ConfigEdit("set", place, value)], now))
        assert refused == (400, "local_only", "edits")
    wrong = ConfigEdit("set", ("models", 1, "ttl_s"), "long")
    assert (await refusal(bridge.edit([wrong], now)))[:2] == (400, "invalid_config")
    assert etag(text_of(path)) == now


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"ctx-size": "x"}, "ctx-size"),
        ({"ctx-size": -1}, "ctx-size"),
        ({"api-key": "x"}, "api-key"),
        ({"no-such": 1}, "no-such"),
        ({"jinja": 5}, "jinja"),
    ],
)
async def test_options_that_may_not_be_set_are_refused_by_name(
    path: Path, parameters: Mapping[str, object], named: str
) -> None:
    bridge = bridge_over(path)
    with pytest.raises(ControlError, match=named) as raised:
        await elsewhere(bridge.configure("beta", {"parameters": parameters}, keep=False))
    assert (raised.value.status, raised.value.param) == (400, "settings.parameters")
    assert (await elsewhere(bridge.settings("beta"))).override == {}


async def test_settings_are_set_and_forgotten_or_kept_in_the_file(path: Path) -> None:
    bridge = bridge_over(path)
    before = text_of(path)
    order = {"ttl_s": 5.0, "parameters": {"ctx-size": 8, "jinja": None}}
    info = await elsewhere(bridge.configure("b", order, keep=False))
    assert (info.model, info.settings["ttl_s"]) == ("beta", 5.0)
    assert info.settings["parameters"] == {"ctx-size": 8}
    assert info.override == {"ttl_s": 5.0, "parameters": {"ctx-size": 8}}
    assert info.origins["ttl_s"] == "set while running"
    dropped = await elsewhere(bridge.drop_override("beta"))
    assert (dropped.override, dropped.settings["ttl_s"]) == ({}, 60.0)
    assert text_of(path) == before
    await elsewhere(bridge.configure("beta", {"ttl_s": 7.0}, keep=True))
    assert json.loads(text_of(path))["models"][1]["ttl_s"] == 7
    wrong = bridge.configure("beta", {"spawn": {"command": ["sh"]}}, keep=False)
    assert await refusal(wrong) == (400, "invalid_request", "settings")


async def test_what_is_set_by_name_takes_no_name_of_another_model(path: Path) -> None:
    bridge = bridge_over(path)
    for taken in ("alpha", "first"):
        filters = {"filters": {"set_params_by_id": {"beta:high": {}, taken: {"top_k": 1}}}}
        with pytest.raises(ControlError, match=f"'{taken}' is a name of") as raised:
            await elsewhere(bridge.configure("beta", filters, keep=False))
        assert (raised.value.status, raised.value.param) == (400, "settings.filters")
    own = {"filters": {"set_params_by_id": {"b": {}, "beta": {}, "beta:high": {"top_k": 1}}}}
    for _ in range(2):
        info = await elsewhere(bridge.configure("beta", own, keep=False))
        assert info.override == own


async def test_a_text_is_checked_and_a_broken_file_is_said(path: Path) -> None:
    bridge = bridge_over(path)
    assert await elsewhere(bridge.validate('{"version": "1.0"}')) == []
    (problem,) = await elsewhere(bridge.validate('{"router": {"port": "x"}}'))
    assert (problem.key, problem.line > 0) == ("router.port", True)
    assert json.loads(await elsewhere(bridge.schema()))["type"] == "object"
    assert (await elsewhere(bridge.reload())).changed == ()
    path.write_text(f'{{"router": {{"admin_token": "{SECRET}')  # noqa: ASYNC240 - one line
    assert (await refusal(bridge.reload()))[:2] == (400, "invalid_config")
    assert (await refusal(bridge.text()))[:2] == (409, "invalid_config")


async def test_profiles_are_listed_and_made_active(path: Path) -> None:
    bridge = bridge_over(path)
    profiles, active = await elsewhere(bridge.profiles())
    assert ([one.pins for one in profiles], active) == ([{"beta": "alpha"}], "")
    await elsewhere(bridge.activate_profile("work"))
    assert (await elsewhere(bridge.profiles()))[1] == "work"
    assert await refusal(bridge.activate_profile("play")) == (404, "not_found", None)


async def test_the_engines_options_are_told_without_the_reserved_ones(path: Path) -> None:
    found = await elsewhere(bridge_over(path).parameters(None))
    assert found is not None
    assert [(one.name, one.kind) for one in found] == [("ctx-size", "integer"), ("jinja", "flag")]


async def test_before_the_router_serves_there_is_nothing_to_be_changed(path: Path) -> None:
    bridge = bridge_over(path)
    bridge.changes = None
    for question in (bridge.text(), bridge.settings("alpha")):
        assert await refusal(question) == (503, "unavailable", None)
    with pytest.raises(ControlError, match="still starting"):
        await bridge.reload()


async def test_a_model_of_the_config_is_not_deleted(path: Path) -> None:
    deleted = await refusal(bridge_over(path).delete("alpha", force=True))
    assert deleted[:2] == (409, "not_deletable")


@pytest.mark.parametrize("name", ["org/m:Q8_0", "m.gguf", "mine"])
async def test_the_startup_model_is_deleted_by_force_only_and_the_file_forgets_it(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "router.yaml"
    path.write_text(
        f"# mine\nstartup_model: {name}  # my favourite\n"
        "models:\n  - {name: 'org/m:Q8_0', state: auto, aliases: [mine]}\n"
    )
    file = tmp_path / "m.gguf"
    found = CatalogModel(
        id="org/m:Q8_0", path=file, source=ModelSource.HUB_CACHE, names=("m.gguf",), invalid="bad"
    )
    bridge = bridge_over(path, found)

    refused = await refusal(bridge.delete("org/m:Q8_0", force=False))
    assert refused[:2] == (409, "startup_model")
    assert name in path.read_text()

    deleted = await elsewhere(bridge.delete("org/m:Q8_0", force=True))
    assert deleted.model == "org/m:Q8_0"
    text = path.read_text()
    assert text.startswith('# mine\nstartup_model: ""  # my favourite\n')
    assert bridge._changes.config.startup_model == ""
    # Another model does not care.
    assert (await elsewhere(bridge.delete("org/m:Q8_0", force=False))).model == "org/m:Q8_0"
