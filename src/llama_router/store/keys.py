"""The API keys that were made by the API or the command line: hashes, in one small file.

A file of its own, and not a table of the store, because whoever may use the router must not depend
on a history: that one is begun anew when its file is broken, and is not there at all for a second
router in the same folder. A broken key file ends the start instead.
"""

import hashlib
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec

from llama_router.store.lock import FileLock, LockedError

KEYS_FILE_NAME = "keys.json"
KEYS_MAX_COUNT = 1000
# A thousand keys with every limit used; more is no file of ours.
_FILE_MAX_BYTES = 16 * 1024 * 1024
_FILE_MODE = 0o600
_VERSION = 1
_DIGEST_CHARS = hashlib.sha256().digest_size * 2


class KeyFileError(Exception):
    """The keys cannot be read or written; the text says where, why and what to do."""


class KeyFileBusyError(KeyFileError):
    """Just now it cannot be changed, or nothing can be added to it: nothing is broken."""


class KeyNameTakenError(KeyFileError):
    """There is a key of that name already: whoever looks at limits or a history goes by names."""


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One key. ``digest``: the SHA-256 of the secret, in hex; the secret itself is kept nowhere.

    ``scopes``: of "inference" and "admin". ``models``: patterns of the models that it may use;
    none: all. Of the limits, 0 is none. Times are Unix time; ``last_used_s`` is coarse.
    """

    id: str
    name: str
    digest: str
    scopes: tuple[str, ...]
    created_s: float
    models: tuple[str, ...] = ()
    requests_per_minute: int = 0
    max_in_flight: int = 0
    priority: int = 0
    batch: bool = False
    last_used_s: float | None = None


class _Content(msgspec.Struct, frozen=True):
    version: int
    keys: tuple[KeyRecord, ...]


class KeyFile:
    """The file at ``path``, which need not exist yet. Everything that does I/O blocks.

    Raises KeyFileError from everything that does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._keys = self._read()

    @property
    def keys(self) -> tuple[KeyRecord, ...]:
        """All keys, as they were last read or written."""
        return self._keys

    def add(self, record: KeyRecord) -> None:
        """Add a key; it is on the disk when this returns."""
        with self._changing() as change:
            if len(change.keys) >= KEYS_MAX_COUNT:
                raise KeyFileBusyError(f"there are {KEYS_MAX_COUNT} keys already; revoke some")
            if any(one.name == record.name for one in change.keys):
                raise KeyNameTakenError(f"there is a key '{record.name}' already")
            change.keys = (*change.keys, record)

    def revoke(self, key_id: str) -> None:
        """Remove a key; it is gone from the disk when this returns."""
        with self._changing() as change:
            change.keys = tuple(one for one in change.keys if one.id != key_id)

    def used(self, last_used_s: dict[str, float]) -> None:
        """Remember when keys were last used, by their ids."""
        with self._changing() as change:
            change.keys = tuple(
                msgspec.structs.replace(one, last_used_s=last_used_s.get(one.id, one.last_used_s))
                for one in change.keys
            )

    def refresh(self) -> None:
        """Read the file again, which somebody else may have changed: another process, a person."""
        with self._lock:
            self._keys = self._read()

    def _changing(self) -> "_Change":
        return _Change(self)

    def _read(self) -> tuple[KeyRecord, ...]:
        try:
            with self.path.open("rb") as file:
                text = file.read(_FILE_MAX_BYTES + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise KeyFileError(f"the keys in {self.path} cannot be read: {error}") from None
        try:
            return _decoded(text)
        except (msgspec.DecodeError, ValueError) as error:
            raise KeyFileError(
                f"the keys in {self.path} make no sense ({error}); put the file right, or move it"
                " away and make new keys"
            ) from None

    def _write(self, keys: tuple[KeyRecord, ...]) -> None:
        text = msgspec.json.format(msgspec.json.encode(_Content(_VERSION, keys)), indent=1)
        aside = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _FILE_MODE)
            with os.fdopen(fd, "wb") as file:
                file.write(text + b"\n")
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise KeyFileError(f"the keys in {self.path} cannot be written: {error}") from None


class _Change:
    """A change of the file: read, changed and written while nobody else does."""

    keys: tuple[KeyRecord, ...]

    def __init__(self, file: KeyFile) -> None:
        self._file = file
        self._between_processes: FileLock | None = None

    def __enter__(self) -> Self:
        self._file._lock.acquire()
        try:
            self._between_processes = _locked(self._file.path)
            self.keys = self._before = self._file._read()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        try:
            if kind is None:
                if self.keys != self._before:
                    self._file._write(self.keys)
                self._file._keys = self.keys
        finally:
            self._release()

    def _release(self) -> None:
        if self._between_processes is not None:
            self._between_processes.release()
        self._file._lock.release()


def _sync_folder(folder: Path) -> None:
    """Have it on the disk which file is the one: after a power cut, a revoked key must not be back.

    Raises OSError.
    """
    if sys.platform != "win32":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _decoded(text: bytes) -> tuple[KeyRecord, ...]:
    """Return the keys of a file. Raises msgspec.DecodeError and ValueError."""
    if len(text) > _FILE_MAX_BYTES:
        raise ValueError("it is too long")
    content = msgspec.json.decode(text, type=_Content)
    if content.version != _VERSION:
        raise ValueError(f"it has version {content.version}, and this release knows {_VERSION}")
    if any(len(bytes.fromhex(key.digest)) * 2 != _DIGEST_CHARS for key in content.keys):
        raise ValueError("a digest has a wrong length")
    if not all(key.name for key in content.keys):
        # It would pass for nobody's, who may see all.
        raise ValueError("a key has no name")
    if len({key.name for key in content.keys}) < len(content.keys):
        raise ValueError("two keys have the same name")
    return content.keys


def _locked(path: Path) -> FileLock:
    try:
        return FileLock(path.with_name(f"{path.name}.lock"))
    except LockedError:
        raise KeyFileBusyError(f"somebody else is just changing {path}; try again") from None
    except OSError as error:
        raise KeyFileError(f"the keys in {path} cannot be written: {error}") from None
