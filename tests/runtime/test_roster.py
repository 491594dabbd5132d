import logging
import os
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.catalog.tiny import write_model
from llama_router.config.schema import Config, ModelSettings
from llama_router.core.events import DeviceBytes
from llama_router.engines.launch import OwnerCheck
from llama_router.runtime.roster import (
    Figure,
    build_roster,
    take_stock,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fox.gguf"
    path.write_bytes(b"x" * 10)
    return path


@pytest.fixture
def found(file: Path) -> CatalogModel:
    return CatalogModel(
        id="fox",
        path=file,
        source=ModelSource.MODELS_DIR,
        names=("fox.gguf",),
        mmproj=file.with_name("mmproj.gguf"),
        size_bytes=1000,
    )


def config(*models: dict[str, Any], **rest: Any) -> Config:  # noqa: ANN401 - plain data
    return Config.model_validate({"models": models, **rest})


def test_a_found_model_has_the_default_spawn_and_runs_alone(found: CatalogModel) -> None:
    roster = build_roster(config(), [found])
    (model,) = roster.models
    assert model.spawn == Config().default_spawn
    assert model.group == ""
    assert model.facts.mmproj == found.mmproj
    (spec,) = roster.specs()
    assert (spec.name, spec.group) == ("fox", "model fox")


@pytest.mark.parametrize("name", ["fox", "fox.gguf", "by-its-file"])
def test_an_auto_entry_gives_settings_to_the_model_it_names(
    found: CatalogModel, file: Path, name: str
) -> None:
    path = str(file) if name == "by-its-file" else ""
    entry = {
        "name": name,
        "state": "auto",
        "path": path,
        "group": "g",
        "aliases": ["quick"],
        "spawn": {"owner_check": "port"},
    }
    roster = build_roster(config(entry), [found])
    (model,) = roster.models
    assert (model.found.id, model.group) == ("fox", "g")
    assert model.template.owner_check is OwnerCheck.PORT
    assert {roster.catalog.resolve(each).id for each in (name, "quick", "fox.gguf")} == {"fox"}
    assert roster.specs()[0].group == "group g"


def test_an_auto_entry_without_its_file_is_no_model(found: CatalogModel) -> None:
    entry = {"name": "gone", "state": "auto", "path": "/nowhere/gone.gguf"}
    assert [model.found.id for model in build_roster(config(entry), [found]).models] == ["fox"]


def test_entries_without_their_files_are_told_in_one_line(
    found: CatalogModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    build_roster(config({"name": "fox", "state": "auto"}), [found])
    assert not caplog.messages
    names = [f"org/name-{number}:Q8_0" for number in range(12)]
    build_roster(config(*({"name": name, "state": "auto"} for name in names)), [found])
    (message,) = caplog.messages
    assert "org/name-0:Q8_0, " in message
    assert " and 4 more; `llama-router pull NAME`" in message


def test_a_manual_entry_takes_the_place_of_the_found_model_with_its_file(
    found: CatalogModel, file: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(file)
    roster = build_roster(config({"name": "mine", "path": str(link)}), [found])
    (model,) = roster.models
    assert (model.found.id, model.found.source) == ("mine", ModelSource.CONFIG)
    assert (model.found.size_bytes, model.found.mmproj) == (1000, found.mmproj)
    assert roster.catalog.resolve("link").id == "mine"


def test_several_manual_entries_may_run_one_file_in_several_ways(
    found: CatalogModel, file: Path
) -> None:
    ways = [{"name": name, "path": str(file)} for name in ("quick", "thorough")]
    for finds in ([found], []):
        roster = build_roster(config(*ways), finds)
        assert [model.found.id for model in roster.models] == ["quick", "thorough"]
        assert {model.found.path for model in roster.models} == {file}


def test_a_manual_entry_with_the_id_of_a_found_model_of_another_file_replaces_it(
    found: CatalogModel, tmp_path: Path
) -> None:
    other = tmp_path / "other.gguf"
    other.touch()
    (model,) = build_roster(config({"name": "fox", "path": str(other)}), [found]).models
    assert model.found.path == other


def test_an_auto_entry_never_speaks_of_a_manual_one(file: Path) -> None:
    entries = [
        {"name": "mine", "path": str(file), "group": "mine"},
        {"name": "mine", "state": "auto", "path": str(file), "group": "other"},
    ]
    (model,) = build_roster(config(*entries), []).models
    assert model.group == "mine"


def test_a_manual_entry_without_its_file_is_invalid_and_not_for_the_core() -> None:
    roster = build_roster(config({"name": "lost", "path": "/nowhere/lost.gguf"}), [])
    (model,) = roster.models
    assert model.found.invalid == (
        "its file /nowhere/lost.gguf cannot be read: No such file or directory"
    )
    assert roster.specs() == ()
    assert len(roster) == 1


def test_manual_entries_of_files_in_no_searched_folder_are_looked_at_all_the_same(
    tmp_path: Path,
) -> None:
    far = tmp_path / "far"
    far.mkdir()
    write_model(far / "owl.gguf", "one two three", name="owl")
    (far / "broken.gguf").write_bytes(b"no model at all")
    (far / "weights.safetensors").write_bytes(b"x")
    entries = [
        {"name": name, "path": str(far / file)}
        for name, file in (("bad", "broken.gguf"), ("o", "owl.gguf"), ("w", "weights.safetensors"))
    ]

    roster = take_stock(config(*entries), {}, tmp_path / "home")

    bad, owl, weights = (model.found for model in roster.models)
    assert (bad.id, bad.invalid) == ("bad", "not a GGUF file")
    assert (owl.id, owl.invalid, owl.size_bytes) == ("o", "", (far / "owl.gguf").stat().st_size)
    assert owl.metadata is not None
    assert owl.metadata.name == "owl"
    assert (weights.id, weights.invalid, weights.metadata) == ("w", "", None)


def test_an_auto_entry_never_brings_a_file_in_that_a_manual_one_names(tmp_path: Path) -> None:
    path = tmp_path / "far" / "owl.gguf"
    path.parent.mkdir()
    write_model(path, "one two three", name="owl")
    entries = [
        {"name": "o", "path": str(path)},
        {"name": "p", "state": "auto", "path": str(path)},
    ]
    roster = take_stock(config(*entries), {}, tmp_path / "home")
    assert [model.found.id for model in roster.models] == ["o"]


def test_files_in_folders_that_do_not_answer_are_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / "far" / "owl.gguf"
    known = CatalogModel(id=str(far), path=far, source=ModelSource.CONFIG, size_bytes=5)
    entries = (
        {"name": "owl", "path": str(far), "state": "manual"},
        {"name": "new", "path": str(far.with_name("new.gguf")), "state": "manual"},
        {"name": "auto", "path": str(far.with_name("auto.gguf")), "state": "auto"},
    )
    with monkeypatch.context() as patch:
        for asks in ("realpath", "exists"):
            patch.setattr(os.path, asks, None)
        patch.setattr(Path, "stat", None)
        roster = build_roster(config(*entries), [known], silent=[tmp_path / "far"])
    assert roster["owl"].found.size_bytes == 5
    assert roster["owl"].found.invalid == ""
    assert "does not answer" in roster["new"].found.invalid
    assert "auto" not in roster


def test_each_file_is_looked_up_once_and_the_interpreter_is_left_to_others_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    pauses: list[float] = []
    real = os.path.realpath

    def realpath(path: str) -> str:
        asked.append(path)
        return real(path)

    monkeypatch.setattr(os.path, "realpath", realpath)
    monkeypatch.setattr("time.sleep", pauses.append)
    paths = [f"/nowhere/{number}.gguf" for number in range(40)]
    entries = [{"name": path[9:], "path": path, "state": "manual"} for path in paths]

    build_roster(config(*entries), [])

    assert sorted(asked) == sorted(paths)
    # Of 40 links and as many sizes.
    assert len(pauses) == 10
    assert 0 < min(pauses) <= max(pauses) < 0.001


def test_a_manual_entry_needs_no_file() -> None:
    spawn = {"command": ["serve", "--port", "$port"]}
    roster = build_roster(config({"name": "remote", "spawn": spawn, "aliases": ["r"]}), [])
    model = roster["remote"]
    assert (model.found.path, model.found.invalid) == (None, "")
    assert roster.catalog.resolve("r").id == "remote"
    assert len(roster.specs()) == 1


def test_loners_are_not_in_a_group_that_is_called_like_one_of_them(file: Path) -> None:
    entries = [
        {"name": "small", "path": str(file)},
        {"name": "other", "path": str(file), "group": "small"},
    ]
    groups = {spec.name: spec.group for spec in build_roster(config(*entries), []).specs()}
    assert groups["small"] != groups["other"]


def test_the_time_to_load_grows_with_the_file(found: CatalogModel) -> None:
    settings = {"ready_timeout_s": 10, "ready_bytes_per_s": 100, "stop_grace_s": 3}
    (spec,) = build_roster(config(router=settings), [found]).specs()
    assert (spec.ready_timeout_s, spec.stop_grace_s) == (20.0, 3.0)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"spawn": {"command": ["other", "$port"]}}, True),
        ({"spawn": {"health_endpoint": "/ready"}}, True),
        ({"mmproj": "/other/mmproj.gguf"}, True),
        ({"group": "g"}, False),
        ({"aliases": ["a"]}, False),
        ({"spawn": {"proxy_endpoints": ["/v1/"]}}, False),
    ],
)
def test_the_fingerprint_changes_with_what_a_running_engine_would_have_to_follow(
    file: Path,
    change: dict[str, Any],
    differs: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    before, after = (
        build_roster(config({"name": "fox", "path": str(file), **more}), []).specs()[0].fingerprint
        for more in ({}, change)
    )
    assert (before != after) is differs


def test_stock_is_taken_in_caches_and_folders(
    tmp_path: Path,
) -> None:
    folder, cache = tmp_path / "models", tmp_path / "home" / ".cache" / "llama.cpp"
    for place, name in ((folder, "fox"), (cache, "cached")):
        place.mkdir(parents=True)
        write_model(place / f"{name}.gguf", "The quick brown fox.", name=name)
    settings = config(router={"models_dirs": [str(folder)]})
    env = {"LLAMA_CACHE": str(cache)}
    both = take_stock(settings, env, tmp_path / "home")
    assert "fox" in [model.found.id for model in both.models]
    assert len(both) == 2


def test_a_roster_follows_another_and_remembers_those_who_leave(found: CatalogModel) -> None:
    roster = build_roster(config(), [found])
    (fox,) = roster.models
    other = build_roster(config({"name": "owl"}), [])
    before = roster.catalog
    assert [*chain(*roster.follow(other, leaving={"fox": fox}))] == [fox, before]
    assert [model.found.id for model in roster.models] == ["owl"]
    assert ("fox" in roster, roster["fox"]) == (False, fox)
    assert (roster.find("fox"), roster.find("nobody")) == (fox, None)
    assert roster.config is other.config
    assert fox in chain(*roster.follow(build_roster(config(), [])))
    with pytest.raises(KeyError):
        roster["fox"]


def test_what_was_set_while_running_lies_over_the_config(found: CatalogModel) -> None:
    override = ModelSettings(ttl_s=7.0)
    entry = {"name": "owl", "ttl_s": 5.0}
    overrides = {"fox": override, "owl": override}
    roster = build_roster(config(entry), [found], overrides)
    assert {roster.spec(model).ttl_s for model in roster.models} == {7.0}


def test_names_of_filters_are_aliases(found: CatalogModel) -> None:
    filters = {"set_params_by_id": {"hot": {"temperature": 2}}}
    roster = build_roster(config({"name": "fox", "state": "auto", "filters": filters}), [found])
    assert roster.catalog.resolve("hot").id == "fox"


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "owl", "state": "manual", "aliases": ["hot"]},
        {"name": "fox", "state": "auto", "aliases": ["hot"]},
        {"name": "fox", "state": "auto", "aliases": ["also"]},
    ],
)
@pytest.mark.parametrize("has_filters", [True, False])
def test_names_that_are_given_twice_are_listed_once(
    found: CatalogModel, entry: dict[str, Any], *, has_filters: bool
) -> None:
    names = [entry["name"], "hot", "also"] if has_filters else []
    filters: dict[str, Any] = {"set_params_by_id": {name: {} for name in names}}
    roster = build_roster(config({**entry, "filters": filters}), [found])
    model = roster.catalog.resolve(entry["aliases"][0])
    assert model.id == entry["name"]
    assert model.id not in model.names
    assert sorted(set(model.names)) == sorted(model.names)


def test_an_auto_entry_whose_file_is_elsewhere_is_not_dropped_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere.gguf"
    elsewhere.touch()
    there = {"name": "there", "state": "auto", "path": str(elsewhere)}
    gone = {"name": "gone", "state": "auto", "path": str(tmp_path / "gone.gguf")}
    with caplog.at_level(logging.WARNING):
        assert len(build_roster(config(there, gone), [])) == 0
    (record,) = caplog.records
    assert "'there'" in record.getMessage()
    assert "state: manual" in record.getMessage()


def test_with_a_figure_a_model_without_a_group_runs_beside_others(found: CatalogModel) -> None:
    figure = Figure(memory={"cuda0": 2, "cpu": 1}, load_s=7.0, slots=4)
    roster = build_roster(config(), [found])
    (spec,) = roster.specs({"fox": figure}, is_memory_aware=True)
    assert spec.group == ""
    assert spec.memory == (DeviceBytes("cpu", 1), DeviceBytes("cuda0", 2))
    assert (spec.load_cost_s, spec.max_in_flight) == (7.0, 4)
    (unaware,) = roster.specs({"fox": figure})
    assert (unaware.group, unaware.memory) == ("model fox", ())
    (unknown,) = roster.specs({}, is_memory_aware=True)
    assert (unknown.group, unknown.memory) == ("model fox", ())
    assert 1.0 < unknown.load_cost_s < 1.1
    grouped = build_roster(config({"name": "fox", "state": "auto", "group": "g"}), [found])
    (spec,) = grouped.specs({"fox": figure}, is_memory_aware=True)
    assert (spec.group, len(spec.memory)) == ("group g", 2)


def test_what_the_config_says_of_a_model_reaches_the_core(found: CatalogModel) -> None:
    said = {
        "ttl_s": 60,
        "pinned": True,
        "priority": 3,
        "max_in_flight": 2,
        "max_waiting": 9,
        "min_residency_s": 4,
    }
    entry = {"name": "fox", "state": "auto", **said}
    roster = build_roster(config(entry, router={"ttl_s": 900}), [found])
    (spec,) = roster.specs({"fox": Figure(slots=8)})
    assert {name: getattr(spec, name) for name in said} == said


@pytest.mark.parametrize(
    ("everywhere_s", "own_s", "ttl_s"),
    [(0, None, None), (900, None, 900), (900, 0, None), (0, 60, 60)],
)
def test_the_models_own_ttl_counts_and_zero_is_never(
    found: CatalogModel, everywhere_s: float, own_s: float | None, ttl_s: float | None
) -> None:
    entry = {"name": "fox", "state": "auto", "ttl_s": own_s}
    (spec,) = build_roster(config(entry, router={"ttl_s": everywhere_s}), [found]).specs()
    assert spec.ttl_s == ttl_s


def test_engines_that_always_listen_on_one_port_are_known_to() -> None:
    addresses = {
        "a": "http://localhost:9000",
        "b": "http://$host:9000/v1",
        "c": "http://$host:$port",
        "d": "http://box.lan:9001",
    }
    entries = [
        {"name": name, "spawn": {"command": ["serve", "$port"], "address": address}}
        for name, address in addresses.items()
    ]
    roster = build_roster(config(*entries), [])
    specs = {spec.name: spec.address for spec in roster.specs()}
    assert specs == {"a": "127.0.0.1:9000", "b": "127.0.0.1:9000", "c": "", "d": "box.lan:9001"}
    assert roster.fixed_ports - {0} == {9000}
    followed = build_roster(config(), [])
    followed.follow(roster)
    assert 9000 in followed.fixed_ports
