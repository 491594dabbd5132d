"""Running one engine from its LaunchSpec, and an HTTP client that hides nothing."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from llama_router.engines.launch import LaunchSpec

# Long for a healthy machine under load, short for a test that waits in vain.
DEADLINE_S = 60.0

_STATE_PREFIX = "cmd_child_to_router:state:"
_EXIT_LINE = b"cmd_router_to_child:exit\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - any JSON
        return json.loads(self.body)

    def events(self) -> list[str]:
        """Split a body of server-sent events; fails for anything that is not "data: " + text."""
        *events, rest = self.body.decode().split("\n\n")
        assert rest == "", f"the last event does not end: {rest!r}"
        assert all(event.startswith("data: ") for event in events), events
        return [event.removeprefix("data: ") for event in events]


class Client:
    """One connection to an engine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, method: str, path: str, body: object = None, *, fields: str = "") -> None:
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        head = f"{method} {path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
        head += fields
        self._writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        await self._writer.drain()

    async def read_head(self) -> tuple[int, dict[str, str]]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        version, status, *_ = first.split(" ")
        assert version == "HTTP/1.1"
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            assert name.lower() not in headers, f"{name} is there twice"
            headers[name.lower()] = value.strip()
        return int(status), headers

    async def read_chunk(self) -> bytes:
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        data = await self._reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def request(self, method: str, path: str, body: object = None) -> Answer:
        async with asyncio.timeout(DEADLINE_S):
            await self.send(method, path, body)
            status, headers = await self.read_head()
            if method == "HEAD":
                return Answer(status, headers, b"")
            if headers.get("transfer-encoding") != "chunked":
                length = int(headers["content-length"])
                return Answer(status, headers, await self._reader.readexactly(length))
            whole = b""
            while chunk := await self.read_chunk():
                whole += chunk
            return Answer(status, headers, whole)

    async def is_closed(self) -> bool:
        """Tell whether the engine has closed; waits for it."""
        async with asyncio.timeout(DEADLINE_S):
            return await self._reader.read(1) == b""

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


class RunningEngine:
    """One engine's process, with the ends of its pipes."""

    def __init__(self, spec: LaunchSpec, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self.process = process
        self.lines: list[str] = []
        self.log = b""
        assert process.stderr is not None
        self._log_task = asyncio.create_task(self._read_log(process.stderr), name="engine log")

    async def states(self, until: str) -> list[dict[str, Any]]:
        """Read stdout, which carries nothing but state lines, up to a state; give all so far."""
        async with asyncio.timeout(DEADLINE_S):
            while not (self.lines and self._states()[-1]["state"] == until):
                assert self.process.stdout is not None
                line = (await self.process.stdout.readline()).decode()
                assert line, f"the engine ended before {until}:\n{self.log.decode()}"
                self.lines.append(line.rstrip("\n"))
        return self._states()

    async def rest_of_stdout(self) -> bytes:
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.stdout.read()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection(self.spec.host, self.spec.port)
        client = Client(reader, writer)
        try:
            yield client
        finally:
            await client.close()

    async def request(self, method: str, path: str, body: object = None) -> Answer:
        async with self.client() as client:
            return await client.request(method, path, body)

    async def say_exit(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(_EXIT_LINE)
        await self.process.stdin.drain()

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def terminate(self) -> None:
        """Send SIGTERM if it is still there.

        Not by the process object: that would look for its end first, and take it away from the
        watcher which then reports 255.
        """
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGTERM)

    async def ended(self) -> int:
        """Wait for the end; gives the exit status, negative for a signal."""
        async with asyncio.timeout(DEADLINE_S):
            status = await self.process.wait()
            await self._log_task
        return status

    def _states(self) -> list[dict[str, Any]]:
        assert all(line.startswith(_STATE_PREFIX) for line in self.lines), self.lines
        return [json.loads(line.removeprefix(_STATE_PREFIX)) for line in self.lines]

    async def _read_log(self, stderr: asyncio.StreamReader) -> None:
        while chunk := await stderr.read(65536):
            self.log += chunk


@contextlib.asynccontextmanager
async def running(spec: LaunchSpec) -> AsyncIterator[RunningEngine]:
    """Run an engine as the router does; kills it at the end."""
    process = await asyncio.create_subprocess_exec(
        *spec.argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(spec.env),
        start_new_session=os.name == "posix",
    )
    engine = RunningEngine(spec, process)
    try:
        yield engine
    finally:
        if process.returncode is None:
            process.kill()
        engine.close_stdin()
        await engine.rest_of_stdout()
        await engine.ended()
