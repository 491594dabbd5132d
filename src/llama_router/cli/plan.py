"""``llama-router plan``: what a request for a model would cause now, asked of the router."""

import msgspec
import typer

from llama_router.cli.asking import (
    JsonOption,
    ModelArgument,
    address_of,
    answer_of,
    columns,
    show_json,
)
from llama_router.cli.ending import EXIT_FAILED, refuse
from llama_router.cli.logs import escaped
from llama_router.cli.router_client import ConfigOption, TokenOption, UrlOption

_MIB_BYTES = 2**20
# How a reason begins that says the state itself.
_STATES = ("it is loaded", "it is being loaded")


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
    address = address_of(context, config, url, token)
    answer = answer_of(address, "POST", "/admin/plan", {"model": model})
    try:
        found = msgspec.convert(answer, _Plan)
    except msgspec.ValidationError as error:
        message = f"the router's answer cannot be read: {error}; is it of another version?"
        refuse(message, EXIT_FAILED)
    if as_json:
        show_json(answer)
    else:
        typer.echo(table(found))
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
        lines += ["", *columns(rows, range(1, len(rows[0])))]
    if found.victims:
        lines += ["", "would go:"]
        lines += [f"  {victim.model}: {victim.reason}{_use(victim)}" for victim in found.victims]
    lines += ["", _outcome(found)]
    return "\n".join(map(escaped, lines))


def _state(found: _Plan) -> str:
    if found.reason.startswith(_STATES):
        return found.reason.removeprefix("it ")
    return f"is {found.state.replace('_', ' ')}: {found.reason}"


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
