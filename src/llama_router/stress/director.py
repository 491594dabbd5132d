"""The hand on the engines: each asks at its start how to behave, and is ended as planned."""

import asyncio
import contextlib
import json
import logging
from collections import Counter
from types import TracebackType
from typing import Any, Self

from llama_router.stress import behaviour
from llama_router.stress.behaviour import Behaviour
from llama_router.stress.books import Books

_log = logging.getLogger(__name__)

_LINE_MAX_BYTES = 1024 * 1024
_EXIT_STATUS = 3
# A thief that keeps a port for longer only makes the next starts take another one.
_THEFT_S = 1.5
_STOLEN = b'{"status":"ok","model":"thief","choices":[{"message":{"content":" stolen"}}]}'
_STOLEN_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_STOLEN), _STOLEN)
)


class Director:
    """A control server for fake engines. ``has_faults`` False: who starts now behaves as ``calm``.

    ``books`` are told of each engine. Engines end with the director, so leaks have to be looked for
    before it is left.
    """

    def __init__(
        self, seed: int, calm: Behaviour = behaviour.HEALTHY, books: Books | None = None
    ) -> None:
        self.has_faults = False
        self.kinds: Counter[str] = Counter()
        # Prompts that reached a stranger on a stolen port.
        self.robbed_count = 0
        self._seed = seed
        self._calm = calm
        self._books = books
        self._starts: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._ends: set[asyncio.Task[None]] = set()

    @property
    def started_count(self) -> int:
        """How many engines were started, without their children."""
        return sum(self._starts.values())

    @property
    def address(self) -> str:
        """Where engines find it, as HOST:PORT."""
        if self._server is None:
            raise RuntimeError("the director is used without `async with`")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    def calm_down(self) -> None:
        """No more faults: planned ends are called off, new starts are healthy."""
        self.has_faults = False
        for task in self._ends:
            task.cancel()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, limit=_LINE_MAX_BYTES
        )
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            await self._accompany(reader, writer)
        except (ConnectionError, ValueError, KeyError) as error:
            # Killed while it spoke.
            _log.debug("an engine's control connection ended: %s", error)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _accompany(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if not line:
            return
        hello = json.loads(line)
        alias, pid, argv = str(hello["alias"]), int(hello["pid"]), hello["argv"]
        with contextlib.ExitStack() as stack:
            if "--be-child" in argv:
                if self._books is not None:
                    stack.enter_context(self._books.child(alias.partition("/")[0], pid))
                # Nothing to say; the connection ends with it.
                await reader.read()
                return
            plan = self._plan(alias)
            if self._books is not None:
                port = int(argv[argv.index("--port") + 1])
                stack.enter_context(self._books.engine(alias, pid, port, plan.kinds))
            _command(writer, "switches", switches=list(plan.switches))
            later: list[asyncio.Task[None]] = []
            stack.callback(lambda: [task.cancel() for task in later])
            while line := await reader.readline():
                self._heard(json.loads(line), plan, argv, writer, later)

    def _plan(self, alias: str) -> Behaviour:
        number = self._starts[alias] = self._starts[alias] + 1
        if not self.has_faults:
            return self._calm
        plan = behaviour.draw(self._seed, alias, number)
        self.kinds.update(plan.kinds)
        return plan

    def _heard(
        self,
        message: dict[str, Any],
        plan: Behaviour,
        argv: list[str],
        writer: asyncio.StreamWriter,
        later: list[asyncio.Task[None]],
    ) -> None:
        match message.get("event"):
            case "gated_bind":
                port = int(argv[argv.index("--port") + 1])
                # Not with the others: a thief stays when its victim is gone.
                self._keep(self._steal(port, writer), "theft")
            case "listening" if plan.ready_after_s is not None:
                later.append(self._keep(_say(writer, plan.ready_after_s, "ready"), "slow load"))
            case "ready" if plan.end and self.has_faults:
                end = self._keep(_say(writer, plan.end_after_s, plan.end), "end")
                self._ends.add(end)
                end.add_done_callback(self._ends.discard)
                later.append(end)
            case _:
                pass

    def _keep(self, work: Any, name: str) -> asyncio.Task[None]:  # noqa: ANN401 - a coroutine
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _steal(self, port: int, writer: asyncio.StreamWriter) -> None:
        """Take an engine's port before it does, and answer there as a healthy server would."""
        try:
            thief = await asyncio.start_server(self._rob, "127.0.0.1", port)
        except OSError:
            _command(writer, "bind")
            return
        async with thief:
            _command(writer, "bind")
            await asyncio.sleep(_THEFT_S)

    async def _rob(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST"):
                self.robbed_count += 1
            writer.write(_STOLEN_ANSWER)
            await writer.drain()
        writer.close()


async def _say(writer: asyncio.StreamWriter, after_s: float, what: str) -> None:
    await asyncio.sleep(after_s)
    _command(writer, what, status=_EXIT_STATUS)


def _command(writer: asyncio.StreamWriter, do: str, **arguments: object) -> None:
    writer.write(json.dumps({"id": 0, "do": do, **arguments}).encode() + b"\n")
