"""``llama-router record``: the history as a trace for the simulator."""

import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

EXIT_FAILED = 1
_RECORDS_MAX_COUNT = 1_000_000
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhdw])")

SinceOption = Annotated[
    str,
    typer.Option(
        "--since",
        metavar="WHEN",
        help="How far back: 90m, 24h, 7d, or a date (2026-11-23, 2026-11-23T08:00). Default: all.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="JSON Lines file to write; default: stdout."),
]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", metavar="FILE", help="Store to read, if not this user's own."),
]


def since_s(text: str, now_s: float) -> float:
    """Return the Unix time that ``text`` means at ``now_s``; 0 for "". Raises ValueError."""
    text = text.strip()
    if not text:
        return 0.0
    if found := _AGO.fullmatch(text):
        return now_s - float(found[1]) * _UNITS_S[found[2]]
    try:
        # Without an offset, the time of this place.
        return datetime.fromisoformat(text).astimezone(UTC).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"'{text}' is neither a time ago (90m, 24h, 7d) nor a date (2026-11-23T08:00)"
        ) from None


def record(since: SinceOption = "", out: OutOption = None, store: StoreOption = None) -> None:
    """Turn the history of requests into a trace for `simulate`.

    One JSON object per line: time_s (from the first request), model, key (its name), tokens_in and
    tokens_out where they are known. Works beside a running router.
    """
    import sqlite3

    import platformdirs

    from llama_router.store import STORE_FILE_NAME
    from llama_router.store.database import read_requests
    from llama_router.store.trace import trace_lines

    try:
        from_s = since_s(since, time.time())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    path = store or platformdirs.user_state_path("llama-router") / STORE_FILE_NAME
    if not path.is_file():
        _fail(f"there is no history yet: {path} does not exist; the router writes it as it serves")
    try:
        records = read_requests(path, from_s, _RECORDS_MAX_COUNT)
    except sqlite3.Error as error:
        _fail(f"the store {path} cannot be read: {error}")
    lines = b"".join(trace_lines(records))
    try:
        if out is None:
            sys.stdout.buffer.write(lines)
            sys.stdout.buffer.flush()
        else:
            out.write_bytes(lines)
    except OSError as error:
        _fail(f"{out or 'stdout'} cannot be written: {error.strerror or error}")
    if out is not None:
        typer.echo(f"{len(records)} requests written to {out}", err=True)


def _fail(message: str) -> NoReturn:
    typer.echo(f"llama-router: {message}", err=True)
    raise typer.Exit(EXIT_FAILED)
