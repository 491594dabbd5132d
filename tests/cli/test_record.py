"""``llama-router record``, run as the command line runs it."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from llama_router.cli.record import record
from llama_router.simulator.trace import read_trace
from llama_router.store.database import Database
from llama_router.store.records import RequestRecord

NOW_S = 1_900_000_000.0

app = typer.Typer()
app.command()(record)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "store.sqlite3"
    with closing(Database(path)) as database:
        database.write(
            [],
            [
                RequestRecord(time_s=NOW_S + n, model=f"m{n}", total_s=1.0, end="-.-")
                for n in range(3)
            ],
        )
        # A router has it open.
        yield path


def test_the_history_becomes_a_trace_in_a_file(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "trace.jsonl"
    result = CliRunner().invoke(app, ["--store", str(store), "--out", str(out)])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines == [{"time_s": float(n), "model": f"m{n}"} for n in range(3)]
    assert "3 requests" in result.output


@pytest.mark.parametrize("arguments", [("--out", "trace.csv"), ("--csv", "--out", "trace")])
def test_a_trace_may_be_csv(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["--store", str(store), *arguments])
    assert result.exit_code == 0, result.output
    requests = read_trace(tmp_path / arguments[-1])
    assert [(one.time_s, one.model) for one in requests] == [(n, f"m{n}") for n in range(3)]


def test_since_leaves_older_ones_out(store: Path) -> None:
    since = "2030-03-17T17:46:41+00:00"
    result = CliRunner().invoke(app, ["--store", str(store), "--since", since])
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["model"] for line in result.stdout.splitlines()] == ["m1", "m2"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--store", "missing.sqlite3"], 1, "there is no history yet"),
        (["--since", "yesterday"], 2, "neither a time ago"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], status: int, said: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == status
    assert said in " ".join(result.output.split())


def test_a_file_that_is_no_store_is_said(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    path.write_bytes(b"no database" * 100)
    result = CliRunner().invoke(app, ["--store", str(path)])
    assert result.exit_code == 1
    assert "cannot be read" in result.output
    assert path.read_bytes() == b"no database" * 100
