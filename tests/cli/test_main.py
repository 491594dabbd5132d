from pathlib import Path

import pytest
from typer.testing import CliRunner

from llama_router import __version__
from llama_router.cli import serving
from llama_router.cli.main import app
from llama_router.cli.serving import Overrides

Calls = list[tuple[str, Overrides]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the command line would start, with the status 0."""
    made: Calls = []

    def record(name: str, overrides: Overrides) -> int:
        made.append((name, overrides))
        return 0

    monkeypatch.setattr(serving, "serve", lambda overrides: record("serve", overrides))
    monkeypatch.setattr(serving, "demo", lambda overrides: record("demo", overrides))
    return made


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(app, arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_reads_well(option: str) -> None:
    status, text = run(option)
    assert status == 0
    assert "One endpoint in front of all of your local models." in text
    for word in ("--host", "--port", "--models-dir", "--config", "--log-level"):
        assert word in text
    for command in ("serve", "demo", "version"):
        assert f"\n  {command}" in text
    assert max(map(len, text.splitlines())) <= 100
    # Nothing that needs a wide terminal or a font.
    assert text.isascii()
    assert "..." not in text.replace("[ARGS]...", "")
    assert "<int" not in text
    assert "--install-completion" in text


def test_the_demos_help_says_what_it_does() -> None:
    status, text = run("demo", "--help")
    assert status == 0
    assert "nothing to download" in text
    assert "--models-dir" not in text


def test_version() -> None:
    assert run("version") == (0, f"llama-router {__version__}\n")
    assert run("--version") == (0, f"llama-router {__version__}\n")


def test_without_a_command_the_router_starts(calls: Calls) -> None:
    status, _ = run("--port", "81", "--models-dir", "a", "--models-dir", "b")
    assert status == 0
    assert calls == [("serve", Overrides(port=81, models_dirs=(Path("a"), Path("b"))))]


def test_options_may_stand_before_and_behind_the_command(calls: Calls) -> None:
    run(
        *("--config", "c.yaml", "--port", "81", "--host", "::1", "--models-dir", "a"),
        *("serve", "--port", "82", "--models-dir", "b", "--log-level", "debug"),
    )
    ((name, overrides),) = calls
    assert name == "serve"
    assert overrides == Overrides(Path("c.yaml"), "::1", 82, (Path("a"), Path("b")), "debug")


def test_the_demo_takes_address_and_level(calls: Calls) -> None:
    run("--port", "81", "demo", "--host", "::1", "--log-level", "debug")
    assert calls == [("demo", Overrides(host="::1", port=81, log_level="debug"))]


@pytest.mark.parametrize("option", ["--config", "--models-dir"])
def test_the_demo_refuses_what_it_would_not_heed(calls: Calls, option: str) -> None:
    status, text = run(option, "x", "demo")
    assert status == 2
    assert "its own models" in text
    assert calls == []


@pytest.mark.parametrize("arguments", [("--port", "0"), ("--port", "x"), ("serv",), ("--hots",)])
def test_wrong_usage_is_status_2(calls: Calls, arguments: tuple[str, ...]) -> None:
    status, text = run(*arguments)
    assert status == 2
    assert "Traceback" not in text
    assert calls == []
