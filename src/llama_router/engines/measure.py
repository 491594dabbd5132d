"""How much memory an engine really takes, and what to remember of it.

Reading it makes the kernel walk the pages of a process, which takes milliseconds for large ones:
here that happens on a thread, and never twice at a time for one engine.
"""

import asyncio
import contextlib
import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import psutil

from llama_router.engines import devices_nvidia

CPU = "cpu"
_PROC = Path("/proc")
_MAX_ROLLUP_CHARS = 16_384
_PSS = re.compile(r"^Pss: +([0-9]{1,15}) kB$", re.MULTILINE)
_MAX_STATUS_CHARS = 16_384
_UNRECLAIMABLE = re.compile(r"^Rss(?:Anon|Shmem):\s*([0-9]{1,15}) kB$", re.MULTILINE)
_KIB_BYTES = 1024
_MAX_PROCESSES = 4096  # of one engine: a runaway fork must not hold up the measuring of others
_KEY_CHARS = 32


class MeasuredKey(msgspec.Struct, frozen=True):
    """What a measurement belongs to: the model's file, the command's arguments, the engine."""

    model: str
    arguments: str
    build: str


def measured_key(
    model: Path | None, argv: Sequence[str], *, varying: Iterable[str] = ()
) -> MeasuredKey:
    """Make the key of an engine's command. Reads the files' states: not for an event loop.

    ``varying`` are arguments that differ from start to start (the port). The engine's build is
    known by its program's path, size and time of change.
    """
    changing = set(varying)
    lasting = [argument for argument in argv if argument not in changing]
    return MeasuredKey(
        model=_file_identity(model) if model is not None else "",
        arguments=_digest("\0".join(lasting[1:])),
        build=_file_identity(Path(argv[0])) if argv else "",
    )


class Meter:
    """Measures one engine while it runs; ``pids`` gives its processes at any moment."""

    def __init__(
        self,
        pids: Callable[[], Iterable[int]],
        *,
        measure: "Callable[[Iterable[int]], dict[str, int]] | None" = None,
    ) -> None:
        self._pids = pids
        self._measure = measure or memory_of
        self._running: asyncio.Task[dict[str, int]] | None = None
        self.peak: dict[str, int] = {}

    async def sample(self) -> dict[str, int]:
        """Measure now, by device in bytes; ``peak`` keeps the most seen of each.

        Whoever asks while a measurement is under way gets its result.
        """
        if self._running is None:
            work = asyncio.to_thread(lambda: self._measure(self._pids()))
            self._running = asyncio.create_task(work, name="measure memory")
            self._running.add_done_callback(self._done)
        return await asyncio.shield(self._running)

    def _done(self, task: "asyncio.Task[dict[str, int]]") -> None:
        self._running = None
        if task.cancelled() or task.exception() is not None:
            return
        for device, size_bytes in task.result().items():
            self.peak[device] = max(self.peak.get(device, 0), size_bytes)


def memory_of(pids: Iterable[int]) -> dict[str, int]:
    """Sum what processes hold, by device in bytes; those that are gone count for nothing."""
    found = list(pids)[:_MAX_PROCESSES]
    return {
        CPU: sum(resident_bytes(pid) for pid in found),
        **devices_nvidia.memory_of_processes(found),
    }


def tree_of(pid: int) -> tuple[int, ...]:
    """Give a process and all below it; empty when it is gone."""
    try:
        process = psutil.Process(pid)
        children = process.children(recursive=True)
    except psutil.Error:
        return ()
    return (pid, *(child.pid for child in children[: _MAX_PROCESSES - 1]))


def resident_bytes(pid: int, proc: Path = _PROC) -> int:
    """Give the RAM that a process holds; 0 when it is gone or may not be looked at.

    On Linux its proportional share: memory that several processes map counts once in their sum,
    files of mapped weights included (proc_pid_smaps(5)). Elsewhere the resident set.
    """
    if sys.platform == "linux":
        try:
            with (proc / str(pid) / "smaps_rollup").open(encoding="ascii") as file:
                share = parse_rollup(file.read(_MAX_ROLLUP_CHARS))
        except (OSError, UnicodeDecodeError):
            share = None
        if share is not None:
            return share
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def unreclaimable_bytes(pid: int, proc: Path = _PROC) -> int:
    """Give what of a process's RAM the system cannot take back; 0 when the process is gone.

    That is what it holds but the pages of files it has mapped: Linux counts those as available.
    Cheap at any size (proc_pid_status(5)). Elsewhere the resident set.
    """
    text = _status(pid, proc)
    if text is not None:
        return sum(int(match[1]) for match in _UNRECLAIMABLE.finditer(text)) * _KIB_BYTES
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _status(pid: int, proc: Path) -> str | None:
    """Read the status of a process on Linux; None elsewhere, or when it is gone."""
    if sys.platform == "linux":
        with (
            contextlib.suppress(OSError),
            (proc / str(pid) / "status").open(encoding="utf-8", errors="replace") as file,
        ):
            return file.read(_MAX_STATUS_CHARS)
    return None


def parse_rollup(text: str) -> int | None:
    """Read the proportional share out of the text of smaps_rollup, in bytes."""
    match = _PSS.search(text)
    return int(match[1]) * _KIB_BYTES if match else None


def _file_identity(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return _digest(str(path))
    return _digest(f"{path}\0{status.st_size}\0{status.st_mtime_ns}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:_KEY_CHARS]
