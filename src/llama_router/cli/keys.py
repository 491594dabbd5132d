"""``llama-router keys``: who may use the router, and what for."""

import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from llama_router.cli.asking import JsonOption, address_of, answer_of, show_json, show_table
from llama_router.cli.router_client import ConfigOption, TokenOption, UrlOption

app = typer.Typer(
    name="keys",
    help="API keys: list, make and revoke them. A running router follows at once.",
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
    answer = answer_of(address_of(context, config, url, token), "GET", "/admin/keys")
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
        ", ".join(key["scopes"]),
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
    answer = answer_of(address_of(context, config, url, token), "POST", "/admin/keys", content)
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
    answer_of(address_of(context, config, url, token), "DELETE", path)
    typer.echo(f"{key} is revoked")
