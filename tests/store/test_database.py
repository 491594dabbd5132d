"""The file itself, where the store does not show it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from llama_router.store.database import Database, is_broken, read_requests
from llama_router.store.records import Footprint, FootprintKey, RequestRecord

RECORD = RequestRecord(time_s=5.0, model="alpha", total_s=1.0, end="-.-")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store ?#%.sqlite3"


def test_the_history_is_readable_beside_the_writer(path: Path) -> None:
    with closing(Database(path)) as database:
        database.write([], [RECORD])
        assert read_requests(path, 0.0, 10) == [RECORD]
        assert read_requests(path, 6.0, 10) == []
        database.write([], [RECORD])
    assert read_requests(path, 0.0, 10) == [RECORD, RECORD]


def test_an_answer_is_bounded_by_its_prompts_and_traces_have_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_router.store.database.ANSWER_PROMPTS_MAX_CHARS", 10)
    records = [
        msgspec.structs.replace(RECORD, time_s=float(second), prompt="x" * 4) for second in range(5)
    ]
    with closing(Database(path)) as database:
        database.write([], records)
        # The newest, until the limit is reached.
        assert database.requests(0.0, 10) == records[2:]
        traced = read_requests(path, 0.0, 10)
    assert [(one.time_s, one.prompt) for one in traced] == [(second, "") for second in range(5)]


def test_a_batch_is_written_whole_or_not_at_all(path: Path) -> None:
    with closing(Database(path)) as database:
        bad = RequestRecord(time_s=6.0, model=None, total_s=1.0, end="")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            database.write([], [RECORD, bad])
        assert database.requests(0.0, 10) == []
        database.write([], [RECORD])
        assert database.requests(0.0, 10) == [RECORD]


def test_rows_that_make_no_sense_are_left_out(path: Path) -> None:
    key, good = FootprintKey("alpha", "x"), Footprint({"ram": 1}, 1.0, 2.0)
    with closing(Database(path)) as database:
        database.write([(key, good)], [RECORD])
    with closing(sqlite3.connect(path)) as connection, connection:
        for number, memory in enumerate(("[", "[1]", '{"ram": -1}', '{"ram": true}', 7)):
            connection.execute(
                "INSERT INTO footprints VALUES (?, '', '', ?, 1, 1)", (f"bad{number}", memory)
            )
        connection.execute(
            "INSERT INTO requests (time_s, model, key, total_s, end) VALUES (9, x'ff', '', 1, '')"
        )
    with closing(Database(path)) as database:
        assert database.footprints() == {key: good}
        assert database.requests(0.0, 10) == [RECORD]


def test_the_oldest_footprints_go_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_router.store.database.FOOTPRINTS_MAX_COUNT", 2)
    with closing(Database(path)) as database:
        database.write(
            [(FootprintKey(f"m{age}", ""), Footprint({}, 1.0, float(age))) for age in (3, 1, 2)], []
        )
        database.prune(0.0, max_count=1, max_age_s=1.0)
        assert [key.model for key in database.footprints()] == ["m2", "m3"]


def test_the_file_is_bounded_and_its_oldest_rows_go(path: Path) -> None:
    rows = [msgspec.structs.replace(RECORD, time_s=float(n), prompt="p" * 900) for n in range(1000)]
    with closing(Database(path)) as database:
        for _ in range(3):
            database.write([], rows)
            database.prune(0.0, max_count=10**6, max_age_s=1e9, max_bytes=300_000)
        kept = database.requests(0.0, 10_000)
        assert 100 < len(kept) < 350
        assert kept[-1].time_s == 999.0
        # One row cannot be made smaller; it goes, and the search for more ends.
        database.prune(0.0, max_count=10**6, max_age_s=1e9, max_bytes=0)
        assert database.requests(0.0, 10_000) == []
    assert path.stat().st_size < 2_000_000


def test_only_faults_of_the_file_call_for_a_new_one() -> None:
    error = sqlite3.DatabaseError("x")
    assert not is_broken(error)
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    assert not is_broken(error)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT_INDEX
    assert is_broken(error)


def test_a_later_version_is_moved_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with closing(Database(path)) as database:
        assert database.requests(0.0, 10) == []
    assert "has version 99" in caplog.text
    assert path.with_name(f"{path.name}.broken").exists()
