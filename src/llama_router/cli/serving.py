"""Starting the router from the command line, and saying what a person needs to know of it."""

import contextlib
import gc
import os
import shlex
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llama_router import __version__
from llama_router.cli.ending import EXIT_FAILED, EXIT_USAGE, tell
from llama_router.cli.logs import LogQueue, escaped

if TYPE_CHECKING:
    from llama_router.config.schema import Config
    from llama_router.runtime.app import Router
    from llama_router.runtime.config_file import ConfigFile, Reading

_MODELS_SHOWN_COUNT = 12
# What is written is YAML.
_CREATED_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says over the config file, and which file that is."""

    config_path: Path | None = None
    host: str | None = None
    port: int | None = None
    models_dirs: tuple[Path, ...] = field(default=())
    log_level: str | None = None
    import_dirs: tuple[Path, ...] = field(default=())
    hf_repo: str = ""
    hf_file: str = ""

    def over(self, other: "Overrides") -> "Overrides":
        """Return both; what this one says counts for more, and folders add up."""
        return Overrides(
            config_path=self.config_path or other.config_path,
            host=self.host or other.host,
            port=self.port or other.port,
            models_dirs=(*other.models_dirs, *self.models_dirs),
            log_level=self.log_level or other.log_level,
            import_dirs=(*other.import_dirs, *self.import_dirs),
            hf_repo=self.hf_repo or other.hf_repo,
            hf_file=self.hf_file or other.hf_file,
        )

    def settings(self) -> dict[str, Any]:
        """Return the settings of ``router`` that are replaced."""
        said = {name: getattr(self, name) for name in ("host", "port", "log_level")}
        return {name: value for name, value in said.items() if value is not None}

    def config_file(self, named: Path | None = None) -> Path:
        """Return the config file: the one ``named`` after the command, or before it, or the usual.

        The usual one need not be there.
        """
        from llama_router.config.defaults import default_path

        chosen = named or self.config_path
        return chosen or default_path(sys.platform, os.environ, Path.home()).path

    def read_config(self, named: Path | None = None) -> "Config":
        """Return what that file says; all defaults where the usual one is not there.

        The file stays as it is, also one of an early form. Raises ConfigError.
        """
        from llama_router.config import files
        from llama_router.config.importers import load_any
        from llama_router.config.schema import Config

        path = self.config_file(named)
        if not (named or self.config_path or files.is_there(path)):
            return Config()
        return load_any(path, rewrite=False).config

    def folders(self) -> tuple[str, ...]:
        """Return the folders of models that are added."""
        return tuple(str(folder.expanduser().absolute()) for folder in self.models_dirs)


def serve(overrides: Overrides) -> int:
    """Run the router with the config file; return the exit status."""
    import platformdirs

    from llama_router.cli.pull_here import PullError, have_model_first
    from llama_router.config.defaults import refresh_schema
    from llama_router.config.problems import ConfigError
    from llama_router.runtime.config_file import ConfigFile
    from llama_router.store.keys import KEYS_FILE_NAME

    try:
        path, text = _have_config(overrides.config_path)
        key_file = platformdirs.user_state_path("llama-router") / KEYS_FILE_NAME
        source = ConfigFile(path, overrides.settings(), overrides.folders(), key_file, text)
        reading = source.read()
        refresh_schema(path)
    except ConfigError as error:
        return _refuse(str(error))
    for warning in reading.warnings:
        tell(str(warning))
    if overrides.hf_repo or overrides.hf_file:
        try:
            reading, said = have_model_first(source, reading, overrides.hf_repo, overrides.hf_file)
        except ConfigError as error:
            return _refuse(str(error))
        except PullError as error:
            tell(str(error))
            return error.status
        tell(said)
    return _run(reading, source, overrides.import_dirs)


def _have_config(chosen: Path | None) -> tuple[Path, str]:
    """Return where the config is, written if it is not there yet, and what holds until it is.

    Raises ConfigError.
    """
    from llama_router.config import files
    from llama_router.config.defaults import TEMPLATE, create_default, default_path
    from llama_router.config.problems import ConfigError

    if chosen is not None:
        is_wanted = chosen.suffix in _CREATED_SUFFIXES and files.is_folder(chosen.parent)
        if is_wanted and not files.is_there(chosen):
            create_default(chosen)
            tell(f"created {chosen}")
        return chosen, ""
    found = default_path(sys.platform, os.environ, Path.home())
    if found.note:
        tell(found.note)
    if files.is_there(found.path):
        return found.path, ""
    try:
        create_default(found.path)
    except ConfigError as error:
        # Nothing in it is needed.
        tell(f"{error}; until there is one, the defaults hold")
        return found.path, TEMPLATE
    tell(f"created {found.path}")
    return found.path, ""


def demo(overrides: Overrides) -> int:
    """Run the router over the demo's models; return the exit status."""
    import platformdirs

    from llama_router.catalog.demo import make_demo_models
    from llama_router.config.problems import ConfigError
    from llama_router.config.schema import Config, RouterSettings
    from llama_router.runtime.config_file import Reading, overlaid

    folder = platformdirs.user_cache_path("llama-router") / "demo"
    try:
        make_demo_models(folder)
    except OSError as error:
        tell(f"the demo's models cannot be made in {folder}: {error}")
        return EXIT_FAILED
    # They would all fit into memory, and a swap is to be seen.
    config = Config(router=RouterSettings(max_loaded=1, models_dirs=(str(folder),)))
    try:
        reading = Reading(overlaid(config, overrides.settings()))
    except ConfigError as error:
        return _refuse(str(error))
    return _run(reading)


def _refuse(message: str) -> int:
    for line in message.splitlines():
        tell(line)
    return EXIT_USAGE


def _run(
    reading: "Reading", source: "ConfigFile | None" = None, import_dirs: tuple[Path, ...] = ()
) -> int:
    """Run the router with what was read from ``source``; without, it is the demo."""
    with LogQueue(reading.config.router.log_level):
        if sys.platform == "win32":
            # Every command imports this module, and asyncio takes as long as all the rest of that.
            import asyncio

            status = asyncio.run(_serve(reading, source, import_dirs))
        else:
            import uvloop

            status = uvloop.run(_serve(reading, source, import_dirs))
    return status


async def _serve(
    reading: "Reading", source: "ConfigFile | None", import_dirs: tuple[Path, ...]
) -> int:
    import platformdirs

    from llama_router.config.problems import Issue
    from llama_router.engines.host import HostError
    from llama_router.proxy.server import BindError
    from llama_router.runtime.app import Router, StartError, UnknownStartupModelError
    from llama_router.runtime.config_file import located

    state_dir = platformdirs.user_state_path("llama-router")
    try:
        _check_state_dir(state_dir)
    except OSError as error:
        tell(
            f"the router's state cannot be kept in {state_dir}: {error.strerror or error}; make it"
            " writable, or set XDG_STATE_HOME to another folder"
        )
        return EXIT_FAILED
    router = Router(
        reading.config,
        state_dir=state_dir,
        source=source,
        reading=reading,
        import_dirs=import_dirs,
        has_caches=source is not None,
    )
    router.install_signal_handlers()
    # What imports have made stays; to look through it at the start takes a tenth of that.
    gc.freeze()
    try:
        if not await router.start():
            return 0
    except UnknownStartupModelError as error:
        if source is None:
            raise
        issue = Issue(("startup_model",), str(error))
        (problem,) = located(source.path, reading, [issue])
        return _refuse(str(problem))
    except (BindError, StartError, HostError) as error:
        tell(str(error))
        return EXIT_FAILED
    try:
        _say(_banner(router, router.config, is_demo=source is None))
        await router.wait()
    finally:
        await router.close()
    return 0


def _check_state_dir(folder: Path) -> None:
    """Make the folder and try to write into it. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    # Permissions alone do not tell: file systems are read-only or full.
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x")


def _say(text: str) -> None:
    """Print to stdout; serving goes on when nobody reads it, or cannot show a model's name."""
    with contextlib.suppress(OSError):
        encoding = sys.stdout.encoding or "utf-8"
        typer.echo(text.encode(encoding, "replace").decode(encoding))


def _banner(router: "Router", config: "Config", *, is_demo: bool) -> str:
    host, port = router.addresses[0]
    shown = f"[{host}]" if ":" in host else "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104
    url = f"http://{shown}:{port}"
    lines = [f"llama-router {__version__} listens on {url}", f"engine: {_engine(router, config)}"]
    models = router.roster.models
    if not models:
        lines += [
            "no models found: put .gguf files into a folder and start with --models-dir FOLDER,",
            "or see it work first: llama-router demo",
        ]
    else:
        lines.append(f"models: {len(models)}")
        for model in models[:_MODELS_SHOWN_COUNT]:
            note = f"  (invalid: {model.found.invalid})" if model.found.invalid else ""
            lines.append(f"  {model.found.id}{note}")
        if len(models) > _MODELS_SHOWN_COUNT:
            lines.append(f"  … and {len(models) - _MODELS_SHOWN_COUNT} more: {url}/v1/models")
    lines = [escaped(line) for line in lines]
    if is_demo and len(models) > 1:
        lines.append(_snippets(url, models[0].found.id, models[1].found.id))
    return "\n".join(lines)


def _engine(router: "Router", config: "Config") -> str:
    from llama_router.engines.kinds.llama_server import LLAMA_SERVER

    program = config.default_spawn.command[0]
    if program != LLAMA_SERVER:
        return program
    if router.found_llama_server is not None:
        return str(router.found_llama_server)
    from llama_router.engines.kinds.embedded import embedded_available

    if embedded_available():
        return "embedded llama.cpp (no llama-server found)"
    return "none: install llama.cpp's llama-server, or give models a command of their own"


def _snippets(url: str, first: str, second: str) -> str:
    # Unindented: it is to be pasted as it stands, and a here-document ends at the margin only.
    python = shlex.quote(sys.executable)
    return f"""
Try it in another terminal; each model has its own story, and only one is loaded at a time:

curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' \\
  -d '{{"model": "{first}", "stream": true, "messages": [{{"role": "user", "content": "Hi"}}]}}'

{python} -m pip install -q openai && {python} - <<'END'
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="none")
question = [{{"role": "user", "content": "Hi"}}]
for chunk in client.chat.completions.create(model="{second}", messages=question, stream=True):
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
END

Ctrl-C ends the router."""
