"""One router at a time writes to a store."""

import os
import sys
from pathlib import Path


class LockedError(Exception):
    """Another process holds the lock."""


class FileLock:
    """A lock that the kernel gives back when its holder ends, in whatever way.

    Raises LockedError, and OSError when the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            _lock(self._fd)
        except OSError as error:
            os.close(self._fd)
            raise LockedError(str(path)) from error

    def release(self) -> None:
        """Give it back. The file stays: removing it would let two others hold one each."""
        os.close(self._fd)


def _lock(fd: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
