"""The file itself, where the store does not show it."""

import sqlite3
from contextlib import closing
from pathlib import Path

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
