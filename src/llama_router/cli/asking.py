"""What all commands that ask a running router have in common: the question, its end, tables."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from llama_router.cli.ending import EXIT_FAILED, EXIT_USAGE, refuse
from llama_router.cli.logs import escaped
from llama_router.cli.router_client import (
    Address,
    AddressError,
    NobodyError,
    RouterClientError,
    ask,
    find_address,
)
from llama_router.cli.serving import Overrides

_WRONG_NAME = (400, 404)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name.")]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_UNIT_STEP = 1024


def address_of(
    context: typer.Context, config: Path | None, url: str | None, token: str | None
) -> Address:
    """Say where the router is; ends the command when that cannot be told."""
    try:
        return find_address(context.obj or Overrides(), config, url, token)
    except AddressError as error:
        refuse(str(error), EXIT_USAGE)


def answer_of(
    address: Address,
    method: str,
    path: str,
    content: object = None,
    *,
    timeout_s: float | None = None,
    may_be_absent: bool = False,
) -> Any:  # noqa: ANN401 - JSON
    """Ask; ends the command, with the router's words, when it does not give an answer.

    Raises NobodyError if the router ``may_be_absent`` and is.
    """
    try:
        return ask(address, method, path, content, timeout_s=timeout_s)
    except AddressError as error:
        refuse(str(error), EXIT_USAGE)
    except RouterClientError as error:
        if may_be_absent and isinstance(error, NobodyError):
            raise
        refuse(str(error), EXIT_USAGE if error.status in _WRONG_NAME else EXIT_FAILED)


def show_json(content: object) -> None:
    """Print what a program is to read."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def show_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()
) -> None:
    """Print columns, those at the places in ``right`` to the right."""
    shown = [[escaped(cell) for cell in row] for row in (heads, *rows)]
    for line in columns(shown, right):
        typer.echo(line)


def columns(rows: list[list[str]], right: Sequence[int] = ()) -> list[str]:
    """Lay rows out as columns, as wide as their widest cell, two spaces apart."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def in_words(size_bytes: float) -> str:
    """Write a size with the unit that leaves few digits: ``4.4 GiB``."""
    size, unit = float(size_bytes), 0
    while size >= _UNIT_STEP and unit < len(_UNITS) - 1:
        size /= _UNIT_STEP
        unit += 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
