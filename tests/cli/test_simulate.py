import json
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from llama_router.cli.simulate import simulate
from llama_router.simulator.fleet import random_fleet
from llama_router.simulator.generate import names, zipf

SMALL = ["--requests", "100", "--model-count", "8", "--room-for", "3"]

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(simulate)


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_policies_are_compared_in_a_table() -> None:
    result = run(*SMALL)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["policy", "served", "refused"]
    assert {line.split()[0] for line in lines[1:]} >= {"benefit", "arrival", "lru-count"}


def test_a_recorded_trace_is_replayed_and_drawn(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(b"\n".join(map(msgspec.json.encode, zipf(names(4), 50, 1.0, 0))))
    fleet = tmp_path / "fleet.json"
    fleet.write_bytes(msgspec.json.encode(random_fleet(names(4), 0, room_for=2)))
    plot = tmp_path / "waits.svg"
    result = run(trace, "--models", fleet, "--policy", "benefit", "--json", "--plot", plot)
    assert result.exit_code == 0, result.output
    (summary,) = json.loads(result.stdout)
    assert summary["policy"] == "benefit"
    assert summary["served"] == 50
    assert plot.read_text(encoding="utf-8").startswith("<svg")


def test_the_optimum_of_a_small_case_is_told() -> None:
    result = run(
        "--requests", 40, "--model-count", 5, "--room-for", 2, "--optimum",
        "--policy", "lru-bytes",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "the best schedule in that order, knowing the future" in result.stdout
    assert "in any order that lets nobody wait longer than 20 s" in result.stdout


def test_of_a_large_case_only_the_bound_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_router.simulator.optimum.MAX_STATES_COUNT", 3)
    result = run(*SMALL, "--optimum", "--policy", "lru-bytes")
    assert "in the order of arrival, no schedule loads for less" in result.stdout
    assert "knowing the future" not in result.stdout


def test_the_rate_may_be_fitted_to_a_policy() -> None:
    result = run(*SMALL, "--calibrate", "lru-bytes", "--policy", "lru-bytes", "--json")
    assert result.exit_code == 0, result.output
    (summary,) = json.loads(result.stdout)
    assert 0.4 < summary["slo_attainment"] < 0.65


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--policy", "magic"], "no policy 'magic'; there are"),
        (["--generate", "noise"], "no generator 'noise'"),
        (["--models", "x.json"], "goes with a TRACE"),
        (["missing.csv"], "missing.csv: cannot be read"),
        ([*SMALL, "--plot", "no/such/dir/x.svg"], "cannot be written"),
        ([*SMALL, "--plot", "x.png"], "x.png: what is drawn is SVG: name a file .svg"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(args: list[str], message: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
