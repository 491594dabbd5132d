import json
from pathlib import Path

import pytest

from llama_router.config.load import load
from llama_router.config.resolve import resolve
from llama_router.engines.kinds import check_command
from llama_router.stress import settings


def test_the_router_takes_its_config(tmp_path: Path) -> None:
    place = settings.Place(9000, 20000, ("python", "fake"), "/x/llama-server")
    config = settings.router_config(place)
    path = tmp_path / "router.json"
    path.write_text(json.dumps(config))
    loaded = load(path, check_command=check_command)
    assert list(loaded.warnings) == []
    programs = {
        model.name: resolve(loaded.config, model).spawn.command[0] for model in loaded.config.models
    }
    assert {programs[model.name] for model in settings.MODELS if model.is_pushed} == {
        "/x/llama-server"
    }
    assert loaded.config.router.read_timeout_s == settings.READ_TIMEOUT_S


@pytest.mark.parametrize("seed", range(6))
def test_every_setup_can_be_served(seed: int) -> None:
    setup = settings.setup(seed)
    assert {model.name for model in setup.models} == {model.name for model in settings.MODELS}
    pinned = [model for model in setup.models if model.is_pinned]
    for model in setup.models:
        beside = [other for other in pinned if other is not model]
        assert sum(each.size_bytes for each in [model, *beside]) <= settings.BUDGET_BYTES
        assert all(other.group == model.group for other in beside)
        assert not setup.max_loaded or len(beside) < setup.max_loaded


def test_seeds_differ_in_their_setups() -> None:
    setups = [settings.setup(seed) for seed in range(12)]
    assert {setup.has_notices for setup in setups} == {False, True}
    assert {setup.max_loaded for setup in setups} == {0, 2, 3}
    assert any(model.is_pinned for setup in setups for model in setup.models)
    assert any(model.group for setup in setups for model in setup.models)


def test_the_bound_holds_for_the_config_that_it_is_made_of() -> None:
    turn_s = settings.DRAIN_DEADLINE_S + settings.STOP_GRACE_S + settings.READY_TIMEOUT_S
    turns_s = turn_s * len(settings.MODELS)
    longest_s = settings.MAX_WAIT_S + turns_s + 2 * settings.READ_TIMEOUT_S
    assert longest_s < settings.WAIT_MAX_S
