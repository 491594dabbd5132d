"""The router under stress: a process in a home of its own, started, measured and ended."""

import asyncio
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
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
# Blocks of ports, of which a run has one for itself: below the usual range of ephemeral ports,
# which clients of this machine use.
_PORT_BLOCKS = range(31_000, 19_000, -1_000)
_HOST = "127.0.0.1"
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
    with claimed_ports() as port:
        config = configure or settings.router_config
        router = await _start(folder, control_address, mark, port, config)
        try:
            await _until_up(router)
            yield router
        finally:
            if router.is_running:
                router.process.kill()
                await router.process.wait()
            await _kill_all(mark)


@contextmanager
def claimed_ports() -> Iterator[int]:
    """Give the first of many ports that no other run has at the same time.

    A listener on the port before them says that they are taken: one that was only found free may be
    another's before it is used. Raises RouterStartError.
    """
    for first in _PORT_BLOCKS:
        with socket.socket() as claim:
            try:
                claim.bind((_HOST, first))
                claim.listen(1)
            except OSError:
                continue
            if _is_free(first + 1):
                yield first + 1
                return
    raise RouterStartError(
        f"no ports are left: something listens on every thousandth, from {_PORT_BLOCKS[-1]} to"
        f" {_PORT_BLOCKS[0]}, or on the next"
    )


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
    folder: Path, control_address: str, mark: str, port: int, configure: Configure
) -> RouterProcess:
    for name in ("home", "config", "state", "cache", "data", "tmp", "bin"):
        (folder / name).mkdir()
    script = Path(fake_engine.__file__).with_name("__main__.py")
    command = [sys.executable, "-I", "-S", "-E", str(script)]
    command += ["--control", control_address, "--ask"]
    llama_server = folder / "bin" / "llama-server"
    llama_server.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    llama_server.chmod(0o755)
    config = configure(Place(port, port + 1, tuple(command), str(llama_server)))
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


def _is_free(port: int) -> bool:
    """Tell whether a router can listen there, as it does: beside connections that are closing."""
    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True
