"""Starting the router from the command line, and saying what a person needs to know of it."""

import asyncio
import contextlib
import logging
import os
import shlex
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llama_router import __version__
from llama_router.cli.logs import LogQueue, escaped

if TYPE_CHECKING:
    from llama_router.config.schema import Config
    from llama_router.runtime.app import Router
    from llama_router.runtime.config_file import ConfigFile, Reading

_log = logging.getLogger(__name__)

EXIT_FAILED = 1
# A config that cannot be used, as for wrong usage.
EXIT_CONFIG = 2
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

    def folders(self) -> tuple[str, ...]:
        """Return the folders of models that are added."""
        return tuple(str(folder.expanduser().absolute()) for folder in self.models_dirs)


def serve(overrides: Overrides) -> int:
    """Run the router with the config file; return the exit status."""
    import platformdirs

    from llama_router.cli.pull_here import PullError, have_model_first
    from llama_router.config.defaults import create_default, default_path, refresh_schema
    from llama_router.config.problems import ConfigError
    from llama_router.runtime.config_file import ConfigFile
    from llama_router.store.keys import KEYS_FILE_NAME

    try:
        path = overrides.config_path
        if path is None:
            found = default_path(sys.platform, os.environ, Path.home())
            path = found.path
            if found.note:
                _tell(found.note)
            if not path.exists():
                create_default(path)
                _tell(f"created {path}")
        elif path.suffix in _CREATED_SUFFIXES and not path.exists() and path.parent.is_dir():
            create_default(path)
            _tell(f"created {path}")
        key_file = platformdirs.user_state_path("llama-router") / KEYS_FILE_NAME
        source = ConfigFile(path, overrides.settings(), overrides.folders(), key_file)
        reading = source.read()
        refresh_schema(path)
    except ConfigError as error:
        return _refuse(str(error))
    for warning in reading.warnings:
        _tell(str(warning))
    if overrides.hf_repo or overrides.hf_file:
        try:
            reading, said = have_model_first(source, reading, overrides.hf_repo, overrides.hf_file)
        except ConfigError as error:
            return _refuse(str(error))
        except PullError as error:
            _tell(str(error))
            return error.status
        _tell(said)
    return _run(reading, source, overrides.import_dirs)


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
        _tell(f"the demo's models cannot be made in {folder}: {error}")
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
        _tell(line)
    return EXIT_CONFIG


def _tell(message: str) -> None:
    typer.echo(f"llama-router: {escaped(message)}", err=True)


def _run(
    reading: "Reading", source: "ConfigFile | None" = None, import_dirs: tuple[Path, ...] = ()
) -> int:
    """Run the router with what was read from ``source``; without, it is the demo."""
    router = reading.config.router
    for folder in router.models_dirs:
        if not Path(folder).is_dir():
            _tell(f"the models folder {folder} does not exist")
    with LogQueue(router.log_level):
        if sys.platform == "win32":
            status = asyncio.run(_serve(reading, source, import_dirs))
        else:
            import uvloop

            status = uvloop.run(_serve(reading, source, import_dirs))
    return status


async def _serve(
    reading: "Reading", source: "ConfigFile | None", import_dirs: tuple[Path, ...]
) -> int:
    import platformdirs

    from llama_router.engines.host import HostError
    from llama_router.proxy.server import BindError
    from llama_router.runtime.app import Router, StartError, UnknownStartupModelError

    state_dir = platformdirs.user_state_path("llama-router")
    try:
        _check_state_dir(state_dir)
    except OSError as error:
        _tell(
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
    try:
        if not await router.start():
            return 0
    except UnknownStartupModelError as error:
        if source is None:
            raise
        return _refuse(str(source.problem(("startup_model",), str(error))))
    except (BindError, StartError, HostError) as error:
        _tell(str(error))
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
