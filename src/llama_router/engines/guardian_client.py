"""The router's side of the guardian: the :class:`EngineHost` of POSIX systems.

One :class:`_Guardian` is the life of one guardian process; :class:`GuardianClient` starts the next
one if it should ever end.
"""

import array
import asyncio
import contextlib
import errno
import os
import secrets
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from llama_router.engines import leftovers, wire
from llama_router.engines.environment import engine_environment
from llama_router.engines.host import HostError, HostListener, PortOwner, Stream
from llama_router.engines.launch import LaunchSpec
from llama_router.engines.pipes import InputPipe, OutputPump
from llama_router.engines.record import record_path

# Tells type checkers on other platforms to skip what follows.
assert sys.platform != "win32"  # noqa: S101

# A Python start takes 20 ms; a machine deep in swap may need seconds.
START_TIMEOUT_S = 10.0
# The guardian itself gives up after 2 s on engines that cannot be killed.
STOP_TIMEOUT_S = 4.0

_RECEIVE_BYTES = 64 * 1024
_GUARDIAN_PROGRAM = Path(__file__).with_name("guardian.py")


class _Engine:
    """One engine as the router holds it: its pipes, and how much of its end has been told."""

    def __init__(self, stdin: InputPipe | None) -> None:
        self.stdin = stdin
        self.pumps: dict[Stream, OutputPump] = {}
        self.pid: int | None = None
        # From here on its pid may be anybody's.
        self.has_ended = False
        self.is_exit_told = False
        self.is_reaped = False

    def close(self) -> None:
        if self.stdin is not None:
            self.stdin.close()
        for pump in self.pumps.values():
            pump.close()

    def drain(self, then: Callable[[], None]) -> None:
        """Call ``then`` when both pipes have been drained."""
        waiting = set(self.pumps)

        def drained(stream: Stream) -> None:
            waiting.discard(stream)
            if not waiting:
                then()

        for stream, pump in self.pumps.items():
            pump.drain(partial(drained, stream))


class GuardianClient:
    """See :class:`llama_router.engines.host.EngineHost`."""

    def __init__(self, listener: HostListener, state_dir: Path) -> None:
        self._listener = listener
        self._state_dir = state_dir
        self._guardian: _Guardian | None = None
        self._ending: set[_Guardian] = set()
        self._is_closed = False

    @property
    def guardian_pid(self) -> int | None:
        """The guardian's pid, while there is one."""
        return self._guardian.pid if self._guardian else None

    async def start(self) -> None:
        """Start the guardian. Raises :class:`HostError`."""
        guardian = self._open()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await guardian.hello
        except (TimeoutError, ConnectionError) as error:
            await guardian.close()
            raise HostError(
                "the guardian process of the engines did not start "
                f"({guardian.failure or type(error).__name__}); "
                f"see its message above, if any, and try: {sys.executable} -I -S -c pass"
            ) from error

    def spawn(self, spec: LaunchSpec, *, hold_stdin: bool) -> None:
        """Ask the guardian for the process; one that was lost is replaced meanwhile."""
        try:
            guardian = self._guardian or self._open()
            guardian.spawn(spec, hold_stdin=hold_stdin)
        except (OSError, ValueError) as error:
            asyncio.get_running_loop().call_soon(
                self._listener.on_spawn_failed,
                spec.generation,
                f"cannot start {spec.argv[0]}: {error}",
            )

    def send(self, generation: int, data: bytes) -> None:
        """Write to the engine's held stdin."""
        if (engine := self._engine(generation)) and engine.stdin:
            engine.stdin.write(data)

    def close_stdin(self, generation: int) -> None:
        """Close the engine's held stdin."""
        if (engine := self._engine(generation)) and engine.stdin:
            engine.stdin.close()

    def terminate(self, generation: int) -> None:
        """Have SIGTERM sent to the process group."""
        if self._engine(generation) and self._guardian:
            self._guardian.request({"request": "terminate", "generation": generation})

    def kill(self, generation: int) -> None:
        """Have SIGKILL sent to the process tree."""
        if self._engine(generation) and self._guardian:
            self._guardian.request({"request": "kill", "generation": generation})

    def pause_output(self, generation: int, stream: Stream) -> None:
        """Stop reading one pipe."""
        if engine := self._engine(generation):
            engine.pumps[stream].pause()

    def resume_output(self, generation: int, stream: Stream) -> None:
        """Go on reading one pipe."""
        if engine := self._engine(generation):
            engine.pumps[stream].resume()

    def pid(self, generation: int) -> int | None:
        """Return what the guardian said when it had started the process, until it has ended."""
        engine = self._engine(generation)
        return engine.pid if engine is not None and not engine.has_ended else None

    async def owner(self, generation: int, host: str, port: int) -> PortOwner:
        """Ask the guardian, which knows the tree; nobody, when there is no guardian."""
        if self._guardian is None:
            return PortOwner.NONE
        return await self._guardian.owner(generation, host, port)

    async def close(self) -> None:
        """Let the guardian end everything, and wait for its own end."""
        self._is_closed = True
        if self._guardian is not None:
            self._ending.add(self._guardian)
            self._guardian = None
        for guardian in list(self._ending):
            await guardian.close()

    def _open(self) -> "_Guardian":
        if self._is_closed:
            raise OSError(errno.ESHUTDOWN, "the router is stopping")
        self._guardian = _Guardian(self._listener, self._state_dir, self._lost)
        return self._guardian

    def _lost(self, guardian: "_Guardian") -> None:
        if self._guardian is guardian:
            self._guardian = None
        self._ending.add(guardian)
        guardian.bury(then=lambda: self._ending.discard(guardian))

    def _engine(self, generation: int) -> _Engine | None:
        if self._guardian is not None:
            return self._guardian.engines.get(generation)
        return None


class _Guardian:
    """One guardian process and the connection to it."""

    def __init__(
        self, listener: HostListener, state_dir: Path, lost: Callable[["_Guardian"], None]
    ) -> None:
        self.engines: dict[int, _Engine] = {}
        self._listener = listener
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self.hello: asyncio.Future[None] = self._loop.create_future()
        # Nobody may wait for it; an exception in it is then nobody's fault.
        self.hello.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._questions: dict[int, asyncio.Future[PortOwner]] = {}
        self._last_question = 0
        self._decoder = wire.Decoder()
        self._unsent: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._is_connected = True
        self._burial: asyncio.Task[None] | None = None
        # Why there is no process, if the system would not start one.
        self.failure = ""
        cookie = secrets.token_hex(8)
        self._record_path = record_path(state_dir, cookie)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._process: subprocess.Popen[bytes] | None = None
        # What is sent before the process is there waits in the socket.
        self._start = self._loop.create_task(
            self._start_process(theirs, cookie, state_dir), name="guardian-start"
        )
        self._loop.add_reader(self._socket, self._receive)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def _start_process(self, theirs: socket.socket, cookie: str, state_dir: Path) -> None:
        def popen() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [
                    sys.executable, "-I", "-S", str(_GUARDIAN_PROGRAM),
                    str(theirs.fileno()), str(os.getpid()), cookie, str(state_dir),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=engine_environment(os.environ, {}),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )  # fmt: skip

        # Without a process, closing this end is the end of the connection, as any guardian's end.
        with theirs:
            try:
                self._process = await self._loop.run_in_executor(None, popen)
            except OSError as error:
                self.failure = str(error)

    def spawn(self, spec: LaunchSpec, *, hold_stdin: bool) -> None:
        """Make the pipes and send the request. Raises OSError when no descriptors are left."""
        with contextlib.ExitStack() as on_failure:
            if hold_stdin:
                theirs_in, ours_in = _pipe(on_failure)
            else:
                theirs_in, ours_in = os.open(os.devnull, os.O_RDONLY), None
                on_failure.callback(os.close, theirs_in)
            ours_out, theirs_out = _pipe(on_failure)
            ours_err, theirs_err = _pipe(on_failure)
            message = wire.encode(
                {
                    "request": "spawn",
                    "generation": spec.generation,
                    "model": _printable(spec.model),
                    "argv": [wire.text_of(os.fsencode(argument)) for argument in spec.argv],
                    "env": {
                        wire.text_of(os.fsencode(name)): wire.text_of(os.fsencode(value))
                        for name, value in spec.env.items()
                    },
                }
            )
            on_failure.pop_all()
        for fd in (ours_in, ours_out, ours_err):
            if fd is not None:
                os.set_blocking(fd, False)
        engine = _Engine(InputPipe(ours_in) if ours_in is not None else None)
        for stream, fd in ((Stream.STDOUT, ours_out), (Stream.STDERR, ours_err)):
            engine.pumps[stream] = OutputPump(
                self._loop,
                fd,
                partial(self._listener.on_output, spec.generation, stream),
            )
        self.engines[spec.generation] = engine
        self._queue(message, (theirs_in, theirs_out, theirs_err))

    def request(self, message: wire.Message) -> None:
        self._queue(wire.encode(message), ())

    async def owner(self, generation: int, host: str, port: int) -> PortOwner:
        if not self._is_connected:
            return PortOwner.NONE
        self._last_question += 1
        question = self._last_question
        answer = self._questions[question] = self._loop.create_future()
        self.request(
            {
                "request": "owner",
                "generation": generation,
                "question": question,
                "host": host,
                "port": port,
            }
        )
        try:
            owner: PortOwner = await answer
            return owner
        finally:
            self._questions.pop(question, None)

    async def close(self) -> None:
        """End the guardian with all that it runs. Idempotent."""
        self._disconnect()
        await self._start
        if self._burial is not None:
            await self._burial
        else:
            await self._loop.run_in_executor(None, self._wait)
        for engine in self.engines.values():
            engine.close()
        self.engines.clear()

    def bury(self, then: Callable[[], None]) -> None:
        """Report the engines of a guardian that has ended by itself, when they are surely gone."""
        self._burial = self._loop.create_task(self._bury(then), name="guardian-lost")

    async def _bury(self, then: Callable[[], None]) -> None:
        await self._start
        await self._loop.run_in_executor(None, self._clear)
        for generation, engine in list(self.engines.items()):
            if engine.pid is None:
                self._fail(
                    generation,
                    f"the guardian process of the engines did not start: {self.failure}"
                    if self.failure
                    else "the guardian process of the engines ended",
                )
                continue
            if not engine.is_exit_told:
                engine.is_exit_told = True
                self._listener.on_exited(generation, None)
            engine.close()
            self._listener.on_reaped(generation)
        self.engines.clear()
        then()

    def _clear(self) -> None:
        self._wait()
        leftovers.clear_record(self._record_path)

    def _wait(self) -> None:
        process = self._process
        if process is None:
            return
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            leftovers.clear_record(self._record_path)

    def _queue(self, data: bytes, fds: tuple[int, ...]) -> None:
        if not self._is_connected:
            _close_all(fds)
            return
        self._unsent.append((data, fds))
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            data, fds = self._unsent[0]
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            try:
                sent = self._socket.sendmsg([data], ancillary if fds else [])
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._socket, self._flush)
                return
            except OSError:
                # The reader finds the end of the connection too, and reports it.
                return
            _close_all(fds)
            if sent < len(data):
                self._unsent[0] = (data[sent:], ())
            else:
                self._unsent.popleft()
        self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
            events = self._decoder.feed(data)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, wire.WireError):
            data, events = b"", []
        if not data:
            self._disconnect()
            self._lost(self)
            return
        for event in events:
            self._handle(event)

    def _handle(self, event: wire.Message) -> None:
        kind = event["event"]
        if kind == "hello":
            self.hello.set_result(None)
            return
        if kind == "owner":
            future = self._questions.pop(event["question"], None)
            # Whoever asked may have been cancelled a moment ago.
            if future is not None and not future.done():
                future.set_result(PortOwner(event["owner"]))
            return
        generation = event["generation"]
        engine = self.engines[generation]
        if kind == "spawned":
            engine.pid = event["pid"]
            self._listener.on_spawned(generation)
        elif kind == "failed":
            self._fail(generation, event["reason"])
        elif kind == "exited":
            engine.has_ended = True
            engine.drain(lambda: self._tell_exit(generation, engine, event["returncode"]))
        elif kind == "reaped":
            engine.is_reaped = True
            self._tell_reaped(generation, engine)

    def _tell_exit(self, generation: int, engine: _Engine, returncode: int) -> None:
        if engine.is_exit_told:
            return
        engine.is_exit_told = True
        self._listener.on_exited(generation, returncode)
        self._tell_reaped(generation, engine)

    def _tell_reaped(self, generation: int, engine: _Engine) -> None:
        if engine.is_reaped and engine.is_exit_told and generation in self.engines:
            engine.close()
            del self.engines[generation]
            self._listener.on_reaped(generation)

    def _fail(self, generation: int, reason: str) -> None:
        self.engines.pop(generation).close()
        self._listener.on_spawn_failed(generation, reason)

    def _disconnect(self) -> None:
        if not self._is_connected:
            return
        self._is_connected = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, fds in self._unsent:
            _close_all(fds)
        self._unsent.clear()
        for answer in self._questions.values():
            if not answer.done():
                answer.set_result(PortOwner.NONE)
        if not self.hello.done():
            self.hello.set_exception(ConnectionError("it ended at once"))


def _pipe(on_failure: contextlib.ExitStack) -> tuple[int, int]:
    reader, writer = os.pipe()
    on_failure.callback(os.close, reader)
    on_failure.callback(os.close, writer)
    return reader, writer


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def _printable(model: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in model)
