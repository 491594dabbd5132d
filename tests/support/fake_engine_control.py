"""The test's hand on fake engines: says when they load, speak and die, and hears what they do.

    async with FakeEngines() as engines:
        command = engines.command("--gate-load")        # for the router's config
        ...
        engine = await engines.started("alpha")         # the router has started it
        await engine.progress(0.43)
        await engine.ready()

Nothing here polls or sleeps; every wait has a deadline and names what it waited for.
"""

import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llama_router.stress import fake_engine

SCRIPT = Path(fake_engine.__file__).with_name("__main__.py")

# Long for a healthy machine under load, short for a test that waits in vain.
DEADLINE_S = 45.0

# A state answer holds a request's head and the start of its body.
_MAX_LINE_BYTES = 4 * 1024 * 1024


class FakeEngine:
    """One running fake engine. Its methods raise TimeoutError after DEADLINE_S."""

    def __init__(self, hello: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.alias: str = hello["alias"]
        self.pid: int = hello["pid"]
        self.argv: list[str] = hello["argv"]
        self.events: list[dict[str, Any]] = []
        self._writer = writer
        self._ids = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._changed = asyncio.Condition()
        self._gone = False

    async def progress(self, fraction: float) -> None:
        """Report loading progress (0 to 1), if it speaks the push protocol."""
        await self._do("progress", fraction=fraction)

    async def ready(self) -> None:
        """End a gated load, and wait until it answers as loaded."""
        await self._do("ready")
        await self.event("ready")

    async def switches(self, *switches: str) -> None:
        """Tell an engine with --ask what holds for this start."""
        await self._do("switches", switches=switches)

    async def bind(self) -> None:
        """Let an engine with --gate-bind bind its port now."""
        await self._do("bind")

    async def exit(self, status: int) -> None:
        """End it with an exit status; returns when it is gone."""
        await self._die("exit", status=status)

    async def crash(self) -> None:
        """End it as by a bug (SIGSEGV); returns when it is gone."""
        await self._die("crash")

    async def kill(self) -> None:
        """End it as the kernel does when memory is out (SIGKILL); returns when it is gone."""
        await self._die("kill")

    async def next_token(
        self, text: str | None = None, *, count: int = 1, stream: int | None = None
    ) -> None:
        """Let gated streams say a token: ``stream``, or all; with none open, the next one."""
        await self._do("token", text=text, count=count, stream=stream)

    async def finish(self, *, stream: int | None = None) -> None:
        """End gated streams properly."""
        await self._do("finish", stream=stream)

    async def cut(
        self, where: str = "event", how: str = "kill", *, stream: int | None = None
    ) -> None:
        """End gated streams badly.

        ``where``: after an "event", in a "half_event", "mid_chunk". ``how``: "kill" (the process
        dies), "close" or "reset" (only the connection). With "kill" returns when it is gone.
        """
        if how == "kill":
            await self._die("cut", where=where, how=how, stream=stream)
        else:
            await self._do("cut", where=where, how=how, stream=stream)

    async def fault(self, name: str, times: int = 1) -> None:
        """Let the next ``times`` inference requests meet a fault (stress/fake_engine/faults.py)."""
        await self._do("fault", fault=f"{name}:{times}")

    async def say(self, output: bytes, *, stderr: bool = False) -> None:
        """Write to its stdout or stderr."""
        await self._do("say", hex=output.hex(), stderr=stderr)

    async def state(self) -> dict[str, Any]:
        """Give what GET /fake/state answers: requests seen, active streams, the last request …"""
        state: dict[str, Any] = (await self._do("state"))["state"]
        return state

    async def event(self, name: str, **facts: object) -> dict[str, Any]:
        """Wait for the next event of this name (and with these facts) that was not waited for yet.

        Events: listening, gated_bind, ready, request, stream_started, stream_ended (``how``:
        done or client_left), exit_line, stdin_end, term.
        """

        def matches(event: dict[str, Any]) -> bool:
            return event["event"] == name and all(event[key] == facts[key] for key in facts)

        waited_for = f"event {name} {facts} of {self}, which said {self.events}"
        async with _deadline(waited_for), self._changed:
            while True:
                for event in self.events:
                    if matches(event) and not event.get("waited_for"):
                        event["waited_for"] = True
                        return event
                if self._gone:
                    raise EOFError(f"{self} ended before event {name}; it said {self.events}")
                await self._changed.wait()

    async def gone(self) -> None:
        """Wait until its process has ended."""
        async with _deadline(f"the end of {self}"), self._changed:
            await self._changed.wait_for(lambda: self._gone)

    async def _die(self, do: str, **arguments: object) -> None:
        self._write(next(self._ids), do, arguments)
        await self.gone()

    async def _do(self, do: str, **arguments: object) -> dict[str, Any]:
        number = next(self._ids)
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._replies[number] = reply
        self._write(number, do, arguments)
        async with _deadline(f"the reply of {self} to {do}"):
            answer = await reply
        if "error" in answer:
            raise RuntimeError(f"{self}: {do}: {answer['error']}")
        return answer

    def _write(self, number: int, do: str, arguments: dict[str, object]) -> None:
        message = {"id": number, "do": do, **arguments}
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _heard(self, message: dict[str, Any]) -> None:
        if "reply" in message:
            # None for commands that end it, whose reply may or may not come.
            if (reply := self._replies.pop(message["reply"], None)) is not None:
                reply.set_result(message)
            return
        async with self._changed:
            self.events.append(message)
            self._changed.notify_all()

    async def _ended(self) -> None:
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(EOFError(f"{self} ended"))
        async with self._changed:
            self._gone = True
            self._changed.notify_all()

    def __repr__(self) -> str:
        return f"<fake engine {self.alias} pid {self.pid}>"


class FakeEngines:
    """The controller that fake engines connect to when they start; with it they end."""

    def __init__(self) -> None:
        self.engines: list[FakeEngine] = []
        self._unclaimed: list[FakeEngine] = []
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._readers: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        if self._server is None:
            raise RuntimeError("FakeEngines is used without `async with`")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    def command(self, *flags: str) -> list[str]:
        """Give a command for the router's config, with its placeholders."""
        return [
            *(sys.executable, "-I", "-S", "-E", str(SCRIPT), "--model", "$path"),
            *("--alias", "$model", "--host", "$host", "--port", "$port"),
            *("--control", self.address, *flags),
        ]

    def install(self, directory: Path, *flags: str) -> Path:
        """Make a program named llama-server that is a fake engine, so that it is taken for one.

        Its alias is the model's file name. POSIX only.
        """
        words = [sys.executable, "-I", "-S", "-E", str(SCRIPT), "--control", self.address, *flags]
        quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
        program = directory / "llama-server"
        program.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
        program.chmod(0o755)
        return program

    async def started(self, alias: str | None = None) -> FakeEngine:
        """Wait for an engine (of this alias) that was not handed out before."""

        def find() -> FakeEngine | None:
            return next((e for e in self._unclaimed if alias in (None, e.alias)), None)

        waited_for = f"a start of {alias or 'any engine'}; started: {self.engines}"
        async with _deadline(waited_for), self._changed:
            while (engine := find()) is None:
                await self._changed.wait()
        self._unclaimed.remove(engine)
        return engine

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, limit=_MAX_LINE_BYTES
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every engine, and wait until all are gone."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            if writer.can_write_eof():
                writer.write_eof()
        for engine in self.engines:
            await engine.gone()
        await asyncio.gather(*self._readers)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._readers.add(task)
            task.add_done_callback(self._readers.discard)
        self._writers.add(writer)
        engine: FakeEngine | None = None
        try:
            engine = FakeEngine(json.loads(await reader.readline()), writer)
            self.engines.append(engine)
            async with self._changed:
                self._unclaimed.append(engine)
                self._changed.notify_all()
            while line := await reader.readline():
                await engine._heard(json.loads(line))
        except (ConnectionError, ValueError):
            # Killed while it spoke: its end is told below.
            pass
        finally:
            if engine is not None:
                await engine._ended()
            self._writers.discard(writer)
            writer.close()


@asynccontextmanager
async def _deadline(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield
    except TimeoutError:
        raise TimeoutError(f"waited {DEADLINE_S} s for {what}") from None


@asynccontextmanager
async def foreign_server(engines: FakeEngines, port: int) -> AsyncIterator[FakeEngine]:
    """Run a healthy server on ``port`` that is nobody's engine: a thief of ports."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-E", str(SCRIPT), "--alias", f"foreign-{port}"),
        *("--port", str(port), "--control", engines.address),
        start_new_session=os.name == "posix",
    )
    try:
        engine = await engines.started(f"foreign-{port}")
        await engine.event("ready")
        yield engine
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
