"""The SQLite file: opened with care, read and written in few calls. For one thread at a time.

One connection only, as SQLite up to 3.51.2 can corrupt a file in WAL mode when two connections
write and checkpoint at the same time (the WAL-reset bug, fixed in 3.51.3). No mmap: a
fault of the disk would end the process.
"""

import json
import logging
import math
import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import msgspec

from llama_router.store import schema
from llama_router.store.records import (
    NAME_MAX_CHARS,
    PROMPT_MAX_CHARS,
    Footprint,
    FootprintKey,
    RequestRecord,
)

_log = logging.getLogger(__name__)

# About 30 MB of history, weeks of busy use.
REQUESTS_MAX_COUNT = 200_000
REQUESTS_MAX_AGE_S = 90 * 24 * 3600.0
# Prompts, where they are kept, make rows a hundred times longer.
STORE_MAX_BYTES = 512 * 1024 * 1024
# Of one answer, which is held in memory: it ends with the row in which this is reached.
ANSWER_PROMPTS_MAX_CHARS = 16 * 1024 * 1024
# Of the oldest rows, at a time, when the file is too large.
_CUT_DIVISOR = 10
# Far more than anybody has models times arguments.
FOOTPRINTS_MAX_COUNT = 10_000
# A reader of another process may hold the file for a moment.
_BUSY_TIMEOUT_S = 5.0
_FILE_MODE = 0o600
# SQLite's own limit.
_INTEGER_MAX = 2**63 - 1

_REQUEST_COLUMNS = (
    "time_s, model, key, tokens_in, tokens_out, queue_s, first_byte_s, total_s, end,"
    " path, status, prompt"
)
_REQUEST_PLACES = ", ".join("?" for _ in _REQUEST_COLUMNS.split(","))
# https://sqlite.org/rescode.html: the file is not, or no longer, a database.
_BROKEN_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def is_broken(error: sqlite3.Error) -> bool:
    """Tell whether the file itself is at fault, so that only a new one helps."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in _BROKEN_CODES


class Database:
    """The open file. Raises sqlite3.Error from every method."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = _open(path)

    def close(self) -> None:
        """Close; what was committed is in the file."""
        self._connection.close()

    def reopen_anew(self, why: str) -> None:
        """Move the file aside and begin a new one. Raises OSError too."""
        with suppress(sqlite3.Error):
            self._connection.close()
        _move_aside(self.path, why)
        self._connection = _open(self.path)

    def write(
        self,
        footprints: Iterable[tuple[FootprintKey, Footprint]],
        requests: Iterable[RequestRecord],
    ) -> None:
        """Add all of it in one transaction, or nothing."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                "INSERT OR REPLACE INTO footprints VALUES (?, ?, ?, ?, ?, ?)",
                (_footprint_row(key, footprint) for key, footprint in footprints),
            )
            connection.executemany(
                f"INSERT INTO requests ({_REQUEST_COLUMNS}) VALUES ({_REQUEST_PLACES})",  # noqa: S608 - constants
                (_request_row(record) for record in requests),
            )
            connection.execute("COMMIT")
        except BaseException:
            # The failure may have ended the transaction already.
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def prune(
        self, now_s: float, *, max_count: int, max_age_s: float, max_bytes: int = STORE_MAX_BYTES
    ) -> None:
        """Remove the oldest requests, by count, age and size, and the oldest footprints."""
        connection = self._connection
        connection.execute("DELETE FROM requests WHERE time_s < ?", (now_s - max_age_s,))
        connection.execute(
            "DELETE FROM requests WHERE id <= (SELECT max(id) FROM requests) - ?", (max_count,)
        )
        connection.execute(
            "DELETE FROM footprints WHERE (model, arguments_hash, engine_build) IN (SELECT"
            " model, arguments_hash, engine_build FROM footprints"
            " ORDER BY measured_at_s DESC LIMIT -1 OFFSET ?)",
            (FOOTPRINTS_MAX_COUNT,),
        )

        while self._used_bytes() > max_bytes:
            cut = connection.execute(
                "DELETE FROM requests WHERE id IN (SELECT id FROM requests ORDER BY id"
                " LIMIT max(1, (SELECT count(*) FROM requests) / ?))",
                (_CUT_DIVISOR,),
            )
            if not cut.rowcount:
                return

    def _used_bytes(self) -> int:
        """Return how much of the file is in use; what is free in it is taken before it grows."""
        page_bytes, page_count, free_count = (
            int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        return page_bytes * (page_count - free_count)

    def footprints(self) -> dict[FootprintKey, Footprint]:
        """Return all that are kept; rows that make no sense are left out."""
        found: dict[FootprintKey, Footprint] = {}
        rows = self._connection.execute(
            "SELECT model, arguments_hash, engine_build, memory_bytes, load_time_s, measured_at_s"
            " FROM footprints ORDER BY measured_at_s"
        )
        for model, arguments_hash, build, memory, load_time_s, measured_at_s in rows:
            devices = _devices(memory)
            if devices is not None:
                found[FootprintKey(model, arguments_hash, build)] = Footprint(
                    devices, load_time_s, measured_at_s
                )
        return found

    def requests(self, since_s: float, limit: int) -> list[RequestRecord]:
        """Return the newest ``limit`` requests that arrived at ``since_s`` or later, in order.

        Fewer, where their prompts come to ANSWER_PROMPTS_MAX_CHARS.
        """
        return _select(self._connection, since_s, limit)


def read_requests(path: Path, since_s: float, limit: int) -> list[RequestRecord]:
    """Read the history of a store, also while a router is writing to it; changes nothing.

    Without the prompts. Raises sqlite3.Error.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_S
    )
    try:
        return _select(connection, since_s, limit, prompt="''")
    finally:
        connection.close()


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _opened(path)
    except schema.TooNewError as error:
        _move_aside(path, str(error))
    except sqlite3.Error as error:
        if not is_broken(error):
            raise
        _move_aside(path, str(error))
    return _opened(path)


def _opened(path: Path) -> sqlite3.Connection:
    # The history names models and keys: nobody else's business. SQLite's helpers take this mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, _FILE_MODE))
    # Opened by one thread, used by another, never by both at a time.
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may cost the last transactions, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        _check(connection)
        schema.migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        broken = sqlite3.DatabaseError(verdict)
        broken.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise broken


def _move_aside(path: Path, why: str) -> None:
    """Keep a file that is of no use under another name; its predecessor there is replaced."""
    kept = path.with_name(f"{path.name}.broken")
    _log.warning("the store %s %s; it is kept as %s and a new one is begun", path, why, kept)
    path.replace(kept)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _footprint_row(key: FootprintKey, footprint: Footprint) -> tuple[object, ...]:
    return (
        _text(key.model),
        _text(key.arguments_hash),
        _text(key.engine_build),
        json.dumps({_text(name): _count(size) for name, size in footprint.memory_bytes.items()}),
        _finite(footprint.load_time_s),
        _finite(footprint.measured_at_s),
    )


def _text(value: str, max_chars: int = NAME_MAX_CHARS) -> str:
    # SQLite takes no lone surrogates, which names from JSON may hold.
    return value[:max_chars].encode("utf-8", "replace").decode()


def _count(value: int | None) -> int | None:
    return None if value is None else min(max(value, 0), _INTEGER_MAX)


def _finite(value: float) -> float:
    # NaN would be stored as NULL, which these columns do not take.
    return value if math.isfinite(value) else 0.0


def _duration(value: float | None) -> float | None:
    return None if value is None else _finite(value)


def _devices(text: object) -> dict[str, int] | None:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    if not all(type(size) is int and size >= 0 for size in value.values()):
        return None
    return value


def _request_row(record: RequestRecord) -> tuple[object, ...]:
    return (
        _finite(record.time_s),
        _text(record.model),
        _text(record.key),
        _count(record.tokens_in),
        _count(record.tokens_out),
        _duration(record.queue_s),
        _duration(record.first_byte_s),
        _finite(record.total_s),
        _text(record.end),
        _text(record.path),
        _count(record.status),
        _text(record.prompt, PROMPT_MAX_CHARS),
    )


def _select(
    connection: sqlite3.Connection, since_s: float, limit: int, *, prompt: str = "prompt"
) -> list[RequestRecord]:
    names = [name.strip() for name in _REQUEST_COLUMNS.split(",")]
    columns = ", ".join([*names[:-1], prompt])
    cursor = connection.execute(
        f"SELECT {columns} FROM requests WHERE time_s >= ?"  # noqa: S608 - constants
        " ORDER BY time_s DESC, id DESC LIMIT ?",
        (since_s, min(max(0, limit), _INTEGER_MAX)),
    )
    found: list[RequestRecord] = []
    prompts_chars = 0
    for row in cursor:
        # SQLite keeps any type in any column, and the file may have been edited.
        with suppress(msgspec.ValidationError):
            record = msgspec.convert(dict(zip(names, row, strict=True)), RequestRecord)
            found.append(record)
            prompts_chars += len(record.prompt)
        if prompts_chars >= ANSWER_PROMPTS_MAX_CHARS:
            break
    cursor.close()
    found.reverse()
    return found
