"""``llama-router pull`` and ``rm``: models from the hub into its cache, and out of it."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from llama_router.cli.asking import (
    JsonOption,
    ModelArgument,
    address_of,
    answer_of,
    in_words,
    show_json,
)
from llama_router.cli.ending import EXIT_FAILED, EXIT_USAGE, refuse
from llama_router.cli.logs import escaped
from llama_router.cli.pull_here import (
    EXIT_INTERRUPTED,
    WRONG_USE,
    InterruptedPullError,
    kept,
    pull_here,
)
from llama_router.cli.router_client import (
    Address,
    ConfigOption,
    NobodyError,
    RouterClientError,
    TokenOption,
    UrlOption,
    ask,
)
from llama_router.cli.serving import Overrides

if TYPE_CHECKING:
    from llama_router.hub.names import Reference
    from llama_router.hub.progress import Pulled
    from llama_router.hub.protocol import Settings

_LOOK_EVERY_S = 0.3
# With the answers under way that an unload waits for.
_DELETE_TIMEOUT_S = 3600.0
_NOT_FOUND, _CONFLICT = 404, 409
# What the API calls the source of a model in a folder of `router.models_dirs`.
_OWN_FOLDER = "models_dir"
_STARTUP = "{} is the config's startup_model, loaded at each start; --force takes it out of there"

ReferenceArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="user/repo, or user/repo:QUANT such as :Q8_0.")
]
FileOption = Annotated[
    str, typer.Option("--file", "-hff", metavar="FILE", help="This file in place of a QUANT.")
]
HfOption = Annotated[
    str,
    typer.Option(
        "-hf",
        "-hfr",
        "--hf-repo",
        metavar="USER/REPO[:QUANT]",
        help="Have this model of Hugging Face, downloaded if needed; the first is loaded at start.",
    ),
]
HffOption = Annotated[
    str,
    typer.Option("-hff", "--hf-file", metavar="FILE", help="With -hf: this file of it."),
]


def pull(
    context: typer.Context,
    model: ReferenceArgument,
    *,
    file: FileOption = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Download a model from Hugging Face into its cache, where all programs find it.

    A running router does it, and has the model at once; without one, this command does. Without a
    QUANT it is Q4_K_M, else Q8_0, else the first. Once stopped, the same command goes on.
    """
    from llama_router.hub.errors import HubError
    from llama_router.hub.names import parse_reference

    try:
        reference = parse_reference(model, file)
    except HubError as error:
        refuse(error.message, EXIT_USAGE)
    address = address_of(context, config, url, token)
    order = {"model": model, "file": file}
    try:
        begun = ask(address, "POST", "/admin/downloads", order)
    except RouterClientError as error:
        if error.status or url is not None:
            refuse(str(error), EXIT_FAILED)
        _pull_here(reference, settings_here(context, config), as_json=as_json)
        return
    _follow(address, begun, reference, as_json=as_json)


def _pull_here(reference: "Reference", settings: "Settings", *, as_json: bool) -> None:
    from llama_router.hub.errors import HubError

    try:
        pulled = pull_here(reference, settings)
    except HubError as error:
        refuse(error.message, EXIT_USAGE if error.code in WRONG_USE else EXIT_FAILED)
    except InterruptedPullError:
        kept(reference)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        show_json({"model": pulled.model, "files": pulled.paths, "size_bytes": pulled.size_bytes})
    else:
        typer.echo(f"{pulled.model} ({in_words(pulled.size_bytes)}) is in {settings.cache}")


def _follow(
    address: Address, begun: dict[str, Any], reference: "Reference", *, as_json: bool
) -> None:
    """Show how far the router is until it is through."""
    # Only here: every other command starts faster without it.
    from llama_router.cli.pull_bar import watcher

    path = f"/admin/downloads/{begun['id']}"
    found = begun
    try:
        with watcher(str(reference)) as shown:
            while found["state"] == "running":
                shown.show(found["done_bytes"], found["total_bytes"] or 0, found["note"])
                time.sleep(_LOOK_EVERY_S)
                found = answer_of(address, "GET", path)
            shown.show(found["done_bytes"], found["total_bytes"] or 0)
    except KeyboardInterrupt:
        answer_of(address, "POST", f"{path}/pause")
        kept(reference)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        show_json(found)
    if found["state"] == "failed":
        refuse(found["error"], EXIT_USAGE if found["error_code"] in WRONG_USE else EXIT_FAILED)
    if found["state"] == "paused":
        refuse(f"{reference} was paused; the same command goes on", EXIT_FAILED)
    if not as_json:
        typer.echo(f"{found['model']} ({in_words(found['total_bytes'] or 0)}) is there")


def rm(
    context: typer.Context,
    model: ModelArgument,
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Unload it first, and take it out of the config as startup_model."
        ),
    ] = False,
    is_sure: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask about files in folders of yours.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Delete a model from disk: its files, and what of the cache nothing else uses.

    Files in folders of yours, too, which cannot be downloaded again: it asks first. Not those of a
    model that the config names.
    """
    address = address_of(context, config, url, token)
    path = f"/admin/models/{quote(model)}"
    try:
        if not is_sure:
            _be_sure(ask(address, "GET", path)["model"])
        order = f"{path}?force=true" if force else path
        removed = ask(address, "DELETE", order, timeout_s=_DELETE_TIMEOUT_S)
    except RouterClientError as error:
        if error.status == _CONFLICT and "startup_model" in str(error):
            refuse(_STARTUP.format(model), EXIT_FAILED)
        if error.status == _CONFLICT and "force=true" in str(error):
            refuse(f"{model} is loaded; with --force it is unloaded first", EXIT_FAILED)
        if error.status == _NOT_FOUND:
            refuse(str(error), EXIT_USAGE)
        # One that is there and does not answer may be at it, or use the files.
        if not isinstance(error, NobodyError) or url is not None:
            refuse(str(error), EXIT_FAILED)
        removed = _remove_here(context, config, model, force=force)
    if as_json:
        show_json(removed)
    else:
        # Which may have been named by an alias.
        typer.echo(f"deleted {escaped(removed['model'])}: {in_words(removed['freed_bytes'])} freed")


def _be_sure(found: dict[str, Any]) -> None:
    """Have a person say that files may go which no cache has made; end the command if not."""
    if found["source"] != _OWN_FOLDER:
        return
    what = f"{found['path']} ({in_words(found['size_bytes'])})"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        refuse(f"{what} is in a folder of yours; --yes deletes it all the same", EXIT_FAILED)
    question = f"{what} is in a folder of yours. Delete it?"
    if not typer.confirm(escaped(question), err=True):
        refuse("nothing is deleted", EXIT_FAILED)


def _remove_here(
    context: typer.Context, config: Path | None, model: str, *, force: bool
) -> dict[str, Any]:
    """Delete a model where no router runs."""
    from llama_router.config.problems import ConfigError
    from llama_router.hub.cached import find_cached_id
    from llama_router.hub.errors import HubError
    from llama_router.hub.removal import remove_model

    cache = Path(settings_here(context, config).cache)
    try:
        # Exactly the one that is named: this is not to delete what is only meant alike.
        found, ids = find_cached_id(cache, model)
        if found is None:
            there = f"; of that repository there is: {', '.join(ids)}" if ids else ""
            refuse(f"{model} is not in {cache}{there}", EXIT_USAGE)
        _forget_startup(context, config, cache, found, force=force)
        removed = remove_model(cache, map(Path, found.paths))
    except ConfigError as error:
        refuse(str(error), EXIT_USAGE)
    except HubError as error:
        refuse(error.message, EXIT_USAGE if error.code in WRONG_USE else EXIT_FAILED)
    return {
        "success": True,
        "model": found.model,
        "files": removed.files,
        "freed_bytes": removed.freed_bytes,
    }


def _forget_startup(
    context: typer.Context, config: Path | None, cache: Path, found: "Pulled", *, force: bool
) -> None:
    """Take a model that is to be deleted out of the config as startup_model; with force only.

    Raises ConfigError, HubError.
    """
    from llama_router.cli.pull_here import serve_none_first
    from llama_router.hub.cached import find_cached
    from llama_router.hub.names import parse_reference

    given: Overrides = context.obj or Overrides()
    known = given.read_config(config)
    name = known.startup_model
    # An entry may have the name of a model that is found, and others for it.
    name = next((entry.name for entry in known.models if name in entry.aliases), name)
    files = [Path(path) for path in found.paths]
    is_startup = name in (found.model, *(word for file in files for word in (file.name, file.stem)))
    if not is_startup and name == found.model.partition(":")[0]:
        meant = find_cached(cache, parse_reference(name))
        is_startup = meant is not None and meant.model == found.model
    if is_startup and not force:
        refuse(_STARTUP.format(found.model), EXIT_FAILED)
    if is_startup:
        serve_none_first(given.config_file(config))


def settings_here(context: typer.Context, config: Path | None) -> "Settings":
    """Return what the config, if there is one, and the environment say of the hub."""
    from llama_router.config.problems import ConfigError
    from llama_router.runtime.hub_service import hub_settings

    given: Overrides = context.obj or Overrides()
    try:
        settings = given.read_config(config).hub
    except ConfigError as error:
        refuse(str(error), EXIT_USAGE)
    return hub_settings(settings, os.environ, Path.home())
