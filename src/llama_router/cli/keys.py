"""``llama-router keys``: who may use the router, and what for; before its first start, too."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import quote

import typer

from llama_router.cli.asking import (
    JsonOption,
    address_of,
    answer_of,
    show_json,
    show_table,
)
from llama_router.cli.ending import EXIT_FAILED, EXIT_USAGE, refuse, tell
from llama_router.cli.logs import escaped
from llama_router.cli.router_client import (
    Address,
    AddressError,
    ConfigOption,
    NobodyError,
    TokenOption,
    UrlOption,
    config_of,
)
from llama_router.cli.serving import Overrides

if TYPE_CHECKING:
    from llama_router.cli.keys_here import KeysHere

app = typer.Typer(
    name="keys",
    help="List, make and revoke API keys; the router follows at once.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_keys(
    context: typer.Context,
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """List the keys: names and rights; the keys themselves are not kept."""
    answer = _ask(
        _Where(context, config, url, token), "GET", "/admin/keys", None, lambda here: here.all()
    )
    if as_json:
        show_json(answer)
    elif not answer["keys"]:
        typer.echo("no keys: whoever reaches the router may use it")
    else:
        heads = ("NAME", "ID", "SCOPES", "MODELS", "LIMITS", "USED", "FROM")
        show_table(heads, map(_row, answer["keys"]))


def _row(key: dict[str, Any]) -> tuple[str, ...]:
    limits = []
    if key.get("requests_per_minute"):
        limits.append(f"{key['requests_per_minute']}/min")
    if key.get("max_in_flight"):
        limits.append(f"{key['max_in_flight']} at a time")
    used_s = key.get("last_used_s")
    return (
        key["name"],
        str(key.get("id") or "-"),
        ", ".join(key["scopes"]) or "none",
        ", ".join(key.get("models") or ()) or "all",
        ", ".join(limits) or "none",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(used_s)) if used_s else "-",
        key.get("source") or "-",
    )


@app.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; for you to tell.")],
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="inference or admin; may be repeated."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="PATTERN", help="Only these models, such as 'qwen*'; repeatable."
        ),
    ] = None,
    requests_per_minute: Annotated[
        int, typer.Option(min=0, metavar="N", help="Most requests in a minute; 0: any number.")
    ] = 0,
    max_in_flight: Annotated[
        int, typer.Option(min=0, metavar="N", help="Most requests at a time; 0: any number.")
    ] = 0,
    priority: Annotated[int, typer.Option(metavar="N", help="The higher goes first.")] = 0,
    batch: Annotated[
        bool, typer.Option("--batch", help="Its requests let interactive ones go first.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Make a key. It is shown this once: only its hash is kept."""
    content = {
        "name": name,
        "scopes": scope or ["inference"],
        "models": model or [],
        "requests_per_minute": requests_per_minute,
        "max_in_flight": max_in_flight,
        "priority": priority,
        "batch": batch,
    }
    answer = _ask(
        _Where(context, config, url, token),
        "POST",
        "/admin/keys",
        content,
        lambda here: here.add(content),
    )
    if as_json:
        show_json(answer)
    else:
        typer.echo(answer["key"])
        typer.echo("Keep it: it is not shown again. Clients send it as a Bearer token.", err=True)


@app.command()
def revoke(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="NAME|ID", help="As `keys list` shows it.")],
    *,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Revoke a key: from its next request on it opens nothing."""
    path = f"/admin/keys/{quote(key, safe='')}"
    _ask(_Where(context, config, url, token), "DELETE", path, None, lambda here: here.revoke(key))
    typer.echo(f"{escaped(key)} is revoked")


class _Where(NamedTuple):
    """What was said of where the router is."""

    context: typer.Context
    config: Path | None
    url: str | None
    token: str | None


def _ask(
    where: _Where,
    method: str,
    path: str,
    content: object,
    otherwise: "Callable[[KeysHere], Any]",
) -> Any:  # noqa: ANN401 - JSON
    """Ask the router; where none runs, do it ``otherwise``, in the file that it will read."""
    address = address_of(*where)
    try:
        return answer_of(address, method, path, content, may_be_absent=where.url is None)
    except NobodyError:
        return _do_here(where, address, otherwise)


def _do_here(where: _Where, address: Address, otherwise: "Callable[[KeysHere], Any]") -> Any:  # noqa: ANN401 - as above
    import platformdirs

    from llama_router.cli.keys_here import HereError, KeysHere

    try:
        settings = config_of(where.context.obj or Overrides(), where.config).router
        here = KeysHere(platformdirs.user_state_path("llama-router"), settings)
        answer = otherwise(here)
    except AddressError as error:
        refuse(str(error), EXIT_USAGE)
    except HereError as error:
        refuse(str(error), EXIT_FAILED)
    tell(f"no router answers at {address.url}; this is of {here.path}, which it reads at its start")
    return answer
