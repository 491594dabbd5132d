"""``llama-router models``, ``ps``, ``load``, ``unload``: the models of a running router."""

import sys
import threading
import time
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from llama_router.cli.asking import (
    JsonOption,
    ModelArgument,
    address_of,
    answer_of,
    in_words,
    show_json,
    show_table,
)
from llama_router.cli.logs import escaped
from llama_router.cli.router_client import (
    Address,
    AddressError,
    ConfigOption,
    RouterClientError,
    TokenOption,
    UrlOption,
    ask,
)

# The largest models on the slowest disks; the longest answers under way.
_ORDER_TIMEOUT_S = 3600.0
_LOOK_INTERVAL_S = 0.5
_NO_MODELS = "no models; see `llama-router doctor`"
# Of one answer; further ones are asked for.
_PAGE_COUNT = 500


def models(
    context: typer.Context,
    search: Annotated[
        str, typer.Argument(metavar="TEXT", help="Only those with this in a name.")
    ] = "",
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """List the models of the running router: what they are and how they do.

    Behind them stand selectors, and the models of peers.
    """
    address = address_of(context, config, url, token)
    found: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    while True:
        query = urlencode({"search": search, "limit": _PAGE_COUNT, "offset": len(found)})
        page = answer_of(address, "GET", f"/admin/models?{query}")
        found += page["models"]
        # All of them are in each page.
        others = page["others"]
        if not page["models"] or len(found) >= page["total"]:
            break
    if as_json:
        show_json({"models": found, "others": others, "total": len(found)})
    elif not found and not others:
        none = f"no model of this router has '{search}' in a name" if search else _NO_MODELS
        typer.echo(escaped(none))
    else:
        rows = [*map(_model_row, found), *map(_other_row, others)]
        show_table(("MODEL", "SIZE", "QUANT", "CONTEXT", "STATE"), rows, right=(1, 3))


def _model_row(model: dict[str, Any]) -> tuple[str, ...]:
    metadata = model.get("metadata") or {}
    context_length = metadata.get("context_length")
    state = str(model["state"]).replace("_", " ")
    return (
        model["id"],
        in_words(model["size_bytes"]) if model.get("size_bytes") else "-",
        metadata.get("quantisation") or "-",
        str(context_length) if context_length else "-",
        f"{state}: {model['error']}" if model.get("error") else state,
    )


def _other_row(other: dict[str, Any]) -> tuple[str, ...]:
    said = other["title"] or other["description"]
    # A peer's says whose it is.
    between = " " if other["kind"] == "peer" else ": "
    return other["id"], "-", "-", "-", f"{other['kind']}{between if said else ''}{said}"


def ps(
    context: typer.Context,
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """List the models that are loaded, loading or waited for, and what they hold."""
    address = address_of(context, config, url, token)
    status = answer_of(address, "GET", "/admin/status")
    if as_json:
        show_json(status)
        return
    shown = status["models"]
    if not shown:
        typer.echo("no model is loaded")
        return
    show_table(
        ("MODEL", "STATE", "MEMORY", "ACTIVE", "WAITING", "UNTIL"), map(_row, shown), right=(3, 4)
    )


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    state = str(model["state"]).replace("_", " ")
    if model.get("progress") is not None:
        state += f" {model['progress']:.0%}"
    parts = [f"{in_words(size)} {device}" for device, size in model["memory"].items() if size]
    return (
        model["id"],
        state,
        " + ".join(parts) or "-",
        str(model["in_flight"]),
        str(model["waiting"]),
        _until(model),
    )


def _until(model: dict[str, Any]) -> str:
    if model["pinned"]:
        return "pinned"
    if model.get("expires_at_s") is None:
        return "room is needed" if model["state"] == "loaded" else "-"
    left_s = max(0.0, model["expires_at_s"] - time.time())
    return f"idle for {left_s:.0f} s more"


def load(
    context: typer.Context,
    model: ModelArgument,
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Load a model and wait until it is ready; Ctrl-C leaves it loading."""
    address = address_of(context, config, url, token)
    with _Progress(address, model):
        answer = _ordered(address, "/admin/load", model)
    _show_order(answer, as_json=as_json)


def unload(
    context: typer.Context,
    model: ModelArgument,
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Unload a model, after the answers under way, and wait until its memory is free."""
    address = address_of(context, config, url, token)
    _show_order(_ordered(address, "/admin/unload", model), as_json=as_json)


def _ordered(address: Address, path: str, model: str) -> dict[str, Any]:
    answer: dict[str, Any] = answer_of(
        address, "POST", path, {"model": model}, timeout_s=_ORDER_TIMEOUT_S
    )
    return answer


def _show_order(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(answer)
    else:
        typer.echo(f"{answer['model']} is {answer['state']}")


class _Progress:
    """While entered, how far a load is stands on the terminal; elsewhere nothing is written."""

    def __init__(self, address: Address, model: str) -> None:
        self._address = address
        self._model = model
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._show, name="progress", daemon=True)
            self._thread.start()

    def __exit__(self, *_args: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _show(self) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        bar = Progress(
            TextColumn("loading {task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        with bar:
            task = bar.add_task(escape(self._model), total=None)
            while not self._ended.wait(_LOOK_INTERVAL_S):
                fraction = self._fraction()
                if fraction is not None:
                    bar.update(task, total=1.0, completed=fraction)

    def _fraction(self) -> float | None:
        try:
            found = ask(self._address, "GET", f"/v1/models/{quote(self._model)}")
            return float(found["status"]["progress"])
        except (AddressError, RouterClientError, KeyError, TypeError, ValueError):
            return None
