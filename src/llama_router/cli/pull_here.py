"""Downloading in this very process: where no router runs, and before one serves (``-hf``)."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from llama_router.cli.ending import EXIT_FAILED, EXIT_USAGE, tell

if TYPE_CHECKING:
    from llama_router.cli.pull_bar import Watcher
    from llama_router.config.schema import Config
    from llama_router.hub.names import Reference
    from llama_router.hub.progress import Pulled
    from llama_router.hub.protocol import Settings
    from llama_router.runtime.config_file import ConfigFile, Reading

_SHOW_EVERY_S = 0.1
EXIT_INTERRUPTED = 128 + signal.SIGINT
# Of HubError's codes: who asks otherwise may get it.
WRONG_USE = ("bad_request", "not_found")


class InterruptedPullError(Exception):
    """The user wanted no more of it; what has come is kept."""


class PullError(Exception):
    """The model of ``-hf`` is not there; ``status`` is what the process ends with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def pull_here(reference: "Reference", settings: "Settings") -> "Pulled":
    """Download with a bar. Raises HubError, InterruptedPullError."""
    # Only here: every other command starts faster without them.
    import asyncio

    from llama_router.cli.pull_bar import watcher

    try:
        with watcher(str(reference)) as shown:
            return asyncio.run(_pull(reference, settings, shown))
    except KeyboardInterrupt:
        raise InterruptedPullError from None


async def _pull(reference: "Reference", settings: "Settings", shown: "Watcher") -> "Pulled":
    import asyncio

    from llama_router.hub.download import Download, open_hub

    async with open_hub(settings) as hub:
        download = Download(hub, reference)
        running = asyncio.create_task(download.run(), name=f"pull {reference}")
        try:
            while not running.done():
                await asyncio.wait((running,), timeout=_SHOW_EVERY_S)
                progress = download.progress
                shown.show(progress.done_bytes, progress.total_bytes, progress.note)
            return await running
        finally:
            running.cancel()
            await asyncio.wait((running,))


def have_model(
    repo: str, file: str, config: "Config", env: Mapping[str, str] | None = None
) -> "Pulled":
    """Return the model that ``-hf REPO`` and ``-hff FILE`` ask for, downloaded if it is not there.

    The hub is not asked for one that is. Raises HubError, InterruptedPullError.
    """
    from llama_router.hub.cached import find_cached
    from llama_router.hub.names import parse_reference
    from llama_router.runtime.hub_service import hub_settings

    reference = parse_reference(repo, file)
    settings = hub_settings(config.hub, os.environ if env is None else env, Path.home())
    cached = find_cached(Path(settings.cache), reference)
    return cached if cached is not None else pull_here(reference, settings)


def have_model_first(
    source: "ConfigFile", reading: "Reading", repo: str, file: str
) -> "tuple[Reading, str]":
    """Have the model of ``-hf`` and ``-hff``; return the config as it is then, and what to tell.

    It becomes startup_model if there is none, unless the file is another program's or could not
    be made. Raises PullError, ConfigError.
    """
    from llama_router.config import files
    from llama_router.hub.errors import HubError

    if not repo:
        raise PullError("-hff names a file of -hf USER/REPO: give that, too", EXIT_USAGE)
    try:
        pulled = have_model(repo, file, reading.config)
    except HubError as error:
        status = EXIT_USAGE if error.code in WRONG_USE else EXIT_FAILED
        raise PullError(error.message, status) from None
    except InterruptedPullError:
        message = "stopped; what has come is kept, and the same command goes on from there"
        raise PullError(message, EXIT_INTERRUPTED) from None
    if reading.is_foreign or reading.config.startup_model or not files.is_there(source.path):
        return reading, f"{pulled.model} is there"
    serve_this_first(source.path, pulled.model)
    return source.read(), f"{pulled.model} is there, and loaded at each start (startup_model)"


def serve_this_first(config_path: Path, model: str) -> bool:
    """Make a model the config's startup_model if it has none; tell whether. Raises ConfigError."""
    from llama_router.config.load import load

    if load(config_path).config.startup_model:
        return False
    _set_startup_model(config_path, model)
    return True


def serve_none_first(config_path: Path) -> None:
    """Let the config have no startup_model any more. Raises ConfigError."""
    _set_startup_model(config_path, "")


def _set_startup_model(config_path: Path, model: str) -> None:
    from llama_router.config import files
    from llama_router.config.edit import Edit, edited
    from llama_router.config.problems import ConfigError, Problem

    try:
        text = files.read_bytes(config_path).decode()
        changed = edited(text, [Edit("set", ("startup_model",), model)], config_path)
        files.replace(config_path, changed.encode())
    except (files.FileError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(config_path), 0, "startup_model", str(error))]) from None


def kept(reference: "Reference") -> None:
    """Say that nothing is lost."""
    repeat = f"{reference.repo}{':' if reference.tag else ''}{reference.tag}"
    file = f" --file {reference.file}" if reference.file else ""
    typer.echo(err=True)
    tell(
        f"stopped; what has come is kept, and `llama-router pull {repeat}{file}` goes on from there"
    )
