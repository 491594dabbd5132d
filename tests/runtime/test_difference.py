from pathlib import Path
from typing import Any

import msgspec

from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.config.schema import Config
from llama_router.runtime.difference import difference, restart_needed
from llama_router.runtime.roster import Roster, build_roster

FOUND = tuple(
    CatalogModel(id=name, path=Path(f"/{name}.gguf"), source=ModelSource.MODELS_DIR, size_bytes=9)
    for name in ("cat", "fox", "owl")
)


def roster(
    *models: dict[str, Any],
    found: tuple[CatalogModel, ...] = FOUND,
    **rest: Any,  # noqa: ANN401 - plain data
) -> Roster:
    entries = [{"state": "auto", **entry} for entry in models]
    return build_roster(Config.model_validate({"models": entries, **rest}), found)


def test_the_same_config_changes_nothing() -> None:
    entry = {"name": "fox", "aliases": ["red"], "spawn": {"env": {"A": "1"}}}
    assert difference(roster(entry), roster(entry)) == difference(roster(), roster())
    assert difference(roster(entry), roster(entry)).touched == ()


def test_of_a_changed_model_it_is_told_whether_it_may_need_other_memory() -> None:
    before = roster()
    quick = difference(before, roster({"name": "fox", "ttl_s": 5.0}))
    assert (quick.changed, quick.reappraised) == (("fox",), ())
    other = difference(before, roster({"name": "fox", "spawn": {"env": {"A": "1"}}}))
    assert (other.changed, other.reappraised) == (("fox",), ("fox",))
    parameters = difference(before, roster({"name": "fox", "parameters": {"ctx-size": 9}}))
    assert parameters.reappraised == ("fox",)
    memory = difference(before, roster({"name": "fox", "memory": "1GiB"}))
    assert memory.reappraised == ("fox",)
    assert memory.touched == ("fox",)


def test_a_file_that_was_replaced_is_another_model() -> None:
    cat, fox, owl = FOUND
    grown = msgspec.structs.replace(fox, size_bytes=10)
    assert difference(roster(), roster(found=(cat, grown, owl))).reappraised == ("fox",)


def test_models_come_go_and_become_runnable() -> None:
    cat, fox, owl = FOUND
    ill = msgspec.structs.replace(owl, invalid="cut off")
    other = difference(roster(found=(fox, ill)), roster(found=(cat, owl)))
    assert (other.added, other.removed, other.changed) == (("cat",), ("fox",), ("owl",))
    assert other.appearing == ("cat", "owl")
    assert other.leaving["fox"].found == fox


def test_what_every_spec_is_made_of_touches_all_models() -> None:
    other = difference(roster(), roster(router={"drain_deadline_s": 9.0}))
    assert (other.changed, other.touched) == ((), ("cat", "fox", "owl"))
    grouped = difference(roster(), roster(matrix={"sets": {"all": "fox & owl"}}))
    assert grouped.touched == ("cat", "fox", "owl")


def test_settings_of_the_start_are_named() -> None:
    changed: dict[str, Any] = {
        "startup_model": "fox",
        "router": {"port": 1, "base_port": 2, "ttl_s": 3.0, "preload": ["fox"]},
        "hub": {"offline": True},
    }
    named = ("startup_model", "router.port", "router.base_port", "router.preload")
    assert restart_needed(Config(), Config.model_validate(changed)) == named
    assert restart_needed(Config(), Config()) == ()
