"""Processes as the benchmarks see them: trees, CPU time and memory from /proc; start and stop."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# Time to end in good order before a process of ours is killed.
STOP_GRACE_S = 5.0


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _stat_fields(pid: int) -> list[str]:
    # The command's name, in parentheses, may itself hold spaces and parentheses.
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def tree(root: int, exclude: Sequence[Path] = ()) -> list[int]:
    """Return `root` and its living descendants; subtrees of executables in `exclude` left out."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int(_stat_fields(int(entry.name))[1])
                children.setdefault(parent, []).append(int(entry.name))
    excluded = {path.resolve() for path in exclude}
    found: list[int] = []
    todo = [root]
    while todo:
        pid = todo.pop()
        if pid != root and _executable(pid) in excluded:
            continue
        found.append(pid)
        todo.extend(children.get(pid, ()))
    return found


def _executable(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/exe").readlink()
    except OSError:
        return None


@dataclass(frozen=True)
class CpuSample:
    """CPU time of a set of processes at one moment.

    `threads_ns` is the scheduler's exact time of each living thread; `processes_ns` counts ticks
    (10 ms) but includes threads that have ended.
    """

    threads_ns: dict[tuple[int, int], int] = field(default_factory=dict)
    processes_ns: dict[int, int] = field(default_factory=dict)


def sample_cpu(pids: Sequence[int]) -> CpuSample:
    """Read the CPU time of `pids` now; a process that is gone counts nothing."""
    sample = CpuSample()
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            fields = _stat_fields(pid)
            sample.processes_ns[pid] = (int(fields[11]) + int(fields[12])) * _TICK_NS
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError, IndexError):
                    text = (task / "schedstat").read_text(encoding="ascii")
                    sample.threads_ns[pid, int(task.name)] = int(text.split()[0])
    return sample


def cpu_between_ns(before: CpuSample, after: CpuSample) -> int:
    """Return the CPU time spent between two samples.

    From the exact counters; the coarse ones win only when they say more by over two ticks for
    each process, which means that threads ended in between.
    """
    exact = sum(ns - before.threads_ns.get(key, 0) for key, ns in after.threads_ns.items())
    coarse = sum(ns - before.processes_ns.get(key, 0) for key, ns in after.processes_ns.items())
    slack = 2 * _TICK_NS * max(1, len(after.processes_ns))
    return coarse if coarse > exact + slack or not after.threads_ns else exact


def system_busy_ns() -> int:
    """Return how long all cores together have been busy since boot, in ticks of 10 ms."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) * _TICK_NS


def pss_bytes(pids: Sequence[int]) -> int:
    """Return the proportional set size of `pids` together (smaps_rollup)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def move_to_cpu(pids: Sequence[int], cpu: int | None) -> None:
    """Pin every thread of `pids` to `cpu`; None leaves them."""
    if cpu is None:
        return
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(task.name), {cpu})


def start(
    command: Sequence[str],
    *,
    log: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cpu: int | None = None,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a process of ours, pinned to `cpu` if given; its output goes to `log` or nowhere."""
    if cpu is not None:
        command = ["taskset", "--cpu-list", str(cpu), *command]
    output = log if log is not None else subprocess.DEVNULL
    return subprocess.Popen(command, stdin=stdin, stdout=output, stderr=output, env=env)


def wait_exit(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait until a child has ended and reap it; False when `timeout_s` passes first.

    Unlike Popen.wait with a timeout this does not poll, so that the end is seen at once.
    """
    if process.poll() is not None:
        return True
    handle = os.pidfd_open(process.pid)
    try:
        ended = wait_readable(handle, timeout_s)
    finally:
        os.close(handle)
    if ended:
        process.wait()
    return ended


def wait_readable(handle: int, timeout_s: float) -> bool:
    """Wait until a descriptor can be read, which a pidfd can when its process has ended."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that `start` made, and what it left behind; return when all are gone."""
    descendants = [pid for pid in tree(process.pid) if pid != process.pid]
    handles = _open_handles(descendants)
    try:
        if process.poll() is None:
            process.terminate()
            if not wait_exit(process, STOP_GRACE_S):
                process.kill()
                process.wait(STOP_GRACE_S)
        _kill_left_behind(handles)
    finally:
        for handle in handles:
            os.close(handle)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _open_handles(pids: Sequence[int]) -> list[int]:
    # A pidfd names this very process, also when its number has been given to another since.
    handles = []
    for pid in pids:
        with contextlib.suppress(OSError):
            handles.append(os.pidfd_open(pid))
    return handles


def _kill_left_behind(handles: Sequence[int]) -> None:
    # A guardian needs a moment to see that its router is gone and to end the engines.
    deadline = time.monotonic() + STOP_GRACE_S
    left = [
        handle
        for handle in handles
        if not wait_readable(handle, max(0.0, deadline - time.monotonic()))
    ]
    for handle in left:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
