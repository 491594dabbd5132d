"""A minute of real processes under faults: the router's hardest test; and what it looks at."""

import os
import secrets
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llama_router.stress import settings
from llama_router.stress.clients import Clients
from llama_router.stress.router_process import MARK_VARIABLE
from llama_router.stress.run import (
    _converge,
    _engines,
    _left_files,
    _look_at_the_quiet_router,
    _read_log,
    run,
)
from llama_router.stress.tally import Leaks, Report, Tally
from llama_router.stress.wire import Answer
from tests.support.supervised import DEADLINE_S, await_gone

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake engine is POSIX")
DURATION_S = 60.0

# A router with two children, of which the first is its guardian.
_ROUTER = """
import subprocess, sys
sleep = [sys.executable, "-c", "import sys; sys.stdin.read()"]
guardian = subprocess.Popen(sleep)
leaked = subprocess.Popen(sleep)
print("up", flush=True)
sys.stdin.read()
"""


def test_what_the_router_leaves_is_found(tmp_path: Path) -> None:
    temp, state = tmp_path / "tmp", tmp_path / "state"
    (temp / "llama-router-x").mkdir(parents=True)
    state.mkdir()
    for name in ("engines-1a.json", "store.sqlite3"):
        (state / name).touch()
    router: Any = SimpleNamespace(temp_folder=temp, state_folder=state)
    found = [Path(name).name for name in _left_files(router)]
    assert found == ["llama-router-x", "engines-1a.json"]


def test_mistakes_are_found_in_the_log_but_not_in_what_engines_say(tmp_path: Path) -> None:
    log = tmp_path / "router.log"
    log.write_bytes(
        b"12:00:00 I [alpha] Traceback (most recent call last):\n"
        b"12:00:00 I [alpha] \xff\n"
        b"12:00:01 E fault in 'read the body'\n"
        b"Traceback (most recent call last):\n"
        b"12:00:01 I POST /v1/chat/completions model=alpha status=200 end=-.-\n"
    )
    router: Any = SimpleNamespace(log_path=log)
    tally = Tally()
    _read_log(router, tally)
    assert tally.violation_count == 2


@pytest.mark.asyncio
async def test_a_model_that_cannot_be_unloaded_is_a_violation_and_no_reason_to_give_up() -> None:
    class Hanging(Clients):
        async def ask_well(self, model: str) -> str:  # noqa: ARG002
            return ""

        async def _exchange(self, *_: object, **__: object) -> Answer:
            raise TimeoutError

    tally = Tally()
    router: Any = SimpleNamespace(is_running=True)
    await _converge(Hanging(0, 1, tally), router, tally)
    assert tally.violation_count == len(settings.MODELS)
    assert "alpha does not go" in tally.violations[0]


@pytest.mark.asyncio
async def test_what_comes_and_goes_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_router.stress.run._POLL_S", 0.01)
    looks = iter([["a closing one"], [], ["a new one"]])
    router: Any = SimpleNamespace(
        is_running=True,
        process=SimpleNamespace(pid=0),
        sockets=lambda: next(looks),
        descriptors=dict,
        rss_bytes=lambda: 7,
    )
    report = Report(1, 1.0, Tally(), Leaks())
    await _look_at_the_quiet_router(router, {}, report, f"test-{os.getpid()}-nobody")
    assert (report.leaks, report.rss_end_bytes) == (Leaks(), 7)


@pytest.mark.asyncio
async def test_what_stays_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_router.stress.run._POLL_S", 0.01)
    monkeypatch.setattr("llama_router.stress.settings.QUIET_TIMEOUT_S", 0.03)
    router: Any = SimpleNamespace(
        is_running=True,
        process=SimpleNamespace(pid=0),
        sockets=lambda: ["an open one"],
        descriptors=lambda: {3: "a file", 4: "a pipe"},
        rss_bytes=lambda: 7,
    )
    report = Report(1, 1.0, Tally(), Leaks())
    await _look_at_the_quiet_router(router, {3: "a file"}, report, f"test-{os.getpid()}-nobody")
    assert report.leaks == Leaks(descriptors=["a pipe"], sockets=["an open one"])


def test_a_process_that_the_router_leaves_is_found() -> None:
    mark = f"test-{os.getpid()}-leaked"
    with subprocess.Popen(
        [sys.executable, "-c", _ROUTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, MARK_VARIABLE: mark},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        router: Any = SimpleNamespace(process=process)
        leaked = _engines(router, mark)
        assert len(leaked) == 1
        for found in leaked:
            found.kill()
    # A zombie is gone: whoever adopts orphans here may never reap them.
    assert await_gone([found.pid for found in leaked], DEADLINE_S) == set()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.asyncio
async def test_a_minute_of_faults_leaves_nothing_behind_and_no_wrong_answer(
    short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = secrets.randbelow(2**32)
    report = await run(seed, DURATION_S, short_path, lambda _line: None)
    with capsys.disabled():
        sys.stdout.write(f"\nstress seed {seed}\n")
    assert report.is_good, f"\n{report.table()}"
    assert report.tally.request_count > DURATION_S
    assert report.engines_started_count > 10
