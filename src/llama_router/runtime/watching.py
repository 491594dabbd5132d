"""Tells when files may have changed: folders of models, and single files such as the config.

A process of its own watches folders, `llama_router.catalog.watcher`. A file is looked at once a
second, which works however an editor replaces it.
"""

import asyncio
import contextlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from llama_router.catalog import watcher, wire
from llama_router.runtime.helper import end_helper, start_helper

_log = logging.getLogger(__name__)

_FILE_INTERVAL_S = 1.0
# After its end a watching process is started again, ever later; one that has lived for a while
# starts over.
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 300.0
_LIFE_S = 60.0
_MAX_LINE_BYTES = 64
_WATCHER = "llama_router.catalog.watcher"


class Watch(Protocol):
    """Something that is watched; ``close`` may come at any time."""

    def close(self) -> None:
        """Tell of nothing any more. Idempotent; does not wait."""


def watch_folders(
    folders: Sequence[Path],
    on_change: Callable[[], object],
    *,
    left_out: Sequence[Path] = (),
    polls: bool = False,
) -> Watch:
    """Have ``on_change`` called on the running loop whenever something in the folders may differ.

    It comes half a second after the last of several changes, and once soon after the beginning.
    Folders need not be there yet, and may go and come back; what is ``left_out`` of them is not
    touched. ``polls``: look from time to time
    although the system could tell.
    """
    request = watcher.WatchRequest(folders=tuple(folders), polls=polls, left_out=tuple(left_out))
    return _FolderWatch(request, on_change, asyncio.get_running_loop())


def watch_file(
    path: Path, on_change: Callable[[], object], *, interval_s: float = _FILE_INTERVAL_S
) -> Watch:
    """Have ``on_change`` called on the running loop when a file is another one than it was.

    That includes its coming and going. It is called when two looks after a change agree, so that a
    file is not read while it is being written.
    """
    return _FileWatch(path, on_change, interval_s)


class _FolderWatch:
    def __init__(
        self,
        request: watcher.WatchRequest,
        on_change: Callable[[], object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._request = request
        self._on_change = on_change
        self._loop = loop
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="watch folders", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self._lock:
            self._over.set()
            if self._child is not None:
                self._child.kill()

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._over.is_set():
            begin = time.monotonic()
            try:
                self._follow_one()
            except OSError as error:
                _log.warning("folders of models cannot be watched: %s", error)
            if time.monotonic() - begin > _LIFE_S:
                pause_s = _FIRST_PAUSE_S
            self._over.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _follow_one(self) -> None:
        """Start a process and pass on what it says until it ends."""
        with self._lock:
            if self._over.is_set():
                return
            self._child = child = start_helper(_WATCHER)
        try:
            if child.stdin is None or child.stdout is None:
                return
            child.stdin.write(wire.frame(self._request))
            child.stdin.flush()
            while child.stdout.readline(_MAX_LINE_BYTES):
                self._tell()
        finally:
            with self._lock:
                self._child = None
            end_helper(child)

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._call)

    def _call(self) -> None:
        if not self._over.is_set():
            self._on_change()


class _FileWatch:
    def __init__(self, path: Path, on_change: Callable[[], object], interval_s: float) -> None:
        self._path = path
        self._on_change = on_change
        self._interval_s = interval_s
        self._told = _look(path)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(), name=f"watch {path.name}")

    def close(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        before = self._told
        while True:
            await asyncio.sleep(self._interval_s)
            now = await asyncio.to_thread(_look, self._path)
            if now == before != self._told:
                self._told = now
                self._on_change()
            before = now


def _look(path: Path) -> tuple[int, ...]:
    """Give what tells whether a file is still the same; nothing of one that is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116  # follows links, as reading it would
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
