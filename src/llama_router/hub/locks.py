"""One process at a time for a file, also among programs that use huggingface_hub.

It locks ``.locks/models--org--repo/<blob>.lock`` the way filelock does (filelock, _unix.py and
_windows.py), and so do we.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

_POLL_S = 0.25
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_UNKNOWN = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


class _NoLocksError(OSError):
    """The file system does not know locks."""


def lock_path(cache: Path, folder: str, blob: str) -> Path:
    """Return where the lock of a blob is."""
    return cache / ".locks" / folder / f"{blob}.lock"


@contextlib.asynccontextmanager
async def locked(
    path: Path,
    on_wait: Callable[[], object],
    gate: contextlib.AbstractAsyncContextManager[object] | None = None,
) -> AsyncIterator[None]:
    """Hold a lock, once nobody else does; ``on_wait`` is called when it takes waiting.

    ``gate`` is entered first, so that what waits for it holds no lock and no descriptor; and left
    while others hold the lock.
    """
    has_told = False
    while True:
        async with gate or contextlib.nullcontext():
            descriptor = try_lock(path)
            if descriptor is not None:
                try:
                    yield
                finally:
                    # This ends the lock too. The file stays: without it two could hold locks of
                    # that name.
                    os.close(descriptor)
                return
        if not has_told:
            has_told = True
            on_wait()
        await asyncio.sleep(_POLL_S)


def try_lock(path: Path) -> int | None:
    """Take a lock; return the descriptor that holds it until it is closed, None if others do.

    Where the file system has none (of a network, of a cluster), it is one of this user on this
    machine: two that write to one part would make a file whose hash was right and is not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _try_lock(path)
    except _NoLocksError:
        return _try_lock(_stand_in(path))


def _stand_in(path: Path) -> Path:
    user = getattr(os, "getuid", int)()
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    return Path(tempfile.gettempdir(), f"llama-router-{user}-{name[:32]}.lock")


def _try_lock(path: Path) -> int | None:
    flags = os.O_RDWR | os.O_CREAT
    for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC"):
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags, 0o664)
    is_ours = False
    try:
        is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        is_ours = is_regular and _lock(descriptor) and _is_still(descriptor, path)
    finally:
        if not is_ours:
            os.close(descriptor)
    return descriptor if is_ours else None


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the file that is locked is the one that others would lock, too."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in _HELD:
                return False
            raise
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                return False
            if error.errno in _UNKNOWN:
                raise _NoLocksError(error.errno, error.strerror) from None
            raise
        return True
