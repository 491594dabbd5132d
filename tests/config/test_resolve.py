import time
from pathlib import Path
from typing import Any

import pytest

from llama_router.config.document import Document
from llama_router.config.resolve import BUILT_IN, OVERRIDE, Origin, place_of, resolve
from llama_router.config.schema import Config, ModelEntry, ModelSettings, SpawnSettings
from llama_router.config.validate import validate
from tests.support.loop_guard import slowness

LAYERS: dict[str, Any] = {
    "router": {"ttl_s": 1, "max_waiting": 7},
    "default_spawn": {"env": {"A": "default", "B": "default"}, "owner_check": "port"},
    "defaults": {
        "ttl_s": 2,
        "parameters": {"ctx-size": 1, "jinja": True},
        "spawn": {"env": {"B": "defaults", "C": "defaults"}},
        "metadata": {"a": 1},
    },
    "templates": {
        "one": {
            "ttl_s": 3,
            "priority": 1,
            "parameters": {"ctx-size": 2},
            "filters": {"strip_params": ["x"], "set_params": {"a": 1, "b": 1}},
        },
        "two": {"ttl_s": 4, "filters": {"set_params": {"b": 2}}, "spawn": {"command": ["two"]}},
    },
    "models": [
        {
            "name": "plain",
            "filters": {"set_params_by_id": {"plain:high": {"a": 9}}},
        },
        {
            "name": "full",
            "template": ["one", "two"],
            "ttl_s": 0,
            "parameters": {"ctx-size": 3},
            "spawn": {"env": {"D": "entry"}},
            "metadata": {"b": 2},
        },
        {"name": "one", "template": "one"},
    ],
}


def config_of(content: dict[str, Any]) -> Config:
    config, issues = validate(content)
    assert config is not None, issues
    return config


def test_the_upper_layer_holds_and_maps_are_put_together() -> None:
    config = config_of(LAYERS)
    resolved = resolve(config, config.models[1])
    entry, spawn = resolved.entry, resolved.spawn
    assert (entry.name, entry.ttl_s, entry.priority) == ("full", 0, 1)
    assert entry.parameters == {"ctx-size": 3, "jinja": True}
    assert entry.metadata == {"a": 1, "b": 2}
    assert entry.filters.strip_params == ("x",)
    assert entry.filters.set_params == {"a": 1, "b": 2}
    assert spawn.command == ("two",)
    assert spawn.env == {"A": "default", "B": "defaults", "C": "defaults", "D": "entry"}
    assert (spawn.owner_check, spawn.health_endpoint) == ("port", "/health")
    assert entry.spawn.model_dump() == spawn.model_dump()
    assert resolve(config, config.models[2]).entry.ttl_s == 3
    assert resolve(config, config.models[0]).entry.ttl_s == 2


def test_nothing_is_left_to_another_layer() -> None:
    entry = resolve(Config(), ModelEntry(name="a")).entry
    assert [field for field, value in entry if value is None] == ["memory"]
    assert entry.max_waiting == Config().router.max_waiting
    assert resolve(config_of(LAYERS), None).entry.max_waiting == 7
    assert resolve(Config(), None).spawn == SpawnSettings()


def test_what_is_set_while_running_is_above_all() -> None:
    config = config_of(LAYERS)
    override = ModelSettings(ttl_s=60, parameters={"ctx-size": 4})
    resolved = resolve(config, config.models[1], override)
    assert resolved.entry.ttl_s == 60
    assert resolved.entry.parameters == {"ctx-size": 4, "jinja": True}
    assert resolved.origins["ttl_s"] == Origin(OVERRIDE)
    assert resolve(config, None, override).entry.ttl_s == 60
    assert resolve(config, None).entry.ttl_s == 2


def test_what_sets_nothing_changes_nothing() -> None:
    config = config_of(LAYERS)
    nothing = ModelSettings(ttl_s=None, max_waiting=0, pinned=False)
    resolved = resolve(config, config.models[1], nothing)
    assert resolved.entry == resolve(config, config.models[1]).entry
    assert resolved.origins["ttl_s"].layer == "entry"
    assert resolved.origins["pinned"].layer == OVERRIDE


def test_each_value_has_an_origin() -> None:
    config = config_of(LAYERS)
    origins = resolve(config, config.models[1]).origins
    expected = {
        "ttl_s": Origin("entry", ("models", 1, "ttl_s")),
        "priority": Origin("template one", ("templates", "one", "priority")),
        "parameters.ctx-size": Origin("entry", ("models", 1, "parameters", "ctx-size")),
        "parameters.jinja": Origin("defaults", ("defaults", "parameters", "jinja")),
        "spawn.command": Origin("template two", ("templates", "two", "spawn", "command")),
        "spawn.owner_check": Origin("default_spawn", ("default_spawn", "owner_check")),
        "spawn.health_endpoint": Origin(BUILT_IN),
        "spawn.env.A": Origin("default_spawn", ("default_spawn", "env", "A")),
        "spawn.env.C": Origin("defaults", ("defaults", "spawn", "env", "C")),
        "filters.set_params.b": Origin(
            "template two", ("templates", "two", "filters", "set_params", "b")
        ),
        "max_waiting": Origin("router", ("router", "max_waiting")),
        "read_timeout_s": Origin(BUILT_IN),
    }
    assert {path: origins[path] for path in expected} == expected


def test_an_origin_is_written_with_its_file_and_line() -> None:
    text = "router:\n  port: 1\n  ttl_s: 5\n"
    document = Document(text, Path("c.yaml"))
    assert place_of(Origin("router", ("router", "ttl_s")), document) == "router (c.yaml:3)"
    assert place_of(Origin(BUILT_IN), document) == BUILT_IN
    assert place_of(Origin("router", ("router", "ttl_s")), None) == "router"


def test_models_without_an_entry_share_one_result() -> None:
    config = config_of(LAYERS)
    assert resolve(config, None) is resolve(config, None)
    assert resolve(Config(), None) is not resolve(config, None)


@pytest.mark.parametrize("entries_count", [0, 10_000])
def test_ten_thousand_models_are_resolved_in_well_under_a_second(entries_count: int) -> None:
    entries = [{"name": f"m{number}", "template": "one"} for number in range(entries_count)]
    config = config_of(LAYERS | {"models": entries})
    began_s = time.process_time()
    for entry in config.models or [None] * 10_000:
        resolve(config, entry)
    assert (time.process_time() - began_s) / slowness() < 0.8
