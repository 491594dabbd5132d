"""Opening files that may turn out to be anything."""

import os
import stat
from pathlib import Path
from typing import BinaryIO


class NotRegularFileError(Exception):
    """The path leads to a directory, FIFO, socket or device."""


def open_regular(path: Path) -> tuple[BinaryIO, os.stat_result]:
    """Open a regular file for unbuffered reading, never blocking on a FIFO or a device.

    Raises `NotRegularFileError` or `OSError`.
    """
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):  # as far as they exist here
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise NotRegularFileError(f"{path} is not a regular file")
    return os.fdopen(descriptor, "rb", buffering=0), status
