"""Folders in which a scan got stuck, such as those of a network mount whose server is gone.

They are left out until they answer, which one process for each tries to find out now and then.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from llama_router.catalog import wire
from llama_router.runtime.scan_process import ScanError, ScanProcess

_log = logging.getLogger(__name__)

# Each costs a minute once, at the start of a router too; who has more has another problem.
_FOLDERS_MAX_COUNT = 8
# Processes that were given up and have not ended: those of the folders, and a few more.
_HANGING_MAX_COUNT = 12
# How long after a folder got stuck it is tried: twice as long each time that it was in vain.
_FIRST_PAUSE_S = 30.0
_LONGEST_PAUSE_S = 900.0


class SilentFolders:
    """For any thread. ``on_change`` is called, on some thread, with whether one answers again."""

    def __init__(self) -> None:
        self.on_change: Callable[[bool], object] = lambda _answers: None
        self._lock = threading.Lock()
        self._pauses_s: dict[Path, float] = {}
        self._silent: dict[Path, ScanProcess | None] = {}
        self._hanging: list[ScanProcess] = []
        self._over = threading.Event()

    @property
    def folders(self) -> tuple[Path, ...]:
        """Those that do not answer."""
        with self._lock:
            return tuple(self._silent)

    @property
    def is_full(self) -> bool:
        """Whether so many processes hang that there must not be more."""
        with self._lock:
            self._hanging = [one for one in self._hanging if not one.has_ended()]
            return len(self._hanging) >= _HANGING_MAX_COUNT

    def leave(self, process: ScanProcess) -> None:
        """Leave a process that was given up to its end, whenever that comes."""
        with self._lock:
            if not process.has_ended():
                self._hanging.append(process)

    def add(self, folder: Path, process: ScanProcess) -> bool:
        """Leave a folder out in which this process got stuck; False if there are too many.

        Nothing is left out twice.
        """
        with self._lock:
            is_new = folder not in self._silent and len(self._silent) < _FOLDERS_MAX_COUNT
            if is_new:
                self._silent[folder] = None
        if is_new:
            thread = threading.Thread(
                target=self._wait, args=(folder, process), name="silent folder", daemon=True
            )
            thread.start()
            self.on_change(False)
        return is_new

    def all_else_answered(self) -> None:
        """Forget how often folders were tried that a scan has now been through."""
        with self._lock:
            self._pauses_s = {
                folder: pause_s
                for folder, pause_s in self._pauses_s.items()
                if folder in self._silent
            }

    def close(self) -> None:
        """Try nothing any more. Idempotent; does not wait."""
        self._over.set()
        with self._lock:
            trying = [process for process in self._silent.values() if process is not None]
        for process in trying:
            process.give_up()

    def _wait(self, folder: Path, process: ScanProcess) -> None:
        """Try the folder, with one process at a time, until it answers."""
        process.has_ended(within_s=None)
        while not self._over.wait(self._next_pause_s(folder)):
            if self._answers(folder):
                with self._lock:
                    del self._silent[folder]
                _log.info("%s answers again", folder)
                self.on_change(True)
                return

    def _next_pause_s(self, folder: Path) -> float:
        with self._lock:
            pause_s = self._pauses_s.get(folder, _FIRST_PAUSE_S)
            self._pauses_s[folder] = min(2 * pause_s, _LONGEST_PAUSE_S)
            return pause_s

    def _answers(self, folder: Path) -> bool:
        nothing = wire.Request(
            models_dirs=(), env={}, home=folder, platform=sys.platform, try_folder=folder
        )
        try:
            process = ScanProcess(nothing)
        except OSError:
            return False
        with self._lock:
            self._silent[folder] = process
        if self._over.is_set():
            process.give_up()
        try:
            with contextlib.suppress(ScanError):
                for _ in process.answers():
                    pass
                return True
            return False
        finally:
            process.give_up()
            # However long that takes: there is never a second one.
            process.has_ended(within_s=None)
