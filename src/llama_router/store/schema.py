"""The database's tables, and the way from each older version to this one."""

import sqlite3
from collections.abc import Callable, Sequence

Migration = Callable[[sqlite3.Connection], None]


class TooNewError(Exception):
    """The file was written by a later version."""


def _create(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE footprints ("
        " model TEXT NOT NULL, arguments_hash TEXT NOT NULL, engine_build TEXT NOT NULL,"
        " memory_bytes TEXT NOT NULL, load_time_s REAL NOT NULL, measured_at_s REAL NOT NULL,"
        " PRIMARY KEY (model, arguments_hash, engine_build)) WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE requests ("
        " id INTEGER PRIMARY KEY, time_s REAL NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL,"
        " tokens_in INTEGER, tokens_out INTEGER, queue_s REAL, first_byte_s REAL,"
        " total_s REAL NOT NULL, end TEXT NOT NULL)"
    )
    connection.execute("CREATE INDEX requests_by_time ON requests (time_s)")


def _say_what_was_asked(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE requests ADD COLUMN path TEXT NOT NULL DEFAULT ''")
    connection.execute("ALTER TABLE requests ADD COLUMN status INTEGER NOT NULL DEFAULT 0")
    connection.execute("ALTER TABLE requests ADD COLUMN prompt TEXT NOT NULL DEFAULT ''")


# The n-th leads from version n - 1 to version n. Released ones are never edited.
MIGRATIONS: tuple[Migration, ...] = (_create, _say_what_was_asked)


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the tables to the newest version; all of the way or not at all.

    The version is SQLite's ``user_version``. Raises TooNewError and sqlite3.Error.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(migrations):
        raise TooNewError(f"has version {version}, and this release knows {len(migrations)}")
    if version == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in migrations[version:]:
            migration(connection)
        # A pragma takes no parameter; the value is a count of ours.
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
