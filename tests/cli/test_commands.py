"""The commands as ``llama-router`` has them: each is there, and its help is worth reading."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from llama_router.catalog.tiny import write_model
from llama_router.cli.main import app

COMMANDS = ("estimate", "record", "simulate", "stress")


def help_of(*command: str) -> str:
    runner = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"})
    result = runner.invoke(app, [*command, "--help"])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_command_has_a_whole_line_in_the_help() -> None:
    text = help_of()
    rows = dict(line.split(maxsplit=1) for line in text.partition("Commands:")[2].splitlines()[1:])
    assert set(COMMANDS) < set(rows)
    assert all(row.endswith(".") and not row.endswith("...") for row in rows.values()), rows


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option_within_80_columns(command: str) -> None:
    lines = help_of(command).splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("..." in line for line in lines[1:])
    group: Any = get_command(app)
    parameters = group.commands[command].params
    assert parameters
    assert [each.name for each in parameters if not each.help] == []


def test_an_estimate_knows_the_config_and_folders_wherever_they_stand(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    write_model(folder / "sea.gguf", "one two three", name="Sea")
    config = tmp_path / "config.json"
    command = ["llama-server", "-m", "$path", "--port", "$port", "-c", "1024"]
    config.write_text(json.dumps({"version": "1.0", "default_spawn": {"command": command}}))
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": "", "LLAMA_CACHE": ""}
    runner = CliRunner(env=env)
    given = ["--config", str(config), "--models-dir", str(folder)]

    before = runner.invoke(app, [*given, "estimate", "sea", "--json"])
    behind = runner.invoke(app, ["estimate", "sea", "--json", *given])
    nowhere = runner.invoke(app, ["estimate", "sea"])

    assert json.loads(before.stdout)["ctx_tokens"] == 1024
    assert before.stdout == behind.stdout
    assert "name its file, or where to look: --models-dir" in nowhere.stderr


def test_llama_servers_options_follow_two_dashes(tmp_path: Path) -> None:
    (path,) = write_model(tmp_path / "m.gguf", "one two three", name="m")
    runner = CliRunner()
    result = runner.invoke(app, ["estimate", str(path), "--json", "--", "-c", "1024", "-np", "1"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["ctx_tokens"] == 1024
    assert runner.invoke(app, ["estimate", str(tmp_path / "missing.gguf")]).exit_code == 2
