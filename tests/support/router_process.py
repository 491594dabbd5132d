"""A whole router as a process of its own, with nothing of the person's who runs the tests.

    async with launched(folder, config, port=port) as router:
        await router.listening()
        answer = await router.client.get("/v1/models")

At the end it is ended by its pid, and nothing of it may be left: no process, no file, no traceback.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import psutil

from llama_router.catalog.tiny import write_model
from tests.support.ports import HOST

# Long for a healthy machine under load, short for a test that waits in vain.
DEADLINE_S = 60.0

_MARK = "E2E_MARK"


def isolated_environment(folder: Path, temporary: Path) -> dict[str, str]:
    """Give an environment in which every cache, config and state lies in ``folder``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("XDG_", "HF_", "HUGGINGFACE_", "LLAMA_", "OPENAI_"))
    }
    return kept | {
        "HOME": str(folder / "home"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_DATA_HOME": str(folder / "data"),
        "HF_HOME": str(folder / "hf"),
        "TMPDIR": str(temporary),
        # Without a llama-server on it: the tests say which engine there is.
        "PATH": "/usr/bin:/bin",
        _MARK: uuid.uuid4().hex,
    }


def write_config(
    folder: Path,
    *,
    command: list[str] | None = None,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    router: Mapping[str, Any] | None = None,
    **rest: object,
) -> Path:
    """Write a config over ``manual`` models, each with a file of its own unless it says a path.

    Models run alone, unless ``router`` says something else: fakes need next to no memory.
    """
    entries = []
    for name, settings in (models or {}).items():
        entry = {"name": name, "state": "manual", **settings}
        if "path" not in entry:
            file = folder / "models" / f"{name.replace('/', '_')}.gguf"
            file.parent.mkdir(parents=True, exist_ok=True)
            if command is not None:
                file.touch()
            elif not file.exists():
                write_model(file, name, name=name)
            entry["path"] = str(file)
        entries.append(entry)
    settings = {"memory_aware": False, **(router or {})}
    content: dict[str, Any] = {"version": "1.0", "router": settings, "models": entries}
    if command is not None:
        content["default_spawn"] = {"command": command}
    path = folder / "router.json"
    path.write_text(json.dumps(content | rest))
    return path


class RouterProcess:
    """One router's process, and what it has written."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, folder: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.state_dir = folder / "state" / "llama-router"
        self.client = httpx2.AsyncClient(base_url=self.url, timeout=DEADLINE_S, trust_env=False)
        self.out = ""
        self.err = ""
        self._changed = asyncio.Condition()
        self._tasks = [
            asyncio.create_task(self._read(process.stdout, "out"), name="router stdout"),
            asyncio.create_task(self._read(process.stderr, "err"), name="router stderr"),
        ]

    async def listening(self) -> str:
        """Wait for the banner's end; give what stdout says."""
        await self._says(lambda: "listens on" in self.out, "a banner")
        return self.out

    async def says(self, text: str) -> None:
        """Wait until stderr holds a text."""
        await self._says(lambda: text in self.err, repr(text))

    async def prints(self, text: str) -> None:
        """Wait until stdout holds a text."""
        await self._says(lambda: text in self.out, repr(text))

    async def ended(self) -> int:
        """Wait for the end; give the exit status, negative for a signal."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                status = await self.process.wait()
                await asyncio.gather(*self._tasks)
        except TimeoutError:
            raise TimeoutError(f"the router does not end; stderr:\n{self.err}") from None
        return status

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def state_of(self, model: str) -> dict[str, Any]:
        """Give a model's status in GET /v1/models/{id}."""
        answer = await self.client.get(f"/v1/models/{model}")
        status: dict[str, Any] = answer.json()["status"]
        return status

    async def busy_with(self, count: int) -> None:
        """Ask until exactly that many requests wait or are being answered."""
        seen = -1
        try:
            async with asyncio.timeout(DEADLINE_S):
                while seen != count:
                    status = (await self.client.get("/admin/status")).json()
                    seen = status["requests_under_way"]
        except TimeoutError:
            raise TimeoutError(f"{seen} requests under way, not {count}\n{self.err}") from None

    async def becomes(self, model: str, state: str) -> dict[str, Any]:
        """Ask until a model's status has this state (or value, when it has none); give it."""
        status: dict[str, Any] = {}
        try:
            async with asyncio.timeout(DEADLINE_S):
                while status.get("state", status.get("value")) != state:
                    status = await self.state_of(model)
        except TimeoutError:
            raise TimeoutError(f"{model} is {status}, not {state}\n{self.err}") from None
        return status

    async def _says(self, is_there: Any, what: str) -> None:  # noqa: ANN401 - a test's lambda
        try:
            async with asyncio.timeout(DEADLINE_S), self._changed:
                while not is_there():
                    if all(task.done() for task in self._tasks):
                        raise EOFError(f"it ended before {what}\n{self.out}\n{self.err}")
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"waited for {what}\n{self.out}\n{self.err}") from None

    async def _read(self, stream: asyncio.StreamReader | None, name: str) -> None:
        assert stream is not None
        while data := await stream.read(65536):
            setattr(self, name, getattr(self, name) + data.decode("utf-8", "replace"))
            async with self._changed:
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def launched(
    folder: Path,
    config: Path | None = None,
    *arguments: str,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    is_clean: bool = True,
    prelude: str = "",
) -> AsyncIterator[RouterProcess]:
    """Start a router; end it, if it has not ended, and look that nothing of it is left.

    ``is_clean`` false for one that is killed, which cannot remove its own files. ``prelude``:
    Python that is run in it first, to shorten times that are no settings.
    """
    # Short, because a Unix socket's path has to be.
    temporary = Path(tempfile.mkdtemp(prefix="e2e-"))
    environment = isolated_environment(folder, temporary) | dict(env or {})
    command = [sys.executable, "-m", "llama_router"]
    if prelude:
        program = f"{prelude}\nfrom llama_router.cli.main import main\nmain()"
        command = [sys.executable, "-c", program]
    if config is not None:
        command += ["--config", str(config)]
    if port is not None:
        command += ["--port", str(port)]
    process = await asyncio.create_subprocess_exec(
        *(*command, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd=folder,
        start_new_session=True,
    )
    router = RouterProcess(process, port or 0, folder)
    try:
        yield router
    finally:
        await router.client.aclose()
        try:
            if process.returncode is None:
                router.send(signal.SIGTERM)
            try:
                await router.ended()
            except TimeoutError:
                router.send(signal.SIGKILL)
                await router.ended()
                raise
            assert await gone(marked(environment[_MARK])) == set()
            assert "Traceback" not in router.err, router.err
            if is_clean:
                assert _left_in(temporary, router.state_dir) == []
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _left_in(temporary: Path, state_dir: Path) -> list[Path]:
    return [*temporary.glob("llama-router-*"), *state_dir.glob("engines-*")]


def with_engine_ports(first: int) -> str:
    """Give a prelude for a router whose config cannot say which ports its engines get.

    The usual ones may be those of a router beside this one.
    """
    return (
        "import llama_router.runtime.engine_room as room; made = room.PortAllocator\n"
        f"room.PortAllocator = lambda _base_port, host: made({first}, host)"
    )


def process_of(pid: int) -> Any:  # noqa: ANN401 - psutil ships no type information
    """Give psutil's view of a process."""
    return psutil.Process(pid)


def marked(mark: str) -> set[int]:
    """Give the pids of the processes that carry a router's mark in their environment."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == mark:
                found.add(process.pid)
    return found


def marked_like(pid: int) -> set[int]:
    """Give the pids of all processes with the same mark as the process ``pid``."""
    return marked(psutil.Process(pid).environ()[_MARK])


async def gone(pids: set[int], timeout_s: float = DEADLINE_S) -> set[int]:
    """Wait until the processes have ended; give those that have not when the time is over."""
    loop = asyncio.get_running_loop()
    watched: dict[int, asyncio.Event] = {}
    left = set()
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        watched[descriptor] = asyncio.Event()
        loop.add_reader(descriptor, watched[descriptor].set)
        left.add((pid, descriptor))
    try:
        async with asyncio.timeout(timeout_s):
            for event in watched.values():
                await event.wait()
    except TimeoutError:
        pass
    finally:
        for descriptor in watched:
            loop.remove_reader(descriptor)
            os.close(descriptor)
    return {pid for pid, descriptor in left if not watched[descriptor].is_set()}
