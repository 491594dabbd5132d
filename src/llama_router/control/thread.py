"""The control plane's server: uvicorn on a thread and loop of its own, behind a private address."""

import asyncio
import contextlib
import os
import re
import secrets
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

import psutil

from llama_router.control.facade import Facade
from llama_router.control.facades import (
    ConfigFacade,
    DownloadsFacade,
    KeysFacade,
    ProfilesFacade,
    SettingsFacade,
)

_STOP_TIMEOUT_S = 5.0
_SECRET_BYTES = 32
_FOLDER_PREFIX = "llama-router-"
_FOLDER_NAME = re.compile(rf"{_FOLDER_PREFIX}(\d{{1,9}})-\w+")
_SOCKET_NAME = "control.sock"


class Facades(TypedDict, total=False):
    """What there is beside the router itself; of what is absent the routes are not there."""

    configuration: ConfigFacade
    settings: SettingsFacade
    profiles: ProfilesFacade
    keys: KeysFacade
    downloads: DownloadsFacade


class ControlThread:
    """Serves the control plane on a thread.

    ``unix_path``, or ``port`` on loopback where there are no such sockets, is where; ``secret`` is
    what every request has to carry. ``facades`` are those that ``create_app`` takes beside the
    first.
    """

    def __init__(
        self,
        facade: Facade,
        *,
        version: str,
        on_ready: Callable[[], object],
        **facades: Unpack[Facades],
    ) -> None:
        self._facade = facade
        self._facades = facades
        self._version = version
        self._on_ready = on_ready
        _remove_leftovers(Path(tempfile.gettempdir()))
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getpid()}-"))
        self._socket, self.unix_path, self.port = _private_socket(self._folder)
        self._stop: Callable[[], None] = lambda: None
        self._end_streams: Callable[[], object] = lambda: None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self.secret = secrets.token_urlsafe(_SECRET_BYTES)

    def start(self) -> None:
        """Begin to serve; ``on_ready`` is called on the control plane's thread."""
        self._thread.start()

    def end_streams(self) -> None:
        """Let answers that go on come to their proper end. Returns at once; for any thread."""
        # It may have no loop yet, or none any more.
        with contextlib.suppress(RuntimeError):
            self._end_streams()

    def close(self) -> None:
        """End the server and wait for its thread. Blocks: not for the event loop."""
        self._stopping.set()
        self._stop()
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT_S)
        self._socket.close()
        if self.unix_path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.unix_path)  # noqa: PTH108  # a plain string, as sockets have it
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _run(self) -> None:
        # Imported here, on this thread: it takes longer than all the rest of the start.
        import uvicorn

        from llama_router.control.app import create_app, with_secret
        from llama_router.control.following import Streams

        streams = Streams()
        inner = create_app(self._facade, version=self._version, streams=streams, **self._facades)
        app = with_secret(inner, self.secret)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)

        def stop() -> None:
            server.should_exit = True

        self._stop = stop
        if self._stopping.is_set():
            return
        asyncio.run(self._serve(server, streams.end))

    async def _serve(self, server: "object", end_streams: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._end_streams = partial(loop.call_soon_threadsafe, end_streams)
        self._on_ready()
        await server.serve(sockets=[self._socket])  # type: ignore[attr-defined]  # uvicorn.Server


def _remove_leftovers(parent: Path) -> None:
    """Remove the folders of this user's routers that were killed; what cannot go may stay."""
    for folder in parent.glob(f"{_FOLDER_PREFIX}*"):
        match = _FOLDER_NAME.fullmatch(folder.name)
        if match is None or psutil.pid_exists(int(match[1])):
            continue
        with contextlib.suppress(OSError):
            if _is_abandoned(folder):
                (folder / _SOCKET_NAME).unlink(missing_ok=True)
                folder.rmdir()


def _is_abandoned(folder: Path) -> bool:
    """Whether it is a folder of ours behind whose socket nobody listens. Raises OSError.

    A pid does not tell: containers that share their temporary folder have pids of their own.
    """
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return False
    if sys.platform == "win32":
        # There, temporary folders are one user's, and there are no such sockets.
        return True
    else:  # noqa: RET505 - type checkers follow platforms through else only
        return status.st_uid == os.getuid() and _is_deaf(folder / _SOCKET_NAME)


if sys.platform != "win32":

    def _is_deaf(address: Path) -> bool:
        """Tell whether a connection to a socket is refused."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            # A full backlog is an answer too.
            probe.setblocking(False)
            try:
                probe.connect(str(address))
            except ConnectionRefusedError:
                return True
        return False


def _private_socket(folder: Path) -> tuple[socket.socket, str, int]:
    if hasattr(socket, "AF_UNIX"):
        path = str(folder / _SOCKET_NAME)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # The folder is open to this user only.
            listening.bind(path)
            listening.listen()
            return listening, path, 0
        except OSError:
            # Longer than the hundred bytes that such an address may have, or a file system without
            # sockets. The secret holds on loopback too.
            listening.close()
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening, "", listening.getsockname()[1]
