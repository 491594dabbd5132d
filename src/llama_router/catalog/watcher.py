"""The process that watches folders: ``python -P -m llama_router.catalog.watcher``.

It reads `WatchRequest` from its stdin and writes a line to its stdout whenever something may have
changed; it ends when its stdin does. It is a process of its own because the library that is told by
the system holds the interpreter while it begins: 35 ms for 10,000 files.
"""

import contextlib
import os
import stat
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from llama_router.catalog import wire

CHANGED = b"changed\n"
_NICENESS = 10
# A change is told when nothing has followed it for so long, and at the latest after so long.
_QUIET_MS = 500
_LONGEST_MS = 5_000
# How often a folder that is gone, or not there yet, is looked for.
_LOOK_INTERVAL_S = 2.0
# Where the system tells nothing: how often it is looked, and of all time at most this share.
_POLL_INTERVAL_S = 10.0
_POLL_SHARE = 0.02
# The system gives watches away by folder, and the library follows links to folders.
_MAX_FOLDERS = 20_000
_MAX_ENTRIES = 250_000
# Files that are being written, and will have another name when they are whole.
_PASSING = (".incomplete", ".part", ".partial", ".lock", ".tmp", ".crdownload", ".download")
# File systems of other machines tell of our own changes only.
_REMOTE_TYPES = ("nfs", "cifs", "smb", "9p", "fuse.", "afs", "ceph", "gluster", "lustre", "vboxsf")
_MOUNTS = Path("/proc/self/mountinfo")


class WatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to watch; ``polls``: by looking, whatever the system offers.

    ``left_out`` are folders that do not answer, and hold up whoever asks them for anything.
    """

    folders: tuple[Path, ...]
    polls: bool = False
    left_out: tuple[Path, ...] = ()


_Identity = tuple[int, int]


def present(folders: Sequence[Path]) -> dict[Path, _Identity]:
    """Give those folders that are there, with what tells whether they are still the same."""
    found = {}
    for folder in folders:
        try:
            status = folder.stat()
        except (OSError, ValueError):
            continue
        if stat.S_ISDIR(status.st_mode):
            found[folder] = (status.st_dev, status.st_ino)
    return found


def is_telling(path: str) -> bool:
    """Whether a change of this path may be one of the models."""
    name = os.path.basename(path)  # noqa: PTH119  # called for each change
    return not name.endswith(_PASSING) and not name.startswith(".")


def signature(folders: Sequence[Path], left_out: Sequence[Path] = ()) -> int:
    """Give a number that changes with what is in the folders; bounded, and without following links.

    Files count by name, size and time of change, and only those that a scan looks at.
    """
    found = 0
    left = _MAX_ENTRIES
    for root in folders:
        for folder, names, files in os.walk(root, followlinks=False):
            left -= len(names) + len(files)
            if left < 0:
                return found
            names[:] = sorted(name for name in names if Path(folder, name) not in left_out)
            for name in sorted(files):
                if not name.endswith((".gguf", ".json")) and not folder.endswith("refs"):
                    continue
                with contextlib.suppress(OSError):
                    status = Path(folder, name).stat()
                    one = (folder, name, status.st_size, status.st_mtime_ns, status.st_ino)
                    found = hash((found, one))
    return found


def can_be_told(folders: Sequence[Path]) -> bool:
    """Whether the system can be asked to tell of changes: not over a network, not of too much."""
    if any(_is_remote(folder) for folder in folders):
        return False
    count = entries = 0
    for root in folders:
        for folder, names, files in os.walk(root, followlinks=False):
            count += 1
            entries += len(names) + len(files)
            if count > _MAX_FOLDERS or entries > _MAX_ENTRIES:
                return False
            if any(Path(folder, name).is_symlink() for name in names):
                return False
    return True


def _is_remote(folder: Path) -> bool:
    """Tell by the longest mount point above the folder (Linux; proc(5))."""
    best, kind = "", ""
    real = os.path.realpath(folder) + "/"
    with contextlib.suppress(OSError, UnicodeDecodeError, IndexError):
        for line in _MOUNTS.read_text().splitlines():
            left, _dash, right = line.partition(" - ")
            point = left.split(" ")[4].replace("\\040", " ").rstrip("/") + "/"
            if real.startswith(point) and len(point) >= len(best):
                best, kind = point, right.split(" ")[0]
    return kind.startswith(_REMOTE_TYPES)


class Watcher:
    """Says on ``out`` what happens, until ``over`` is set."""

    def __init__(self, request: WatchRequest, out: BinaryIO, over: threading.Event) -> None:
        self._request = request
        self._folders = tuple(
            folder
            for folder in request.folders
            if not any(map(folder.is_relative_to, request.left_out))
        )
        self._out = out
        self._over = over

    def run(self) -> None:
        """Watch; raises `OSError` when nobody listens any more."""
        there = present(self._folders)
        while not self._over.is_set():
            if not there:
                self._over.wait(_LOOK_INTERVAL_S)
            elif self._request.polls or self._has_gaps(there) or not can_be_told(tuple(there)):
                self._poll(there)
            else:
                self._listen(there)
            now = present(self._folders)
            if now != there:
                there = now
                self._say()

    def _has_gaps(self, folders: Iterable[Path]) -> bool:
        """Tell whether something below is left out, for which the system has no word."""
        return any(one.is_relative_to(root) for one in self._request.left_out for root in folders)

    def _say(self) -> None:
        self._out.write(CHANGED)
        self._out.flush()

    def _listen(self, there: dict[Path, _Identity]) -> None:
        """Be told by the system, until another set of folders is there."""
        import watchfiles

        is_first = True
        try:
            for changes in watchfiles.watch(
                *there,
                watch_filter=lambda _change, path: is_telling(path),
                debounce=_LONGEST_MS,
                step=_QUIET_MS,
                rust_timeout=int(_LOOK_INTERVAL_S * 1000),
                yield_on_timeout=True,
                stop_event=self._over,
                raise_interrupt=False,
                recursive=True,
                ignore_permission_denied=True,
            ):
                # What has changed before the system began to tell was told by nobody.
                if changes or is_first:
                    self._say()
                is_first = False
                if present(self._folders) != there:
                    return
        except BrokenPipeError:
            raise
        except Exception:  # noqa: BLE001  # it differs from system to system what is raised
            # No watches are left, a name that is no text, or one of the folders has just gone.
            if present(self._folders) == there:
                self._poll(there)

    def _poll(self, there: dict[Path, _Identity]) -> None:
        """Look from time to time, until another set of folders is there."""
        known = signature(tuple(there), self._request.left_out)
        self._say()
        took_s = 0.0
        while not self._over.wait(max(_POLL_INTERVAL_S, took_s / _POLL_SHARE)):
            if present(self._folders) != there:
                return
            begin = time.monotonic()
            now = signature(tuple(there), self._request.left_out)
            took_s = time.monotonic() - begin
            if now != known:
                known = now
                self._say()


def main() -> int:
    """Watch what stdin says."""
    if sys.platform != "win32":  # there whoever starts it sees to that
        with contextlib.suppress(OSError):
            os.nice(_NICENESS)
    source = sys.stdin.buffer
    content = wire.read_frame(source)
    if content is None:
        return 0
    request = wire.decode(content, WatchRequest)
    over = threading.Event()
    watcher = Watcher(request, sys.stdout.buffer, over)
    threading.Thread(target=_watch, args=(watcher,), daemon=True).start()
    with contextlib.suppress(OSError, ValueError):
        while source.read(4096):
            pass
    return 0


def _watch(watcher: Watcher) -> None:
    # Whatever ends it: this process would watch nothing any more, and the router starts another.
    try:
        with contextlib.suppress(OSError):
            watcher.run()
    finally:
        os._exit(1)


if __name__ == "__main__":
    code = main()
    os._exit(code)
