"""Remembers headers from scan to scan, so that only files which have changed are read.

One file, replaced as a whole: a mark with the format's version, a digest, and the entries. What is
not as it was written counts as nothing remembered: the files are read again.
"""

import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llama_router.catalog.files import NotRegularFileError, open_regular
from llama_router.catalog.gguf_reader import GgufError
from llama_router.catalog.headers import Header, read_header

# Changes whenever Header or what the reader says of a file does.
_MARK = b"llama-router headers 1\n"
_DIGEST_BYTES = 16
_MAX_INDEX_BYTES = 64 * 2**20
_MAX_ENTRIES = 100_000  # as many files as a scan looks at
_MAX_REASON_CHARS = 300
# Clocks of file systems tick every 4 ms, on FAT every 2 s: what was changed that shortly before it
# was read may have been changed again without a trace.
_RACY_NS = 2_500_000_000
_UNREADABLE = "cannot be read"
_NO_CTIME = sys.platform == "win32"  # there it is the time of creation

_logger = logging.getLogger(__name__)


class _Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was read of a file with this identity; ``reason`` instead of a header if it is bad."""

    identity: tuple[int, int, int, int, int]
    header: Header | None
    reason: str = ""


_decoder = msgspec.msgpack.Decoder(dict[bytes, _Entry])
_encoder = msgspec.msgpack.Encoder()


class HeaderIndex:
    """Implements Headers over what an earlier scan has kept in a file. For one thread.

    ``read_count`` and ``known_count`` say how many files were read and how many were not.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._old = _loaded(path) if path is not None else {}
        self._new: dict[bytes, _Entry] = {}
        self.read_count = self.known_count = 0

    def looks_into(self, folder: Path) -> bool:  # noqa: ARG002
        """See Headers."""
        return True

    def of(
        self, path: Path, status: os.stat_result, on_read: Callable[[], object] = lambda: None
    ) -> Header | GgufError:
        """See Headers; ``on_read`` is called whenever the disk has given some of the file."""
        key, identity = os.fsencode(path), _identity(status)
        entry = self._new.get(key) or self._old.get(key)
        if entry is not None and entry.identity == identity:
            self.known_count += 1
        else:
            self.read_count += 1
            read_at_ns = time.time_ns()
            header = read_header(path, on_read)
            if isinstance(header, GgufError) and header.reason.startswith(_UNREADABLE):
                return header  # may be otherwise the next time, without a change of the file
            entry = (
                _Entry(identity, None, header.reason[:_MAX_REASON_CHARS])
                if isinstance(header, GgufError)
                else _Entry(identity, header)
            )
            if _is_racy(status, read_at_ns):
                return header
        if len(self._new) < _MAX_ENTRIES:
            self._new[key] = entry
        return entry.header or GgufError(entry.reason)

    def save(self, looks_into: Callable[[Path], bool] | None = None) -> None:
        """Keep what this scan has seen, unless that is what is kept already; never raises.

        Of other files, too, what is still so: another router with other folders may use the index.
        ``looks_into`` is as that of Headers; what is left out stays as it is.
        """
        if self._path is None:
            return
        looks_into = looks_into or self.looks_into
        for key, entry in self._old.items():
            if key in self._new or len(self._new) >= _MAX_ENTRIES:
                continue
            if not looks_into(Path(os.fsdecode(key)).parent) or _is_still(key, entry):
                self._new[key] = entry
        if not looks_into(self._path.parent) or self._new == self._old:
            return
        try:
            content = _encoder.encode(self._new)
            if len(content) > _MAX_INDEX_BYTES:
                _logger.warning("%s: not written: %d bytes", self._path, len(content))
                return
            _replace(self._path, _MARK + _digest(content) + content)
        except (OSError, msgspec.MsgspecError, OverflowError, UnicodeEncodeError) as error:
            # The next scan reads the files again, and nothing else is lost.
            _logger.warning("%s: cannot be written: %s", self._path, error)


def _identity(status: os.stat_result) -> tuple[int, int, int, int, int]:
    changed_ns = 0 if _NO_CTIME else status.st_ctime_ns
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, changed_ns


def _is_still(key: bytes, entry: _Entry) -> bool:
    try:
        return _identity(os.stat(key)) == entry.identity  # noqa: PTH116  # of thousands
    except (OSError, ValueError):
        return False


def _is_racy(status: os.stat_result, read_at_ns: int) -> bool:
    changed_ns = status.st_mtime_ns if _NO_CTIME else status.st_ctime_ns
    return abs(read_at_ns - changed_ns) < _RACY_NS


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _loaded(path: Path) -> dict[bytes, _Entry]:
    try:
        file, status = open_regular(path)
        with file:
            if status.st_size > _MAX_INDEX_BYTES + len(_MARK) + _DIGEST_BYTES:
                return {}
            raw = b"".join(iter(lambda: file.read(1 << 20), b""))[: status.st_size]
    except (OSError, NotRegularFileError):
        return {}
    content = memoryview(raw)[len(_MARK) + _DIGEST_BYTES :]
    if raw[: len(_MARK)] != _MARK or raw[len(_MARK) :][:_DIGEST_BYTES] != _digest(bytes(content)):
        return {}
    try:
        entries = _decoder.decode(content)
    except (msgspec.MsgspecError, RecursionError):
        return {}
    return entries if len(entries) <= _MAX_ENTRIES else {}


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name: who is killed leaves one behind, not many. Should two routers ever write
    # at a time, the digest shows it.
    partial = path.with_name(f".{path.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
