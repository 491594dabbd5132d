"""``llama-router record``: the history as a trace for the simulator."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from llama_router.cli.ending import EXIT_FAILED, refuse
from llama_router.cli.router_client import (
    Address,
    AddressError,
    ConfigOption,
    RouterClientError,
    TokenOption,
    UrlOption,
    find_address,
)
from llama_router.cli.serving import Overrides

_RECORDS_MAX_COUNT = 1_000_000

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
    typer.Option("--out", metavar="FILE", help="File to write; default: stdout."),
]
CsvOption = Annotated[
    bool, typer.Option("--csv", help="CSV in place of JSON Lines; so is a FILE named *.csv.")
]
FleetOption = Annotated[
    Path | None,
    typer.Option(
        "--models", metavar="FILE", help="Also write the models and the machine, for `simulate`."
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", metavar="FILE", help="Store to read, if not this user's own."),
]


def record(
    context: typer.Context,
    since: SinceOption = "",
    out: OutOption = None,
    *,
    as_csv: CsvOption = False,
    fleet: FleetOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Turn the history of requests into a trace for `simulate`.

    One line for each request: time_s (from the first one), model, key (its name), tokens_in and
    tokens_out where they are known. Works beside a running router, which is asked about its models
    and its memory for --models FILE.
    """
    import sqlite3

    import platformdirs

    from llama_router.control.when import since_s
    from llama_router.store import STORE_FILE_NAME
    from llama_router.store.database import read_requests
    from llama_router.store.trace import trace_csv, trace_lines

    try:
        from_s = since_s(since, time.time())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    path = store or platformdirs.user_state_path("llama-router") / STORE_FILE_NAME
    if not path.is_file():
        refuse(
            f"there is no history yet: {path} does not exist; the router writes it as it serves",
            EXIT_FAILED,
        )
    try:
        records = read_requests(path, from_s, _RECORDS_MAX_COUNT)
    except sqlite3.Error as error:
        refuse(f"the store {path} cannot be read: {error}", EXIT_FAILED)
    write = trace_csv if as_csv or (out is not None and out.suffix == ".csv") else trace_lines
    lines = b"".join(write(records))
    try:
        if out is None:
            sys.stdout.buffer.write(lines)
            sys.stdout.buffer.flush()
        else:
            out.write_bytes(lines)
    except OSError as error:
        refuse(f"{out or 'stdout'} cannot be written: {error.strerror or error}", EXIT_FAILED)
    if out is not None or not records:
        typer.echo(f"{len(records)} requests written to {out or 'stdout'}", err=True)
    if fleet is not None:
        names = {record.model for record in records}
        try:
            address = find_address(context.obj or Overrides(), config, url, token)
        except AddressError as error:
            refuse(str(error), EXIT_FAILED)
        _write_fleet(fleet, address, names)


def _write_fleet(path: Path, address: Address, names: set[str]) -> None:
    from llama_router.cli.record_fleet import NoFiguresError, ask_fleet, write_fleet

    try:
        write_fleet(path, ask_fleet(address, names))
    except (NoFiguresError, RouterClientError) as error:
        refuse(f"--models: {error}", EXIT_FAILED)
    except OSError as error:
        refuse(f"{path} cannot be written: {error.strerror or error}", EXIT_FAILED)
