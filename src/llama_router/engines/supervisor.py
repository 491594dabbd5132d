"""Engines as the router sees them: started, loading, ready, ended, gone.

Everything runs on one event loop, and nothing here holds it: processes are started by the host
(:mod:`llama_router.engines.host`), output comes in bounded portions.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from llama_router.core.events import ExitCause
from llama_router.engines import leftovers, pushed, readiness
from llama_router.engines.create_host import create_host
from llama_router.engines.exits import TAIL_LINES, classify
from llama_router.engines.host import EngineHost, HostListener, PortOwner, Stream
from llama_router.engines.launch import LaunchSpec, OwnerCheck, Readiness
from llama_router.engines.lines import LineBuffer, log_text
from llama_router.engines.logs import LogStore
from llama_router.engines.oom_kills import oom_kill_count

# Lines handled in one callback of the loop: a flood must not hold it for more than 2 ms. Bytes are
# limited too (MAX_BYTES_PER_TAKE).
MAX_LINES_PER_CALLBACK = 128

# From the exit line to the end of stdin: an engine that reads neither the line nor signals takes
# its router for dead then, and llama-server exits with status 1.
STDIN_CLOSE_DELAY_S = 0.25

# For engines to be gone after SIGKILL when the supervisor is closed.
CLOSE_TIMEOUT_S = 5.0


class EngineListener(Protocol):
    """Told what becomes of engines. All methods are called on the loop and must not raise.

    Per generation: ``spawn_failed`` alone; or ``spawned``, ``progress``, ``ready``,
    ``address_stolen``, and at last ``exited`` and ``reaped``, once each. What an engine says of
    itself may come before ``spawned``, which takes the way through the guardian.
    """

    def spawned(self, model: str, generation: int) -> None:
        """The process exists."""

    def spawn_failed(self, model: str, generation: int, reason: str) -> None:
        """There is no process; ``reason`` is for people."""

    def progress(self, model: str, generation: int, fraction: float) -> None:
        """Loading has come as far as ``fraction`` (0 to 1), as the engine itself says."""

    def ready(self, model: str, generation: int) -> None:
        """The engine answers, and it is known to be the one that was started."""

    def exited(self, model: str, generation: int, reason: str, cause: ExitCause) -> None:
        """The main process ended; ``reason`` is for people."""

    def reaped(self, model: str, generation: int) -> None:
        """Nothing of the engine's process tree is left."""

    def address_stolen(self, model: str, generation: int) -> None:
        """Somebody else answers on the engine's address; the engine is still to be ended."""

    def output(self, model: str, stream: str, line: str) -> None:
        """The engine wrote a line to "stdout" or "stderr"; it is in the log already."""


class _Engine:
    """One engine between spawn and reap."""

    def __init__(self, spec: LaunchSpec) -> None:
        self.spec = spec
        self.buffers = {stream: LineBuffer() for stream in Stream}
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.fraction = -1.0
        self.is_ready = False
        self.is_asked = False
        self.is_killed = False
        self.is_ending = False
        self.is_reaped = False
        self.oom_kills_before = oom_kill_count()
        self.probe_task: asyncio.Task[None] | None = None
        # The question who owns the port.
        self.owner_task: asyncio.Task[None] | None = None
        # Its stop command, while that runs.
        self.stop: _Engine | None = None
        self.stdin_timer: asyncio.TimerHandle | None = None

    def was_oom_kill(self) -> bool | None:
        """Return whether the kernel has killed anybody for want of memory meanwhile, if known."""
        if self.is_asked or self.is_killed:
            return None  # we know why it ended
        before, now = self.oom_kills_before, oom_kill_count()
        return None if before is None or now is None else now > before


class Supervisor:
    """Carries out spawns and stops, and reports what comes of them.

    ``state_dir``: an existing directory of the router's own, where the record of running engines
    is kept for the case that router and guardian are killed.
    """

    def __init__(
        self,
        listener: EngineListener,
        logs: LogStore,
        state_dir: Path,
        *,
        host_factory: Callable[[HostListener, Path], EngineHost] = create_host,
    ) -> None:
        self._listener = listener
        self._logs = logs
        self._state_dir = state_dir
        self._host = host_factory(self, state_dir)
        self._engines: dict[int, _Engine] = {}
        self._all_reaped = asyncio.Event()
        self._all_reaped.set()

    async def start(self) -> list[str]:
        """End leftovers of an earlier router, then make ready; return what was ended.

        Raises :class:`llama_router.engines.host.HostError` when engines cannot be started at all.
        """
        ended = await asyncio.to_thread(leftovers.clear, self._state_dir)
        await self._host.start()
        return ended

    def spawn(self, spec: LaunchSpec) -> None:
        """Start an engine; ``spawned`` or ``spawn_failed`` follows."""
        self._engines[spec.generation] = _Engine(spec)
        self._all_reaped.clear()
        self._host.spawn(spec, hold_stdin=spec.readiness is Readiness.PUSHED)

    def terminate(self, generation: int) -> None:
        """Ask an engine to end in its own way."""
        engine = self._engines.get(generation)
        if engine is None or engine.is_asked:
            return
        engine.is_asked = True
        if engine.spec.stop_argv:
            # Before it is known that there is a process, there is no pid to be told.
            self._run_stop_command(engine)
            return
        if engine.spec.readiness is Readiness.PUSHED:
            # llama-server reads the line once it is loaded, and until then dies of SIGTERM; when
            # loaded, SIGTERM alone would leave it waiting for the end of its stdin.
            self._host.send(generation, pushed.EXIT_LINE)
            engine.stdin_timer = asyncio.get_running_loop().call_later(
                STDIN_CLOSE_DELAY_S, self._host.close_stdin, generation
            )
        self._host.terminate(generation)

    def kill(self, generation: int) -> None:
        """End an engine's whole process tree now."""
        if engine := self._engines.get(generation):
            engine.is_killed = True
            self._host.kill(generation)
            if engine.stop is not None:
                self._host.kill(-generation)

    def pid(self, generation: int) -> int | None:
        """Return the pid of an engine's main process; None when there is none (any more)."""
        return self._host.pid(generation)

    async def close(self) -> None:
        """Kill what still runs, await its end, and end the host. Idempotent."""
        for generation in list(self._engines):
            self.kill(generation)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._all_reaped.wait()
        for engine in self._engines.values():
            _stop_waiting(engine)
        await self._host.close()

    def on_spawned(self, generation: int) -> None:
        """See HostListener."""
        if generation < 0:
            return
        engine = self._engines[generation]
        self._listener.spawned(engine.spec.model, generation)
        if engine.is_asked and engine.spec.stop_argv:
            self._run_stop_command(engine)
        # Those that should push are probed too until they do: not every build can.
        engine.probe_task = self._task(self._probe(engine), engine, "probe")

    def on_spawn_failed(self, generation: int, reason: str) -> None:
        """See HostListener."""
        if generation < 0:
            self._end_stop_command(self._engines[-generation], reason)
            return
        engine = self._forget(generation)
        self._logs.append(engine.spec.model, reason)
        self._listener.spawn_failed(engine.spec.model, generation, reason)

    def on_output(self, generation: int, stream: Stream, data: bytes) -> None:
        """See HostListener."""
        if engine := self._source_of(generation):
            engine.buffers[stream].feed(data)
            if self._handle_lines(engine, stream):
                self._host.pause_output(generation, stream)
                asyncio.get_running_loop().call_soon(self._handle_rest, engine, stream)

    def on_exited(self, generation: int, returncode: int | None) -> None:
        """See HostListener."""
        if generation < 0:
            self._stop_command_exited(self._engines[-generation], returncode)
            return
        engine = self._engines[generation]
        _stop_waiting(engine)
        engine.is_ending = True
        for stream, buffer in engine.buffers.items():
            if rest := buffer.flush():
                self._handle_line(engine, stream, rest)
        if engine.is_ready or engine.is_asked or engine.is_killed or returncode is None:
            self._report_exit(engine, returncode, is_address_foreign=False)
        else:
            engine.owner_task = self._task(self._look_at_port(engine, returncode), engine, "owner")

    def on_reaped(self, generation: int) -> None:
        """See HostListener."""
        if generation < 0:
            self._end_stop_command(self._engines[-generation])
            return
        engine = self._engines[generation]
        engine.is_reaped = True
        self._report_reaped(engine)

    # --- stop commands: the host knows each as an engine with the number of its own, negative

    def _run_stop_command(self, engine: _Engine) -> None:
        spec = engine.spec
        pid = self._host.pid(spec.generation)
        if pid is None or engine.is_killed or engine.stop is not None:
            return
        argv = tuple(str(pid).join(parts) for parts in spec.stop_argv)
        engine.stop = _Engine(
            msgspec.structs.replace(
                spec, generation=-spec.generation, argv=argv, readiness=Readiness.PROBED
            )
        )
        self._host.spawn(engine.stop.spec, hold_stdin=False)

    def _stop_command_exited(self, engine: _Engine, returncode: int | None) -> None:
        stop = engine.stop
        if stop is None:
            return
        for stream, buffer in stop.buffers.items():
            if rest := buffer.flush():
                self._handle_line(stop, stream, rest)
        if returncode and not engine.is_killed:
            self._fall_back(engine, f"its stop command ended with status {returncode}")

    def _end_stop_command(self, engine: _Engine, failure: str = "") -> None:
        """Nothing is left of it, or it could not be started: ``failure`` says why."""
        engine.stop = None
        if failure:
            self._fall_back(engine, f"its stop command failed: {failure}")
        if engine.is_reaped:
            self._report_reaped(engine)

    def _fall_back(self, engine: _Engine, reason: str) -> None:
        if self._host.pid(engine.spec.generation) is None:
            self._logs.append(engine.spec.model, reason)
            return
        self._logs.append(engine.spec.model, f"{reason}; it is sent a signal instead")
        self._host.terminate(engine.spec.generation)

    def _source_of(self, generation: int) -> _Engine | None:
        """Return whose output it is: an engine's, or its stop command's."""
        engine = self._engines.get(abs(generation))
        return engine.stop if engine is not None and generation < 0 else engine

    def _handle_lines(self, engine: _Engine, stream: Stream) -> bool:
        """Handle a portion of the lines that have come; return whether there may be more."""
        buffer = engine.buffers[stream]
        for line in buffer.take(MAX_LINES_PER_CALLBACK):
            self._handle_line(engine, stream, line)
        return buffer.is_behind

    def _handle_rest(self, engine: _Engine, stream: Stream) -> None:
        if self._handle_lines(engine, stream):
            asyncio.get_running_loop().call_soon(self._handle_rest, engine, stream)
        else:
            self._host.resume_output(engine.spec.generation, stream)

    def _handle_line(self, engine: _Engine, stream: Stream, line: bytes) -> None:
        if stream is Stream.STDOUT and engine.spec.readiness is Readiness.PUSHED:
            report = pushed.parse(line)
            if report is not None:
                self._handle_report(engine, report)
                return
        text = log_text(line)
        if text and not text.isspace():
            engine.tail.append(text)
            self._logs.append(engine.spec.model, text)
            self._listener.output(engine.spec.model, stream.value, text)

    def _handle_report(self, engine: _Engine, report: pushed.Report) -> None:
        if engine.is_ready or engine.is_ending or engine.is_asked or engine.is_killed:
            return
        if engine.probe_task is not None and not isinstance(report, pushed.Other):
            engine.probe_task.cancel()
            engine.probe_task = None
        if isinstance(report, pushed.Loading):
            if report.fraction is not None and report.fraction > engine.fraction:
                engine.fraction = report.fraction
                self._listener.progress(engine.spec.model, engine.spec.generation, report.fraction)
        elif isinstance(report, pushed.Ready) and engine.owner_task is None:
            engine.owner_task = self._task(self._confirm_pushed(engine), engine, "owner")

    async def _probe(self, engine: _Engine) -> None:
        """Ask until the engine is ready, or somebody else turns out to answer in its place."""
        spec = engine.spec
        delay_s = readiness.FIRST_DELAY_S
        while True:
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * readiness.DELAY_FACTOR, readiness.LAST_DELAY_S)
            if not await readiness.is_healthy(spec.host, spec.port, spec.health_path):
                continue
            owner = await self._owner(spec)
            if owner is not PortOwner.NONE:
                self._settle_owner(engine, owner)
                return

    async def _confirm_pushed(self, engine: _Engine) -> None:
        """Believe the engine itself, unless somebody else shares its port (SO_REUSEPORT)."""
        self._settle_owner(engine, await self._owner(engine.spec))

    async def _owner(self, spec: LaunchSpec) -> PortOwner:
        if spec.owner_check is OwnerCheck.PORT or spec.is_address_given:
            return PortOwner.OURS
        return await self._host.owner(spec.generation, spec.host, spec.port)

    def _settle_owner(self, engine: _Engine, owner: PortOwner) -> None:
        spec = engine.spec
        if engine.is_asked or engine.is_killed:
            return
        if owner is PortOwner.FOREIGN:
            self._listener.address_stolen(spec.model, spec.generation)
        else:
            engine.is_ready = True
            self._listener.ready(spec.model, spec.generation)

    async def _look_at_port(self, engine: _Engine, returncode: int | None) -> None:
        """Find out whether a failed start came from somebody else on the port."""
        spec = engine.spec
        if spec.is_address_given:
            self._report_exit(engine, returncode, is_address_foreign=False)
            return
        owner = await self._host.owner(spec.generation, spec.host, spec.port)
        self._report_exit(engine, returncode, is_address_foreign=owner is PortOwner.FOREIGN)

    def _report_exit(
        self, engine: _Engine, returncode: int | None, *, is_address_foreign: bool
    ) -> None:
        reason, cause = classify(
            returncode,
            engine.tail,
            is_asked=engine.is_asked,
            is_killed=engine.is_killed,
            is_starting=not engine.is_ready,
            is_address_foreign=is_address_foreign,
            was_oom_kill=engine.was_oom_kill(),
        )
        engine.is_ending = False
        self._listener.exited(engine.spec.model, engine.spec.generation, reason, cause)
        if engine.is_reaped:
            self._report_reaped(engine)

    def _report_reaped(self, engine: _Engine) -> None:
        # A stop command may have something left to clear away, such as a container: until then
        # another start might meet it.
        if engine.is_ending or engine.stop is not None:
            return
        self._forget(engine.spec.generation)
        self._listener.reaped(engine.spec.model, engine.spec.generation)

    def _forget(self, generation: int) -> _Engine:
        engine = self._engines.pop(generation)
        if not self._engines:
            self._all_reaped.set()
        return engine

    def _task(
        self, coroutine: "asyncio._CoroutineLike[None]", engine: _Engine, purpose: str
    ) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(
            coroutine, name=f"{purpose}-{engine.spec.model}-{engine.spec.generation}"
        )


def _stop_waiting(engine: _Engine) -> None:
    for task in (engine.probe_task, engine.owner_task):
        if task is not None:
            task.cancel()
    engine.probe_task = engine.owner_task = None
    if engine.stdin_timer is not None:
        engine.stdin_timer.cancel()
        engine.stdin_timer = None
