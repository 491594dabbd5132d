"""``llama-router doctor``: whether everything is there that the router needs, and what to do."""

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from llama_router import __version__
from llama_router.cli.asking import JsonOption, in_words, show_json
from llama_router.cli.ending import EXIT_FAILED
from llama_router.cli.logs import escaped
from llama_router.cli.serving import Overrides

if TYPE_CHECKING:
    from llama_router.config.schema import Config

# A build that loads the libraries of a graphics card first.
_ENGINE_TIMEOUT_S = 20.0
_MAX_SHOWN_CHARS = 200
_NAMED_COUNT = 5
# One stream needs two; less leaves no room for many clients.
_FEW_DESCRIPTORS_COUNT = 1024
_LITTLE_DISK_BYTES = 10 * 2**30
_CONNECT_TIMEOUT_S = 2.0
_ANSWER_MAX_BYTES = 64 * 1024

ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The config to look at.")
]


class Verdict(Enum):
    """How grave a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at. ``remedy`` says what to do, where something is to be done."""

    subject: str
    verdict: Verdict
    message: str
    remedy: str = ""


_MARKS = {Verdict.OK: "ok", Verdict.WARNING: "!", Verdict.PROBLEM: "X"}
_INSTALL_ENGINE = (
    "install llama.cpp, so that `llama-server` is on PATH (brew install llama.cpp, winget install"
    " llama.cpp, or a release from github.com/ggml-org/llama.cpp), or"
    " `pip install xllamacpp` for the engine that runs inside Python"
)
_GET_MODEL = (
    "fetch one: `llama-router pull ggml-org/gemma-3-1b-it-GGUF`; or show a folder with .gguf files:"
    " `llama-router --models-dir FOLDER`; or try the router with toy models: `llama-router demo`"
)
_GET_KEY = (
    "make one: `llama-router keys add NAME --scope inference --scope admin`; or listen on this"
    " machine only (router.host: 127.0.0.1)"
)


def doctor(
    context: typer.Context, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Look whether all is there that the router needs, and say what to do where it is not.

    Nothing is changed, and no router needs to run. Exit status: 0 if the router can work.
    """
    given: Overrides = context.obj or Overrides()
    findings = list(examine(config or given.config_path, given, os.environ, Path.home()))
    if as_json:
        show_json(msgspec.to_builtins(findings))
    else:
        typer.echo("\n".join(report(findings)))
    is_ill = any(finding.verdict is Verdict.PROBLEM for finding in findings)
    raise typer.Exit(EXIT_FAILED if is_ill else 0)


def report(findings: list[Finding]) -> list[str]:
    """Lay findings out for people; the last lines say what to do next."""
    width = max(len(finding.subject) for finding in findings)
    lines = [
        escaped(f"{_MARKS[one.verdict]:>2}  {one.subject.ljust(width)}  {one.message}")
        for one in findings
    ]
    # What keeps the router from working comes first.
    order = (Verdict.PROBLEM, Verdict.WARNING)
    todo = [one for verdict in order for one in findings if one.verdict is verdict and one.remedy]
    lines.append("")
    if todo:
        lines.append("What to do:")
        lines += [
            escaped(f"{number}. {one.subject}: {one.remedy}") for number, one in enumerate(todo, 1)
        ]
    else:
        lines.append("All is well: start the router with `llama-router`.")
    return lines


def examine(
    config_path: Path | None, given: Overrides, env: Mapping[str, str], home: Path
) -> Iterator[Finding]:
    """Look at everything, in the order in which the router would need it."""
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    yield Finding("version", Verdict.OK, f"llama-router {__version__} on {system}")
    config, findings = _config(config_path, env, home)
    yield from findings
    yield from _folders(env, home)
    yield from _engine(config, env)
    yield from _memory(config, env)
    yield from _models(config, given, env, home)
    yield _access(config, given)
    yield _address(config, given)
    yield from _descriptors()


def _config(
    chosen: Path | None, env: Mapping[str, str], home: Path
) -> "tuple[Config, list[Finding]]":
    from llama_router.cli.parameter_check import parameter_problems
    from llama_router.config import files
    from llama_router.config.defaults import default_path
    from llama_router.config.importers import load_any
    from llama_router.config.problems import ConfigError
    from llama_router.config.schema import Config
    from llama_router.engines.kinds import check_command

    path = chosen or default_path(sys.platform, env, home).path
    if not files.is_there(path):
        if chosen is not None:
            problem = f"{path} does not exist"
            return Config(), [Finding("config", Verdict.PROBLEM, problem, "check the file's name")]
        remedy = "make it writable for you, or name another file: `llama-router --config FILE`"
        found = _writable("config", path.parent, remedy)
        if found.verdict is Verdict.OK:
            note = f"none yet; {path} is written at the first start"
            return Config(), [Finding("config", Verdict.OK, note)]
        message = f"{found.message}; until there is one, the defaults hold"
        return Config(), [Finding("config", Verdict.WARNING, message, remedy)]
    try:
        loaded = load_any(path, check_command=check_command, env=env, rewrite=False)
    except ConfigError as error:
        first, *more = str(error).splitlines()
        also = f" (and {len(more)} more)" if more else ""
        remedy = "correct that line; `llama-router config check` lists all faults"
        return Config(), [Finding("config", Verdict.PROBLEM, first + also, remedy)]
    findings = [Finding("config", Verdict.OK, f"{path} is in order")]
    remedy = (
        "correct it: models with that option do not load; `llama-router config check` lists all"
    )
    problems = parameter_problems(loaded)[:_NAMED_COUNT]
    findings += [Finding("config", Verdict.WARNING, str(one), remedy) for one in problems]
    return loaded.config, findings


def _folders(env: Mapping[str, str], home: Path) -> Iterator[Finding]:
    import platformdirs

    from llama_router.catalog import hub_cache

    state = platformdirs.user_state_path("llama-router")
    yield _writable(
        "state", state, "make it writable for you, or set XDG_STATE_HOME to another folder"
    )
    cache = hub_cache.directory(env, home)
    yield _writable(
        "downloads", cache, "make it writable for you, or set HF_HOME to another folder", free=True
    )


def _writable(subject: str, folder: Path, remedy: str, *, free: bool = False) -> Finding:
    from llama_router.config import files

    nearest = folder
    while not files.is_there(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        # Permissions alone do not tell: file systems are read-only or full.
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"x")
        free_bytes = shutil.disk_usage(nearest).free
    except OSError as error:
        reason = error.strerror or str(error)
        return Finding(subject, Verdict.PROBLEM, f"{folder} cannot be written: {reason}", remedy)
    if not free:
        return Finding(subject, Verdict.OK, f"{folder} can be written")
    message = f"{folder} has {in_words(free_bytes)} free"
    if free_bytes < _LITTLE_DISK_BYTES:
        remedy = "models take some GB each: make room, or set HF_HOME to a larger disk"
        return Finding(subject, Verdict.WARNING, message, remedy)
    return Finding(subject, Verdict.OK, message)


def _engine(config: "Config", env: Mapping[str, str]) -> Iterator[Finding]:
    from llama_router.engines.kinds import find_llama_server
    from llama_router.engines.kinds.embedded import embedded_available
    from llama_router.engines.kinds.llama_server import LLAMA_SERVER, is_llama_server

    program = config.default_spawn.command[0]
    if program == LLAMA_SERVER:
        found = find_llama_server(Path(sys.argv[0]).absolute(), search_path=env.get("PATH"))
        if found is None and embedded_available():
            message = "no llama-server found; the embedded llama.cpp is used"
            yield Finding("engine", Verdict.OK, message)
            return
        if found is None:
            yield Finding("engine", Verdict.PROBLEM, "none found", _INSTALL_ENGINE)
            return
    else:
        located = shutil.which(program, path=env.get("PATH"))
        if located is None:
            message = f"{program}, the program of default_spawn.command, is not found"
            remedy = "install it, or write its whole path into the config"
            yield Finding("engine", Verdict.PROBLEM, message, remedy)
            return
        found = Path(located)
    if is_llama_server(str(found)):
        yield _version_of(found)
    else:
        yield Finding("engine", Verdict.OK, str(found))


def _version_of(llama_server: Path) -> Finding:
    """Start it: a file that is there may still lack a library or be of another machine."""
    try:
        run = subprocess.run(
            [llama_server, "--version"],
            capture_output=True,
            timeout=_ENGINE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        problem = f"{llama_server} says nothing for {_ENGINE_TIMEOUT_S:g} s"
        return Finding("engine", Verdict.PROBLEM, problem, "try it by hand: llama-server --version")
    except OSError as error:
        problem = f"{llama_server} cannot be started: {error.strerror or error}"
        return Finding("engine", Verdict.PROBLEM, problem, _INSTALL_ENGINE)
    output = (run.stderr + b"\n" + run.stdout).decode("utf-8", "replace")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if run.returncode != 0:
        said = lines[0][:_MAX_SHOWN_CHARS] if lines else f"status {run.returncode}"
        problem = f"{llama_server} does not run: {said}"
        return Finding("engine", Verdict.PROBLEM, problem, _INSTALL_ENGINE)
    version = next((line for line in lines if line.startswith("version:")), "")
    shown = f"{llama_server} ({version[:_MAX_SHOWN_CHARS]})" if version else str(llama_server)
    return Finding("engine", Verdict.OK, shown)


def _memory(config: "Config", env: Mapping[str, str]) -> Iterator[Finding]:
    from llama_router.engines.devices import CPU
    from llama_router.engines.kinds import find_llama_server
    from llama_router.runtime import machine as machines

    engine = find_llama_server(Path(sys.argv[0]).absolute(), search_path=env.get("PATH"))
    machine = machines.look_around(engine, config.router.memory)
    budgets = machines.budgets_of(machine, config.router)
    ram = machine.total_bytes.get(CPU, 0)
    budget = f", {in_words(budgets[CPU])} of it for models" if CPU in budgets else ""
    yield Finding("memory", Verdict.OK, f"{in_words(ram)} of RAM{budget}")
    for card in machine.cards:
        name = f"{card.name} {card.description}".strip()
        yield Finding("GPU", Verdict.OK, f"{name}: {in_words(card.total_bytes)}")
    if not machine.cards:
        if sys.platform == "darwin" and platform.machine() == "arm64":
            yield Finding("GPU", Verdict.OK, "Apple's, which works in RAM")
        elif machines.may_have_cards() and sys.platform != "win32":
            message = "a graphics card's driver is there, but no card that the engine can use"
            remedy = (
                "install a llama-server that is built for your card (CUDA, ROCm or Vulkan); until"
                " then models run on the CPU"
            )
            yield Finding("GPU", Verdict.WARNING, message, remedy)
        else:
            yield Finding("GPU", Verdict.OK, "none found: models run on the CPU")


def _models(
    config: "Config", given: Overrides, env: Mapping[str, str], home: Path
) -> Iterator[Finding]:
    from llama_router.catalog.discovery import Sources, discover
    from llama_router.config import files

    folders = [*map(Path, config.router.models_dirs), *given.models_dirs]
    for folder in folders:
        if not files.is_folder(folder):
            remedy = "make it, or take it out of router.models_dirs"
            yield Finding("models", Verdict.WARNING, f"{folder} does not exist", remedy)
    manual = [entry for entry in config.models if entry.state == "manual"]
    own = {Path(entry.path): entry.name for entry in manual if entry.path}
    found = [one for one in discover(Sources(tuple(folders), env, home)) if one.path not in own]
    count = len(found) + len(manual)
    if not count:
        yield Finding("models", Verdict.PROBLEM, "none found", _GET_MODEL)
        return
    broken = [model for model in found if model.invalid]
    lost = {path: name for path, name in own.items() if not path.is_file()}
    size_bytes = sum(model.size_bytes for model in found)
    size_bytes += sum(path.stat().st_size for path in own if path not in lost)
    yield Finding("models", Verdict.OK, f"{count} found, {in_words(size_bytes)}")
    for path, name in list(lost.items())[:_NAMED_COUNT]:
        remedy = f"correct models[{name}].path in the config, or take the entry out"
        yield Finding("models", Verdict.WARNING, f"{name}: there is no file {path}", remedy)
    for model in broken[:_NAMED_COUNT]:
        message = f"{model.id} cannot be used: {model.invalid}"
        yield Finding(
            "models", Verdict.WARNING, message, f"download {model.id} again, or delete it"
        )
    more_count = sum(max(0, len(ill) - _NAMED_COUNT) for ill in (lost, broken))
    if more_count:
        more = f"{more_count} more cannot be used; `llama-router models` lists them"
        yield Finding("models", Verdict.WARNING, more)


def _access(config: "Config", given: Overrides) -> Finding:
    import platformdirs

    from llama_router.config.schema import is_loopback, public_bind_problem
    from llama_router.store.keys import KEYS_FILE_NAME, KeyFile, KeyFileError

    host = given.host or config.router.host
    try:
        made = KeyFile(platformdirs.user_state_path("llama-router") / KEYS_FILE_NAME).keys
    except KeyFileError as error:
        return Finding("access", Verdict.PROBLEM, str(error), "see there; then look again")
    router = config.router.model_copy(update={"host": host})
    if public_bind_problem(router, has_more_keys=bool(made)) is not None:
        message = f"{host} can be reached from other machines, and no key protects the router"
        return Finding("access", Verdict.PROBLEM, message, _GET_KEY)
    if made or router.api_keys:
        message = "clients have to bring a key"
    elif is_loopback(host):
        message = "for this machine only, without keys"
    else:
        message = "for everybody who reaches it, without keys, as the config says"
    return Finding("access", Verdict.OK, message)


def _address(config: "Config", given: Overrides) -> Finding:
    host, port = given.host or config.router.host, given.port or config.router.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            return Finding("port", Verdict.OK, f"{host}:{port} is free")
    if _is_router(host, port):
        return Finding("port", Verdict.OK, f"a llama-router already serves on {host}:{port}")
    remedy = "end the program that uses it, or take another port: `llama-router --port 8083`"
    return Finding("port", Verdict.PROBLEM, f"{host}:{port} cannot be used: {reason}", remedy)


def _is_router(host: str, port: int) -> bool:
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(host, port, timeout=_CONNECT_TIMEOUT_S)
    try:
        connection.request("GET", "/props?autoload=false")
        return b"llama-router" in connection.getresponse().read(_ANSWER_MAX_BYTES)
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _descriptors() -> list[Finding]:
    findings: list[Finding] = []
    if sys.platform != "win32":
        import resource

        limit_count = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if 0 <= limit_count < _FEW_DESCRIPTORS_COUNT:
            remedy = "raise it: ulimit -n 65536, or LimitNOFILE= of the service"
            message = f"only {limit_count} open files are allowed"
            findings.append(Finding("limits", Verdict.WARNING, message, remedy))
    return findings
