import json
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llama_router.catalog.tiny import write_model
from llama_router.cli.doctor import Finding, Verdict, examine, report
from llama_router.cli.main import app
from llama_router.cli.serving import Overrides
from llama_router.store.keys import KEYS_FILE_NAME, KeyFile, KeyRecord
from tests.support.ports import free_port

posix = pytest.mark.skipif(sys.platform == "win32", reason="programs are scripts here")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Make a machine with nothing installed: no engine, no model, no config."""
    monkeypatch.setattr("llama_router.engines.kinds.embedded.embedded_available", lambda: False)
    monkeypatch.setattr("sys.argv", [str(tmp_path / "bin" / "llama-router")])
    env = {"PATH": str(tmp_path / "empty"), "HOME": str(tmp_path)}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "LLAMA_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return env


def found(
    env: Mapping[str, str], home: Path, config: Path | None = None, **given: object
) -> dict[str, Finding]:
    overrides = Overrides(port=free_port(), **given)  # type: ignore[arg-type]
    return {one.subject: one for one in examine(config, overrides, env, home)}


def test_a_bare_machine_is_told_how_to_get_an_engine_and_a_model(
    bare: Mapping[str, str], tmp_path: Path
) -> None:
    findings = found(bare, tmp_path)
    assert findings["engine"].verdict is Verdict.PROBLEM
    assert "install llama.cpp" in findings["engine"].remedy
    assert findings["models"].verdict is Verdict.PROBLEM
    assert "llama-router pull" in findings["models"].remedy
    lines = report(list(findings.values()))
    assert lines[lines.index("What to do:") + 1].startswith("1. engine: install llama.cpp")
    # Nothing was made by looking.
    assert list(tmp_path.iterdir()) == []


def test_an_entry_whose_file_is_not_there_is_named(bare: Mapping[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    write_model(folder / "tiny.gguf", "A story.", name="tiny")
    config = tmp_path / "c.yaml"
    config.write_text(
        "router: {models_dirs: [models]}\nmodels:\n"
        "  - {name: mine, path: models/tiny.gguf}\n  - {name: gone, path: gone.gguf}\n"
    )
    findings = list(examine(config, Overrides(port=free_port()), bare, tmp_path))
    told = [one for one in findings if one.subject == "models"]
    assert told[0].message.startswith("2 found, ")
    assert " 0 B" not in told[0].message
    assert told[1].verdict is Verdict.WARNING
    assert told[1].message == f"gone: there is no file {tmp_path / 'gone.gguf'}"
    assert "models[gone].path" in told[1].remedy


def test_a_config_that_the_first_start_could_not_write_is_a_warning(
    bare: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file where a folder has to be: no rights of the user that runs this change that.
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    env = {**bare, "XDG_CONFIG_HOME": str(blocked), "LOCALAPPDATA": str(blocked)}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    finding = found(env, tmp_path)["config"]
    assert finding.verdict is Verdict.WARNING
    assert "; until there is one, the defaults hold" in finding.message
    assert "--config FILE" in finding.remedy


def test_it_ends_with_1_while_the_router_could_not_work(
    bare: Mapping[str, str],  # noqa: ARG001 - a fixture
) -> None:
    result = CliRunner().invoke(app, ["--port", str(free_port()), "doctor", "--json"])
    assert result.exit_code == 1
    subjects = {one["subject"]: one["verdict"] for one in json.loads(result.output)}
    assert subjects["engine"] == "problem"
    assert subjects["port"] == "ok"


@posix
def test_a_machine_with_all_there_is_well(bare: Mapping[str, str], tmp_path: Path) -> None:
    write_program(Path(bare["PATH"]) / "llama-server", "echo 'version: 11434 (abc)' >&2")
    folder = tmp_path / "models"
    folder.mkdir()
    write_model(folder / "tiny.gguf", "A story.", name="tiny")
    findings = found(bare, tmp_path, models_dirs=(folder,))
    assert findings["engine"].message.endswith("llama-server (version: 11434 (abc))")
    assert findings["models"].message.startswith("1 found")
    assert report(list(findings.values()))[-1].startswith("All is well")


@posix
def test_an_engine_that_lacks_a_library_does_not_count_as_one(
    bare: Mapping[str, str], tmp_path: Path
) -> None:
    script = "echo 'error while loading shared libraries: libcuda.so.1' >&2; exit 127"
    write_program(Path(bare["PATH"]) / "llama-server", script)
    finding = found(bare, tmp_path)["engine"]
    assert finding.verdict is Verdict.PROBLEM
    assert "libcuda.so.1" in finding.message


def test_a_broken_file_is_named_with_what_to_do(bare: Mapping[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "torn.gguf").write_bytes(b"GGUF")
    finding = list(
        examine(None, Overrides(port=free_port(), models_dirs=(folder,)), bare, tmp_path)
    )
    broken = [one for one in finding if "torn" in one.message]
    assert [one.verdict for one in broken] == [Verdict.WARNING]
    assert "download torn again" in broken[0].remedy


def test_a_config_with_a_fault_is_named_with_its_line(
    bare: Mapping[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text('version: "1.0"\nrouter:\n  port: 0\n')
    finding = found(bare, tmp_path, config)["config"]
    assert finding.verdict is Verdict.PROBLEM
    assert f"{config}:3" in finding.message


def test_a_config_that_is_asked_for_must_be_there(bare: Mapping[str, str], tmp_path: Path) -> None:
    assert found(bare, tmp_path, tmp_path / "no.yaml")["config"].verdict is Verdict.PROBLEM


def test_who_can_use_the_router_is_told_and_how_to_protect_a_public_one(
    bare: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "this machine only" in found(bare, tmp_path)["access"].message
    public = found(bare, tmp_path, host="0.0.0.0")["access"]
    assert public.verdict is Verdict.PROBLEM
    assert "llama-router keys add NAME" in public.remedy
    monkeypatch.setattr("platformdirs.user_state_path", lambda _name: tmp_path)
    key = KeyRecord(id="a", name="a", digest="0" * 64, scopes=("admin",), created_s=1.0)
    KeyFile(tmp_path / KEYS_FILE_NAME).add(key)
    assert found(bare, tmp_path, host="0.0.0.0")["access"].verdict is Verdict.OK
    (tmp_path / KEYS_FILE_NAME).write_text("{")
    assert found(bare, tmp_path)["access"].verdict is Verdict.PROBLEM


def test_a_port_that_is_taken_is_told(bare: Mapping[str, str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        findings = list(examine(None, Overrides(port=port), bare, tmp_path))
    finding = next(one for one in findings if one.subject == "port")
    assert finding.verdict is Verdict.PROBLEM
    assert "--port" in finding.remedy


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that nobody can write")
def test_a_folder_that_cannot_be_written_is_told(
    bare: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/sys")
    finding = found(bare, tmp_path)["state"]
    assert finding.verdict is Verdict.PROBLEM
    assert "XDG_STATE_HOME" in finding.remedy


def write_program(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
