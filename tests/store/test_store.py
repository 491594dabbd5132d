"""The store as the router uses it: handed over at once, written soon, never in the way."""

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from llama_router.store.database import Database, read_requests
from llama_router.store.records import (
    PROMPT_MAX_CHARS,
    Footprint,
    FootprintKey,
    RequestRecord,
)
from llama_router.store.store import Store, StoreError

KEY = FootprintKey("alpha", "1f3a", "b11434")
DEADLINE_S = 20.0
# Longer than a test: nothing is written but by hurry.
NEVER_S = 3600.0

Open = Callable[..., Store]


def request(number: int, **changes: object) -> RequestRecord:
    values = {"time_s": 1_900_000_000.0 + number, "model": "alpha", "total_s": 0.5, "end": "-.-"}
    return RequestRecord(**(values | changes))  # type: ignore[arg-type]  # as the test means


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


@pytest.fixture
def open_store(path: Path) -> Iterator[Open]:
    opened: list[Store] = []

    def open_store(**options: object) -> Store:
        store = Store.open(path, **options)  # type: ignore[arg-type]  # as the test means
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        store.close()


def test_requests_come_back_as_they_were_added(open_store: Open) -> None:
    full = request(1, key="ann", tokens_in=7, tokens_out=9, queue_s=0.1, first_byte_s=0.2)
    bare = request(2, model="beta", end="engine.load")
    store = open_store()
    store.add_request(full)
    store.add_request(bare)
    assert store.requests() == [full, bare]


def test_everything_is_there_after_a_restart(open_store: Open) -> None:
    store = open_store(batch_interval_s=NEVER_S)
    store.add_request(request(1))
    store.remember_footprint(
        KEY, memory_bytes={"ram": 10, "CUDA0": 20}, load_time_s=1.5, measured_at_s=3.0
    )
    store.close()
    again = open_store()
    assert again.footprints() == {KEY: Footprint({"ram": 10, "CUDA0": 20}, 1.5, 3.0)}
    assert again.requests() == [request(1)]


def test_a_footprint_is_known_at_once_and_the_last_one_counts(open_store: Open) -> None:
    store = open_store(batch_interval_s=NEVER_S)
    for size_bytes in (1, 2):
        store.remember_footprint(KEY, memory_bytes={"ram": size_bytes}, load_time_s=1.0)
        assert store.footprints()[KEY].memory_bytes == {"ram": size_bytes}
    store.close()
    assert open_store().footprints()[KEY].memory_bytes == {"ram": 2}


def test_since_and_limit_choose_the_newest_in_order(open_store: Open) -> None:
    store = open_store()
    for number in range(10):
        store.add_request(request(number))
    chosen = store.requests(since_s=1_900_000_003.0, limit=4)
    assert [record.time_s - 1_900_000_000 for record in chosen] == [6, 7, 8, 9]
    assert store.requests(limit=0) == []
    # More than SQLite's integers hold is no reason for its thread to end.
    assert len(store.requests(limit=2**64)) == 10


def test_what_does_not_fit_the_queue_is_counted_and_left_out(open_store: Open) -> None:
    store = open_store(batch_interval_s=NEVER_S, queued_max_count=3)
    for number in range(5):
        store.add_request(request(number))
    assert store.dropped_count == 2
    assert len(store.requests()) == 3


def test_the_history_is_bounded_by_count_and_age(open_store: Open) -> None:
    store = open_store()
    for number in range(10):
        store.add_request(request(number))
    store.add_request(request(11, time_s=1000.0))
    store.close()
    kept = open_store(requests_max_count=4).requests()
    assert [record.time_s - 1_900_000_000 for record in kept] == [6, 7, 8, 9]


def test_it_is_pruned_while_it_runs(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_router.store.store.PRUNE_EVERY_COUNT", 5)
    store = open_store(requests_max_count=3)
    for number in range(9):
        store.add_request(request(number))
    assert [record.time_s - 1_900_000_000 for record in store.requests()] == [6, 7, 8]


def test_values_that_no_database_takes_do_no_harm(open_store: Open) -> None:
    store = open_store()
    store.add_request(
        request(1, model="\ud800", total_s=float("nan"), tokens_in=2**70, key="k" * 5000)
    )
    found = store.requests()[0]
    assert (found.model, found.total_s, found.tokens_in) == ("?", 0.0, 2**63 - 1)
    assert len(found.key) == 1024
    assert store.dropped_count == 0


@pytest.mark.parametrize(
    "content", [b"this is no database, and long enough to be read as one" * 100, b"SQLite format 3"]
)
def test_a_broken_file_is_moved_aside_and_begun_anew(
    open_store: Open, path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path.write_bytes(content)
    store = open_store()
    store.add_request(request(1))
    assert store.requests() == [request(1)]
    assert path.with_name("store.sqlite3.broken").read_bytes() == content
    assert "it is kept as" in caplog.text


def test_a_page_that_is_broken_on_disk_is_found_at_the_start(
    open_store: Open, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    for number in range(500):
        store.add_request(request(number))
    store.close()
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 4)
    assert open_store().requests() == []
    assert "it is kept as" in caplog.text


def test_a_file_that_breaks_while_it_is_open_is_begun_anew(
    open_store: Open, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    store.remember_footprint(KEY, memory_bytes={"ram": 1}, load_time_s=1.0)
    assert store.requests() == []
    real, is_first = Database.write, threading.Event()

    def write(self: Database, *batch: object) -> None:
        if not is_first.is_set():
            is_first.set()
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        real(self, *batch)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(Database, "write", write)
    store.add_request(request(1))
    assert store.requests() == [request(1)]
    assert "malformed" in caplog.text
    store.close()
    assert list(open_store().footprints()) == [KEY]
    assert path.with_name("store.sqlite3.broken").exists()


def test_a_disk_that_refuses_costs_records_and_one_warning(
    open_store: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    store = open_store()
    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", write)
        for number in range(3):
            store.add_request(request(number))
            assert store.requests() == []
    assert store.dropped_count == 3
    assert caplog.text.count("disk is full") == 1
    store.add_request(request(9))
    assert store.requests() == [request(9)]


def test_a_second_router_is_told_and_the_first_goes_on(open_store: Open) -> None:
    first = open_store()
    with pytest.raises(StoreError, match="in use by another router"):
        open_store()
    first.add_request(request(1))
    assert first.requests() == [request(1)]
    first.close()
    assert open_store().requests() == [request(1)]


def test_a_folder_that_is_not_there_is_said(path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open(path / "missing" / "store.sqlite3")


def test_a_closed_store_takes_nothing_and_says_so(open_store: Open) -> None:
    store = open_store()
    store.close()
    store.close()
    store.add_request(request(1))
    assert store.dropped_count == 1
    with pytest.raises(StoreError, match="closed"):
        store.requests()


def test_many_threads_may_add(open_store: Open) -> None:
    store = open_store()

    def add(first: int) -> None:
        for number in range(first, first + 200):
            store.add_request(request(number))

    threads = [threading.Thread(target=add, args=(first * 1000,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.requests()) == 800


_WRITER = """
import sys
from pathlib import Path
from llama_router.store.records import RequestRecord
from llama_router.store.store import Store
store = Store.open(Path(sys.argv[1]), batch_interval_s=0.001, requests_max_count=3000)
number = int(sys.argv[2])
while True:
    number += 1
    prompt = "p" * (number % 3000)
    record = RequestRecord(time_s=1.9e9 + number, model="m", total_s=0, end="-.-", prompt=prompt)
    store.add_request(record)
    if number % 50 == 0:
        store.requests(limit=1)
        print(number, flush=True)
"""


def test_kills_at_random_points_cost_nothing_that_was_written_and_never_the_file(
    open_store: Open, path: Path
) -> None:
    # pytest-randomly seeds it, and says with what.
    dice, written = random.Random(random.random()), 0  # noqa: S311 - a test's dice
    newest = request(0)
    for _ in range(5):
        program = [sys.executable, "-c", _WRITER, str(path), str(written)]
        with subprocess.Popen(program, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(dice.randint(1, 40)):
                written = int(writer.stdout.readline())
            # Some instructions later, in the middle of the next batch or between two.
            for _ in range(dice.randint(0, 200_000)):
                pass
            writer.kill()
            assert writer.wait(DEADLINE_S) == -signal.SIGKILL
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        newest = read_requests(path, 0.0, 10_000)[-1]
        assert newest.time_s - 1.9e9 >= written
        written = int(newest.time_s - 1.9e9)
    (kept,) = open_store().requests(limit=1)
    assert msgspec.structs.replace(kept, prompt="") == newest
    assert not path.with_name(f"{path.name}.broken").exists()


def test_prompts_are_kept_shortened_and_never_more_than_the_queue_may_hold(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_router.store.store.QUEUED_PROMPTS_MAX_CHARS", 40_000)
    store = open_store(batch_interval_s=NEVER_S)
    for number, length in enumerate((30_000, 20_000, 10_000)):
        store.add_request(request(number, prompt="p" * length, path="/v1/completions", status=200))
    kept = store.requests()
    assert [len(one.prompt) for one in kept] == [PROMPT_MAX_CHARS, 0, 10_000]
    assert {(one.path, one.status) for one in kept} == {("/v1/completions", 200)}
    # What was written makes room.
    store.add_request(request(3, prompt="p" * 30_000))
    assert len(store.requests()[-1].prompt) == PROMPT_MAX_CHARS


def test_only_its_owner_can_read_it(open_store: Open, path: Path) -> None:
    store = open_store()
    store.add_request(request(1))
    store.requests()
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes
