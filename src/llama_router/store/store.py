"""What the router remembers across restarts: measured footprints and the history of requests.

Everything is handed to one thread that owns the database; handing over never waits. What cannot be
written (a full disk, a flood) is counted and left out: serving does not depend on it.
"""

import logging
import sqlite3
import threading
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Self

import msgspec

from llama_router.store import database
from llama_router.store.database import Database
from llama_router.store.lock import FileLock, LockedError
from llama_router.store.records import Footprint, FootprintKey, RequestRecord

_log = logging.getLogger(__name__)

# Many requests make one transaction, and a crash costs no more than this of history.
BATCH_INTERVAL_S = 0.25
# At 10,000 requests a second the batches of a disk that hangs for five seconds.
QUEUED_MAX_COUNT = 50_000
# Of prompts, which may be a thousand times as long as the rest: beyond, requests come without.
QUEUED_PROMPTS_MAX_CHARS = 64 * 1024 * 1024
# Old rows are looked for after this many new ones: prune touches the whole index.
PRUNE_EVERY_COUNT = 2000
# A question is answered after the batch before it; longer than any healthy disk needs.
ANSWER_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 10.0
REQUESTS_DEFAULT_LIMIT = 10_000


class StoreError(Exception):
    """The store cannot be opened or read; the text says where, why and what to do."""


class _Question:
    """A read of the history, answered by the writer."""

    def __init__(self, since_s: float, limit: int) -> None:
        self.since_s = since_s
        self.limit = limit
        self.answer: Future[list[RequestRecord]] = Future()


_Measured = tuple[FootprintKey, Footprint]
_Item = _Measured | RequestRecord | _Question


class Store:
    """An open store. ``open`` one, ``close`` it at the end; everything else at any time.

    ``remember_footprint``, ``add_request``, ``footprints`` and ``dropped_count`` never wait and
    may be used on an event loop; ``open``, ``requests`` and ``close`` do file I/O.
    """

    def __init__(
        self,
        opened: Database,
        lock: FileLock,
        *,
        requests_max_count: int,
        requests_max_age_s: float,
        batch_interval_s: float,
        queued_max_count: int,
    ) -> None:
        self._database = opened
        self._lock = lock
        self._requests_max_count = requests_max_count
        self._requests_max_age_s = requests_max_age_s
        self._batch_interval_s = batch_interval_s
        self._queued_max_count = queued_max_count
        self._footprints = opened.footprints()
        # deque.append and popleft are atomic; a lock could make the event loop wait.
        self._items: deque[_Item] = deque()
        self._has_items = threading.Event()
        # Set when the batch must not wait to grow: somebody asks, or the end has come.
        self._hurry = threading.Event()
        self._is_closing = threading.Event()
        self._dropped_full_count = 0
        self._dropped_failed_count = 0
        # Each is counted up by one thread only, so that no lock is needed; the rest is queued.
        self._prompt_chars_put = 0
        self._prompt_chars_taken = 0
        self._added_count = 0
        self._last_failure = ""
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        requests_max_count: int = database.REQUESTS_MAX_COUNT,
        requests_max_age_s: float = database.REQUESTS_MAX_AGE_S,
        batch_interval_s: float = BATCH_INTERVAL_S,
        queued_max_count: int = QUEUED_MAX_COUNT,
    ) -> Self:
        """Open the store at ``path`` or begin it; its folder has to exist.

        A file that is broken, or of a later version, is moved aside with a warning. Raises
        StoreError when there can be no store: another router uses it, or the disk refuses.
        """
        lock: FileLock | None = None
        opened: Database | None = None
        try:
            lock = FileLock(path.with_name(f"{path.name}.lock"))
            opened = Database(path)
            opened.prune(time.time(), max_count=requests_max_count, max_age_s=requests_max_age_s)
            store = cls(
                opened,
                lock,
                requests_max_count=requests_max_count,
                requests_max_age_s=requests_max_age_s,
                batch_interval_s=batch_interval_s,
                queued_max_count=queued_max_count,
            )
        except LockedError:
            raise StoreError(
                f"the store {path} is in use by another router; history and measurements of this "
                "one are not kept (give it a state folder of its own to keep them)"
            ) from None
        except (OSError, sqlite3.Error) as error:
            if opened is not None:
                opened.close()
            if lock is not None:
                lock.release()
            raise StoreError(f"the store {path} cannot be opened: {error}") from error
        store._thread.start()
        return store

    @property
    def dropped_count(self) -> int:
        """How many records were not kept since the start."""
        return self._dropped_full_count + self._dropped_failed_count

    def remember_footprint(
        self,
        key: FootprintKey,
        *,
        memory_bytes: dict[str, int],
        load_time_s: float,
        measured_at_s: float | None = None,
    ) -> None:
        """Replace what is known of ``key``. ``measured_at_s``: Unix time, now when absent."""
        at_s = time.time() if measured_at_s is None else measured_at_s
        footprint = Footprint(dict(memory_bytes), load_time_s, at_s)
        # A new dictionary, as others may be reading the old one; measurements are rare.
        self._footprints = {**self._footprints, key: footprint}
        self._put((key, footprint))

    def footprints(self) -> dict[FootprintKey, Footprint]:
        """Return everything that was measured, what is not written yet included. Not to change."""
        return self._footprints

    def add_request(self, record: RequestRecord) -> None:
        """Add a request that has ended to the history. For one thread at a time."""
        if record.prompt:
            queued_chars = self._prompt_chars_put - self._prompt_chars_taken
            if queued_chars + len(record.prompt) > QUEUED_PROMPTS_MAX_CHARS:
                record = msgspec.structs.replace(record, prompt="")
            elif len(self._items) < self._queued_max_count:
                self._prompt_chars_put += len(record.prompt)
        self._put(record)

    def requests(
        self, since_s: float = 0.0, limit: int = REQUESTS_DEFAULT_LIMIT
    ) -> list[RequestRecord]:
        """Return the newest ``limit`` requests that arrived since (Unix time), oldest first.

        Waits for what was added before. Raises StoreError. Not for an event loop.
        """
        question = _Question(since_s, limit)
        if self._is_closing.is_set():
            raise StoreError(f"the store {self._database.path} is closed")
        # Not subject to the limit: whoever asks waits, so there are few of them.
        self._items.append(question)
        self._hurry.set()
        self._has_items.set()
        try:
            return question.answer.result(ANSWER_TIMEOUT_S)
        except (TimeoutError, sqlite3.Error) as error:
            why = str(error) or f"no answer within {ANSWER_TIMEOUT_S:g} s"
            raise StoreError(f"the store {self._database.path} cannot be read: {why}") from error

    def close(self) -> None:
        """Write what is left and close. Idempotent."""
        if self._is_closing.is_set():
            return
        self._is_closing.set()
        self._hurry.set()
        self._has_items.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            # The disk hangs. The file is crash-safe, so the thread may die with the process.
            _log.warning("the store %s does not take its last records", self._database.path)
            return
        self._lock.release()

    def _put(self, item: _Item) -> None:
        if len(self._items) >= self._queued_max_count or self._is_closing.is_set():
            self._dropped_full_count += 1
            return
        self._items.append(item)
        if not self._has_items.is_set():
            self._has_items.set()

    # --- on the store's own thread

    def _write(self) -> None:
        try:
            while True:
                self._has_items.wait()
                self._hurry.wait(self._batch_interval_s)
                is_last = self._is_closing.is_set()
                self._hurry.clear()
                self._has_items.clear()
                self._write_batch()
                if is_last:
                    return
        finally:
            self._database.close()
            while self._items:
                item = self._items.popleft()
                if isinstance(item, _Question):
                    item.answer.set_exception(sqlite3.ProgrammingError("it has been closed"))

    def _write_batch(self) -> None:
        footprints: list[_Measured] = []
        requests: list[RequestRecord] = []
        questions: list[_Question] = []
        # What is added from here on belongs to the next batch, so that a flood cannot hold this.
        for _ in range(len(self._items)):
            item = self._items.popleft()
            if isinstance(item, _Question):
                questions.append(item)
            elif isinstance(item, RequestRecord):
                requests.append(item)
                self._prompt_chars_taken += len(item.prompt)
            else:
                footprints.append(item)
        if footprints or requests:
            self._write_records(footprints, requests)
        for question in questions:
            try:
                found = self._database.requests(question.since_s, question.limit)
            except sqlite3.Error as error:
                question.answer.set_exception(error)
            else:
                question.answer.set_result(found)

    def _write_records(self, footprints: list[_Measured], requests: list[RequestRecord]) -> None:
        try:
            try:
                self._database.write(footprints, requests)
            except sqlite3.DatabaseError as error:
                if not database.is_broken(error):
                    raise
                self._database.reopen_anew(str(error))
                # What is known in memory is not lost with the file.
                self._database.write(list(self._footprints.items()), requests)
            self._added_count += len(requests)
            if self._added_count >= PRUNE_EVERY_COUNT:
                self._added_count = 0
                self._database.prune(
                    time.time(),
                    max_count=self._requests_max_count,
                    max_age_s=self._requests_max_age_s,
                )
        except (sqlite3.Error, OSError) as error:
            self._dropped_failed_count += len(footprints) + len(requests)
            # Once per kind: a full disk would fail four times a second.
            if str(error) != self._last_failure:
                self._last_failure = str(error)
                _log.warning("the store %s cannot be written: %s", self._database.path, error)
