import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_router.engines import leftovers
from tests.support.supervised import DEADLINE_S, await_gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses pidfds")

ROUTER = Path(__file__).parent / "children" / "router.py"

# What the guardian promises. A machine may stand still at any moment, but not at each.
GONE_S = 2.0
ATTEMPTS_COUNT = 3


def start_router(state_dir: Path, loop: str) -> tuple["subprocess.Popen[str]", int, list[int]]:
    """Start a router with an engine; return it, its guardian and the engine's processes."""
    router = subprocess.Popen(
        [sys.executable, str(ROUTER), str(state_dir), loop], stdout=subprocess.PIPE, text=True
    )
    assert router.stdout is not None
    with router.stdout:
        guardian, *pids = [int(pid) for pid in router.stdout.readline().split()]
    assert len(pids) == 3
    return router, guardian, pids


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_nothing_outlives_a_killed_router(tmp_path: Path, loop: str) -> None:
    router, guardian, pids = start_router(tmp_path, loop)
    router.kill()
    router.wait()
    assert await_gone([guardian, *pids], DEADLINE_S) == set()
    assert list(tmp_path.iterdir()) == []


def test_it_is_all_gone_within_two_seconds(tmp_path: Path) -> None:
    took_s = []
    for _ in range(ATTEMPTS_COUNT):
        router, guardian, pids = start_router(tmp_path, "uvloop")
        killed_s = time.monotonic()
        router.kill()
        assert await_gone([guardian, *pids], DEADLINE_S) == set()
        took_s.append(time.monotonic() - killed_s)
        router.wait()
    assert min(took_s) < GONE_S


def test_the_next_start_ends_what_a_killed_router_and_guardian_left(tmp_path: Path) -> None:
    router, guardian, pids = start_router(tmp_path, "uvloop")
    os.kill(router.pid, signal.SIGSTOP)
    os.kill(guardian, signal.SIGKILL)
    router.kill()
    router.wait()
    assert await_gone([guardian], DEADLINE_S) == set()
    ended = leftovers.clear(tmp_path)
    # The main process may have died with the guardian before it was looked for.
    assert 2 <= len(ended) <= 3
    assert await_gone(pids, 0.0) == set()
    assert list(tmp_path.iterdir()) == []
    assert leftovers.clear(tmp_path) == []


def test_signals_for_the_terminal_do_not_end_the_guardian(tmp_path: Path) -> None:
    router, guardian, pids = start_router(tmp_path, "asyncio")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(guardian, number)
    assert leftovers.clear(tmp_path) == []
    assert await_gone([guardian, *pids], 0.0) == {guardian, *pids}
    router.kill()
    router.wait()
    assert await_gone([guardian, *pids], DEADLINE_S) == set()
