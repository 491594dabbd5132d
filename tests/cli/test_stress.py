"""``llama-router stress`` as the command line runs it, without the minute that it takes."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llama_router.cli import stress_processes
from llama_router.cli.main import app
from llama_router.stress.tally import Leaks, Report, Tally

SMALL = ["--seed", "5", "--seeds", "3", "--steps", "20"]


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["stress", *args])


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[int, float]]]:
    """Make the layer of real processes end at once, well or with a violation or an error."""

    def make(violation: str = "", error: str = "") -> list[tuple[int, float]]:
        calls: list[tuple[int, float]] = []

        def pretend(seed: int, minutes: float, _say: object) -> tuple[Report, Path | None]:
            calls.append((seed, minutes))
            if error:
                raise stress_processes.StressRunError(error)
            tally = Tally(outcomes=Counter({"ok chat": 1}))
            if violation:
                tally.violate(violation)
            log = Path("kept/router.log") if violation else None
            return Report(seed, 60 * minutes, tally, Leaks()), log

        monkeypatch.setattr(stress_processes, "run_processes", pretend)
        return calls

    return make


@pytest.fixture(autouse=True)
def _posix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")


def test_a_swarm_without_violations_is_a_success(play: Callable[..., list[object]]) -> None:
    calls = play()
    result = run("--layer", "simulation", *SMALL)
    assert result.exit_code == 0, result.output
    assert "seed=5" in result.stderr
    assert "3 walks (seeds 5 to 7)" in result.stdout
    assert calls == []


def test_a_violation_of_the_core_is_status_1_and_says_how_to_see_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def raise_always(_core: object) -> None:
        raise AssertionError("made up")

    monkeypatch.setattr("llama_router.simulator.swarm.check", raise_always)
    result = run("--layer", "simulation", "--seed", "5", "--seeds", "1")
    assert result.exit_code == 1
    assert "again: llama-router stress --layer simulation --seed 5 --seeds 1" in result.stdout


def test_good_processes_print_their_table_and_how_to_do_it_again(
    play: Callable[..., list[object]],
) -> None:
    calls = play()
    result = run("--layer", "processes", "--seed", "7", "--minutes", "0.5")
    assert result.exit_code == 0, result.output
    again = "again: llama-router stress --layer processes --seed 7 --minutes 0.5"
    assert again in result.stderr
    assert "ok chat" in result.stdout
    assert "walks" not in result.stdout
    assert calls == [(7, 0.5)]


def test_a_violation_of_the_processes_is_status_1_and_names_the_log(
    play: Callable[..., list[object]],
) -> None:
    play(violation="not alpha's words")
    result = run("--layer", "processes")
    assert result.exit_code == 1
    assert "VIOLATION: not alpha's words" in result.stdout
    assert str(Path("kept/router.log")) in result.stderr


def test_processes_that_cannot_be_run_are_status_2(play: Callable[..., list[object]]) -> None:
    play(error="the router did not come up")
    result = run("--layer", "processes")
    assert result.exit_code == 2
    assert "did not come up" in result.stderr


def test_both_layers_come_by_default_and_either_may_fail(
    play: Callable[..., list[object]],
) -> None:
    calls = play()
    result = run(*SMALL)
    assert result.exit_code == 0, result.output
    assert "3 walks" in result.stdout
    assert "ok chat" in result.stdout
    assert calls == [(5, 1.0)]
    play(violation="x")
    assert run(*SMALL).exit_code == 1


def test_json_is_one_object_with_a_part_for_each_layer(play: Callable[..., list[object]]) -> None:
    play()
    outcome = json.loads(run(*SMALL, "--json").stdout)
    assert outcome["seed"] == 5
    assert outcome["simulation"]["seeds"] == 3
    assert outcome["processes"]["tally"]["outcomes"] == {"ok chat": 1}
    alone = json.loads(run(*SMALL, "--json", "--layer", "simulation").stdout)
    assert set(alone) == {"seed", "simulation"}


def test_windows_has_the_simulation_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    result = run(*SMALL)
    assert result.exit_code == 2
    assert "--layer simulation" in result.stderr
    assert run(*SMALL, "--layer", "simulation").exit_code == 0


def test_other_layers_are_wrong_usage() -> None:
    assert run("--layer", "moon").exit_code == 2
