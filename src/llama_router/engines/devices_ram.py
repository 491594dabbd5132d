"""RAM, as far as this process may use it."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_MAX_FILE_CHARS = 65_536
_MAX_CGROUP_DEPTH = 64


def ram() -> tuple[int, int]:
    """Give all RAM and what of it is available, in bytes; a container's limit counts."""
    memory = psutil.virtual_memory()
    total_bytes, available_bytes = int(memory.total), int(memory.available)
    for limit_bytes, free_bytes in _cgroup_limits(_CGROUPS, _OWN_CGROUPS):
        total_bytes = min(total_bytes, limit_bytes)
        available_bytes = min(available_bytes, free_bytes)
    return total_bytes, max(available_bytes, 0)


def cgroup_path(text: str) -> PurePosixPath | None:
    """Find the path of the cgroup of version 2 in the text of /proc/self/cgroup (cgroups(7))."""
    for line in text.splitlines():
        if line.startswith("0::/"):
            return PurePosixPath(line.removeprefix("0::/"))
    return None


def cgroup_free_bytes(limit_bytes: int, current_bytes: int, stat: str) -> int:
    """Give what a cgroup may still take; cached files make way and count as free (memory.stat)."""
    values = dict(line.split(" ", 1) for line in stat.splitlines() if " " in line)
    cached = 0
    for key in ("inactive_file", "active_file"):
        text = values.get(key, "0")
        cached += int(text) if text.isdecimal() else 0
    return max(limit_bytes - current_bytes + min(cached, current_bytes), 0)


def _cgroup_limits(root: Path, own: Path) -> Iterator[tuple[int, int]]:
    """Give (limit, what is free) of this process's cgroup and those above it."""
    text = _text(own)
    path = cgroup_path(text) if text is not None else None
    if path is None or ".." in path.parts:
        return
    for folder in [path, *path.parents][:_MAX_CGROUP_DEPTH]:
        limit, current = (
            _text(root / folder / "memory.max"),
            _text(root / folder / "memory.current"),
        )
        if limit is None or current is None:
            continue
        if not limit.strip().isdecimal() or not current.strip().isdecimal():
            continue  # "max": no limit
        stat = _text(root / folder / "memory.stat") or ""
        yield int(limit), cgroup_free_bytes(int(limit), int(current), stat)


def _text(path: Path) -> str | None:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(_MAX_FILE_CHARS)
    except OSError:
        return None
