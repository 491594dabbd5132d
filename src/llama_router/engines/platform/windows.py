"""Windows: each engine in a job object that is ended when its last handle is closed.

The router holds the handles, so no guardian is needed: however the router ends, the system closes
them, and every process of the jobs with them. The pipes are read and the processes awaited by
threads, which hand what they see to the loop.
"""

import asyncio
import contextlib
import ctypes
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import psutil

from llama_router.engines.host import HostListener, PortOwner, Stream
from llama_router.engines.launch import LaunchSpec

# Tells type checkers on other platforms to skip what follows.
assert sys.platform == "win32"  # noqa: S101

from ctypes import wintypes  # noqa: E402 - only where the system has it

_CHUNK_BYTES = 64 * 1024

# winnt.h, processthreadsapi.h
_JOB_OBJECT_BASIC_ACCOUNTING_INFORMATION = 1
_JOB_OBJECT_BASIC_PROCESS_ID_LIST = 3
_JOB_OBJECT_EXTENDED_LIMIT_INFORMATION = 9
_JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE = 0x2000
_CREATE_SUSPENDED = 0x4

# Between looks at whether the processes of an ended job are gone.
_LOOK_AGAIN_S = 0.005

# Processes of one engine that the question for a port's owner looks at.
_MAX_PROCESSES = 1024

# For the processes of the last jobs to be gone when the host is closed.
_CLOSE_TIMEOUT_S = 5.0


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", wintypes.LARGE_INTEGER),
        ("PerJobUserTimeLimit", wintypes.LARGE_INTEGER),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_ulonglong * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


class _Accounting(ctypes.Structure):
    _fields_ = (
        ("TotalUserTime", wintypes.LARGE_INTEGER),
        ("TotalKernelTime", wintypes.LARGE_INTEGER),
        ("ThisPeriodTotalUserTime", wintypes.LARGE_INTEGER),
        ("ThisPeriodTotalKernelTime", wintypes.LARGE_INTEGER),
        ("TotalPageFaultCount", wintypes.DWORD),
        ("TotalProcesses", wintypes.DWORD),
        ("ActiveProcesses", wintypes.DWORD),
        ("TotalTerminatedProcesses", wintypes.DWORD),
    )


class _ProcessIds(ctypes.Structure):
    _fields_ = (
        ("NumberOfAssignedProcesses", wintypes.DWORD),
        ("NumberOfProcessIdsInList", wintypes.DWORD),
        ("ProcessIdList", ctypes.c_size_t * _MAX_PROCESSES),
    )


class _Job:
    """One job object."""

    def __init__(self) -> None:
        self._kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        self._kernel.CreateJobObjectW.restype = wintypes.HANDLE
        handle = self._kernel.CreateJobObjectW(None, None)
        if not handle:
            raise ctypes.WinError(ctypes.get_last_error())
        self._handle = wintypes.HANDLE(handle)
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = _JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
        if not self._kernel.SetInformationJobObject(
            self._handle,
            _JOB_OBJECT_EXTENDED_LIMIT_INFORMATION,
            ctypes.byref(limits),
            ctypes.sizeof(limits),
        ):
            error = ctypes.WinError(ctypes.get_last_error())
            self.close()
            raise error

    def assign(self, process: psutil.Process, handle: int) -> None:
        """Put a suspended process into the job and let it run."""
        if not self._kernel.AssignProcessToJobObject(self._handle, wintypes.HANDLE(handle)):
            raise ctypes.WinError(ctypes.get_last_error())
        process.resume()

    def terminate(self) -> None:
        self._kernel.TerminateJobObject(self._handle, 1)

    def active_processes(self) -> int:
        accounting = _Accounting()
        found = self._query(_JOB_OBJECT_BASIC_ACCOUNTING_INFORMATION, accounting)
        return int(accounting.ActiveProcesses) if found else 0

    def pids(self) -> set[int]:
        ids = _ProcessIds()
        if not self._query(_JOB_OBJECT_BASIC_PROCESS_ID_LIST, ids):
            return set()
        return set(ids.ProcessIdList[: ids.NumberOfProcessIdsInList])

    def close(self) -> None:
        self._kernel.CloseHandle(self._handle)

    def _query(self, kind: int, into: ctypes.Structure) -> bool:
        return bool(
            self._kernel.QueryInformationJobObject(
                self._handle, kind, ctypes.byref(into), ctypes.sizeof(into), None
            )
        )


class _Engine:
    def __init__(self, process: "subprocess.Popen[bytes]", job: _Job) -> None:
        self.process = process
        self.job = job
        self.may_read = {stream: threading.Event() for stream in Stream}
        for event in self.may_read.values():
            event.set()


class JobHost:
    """See :class:`llama_router.engines.host.EngineHost`."""

    def __init__(self, listener: HostListener) -> None:
        self._listener = listener
        self._engines: dict[int, _Engine] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def start(self) -> None:
        """Do nothing: there is no helper to be started."""
        self._loop = asyncio.get_running_loop()

    def spawn(self, spec: LaunchSpec, *, hold_stdin: bool) -> None:
        """Start the process on a thread: CreateProcess takes milliseconds."""
        self._thread(lambda: self._run(spec, hold_stdin=hold_stdin), f"engine-{spec.generation}")

    def send(self, generation: int, data: bytes) -> None:
        """Write to the engine's held stdin."""
        engine = self._engines.get(generation)
        if engine is not None and engine.process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                engine.process.stdin.write(data)

    def close_stdin(self, generation: int) -> None:
        """Close the engine's held stdin."""
        engine = self._engines.get(generation)
        if engine is not None and engine.process.stdin is not None:
            with contextlib.suppress(OSError):
                engine.process.stdin.close()

    def terminate(self, generation: int) -> None:
        """Send Ctrl+Break, the one signal that reaches a process group here."""
        if engine := self._engines.get(generation):
            with contextlib.suppress(OSError):
                engine.process.send_signal(signal.CTRL_BREAK_EVENT)

    def kill(self, generation: int) -> None:
        """End the whole job."""
        if engine := self._engines.get(generation):
            engine.job.terminate()

    def pause_output(self, generation: int, stream: Stream) -> None:
        """Have the reading thread wait."""
        if engine := self._engines.get(generation):
            engine.may_read[stream].clear()

    def resume_output(self, generation: int, stream: Stream) -> None:
        """Let the reading thread go on."""
        if engine := self._engines.get(generation):
            engine.may_read[stream].set()

    def pid(self, generation: int) -> int | None:
        """Return the pid of the job's first process."""
        engine = self._engines.get(generation)
        return engine.process.pid if engine is not None else None

    async def owner(self, generation: int, host: str, port: int) -> PortOwner:
        """Compare the listeners' pids with the job's."""
        del host
        engine = self._engines.get(generation)
        pids = engine.job.pids() if engine is not None else set()
        owners = await asyncio.to_thread(_listening_pids, port)
        if not owners:
            return PortOwner.NONE
        return PortOwner.OURS if owners <= pids else PortOwner.FOREIGN

    async def close(self) -> None:
        """End every job. Idempotent."""
        for engine in self._engines.values():
            engine.job.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._is_idle.wait()

    def _run(self, spec: LaunchSpec, *, hold_stdin: bool) -> None:
        """Start one engine and see it to its end; the body of its thread."""
        generation = spec.generation
        try:
            engine = _start(spec, hold_stdin=hold_stdin)
        except (OSError, ValueError, psutil.Error) as error:
            reason = f"cannot start {spec.argv[0]}: {error}"
            self._call(self._listener.on_spawn_failed, generation, reason)
            return
        self._call(self._spawned, generation, engine)
        readers = [
            self._thread(partial(self._read, generation, engine, stream), stream.value)
            for stream in Stream
        ]
        returncode = engine.process.wait()
        engine.job.terminate()
        while engine.job.active_processes():
            time.sleep(_LOOK_AGAIN_S)
        for reader in readers:
            reader.join()
        self._call(self._listener.on_exited, generation, returncode)
        self._call(self._reaped, generation, engine)

    def _read(self, generation: int, engine: _Engine, stream: Stream) -> None:
        """Read one pipe to its end; the body of its thread."""
        process = engine.process
        pipe = process.stdout if stream is Stream.STDOUT else process.stderr
        if pipe is None:
            return
        with pipe:
            while data := pipe.read(_CHUNK_BYTES):
                engine.may_read[stream].wait()
                # One chunk at a time, so that the listener can pause the reading in time.
                delivered: Future[None] = Future()
                self._call(self._deliver, generation, stream, data, delivered)
                delivered.result()

    def _deliver(
        self, generation: int, stream: Stream, data: bytes, delivered: "Future[None]"
    ) -> None:
        try:
            self._listener.on_output(generation, stream, data)
        finally:
            delivered.set_result(None)

    def _spawned(self, generation: int, engine: _Engine) -> None:
        self._engines[generation] = engine
        self._is_idle.clear()
        self._listener.on_spawned(generation)

    def _reaped(self, generation: int, engine: _Engine) -> None:
        self.close_stdin(generation)
        self._engines.pop(generation, None)
        if not self._engines:
            self._is_idle.set()
        engine.job.close()
        self._listener.on_reaped(generation)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None:
            # RuntimeError: the loop has been closed; nobody is left to be told.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function, *arguments)

    def _thread(self, body: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=body, name=name, daemon=True)
        thread.start()
        return thread


def _start(spec: LaunchSpec, *, hold_stdin: bool) -> _Engine:
    job = _Job()
    try:
        process = subprocess.Popen(
            list(spec.argv),
            env=dict(spec.env),
            stdin=subprocess.PIPE if hold_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            creationflags=_CREATE_SUSPENDED
            | subprocess.CREATE_NEW_PROCESS_GROUP
            | subprocess.CREATE_NO_WINDOW,
        )
    except BaseException:
        job.close()
        raise
    try:
        # Before it runs its first instruction, so that no child of it can be outside of the job.
        job.assign(psutil.Process(process.pid), int(process._handle))  # type: ignore[attr-defined]
    except BaseException:
        # Its pipes are closed with it.
        with process:
            process.kill()
        job.close()
        raise
    return _Engine(process, job)


def _listening_pids(port: int) -> set[int]:
    return {
        connection.pid or 0
        for connection in psutil.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
