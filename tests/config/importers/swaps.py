"""Configs of llama-swap, read and looked at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llama_router.config.importers import Foreign, read_foreign
from llama_router.config.problems import ConfigError

FILES = Path(__file__).parent / "files"
ENV = {
    "ENGINE": "engine --quick",
    "START_PORT": "9000",
    "KEY": "sk-$ecret",
    "FIXED_PORT": "9999",
    "STOPPER": "stopper",
    "PEER": "http://127.0.0.1:7000/api",
    "PEER_KEY": "pk",
}


def read(path: Path, env: Mapping[str, str] | None = None, platform: str = "linux") -> Foreign:
    foreign = read_foreign(path, env=ENV if env is None else env, platform=platform)
    assert foreign is not None
    return foreign


def of(tmp_path: Path, text: str, **env: str) -> Foreign:
    path = tmp_path / "llama-swap.yaml"
    path.write_text(text)
    return read(path, env)


def faults(tmp_path: Path, text: str, **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        of(tmp_path, text, **env)
    return str(caught.value).replace(f"{tmp_path}/", "")


def model(foreign: Foreign, name: str) -> dict[str, Any]:
    (entry,) = (entry for entry in foreign.native.content["models"] if entry["name"] == name)
    return dict(entry)
