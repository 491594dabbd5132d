"""The peers: how each is configured and started, in a folder of its own."""

import getpass
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import http_probe, procs

# Generous: a peer that takes longer is broken, and its log says why.
READY_TIMEOUT_S = 30.0
LOG_TAIL_CHARS = 1500
# The router's own health; `/health` is the contract's compatible path, which answers for an engine.
ROUTER_HEALTH = ("/v1/health", "/health")
# The engine's flags in every comparison: little context and one thread, as the model is tiny.
LLAMA_SERVER_FLAGS = ("--ctx-size", "512", "--threads", "1", "--threads-http", "4")


class PeerError(Exception):
    """A peer could not be started; the text says why and shows the end of its log."""


@dataclass(frozen=True)
class Spec:
    """How to start a peer. `engines` are the executables that do not count as the peer's own."""

    name: str
    command: Sequence[str]
    port: int
    folder: Path
    health_paths: tuple[str, ...] = ("/health",)
    engines: tuple[Path, ...] = ()
    env: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Running:
    """A peer that runs. `counted` is False for what is not a peer but the floor."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    engines: tuple[Path, ...]
    counted: bool = True

    def pids(self) -> list[int]:
        """Its processes without the engines; none for the floor."""
        return procs.tree(self.process.pid, self.engines) if self.counted else []

    def engine_pids(self) -> list[int]:
        """The engines' processes below it."""
        own = set(procs.tree(self.process.pid, self.engines))
        return [pid for pid in procs.tree(self.process.pid) if pid not in own]


@dataclass(frozen=True)
class RouterModel:
    """One model of the router's config; `command` None takes the default command."""

    name: str
    path: str = ""
    command: tuple[str, ...] | None = None


@contextmanager
def started(spec: Spec, cpu: int | None) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Start a peer and end it; yields the process and the time.monotonic() before the exec."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    with (spec.folder / "log").open("ab") as log:
        begin = time.monotonic()
        process = procs.start(spec.command, log=log, env=spec.env, cpu=cpu)
        try:
            yield process, begin
        finally:
            procs.stop(process)


@contextmanager
def running(spec: Spec, cpu: int | None, *, counted: bool = True) -> Iterator[Running]:
    """Start a peer, wait until it is healthy, and end it afterwards. Raises PeerError."""
    with started(spec, cpu) as (process, _):
        wait_healthy(spec, process)
        yield Running(spec.name, spec.port, process, spec.engines, counted)


def wait_healthy(spec: Spec, process: subprocess.Popen[bytes]) -> float:
    """Return the time.monotonic() of the first 200. Raises PeerError."""
    try:
        return http_probe.wait_until(
            lambda: http_probe.is_healthy(spec.port, spec.health_paths),
            lambda: process.poll() is not None,
            spec.name,
            READY_TIMEOUT_S,
        )
    except http_probe.ProbeError as error:
        log = (spec.folder / "log").read_text(encoding="utf-8", errors="replace")
        raise PeerError(f"{error}\n{log[-LOG_TAIL_CHARS:]}") from error


def stub_command(stub: Path, port: str, cpu: int | None) -> tuple[str, ...]:
    """The stub engine pins itself, because a peer may be what starts it."""
    return (str(stub), "--port", port, "--cpu", str(-1 if cpu is None else cpu))


def stub_spec(stub: Path, folder: Path, cpu: int | None) -> Spec:
    """The stub alone: the floor."""
    port = procs.free_port()
    return Spec("direct", stub_command(stub, str(port), cpu), port, folder)


def nginx_spec(nginx: Path, folder: Path, upstream_port: int) -> Spec:
    """Configure nginx, one worker, as the limit of what a proxy can be."""
    folder.mkdir(parents=True, exist_ok=True)
    port = procs.free_port()
    # As root the workers would become `nobody`, who may not enter the folder.
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    temporary = "\n    ".join(
        f"{kind}_temp_path {folder / kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"""{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid {folder / "nginx.pid"};
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    {temporary}
    upstream engine {{
        server 127.0.0.1:{upstream_port};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
""",
        encoding="utf-8",
    )
    command = (str(nginx), "-p", str(folder), "-e", "stderr", "-c", str(config))
    return Spec("nginx", command, port, folder)


def router_command() -> tuple[str, ...] | None:
    """How this checkout's router is started; None when it has no command line."""
    try:
        if importlib.util.find_spec("llama_router.cli.main") is None:
            return None
    except ImportError:
        return None
    script = Path(sys.executable).with_name("llama-router")
    return (str(script),) if script.exists() else (sys.executable, "-m", "llama_router")


def router_spec(
    command: Sequence[str] | None,
    folder: Path,
    models: Sequence[RouterModel],
    engines: Sequence[Path],
    default_command: Sequence[str] | None = None,
) -> Spec:
    """Configure this project's router with `models` only. Raises PeerError without a command."""
    if command is None:
        raise PeerError("llama-router: this checkout has no command line (llama_router.cli.main)")
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    port = procs.free_port()
    config: dict[str, object] = {
        "version": "1.0",
        "router": {"host": "127.0.0.1", "port": port, "base_port": procs.free_port()},
        "models": [_model_entry(model) for model in models],
    }
    if default_command is not None:
        config["default_spawn"] = {"command": list(default_command), "health_endpoint": "/health"}
    path = folder / "config.yaml"
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")  # JSON is YAML
    arguments = ["--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    return Spec(
        "router",
        [*command, *arguments],
        port,
        folder,
        health_paths=ROUTER_HEALTH,
        engines=tuple(engines),
        env=private_env(home),
    )


def _model_entry(model: RouterModel) -> dict[str, object]:
    # Each in a group of its own: they all fit into memory, and swaps are to be measured.
    entry: dict[str, object] = {
        "name": model.name,
        "path": model.path,
        "state": "manual",
        "group": model.name,
    }
    if model.command is not None:
        entry["spawn"] = {"command": list(model.command), "health_endpoint": "/health"}
    return entry


def private_env(home: Path) -> dict[str, str]:
    """This environment, but with every cache and config of its user in `home`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}
    places = {
        "HOME": home,
        "XDG_CACHE_HOME": home / "cache",
        "XDG_CONFIG_HOME": home / "config",
        "XDG_DATA_HOME": home / "data",
        "XDG_STATE_HOME": home / "state",
        "XDG_RUNTIME_DIR": home,
        "HF_HOME": home / "hf",
        "HF_HUB_CACHE": home / "hf" / "hub",
        "LLAMA_CACHE": home / "llama",
    }
    return env | {name: str(path) for name, path in places.items()}


def llama_server_command(server: Path, model: str, port: str) -> tuple[str, ...]:
    """A bare llama-server for one model; `model` and `port` may be the router's placeholders."""
    address = ("--host", "127.0.0.1", "--port", port)
    return (str(server), "--model", model, *address, *LLAMA_SERVER_FLAGS)


def llama_server_spec(server: Path, folder: Path, model: Path) -> Spec:
    """A bare llama-server: the floor for its router mode."""
    folder.mkdir(parents=True, exist_ok=True)
    port = procs.free_port()
    command = llama_server_command(server, str(model), str(port))
    return Spec("llama-server", command, port, folder, env=private_env(folder))


def llama_server_router_spec(server: Path, folder: Path, models_dir: Path) -> Spec:
    """llama-server's own router mode, one model at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    port = procs.free_port()
    command = (
        *(str(server), "--models-dir", str(models_dir), "--models-max", "1"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *LLAMA_SERVER_FLAGS,
    )
    return Spec(
        "llama-server router",
        command,
        port,
        folder,
        # Its engines are children of the same executable.
        engines=(server,),
        env=private_env(folder),
    )


def write_tiny_models(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Write models that a real llama-server loads in milliseconds. Raises PeerError."""
    try:
        from llama_router.catalog import tiny
    except ImportError as error:
        raise PeerError(f"tiny models: llama_router.catalog.tiny is missing ({error})") from error
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.gguf" for name in names}
    for name, path in paths.items():
        tiny.write_model(path, "Hello there, this is a tiny model.", name=name)
    return paths


@dataclass
class Skipped:
    """What was left out of a run and why, for the report."""

    reasons: list[str] = field(default_factory=list)

    def add(self, what: str, reason: object) -> None:
        """Note it, and say it at once."""
        line = f"{what}: {reason}"
        self.reasons.append(line)
        print(f"  left out: {line}", flush=True)
