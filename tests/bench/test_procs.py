import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import procs

WAIT_S = 60.0
# All of it is waited for: who is left behind does not end by itself.
GRACE_S = 2.0
# Starts a child, says its pid, waits for its stdin to end.
PARENT = """
import subprocess, sys
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
sys.stdin.read()
"""


def start_parent() -> tuple[subprocess.Popen[bytes], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_the_tree_has_the_child_but_not_when_it_is_an_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(procs, "STOP_GRACE_S", GRACE_S)
    process, child = start_parent()
    try:
        assert procs.tree(process.pid) == [process.pid, child]
        engine = Path(f"/proc/{child}/exe").readlink()
        assert procs.tree(process.pid, [engine]) == [process.pid]
        assert procs.pss_bytes([process.pid, child]) > procs.pss_bytes([child]) > 0
    finally:
        procs.stop(process)


def test_stop_leaves_no_descendant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procs, "STOP_GRACE_S", GRACE_S)
    process, child = start_parent()
    handle = os.pidfd_open(child)
    try:
        procs.stop(process)
        assert process.returncode == -signal.SIGTERM
        assert procs.wait_readable(handle, WAIT_S)
    finally:
        os.close(handle)


def test_wait_exit_reaps_and_gives_up() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        assert not procs.wait_exit(process, 0.01)
        process.terminate()
        assert procs.wait_exit(process, WAIT_S)
        assert process.returncode == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def test_cpu_time_is_exact_and_falls_back_when_threads_have_ended() -> None:
    before = procs.CpuSample({(1, 1): 1_000, (1, 2): 5_000}, {1: 0})
    after = procs.CpuSample({(1, 1): 4_000, (1, 3): 700}, {1: 10_000_000})
    assert procs.cpu_between_ns(before, after) == 3_700
    ended = procs.CpuSample({(1, 1): 4_000}, {1: 900_000_000})
    assert procs.cpu_between_ns(before, ended) == 900_000_000


def test_own_cpu_time_grows() -> None:
    pids = [os.getpid()]
    before = procs.sample_cpu(pids)
    assert sum(i * i for i in range(200_000)) > 0
    assert procs.cpu_between_ns(before, procs.sample_cpu(pids)) > 1_000_000
