import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from llama_router.store.schema import MIGRATIONS, TooNewError, migrate


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield connection


def version_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def add_column(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE requests ADD COLUMN note TEXT")


def test_each_version_is_led_to_the_newest_and_keeps_its_rows(
    connection: sqlite3.Connection,
) -> None:
    migrate(connection, MIGRATIONS[:1])
    connection.execute("INSERT INTO requests VALUES (1, 2, 'm', '', 1, 1, 1, 1, 1, '')")
    migrate(connection)
    assert version_of(connection) == len(MIGRATIONS)
    asked = connection.execute("SELECT model, path, status, prompt FROM requests").fetchall()
    assert asked == [("m", "", 0, "")]
    migrate(connection, [*MIGRATIONS, add_column])
    migrate(connection, [*MIGRATIONS, add_column])
    assert version_of(connection) == len(MIGRATIONS) + 1
    assert connection.execute("SELECT model, note FROM requests").fetchall() == [("m", None)]


def test_a_migration_that_fails_changes_nothing(connection: sqlite3.Connection) -> None:
    migrate(connection)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, [*MIGRATIONS, add_column, add_column])
    assert version_of(connection) == len(MIGRATIONS)
    migrate(connection, [*MIGRATIONS, add_column])


def test_a_later_version_is_refused(connection: sqlite3.Connection) -> None:
    migrate(connection, [*MIGRATIONS, add_column])
    with pytest.raises(TooNewError, match="has version"):
        migrate(connection)
