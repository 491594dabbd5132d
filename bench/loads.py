"""Run a load generator against a peer and read the peer's CPU time in the measured window."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import procs
from bench.peers import Running


class LoadError(Exception):
    """A load generator failed or took too long; the text says which."""


@dataclass(frozen=True)
class LoadResult:
    """What the generator reported, and the CPU time of the peer's processes in the window.

    `others_cores` is how many cores were busy with what is none of ours: the machine's other work,
    and the hypervisor's.
    """

    report: dict[str, float]
    errors: dict[str, int]
    peer_cpu_ns: int
    others_cores: float

    def us(self, key: str) -> float:
        """One of the reported times, in microseconds."""
        return self.report[f"{key}_ns"] / 1000


def drive(command: Sequence[str], peer: Running, timeout_s: float) -> LoadResult:
    """Run a generator to its end. Raises LoadError."""
    generator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    # Reading its output blocks; a hung generator must not hold up the run.
    killer = threading.Timer(timeout_s, generator.kill)
    killer.start()
    samples: dict[str, _Sample] = {}
    last = ""
    pids = peer.pids()
    ours = procs.tree(os.getpid())
    try:
        assert generator.stdout is not None
        for line in generator.stdout:
            if line.startswith("window "):
                samples[line.split()[1]] = _Sample.now(pids, ours)
            last = line
        generator.wait()
    finally:
        killer.cancel()
        generator.kill()
        generator.wait()
        if generator.stdout is not None:
            generator.stdout.close()
    if generator.returncode != 0 or "end" not in samples:
        raise LoadError(f"{peer.name}: {command[0]} gave up ({generator.returncode}): {last!r}")
    try:
        report = json.loads(last)
        errors = report.pop("errors")
    except (ValueError, KeyError) as error:
        raise LoadError(f"{peer.name}: {command[0]} reported {last!r}") from error
    begin, end = samples["begin"], samples["end"]
    return LoadResult(
        report,
        errors,
        procs.cpu_between_ns(begin.peer, end.peer),
        others_cores=_others_cores(begin, end),
    )


@dataclass(frozen=True)
class _Sample:
    at_ns: int
    system_ns: int
    peer: procs.CpuSample
    ours: procs.CpuSample

    @classmethod
    def now(cls, pids: Sequence[int], ours: Sequence[int]) -> "_Sample":
        # The peer first: its window is the one that has to be exact.
        peer = procs.sample_cpu(pids)
        return cls(time.monotonic_ns(), procs.system_busy_ns(), peer, procs.sample_cpu(ours))


def _others_cores(begin: _Sample, end: _Sample) -> float:
    ours_ns = procs.cpu_between_ns(begin.ours, end.ours)
    busy_ns = end.system_ns - begin.system_ns
    return max(0.0, (busy_ns - ours_ns) / max(1, end.at_ns - begin.at_ns))


def cpu_flag(cpu: int | None) -> tuple[str, ...]:
    """The generators' option for pinning."""
    return () if cpu is None else ("--cpu", str(cpu))
