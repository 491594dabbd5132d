"""Reading and replacing the config file, with care for what else it might be."""

import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

# 10 000 models of 400 bytes each; anything longer is not a config.
FILE_MAX_BYTES = 4 * 1024 * 1024
TOO_LONG = f"is longer than {FILE_MAX_BYTES // 1024**2} MiB"
# The file may hold keys, so only its owner may read a new one.
NEW_FILE_MODE = 0o600
NEW_FOLDER_MODE = 0o700


class FileError(Exception):
    """A file cannot be read or written; the text says why, without the file's name."""


def is_there(path: Path) -> bool:
    """Tell whether there is something; nothing is where nobody lets us look.

    Before Python 3.14, ``Path.exists`` raises where a folder may not be entered.
    """
    return os.path.exists(path)  # noqa: PTH110 - see above


def is_folder(path: Path) -> bool:
    """Tell whether there is a folder, as ``is_there`` does."""
    return os.path.isdir(path)  # noqa: PTH112 - as above


def read_bytes(path: Path) -> bytes:
    """Read a regular file of at most FILE_MAX_BYTES.

    Raises FileError, also for folders, pipes and devices, which might never end or never begin.
    """
    try:
        # Without O_NONBLOCK opening a pipe would wait for a writer; Windows has neither.
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
        try:
            # Before `fdopen`, which refuses folders and leaves them open.
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileError("is not a regular file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(FILE_MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror or error}") from error
    if len(content) > FILE_MAX_BYTES:
        raise FileError(TOO_LONG)
    return content


def replace(path: Path, content: bytes) -> None:
    """Write the file so that a reader, or a power cut, finds the old or the new one, whole.

    Links are followed, mode and (where allowed) owner are kept; missing folders are made.
    Raises FileError.
    """
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(mode=NEW_FOLDER_MODE, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                _take_over_owner_and_mode(target, descriptor)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.replace(name, target)  # noqa: PTH105 - the name comes from mkstemp
        except BaseException:
            with suppress(OSError):
                os.unlink(name)  # noqa: PTH108 - the same
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise FileError(f"cannot be written: {error.strerror or error}") from error


def _take_over_owner_and_mode(target: Path, descriptor: int) -> None:
    if sys.platform != "win32":  # there the folder's access list applies
        try:
            old = target.stat()
        except FileNotFoundError:
            os.fchmod(descriptor, NEW_FILE_MODE)
            return
        # Under sudo the user's own file has to stay readable for the user.
        with suppress(OSError):
            os.fchown(descriptor, old.st_uid, old.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only once the folder is; not every system can do it.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
