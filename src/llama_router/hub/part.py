"""A file on its way: what there is of it, and a journal that says what that is worth.

Killed at any moment, the next process goes on where this one was. After a power cut only what was
surely on the disk counts.
"""

import contextlib
import errno
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

import msgspec

from llama_router.hub.errors import HubError
from llama_router.hub.layout import RepoFolder, replace_file, sync_folder
from llama_router.hub.names import is_sha256

# Between two points that are sure to be on the disk.
SYNC_EVERY_BYTES = 64 * 1024 * 1024
_READ_BYTES = 4 * 1024 * 1024
_JOURNAL_MAX_BYTES = 4096
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Journal(msgspec.Struct):
    """``synced_bytes`` are on the disk, whatever happens to the machine since ``boot``."""

    size_bytes: int
    synced_bytes: int
    boot: str
    etag: str = ""


class Part:
    """The part of one blob. Blocks: for threads. All of it raises HubError where the disk fails.

    ``have_bytes`` says how much there is; ``etag`` is the hub's name for what it was taken from.
    """

    def __init__(self, folder: RepoFolder, blob: str, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.have_bytes = 0
        self.etag = ""
        self._folder = folder
        self._blob = blob
        self._path = folder.part(blob)
        self._journal_path = folder.journal(blob)
        self._synced_bytes = 0
        self._boot = _boot_id()
        self._file: BinaryIO | None = None
        self._is_abandoned = False
        self._hash = _new_hash(blob, size_bytes)

    def open(self) -> None:
        """Take up what an earlier process has left, and read it for the hash."""
        with _disk(self._path):
            self._folder.prepare()
            flags = os.O_RDWR | os.O_CREAT
            for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY", "O_NONBLOCK"):
                flags |= getattr(os, name, 0)
            self._file = os.fdopen(os.open(self._path, flags, 0o644), "r+b", buffering=0)
            kept_bytes = self._trusted_bytes(os.fstat(self._file.fileno()).st_size)
            self._truncate(kept_bytes)
            while chunk := self._file.read(_READ_BYTES):
                if self._is_abandoned:
                    break
                self._hash.update(chunk)
                self.have_bytes += len(chunk)
            self._note()

    def abandon(self) -> None:
        """Have ``open`` end soon, of no use to anybody: reading what is there can take minutes."""
        self._is_abandoned = True

    def restart(self, etag: str = "") -> None:
        """Begin again from nothing, of what ``etag`` names."""
        with _disk(self._path):
            self._truncate(0)
            self._hash = _new_hash(self._blob, self.size_bytes)
            self.have_bytes = self._synced_bytes = 0
            self.etag = etag
            self._note()

    def tag(self, etag: str) -> None:
        """Note what the rest is taken from."""
        if etag != self.etag:
            with _disk(self._path):
                self.etag = etag
                self._note()

    def write(self, data: bytes) -> None:
        """Add what has come."""
        with _disk(self._path):
            view = memoryview(data)
            while view:
                count = self._opened.write(view)
                self._hash.update(view[:count])
                self.have_bytes += count
                view = view[count:]
            if self.have_bytes - self._synced_bytes >= SYNC_EVERY_BYTES:
                os.fsync(self._opened.fileno())
                self._synced_bytes = self.have_bytes
                self._note()

    def is_right(self) -> bool:
        """Whether it is complete and its content has the hash that it should have."""
        return self.have_bytes == self.size_bytes and self._hash.hexdigest() == self._blob

    def finish(self) -> None:
        """Make it the blob."""
        with _disk(self._path):
            os.fsync(self._opened.fileno())
            self.close()
            self._path.replace(self._folder.blob(self._blob))
            self._journal_path.unlink(missing_ok=True)
            sync_folder(self._folder.blobs)

    def close(self) -> None:
        """Let go of the file, which stays. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def leave(self) -> None:
        """Let go of the file, which stays if there is anything in it."""
        # Not have_bytes: an abandoned one has more than was read.
        if self._file is not None and os.fstat(self._file.fileno()).st_size == 0:
            with contextlib.suppress(HubError):
                self.remove()
        self.close()

    def remove(self) -> None:
        """Take it away."""
        self.close()
        remove_part(self._folder, self._blob)

    @property
    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("the part is not open")
        return self._file

    def _trusted_bytes(self, found_bytes: int) -> int:
        journal = _read_journal(self._journal_path)
        if journal is None or journal.size_bytes != self.size_bytes:
            return 0
        self.etag = journal.etag
        self._synced_bytes = min(journal.synced_bytes, found_bytes)
        if journal.boot != self._boot:
            # What was written last may be there in length only.
            return self._synced_bytes
        return found_bytes if found_bytes <= self.size_bytes else 0

    def _truncate(self, size_bytes: int) -> None:
        self._opened.truncate(size_bytes)
        self._opened.seek(0)

    def _note(self) -> None:
        journal = _Journal(self.size_bytes, self._synced_bytes, self._boot, self.etag)
        replace_file(self._journal_path, msgspec.json.encode(journal))


def part_bytes(folder: RepoFolder, blob: str) -> int:
    """Return how much there is of a blob that is not complete."""
    try:
        return folder.part(blob).lstat().st_size
    except OSError:
        return 0


def remove_part(folder: RepoFolder, blob: str) -> int:
    """Take a part away; return the bytes that it had. Raises HubError."""
    size_bytes = part_bytes(folder, blob)
    with _disk(folder.part(blob)):
        folder.part(blob).unlink(missing_ok=True)
        folder.journal(blob).unlink(missing_ok=True)
    return size_bytes


class _disk:  # noqa: N801 - used as a statement
    """Say in words what the disk has against it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError):
            raise disk_error(self._path, error) from None


def disk_error(path: Path, error: OSError) -> HubError:
    """Return what a failure of the disk means."""
    if error.errno in _FULL:
        return HubError(
            "disk_full",
            f"the disk of {path.parent} is full; what has come is kept: make room and resume",
        )
    return HubError("disk_failed", f"{path} cannot be written: {error.strerror or error}")


def _new_hash(blob: str, size_bytes: int) -> "hashlib._Hash":
    if is_sha256(blob):
        return hashlib.sha256()
    # What git calls a file: gitformat-pack and git-hash-object.
    return hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)


def _read_journal(path: Path) -> _Journal | None:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_JOURNAL_MAX_BYTES), type=_Journal)
    except (OSError, msgspec.DecodeError, ValueError):
        return None


def _boot_id() -> str:
    """Return what is another after each start of the machine, where it says so (Linux)."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()[:64]
    except (OSError, ValueError):
        return ""
