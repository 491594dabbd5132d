"""The router under stress: a process in a home of its own, started, measured and ended."""

import asyncio
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from llama_router.stress import fake_engine, settings
from llama_router.stress.settings import Place
from llama_router.stress.wire import connect

Configure = Callable[[Place], dict[str, object]]

# Every process below the router carries it. Not LLAMA_ROUTER_…, which engines do not get.
MARK_VARIABLE = "STRESS_OF_LLAMA_ROUTER"
_POLL_S = 0.05
_LAST_WORDS_CHARS = 2000
# Below the usual range of ephemeral ports, which clients of this machine use.
_BASE_PORT_FIRST = 20_000
_BASE_PORT_SPREAD = 100
_BASE_PORT_STEP = 100
_OK = 200


class RouterStartError(Exception):
    """The router did not come up or does not serve; the text has its last words."""


class RouterProcess:
    """One running router. ``folder`` holds its home, its config, its log."""

    def __init__(self, folder: Path, port: int, process: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self.port = port
        self.process = process
        self._measured = psutil.Process(process.pid)

    @property
    def log_path(self) -> Path:
        """Everything that it has said."""
        return self.folder / "router.log"

    @property
    def temp_folder(self) -> Path:
        """Its folder for temporary files."""
        return self.folder / "tmp"

    @property
    def state_folder(self) -> Path:
        """Where it keeps its state."""
        return self.folder / "state" / "llama-router"

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    async def last_words(self) -> str:
        """Return the end of its log."""
        log = await asyncio.to_thread(self.log_path.read_text, errors="replace")
        return log[-_LAST_WORDS_CHARS:]

    def rss_bytes(self) -> int:
        """Its resident memory; 0 when it has ended."""
        with suppress(psutil.Error):
            return int(self._measured.memory_info().rss)
        return 0

    def descriptors(self) -> dict[int, str]:
        """Its open descriptors with what each stands for."""
        folder = Path(f"/proc/{self.process.pid}/fd")
        found: dict[int, str] = {}
        if not folder.is_dir():
            with suppress(psutil.Error):
                found = dict.fromkeys(range(self._measured.num_fds()), "descriptor")
            return found
        for path in folder.iterdir():
            with suppress(OSError):
                found[int(path.name)] = str(path.readlink())
        return found

    def sockets(self) -> list[str]:
        """Its TCP connections, without the listener."""
        with suppress(psutil.Error):
            return [
                f"{found.laddr} {found.raddr} {found.status}"
                for found in self._measured.net_connections(kind="tcp")
                if found.status != psutil.CONN_LISTEN
            ]
        return []

    async def end(self) -> int:
        """Ask it to end; return its status. Raises TimeoutError."""
        if self.is_running:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(settings.END_TIMEOUT_S):
            return await self.process.wait()


def marked_processes(mark: str) -> list[psutil.Process]:
    """Return the living processes that descend from a run's router, itself included."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            is_alive = process.status() != psutil.STATUS_ZOMBIE
            if is_alive and process.environ().get(MARK_VARIABLE) == mark:
                found.append(process)
    return found


@asynccontextmanager
async def running_router(
    folder: Path, control_address: str, mark: str, configure: Configure | None = None
) -> AsyncIterator[RouterProcess]:
    """Run a router whose engines are fakes under the director at ``control_address``.

    ``configure``: by default the config of ``settings``.
    Kills it and all that it has started at the end. Raises RouterStartError.
    """
    router = await _start(folder, control_address, mark, configure or settings.router_config)
    try:
        await _until_up(router)
        yield router
    finally:
        if router.is_running:
            router.process.kill()
            await router.process.wait()
        await _kill_all(mark)


async def _kill_all(mark: str) -> None:
    """Kill what descends from a run's router until all has gone, what starts meanwhile too."""
    for _ in range(round(settings.QUIET_TIMEOUT_S / _POLL_S)):
        left = marked_processes(mark)
        if not left:
            return
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        await asyncio.sleep(_POLL_S)


async def _start(
    folder: Path, control_address: str, mark: str, configure: Configure
) -> RouterProcess:
    for name in ("home", "config", "state", "cache", "data", "tmp", "bin"):
        (folder / name).mkdir()
    script = Path(fake_engine.__file__).with_name("__main__.py")
    command = [sys.executable, "-I", "-S", "-E", str(script)]
    command += ["--control", control_address, "--ask"]
    llama_server = folder / "bin" / "llama-server"
    llama_server.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    llama_server.chmod(0o755)
    port = _free_port()
    base_port = _BASE_PORT_FIRST + os.getpid() % _BASE_PORT_SPREAD * _BASE_PORT_STEP
    config = configure(Place(port, base_port, tuple(command), str(llama_server)))
    config_path = folder / "config" / "router.json"
    config_path.write_text(json.dumps(config, indent=2))
    with (folder / "router.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "llama_router", "--config", str(config_path)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(folder, mark),
            cwd=folder,
            # Ctrl-C is for the tool, which then ends the router itself.
            start_new_session=True,
        )
    return RouterProcess(folder, port, process)


def _environment(folder: Path, mark: str) -> dict[str, str]:
    package_parent = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH", "")
    return {
        **os.environ,
        "HOME": str(folder / "home"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_DATA_HOME": str(folder / "data"),
        "HF_HOME": str(folder / "cache"),
        "TMPDIR": str(folder / "tmp"),
        # Also from a checkout that is not installed.
        "PYTHONPATH": f"{package_parent}{os.pathsep}{path}" if path else package_parent,
        MARK_VARIABLE: mark,
    }


async def _until_up(router: RouterProcess) -> None:
    try:
        async with asyncio.timeout(settings.START_TIMEOUT_S):
            while router.is_running:
                with suppress(OSError):
                    client = await connect(router.port)
                    answer = await client.request("GET", "/v1/health")
                    await client.close()
                    if answer.status == _OK:
                        return
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        pass
    raise RouterStartError(f"the router did not come up; it said:\n{await router.last_words()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
