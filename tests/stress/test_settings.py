import json
from pathlib import Path

from llama_router.config.load import load
from llama_router.engines.kinds import check_command
from llama_router.stress import settings


def test_the_router_takes_its_config(tmp_path: Path) -> None:
    config = settings.router_config(
        port=9000, base_port=20000, command=["python", "fake"], llama_server="/x/llama-server"
    )
    path = tmp_path / "router.json"
    path.write_text(json.dumps(config))
    loaded = load(path, check_command=check_command)
    assert list(loaded.warnings) == []
    programs = {
        model.name: loaded.config.spawn_of(model).command[0] for model in loaded.config.models
    }
    assert {programs[model.name] for model in settings.MODELS if model.is_pushed} == {
        "/x/llama-server"
    }
    assert loaded.config.router.read_timeout_s == settings.READ_TIMEOUT_S


def test_the_bound_holds_for_the_config_that_it_is_made_of() -> None:
    turn_s = settings.DRAIN_DEADLINE_S + settings.STOP_GRACE_S + settings.READY_TIMEOUT_S
    assert turn_s * len(settings.MODELS) + 2 * settings.READ_TIMEOUT_S < settings.WAIT_MAX_S
