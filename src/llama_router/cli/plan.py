"""``llama-router plan``: what a request for a model would cause now, asked of the router."""

import json
from typing import Annotated

import msgspec
import typer

from llama_router.cli.logs import escaped
from llama_router.cli.router_client import (
    AddressError,
    ConfigOption,
    RouterClientError,
    TokenOption,
    UrlOption,
    ask,
    find_address,
)
from llama_router.cli.serving import Overrides

EXIT_FAILED = 1
# Wrong usage: a config or an address that cannot be used, a model that is not known.
EXIT_USAGE = 2
_MIB_BYTES = 2**20
_NOT_FOUND = 404
_AMBIGUOUS = 400
# How a reason begins that says the state itself.
_STATES = ("it is loaded", "it is being loaded")

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print it as the API has it.")]


class _Victim(msgspec.Struct):
    model: str
    reason: str
    in_flight: int = 0


class _Plan(msgspec.Struct):
    """The answer of ``POST /admin/plan``, as far as it is shown."""

    model: str
    state: str
    fits: bool
    reason: str
    wait_s: float | None = None
    needs: dict[str, int] = {}
    free: dict[str, int] = {}
    victims: list[_Victim] = []


def plan(
    context: typer.Context,
    model: ModelArgument,
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Ask the running router what a request for a model would cause now.

    Whether it fits, who would have to go for it and why, and how long it should take. Nothing is
    loaded or unloaded. Exit status: 0 if it would be served, 1 if not, 2 if there is no such model.
    """
    try:
        address = find_address(context.obj or Overrides(), config, url, token)
        answer = ask(address, "POST", "/admin/plan", {"model": model})
        found = msgspec.convert(answer, _Plan)
    except AddressError as error:
        raise typer.Exit(_refuse(str(error), EXIT_USAGE)) from None
    except RouterClientError as error:
        is_wrong_name = error.status in (_NOT_FOUND, _AMBIGUOUS)
        status = EXIT_USAGE if is_wrong_name else EXIT_FAILED
        raise typer.Exit(_refuse(str(error), status)) from None
    except msgspec.ValidationError as error:
        message = f"the router's answer cannot be read: {error}; is it of another version?"
        raise typer.Exit(_refuse(message, EXIT_FAILED)) from None
    typer.echo(json.dumps(answer, indent=2) if as_json else table(found))
    raise typer.Exit(EXIT_FAILED if found.wait_s is None else 0)


def table(found: _Plan) -> str:
    """Lay a plan out for people; sizes in MiB."""
    lines = [f"{found.model} {_state(found)}"]
    devices = [*found.needs, *(name for name in found.free if name not in found.needs)]
    if devices:
        rows = [
            ["MiB", *devices],
            ["needs", *(_mib(found.needs.get(name)) for name in devices)],
            ["free now", *(_mib(found.free.get(name)) for name in devices)],
        ]
        lines += ["", *_columns(rows)]
    if found.victims:
        lines += ["", "would go:"]
        lines += [f"  {victim.model}: {victim.reason}{_use(victim)}" for victim in found.victims]
    lines += ["", _outcome(found)]
    return "\n".join(map(escaped, lines))


def _state(found: _Plan) -> str:
    if found.reason.startswith(_STATES):
        return found.reason.removeprefix("it ")
    return f"is {found.state.replace('_', ' ')}: {found.reason}"


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _mib(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else f"{size_bytes / _MIB_BYTES:.1f}"


def _use(victim: _Victim) -> str:
    if not victim.in_flight:
        return ""
    return f"; it answers {victim.in_flight} request{'s' if victim.in_flight > 1 else ''} now"


def _outcome(found: _Plan) -> str:
    if found.wait_s is None:
        fate = "would be refused"
        return f"a request {fate}" if found.fits else f"a request {fate}: the model does not fit"
    if found.wait_s == 0:
        return "a request would be served at once"
    return f"a request would be served in about {found.wait_s:.1f} s"


def _refuse(message: str, status: int) -> int:
    for line in message.splitlines():
        typer.echo(f"llama-router: {escaped(line)}", err=True)
    return status
