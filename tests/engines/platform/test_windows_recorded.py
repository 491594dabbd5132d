"""The Windows form against a kernel32 that keeps job objects as Windows documents them.

The processes are real ones of this machine; what Windows alone has is played by ``Kernel``:
``winnt.h`` and the pages of CreateJobObjectW, SetInformationJobObject and
QueryInformationJobObject say what it takes and gives.
"""

# ruff: noqa: ANN401 - ctypes' values have no types

import asyncio
import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import Mock

import psutil
import pytest

import llama_router.engines.platform as platform_package
from llama_router.engines.host import HostListener, PortOwner, Stream
from llama_router.engines.launch import LaunchSpec, Readiness

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is the real one")

_SOURCE = platform_package.__path__[0] + "/windows.py"
_KILL_ON_CLOSE = 0x2000
_SUSPENDED = 0x4
_DEADLINE_S = 20


class Kernel:
    """The calls of kernel32 that are used. Handles are numbers; those of processes are pids."""

    def __init__(self) -> None:
        self.jobs: dict[int, set[int]] = {}
        self.limits: dict[int, int] = {}
        self.closed: list[int] = []
        self.terminated: list[int] = []
        self.refuses_assignment = False
        # A function, as ctypes' can be told what they return.
        self.CreateJobObjectW: Any = partial(self._create)

    def _create(self, attributes: object, name: object) -> int:
        assert attributes is None
        assert name is None
        handle = 0x100 + len(self.jobs)
        self.jobs[handle] = set()
        return handle

    def SetInformationJobObject(  # noqa: N802 - kernel32's name
        self, handle: Any, kind: int, info: Any, size: int
    ) -> int:
        assert kind == 9
        limits = info._obj
        assert size == ctypes.sizeof(limits)
        self.limits[handle.value] = limits.BasicLimitInformation.LimitFlags
        return 1

    def AssignProcessToJobObject(self, handle: Any, process: Any) -> int:  # noqa: N802
        if self.refuses_assignment:
            return 0
        self.jobs[handle.value].add(process.value)
        return 1

    def TerminateJobObject(self, handle: Any, status: int) -> int:  # noqa: N802
        assert status == 1
        self.terminated.append(handle.value)
        for pid in self._alive(handle.value):
            os.kill(pid, signal.SIGKILL)
        return 1

    def QueryInformationJobObject(  # noqa: N802
        self, handle: Any, kind: int, info: Any, size: int, returned: object
    ) -> int:
        assert returned is None
        into = info._obj
        assert size == ctypes.sizeof(into)
        alive = self._alive(handle.value)
        if kind == 1:
            into.ActiveProcesses = len(alive)
        else:
            assert kind == 3
            into.NumberOfProcessIdsInList = len(alive)
            for index, pid in enumerate(alive):
                into.ProcessIdList[index] = pid
        return 1

    def CloseHandle(self, handle: Any) -> int:  # noqa: N802
        self.closed.append(handle.value)
        return 1

    def _alive(self, handle: int) -> list[int]:
        return [pid for pid in self.jobs[handle] if _is_alive(pid)]


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class _Process(subprocess.Popen[bytes]):
    """A process of this machine that is started as if by CreateProcess."""

    flags: ClassVar[list[int]] = []
    signals: ClassVar[list[int]] = []

    def __init__(self, argv: list[str], *, creationflags: int, **options: Any) -> None:
        self.flags.append(creationflags)
        super().__init__(argv, **options)
        self._handle = self.pid

    def send_signal(self, sig: int) -> None:
        self.signals.append(sig)
        super().send_signal(signal.SIGTERM)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found = Kernel()
    monkeypatch.setattr(ctypes, "WinDLL", lambda *_args, **_kw: found, raising=False)
    monkeypatch.setattr(ctypes, "get_last_error", lambda: 5, raising=False)
    monkeypatch.setattr(
        ctypes, "WinError", lambda code: PermissionError(code, "Access is denied"), raising=False
    )
    return found


@pytest.fixture
def windows(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> ModuleType:  # noqa: ARG001
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        spec = importlib.util.spec_from_file_location("windows_under_test", _SOURCE)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    for name, value in (("CREATE_NEW_PROCESS_GROUP", 0x200), ("CREATE_NO_WINDOW", 0x8000000)):
        monkeypatch.setattr(subprocess, name, value, raising=False)
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", 1, raising=False)
    _Process.flags.clear()
    _Process.signals.clear()
    monkeypatch.setattr(
        module, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": _Process})
    )
    resumed = Mock()
    of_processes = {**vars(psutil), "Process": lambda _pid: SimpleNamespace(resume=resumed)}
    monkeypatch.setattr(module, "psutil", SimpleNamespace(**of_processes))
    module.resumed = resumed  # type: ignore[attr-defined]
    return module


class Listener:
    """Keeps what the host tells, and lets a test wait for it."""

    def __init__(self) -> None:
        self.spawned = asyncio.Event()
        self.reaped = asyncio.Event()
        self.failed = asyncio.Event()
        self.output = bytearray()
        self.said = asyncio.Event()
        self.ended: list[int] = []
        self.reason = ""

    def as_listener(self) -> Mock:
        mock = Mock(spec=HostListener)
        mock.on_spawned.side_effect = lambda _: self.spawned.set()
        mock.on_reaped.side_effect = lambda _: self.reaped.set()
        mock.on_exited.side_effect = lambda _, status: self.ended.append(status)
        mock.on_output.side_effect = self._on_output
        mock.on_spawn_failed.side_effect = self._on_failed
        return mock

    def _on_output(self, _generation: int, _stream: Stream, data: bytes) -> None:
        self.output += data
        self.said.set()

    def _on_failed(self, _generation: int, reason: str) -> None:
        self.reason = reason
        self.failed.set()


def spec_of(program: str) -> LaunchSpec:
    return LaunchSpec(
        model="m",
        generation=1,
        argv=(sys.executable, "-c", program),
        env=dict(os.environ),
        host="127.0.0.1",
        port=50000,
        health_path="/",
        readiness=Readiness.PUSHED,
    )


@pytest.mark.asyncio
async def test_an_engine_begins_suspended_in_a_job_that_dies_with_its_handle(
    windows: ModuleType, kernel: Kernel
) -> None:
    listener = Listener()
    host = windows.JobHost(listener.as_listener())
    await host.start()
    host.spawn(spec_of("print('up', flush=True); input()"), hold_stdin=True)
    async with asyncio.timeout(_DEADLINE_S):
        await listener.said.wait()
    assert _Process.flags == [_SUSPENDED | 0x200 | 0x8000000]
    assert list(kernel.limits.values()) == [_KILL_ON_CLOSE]
    assert kernel.jobs[0x100] == {host.pid(1)}
    windows.resumed.assert_called_once_with()
    host.send(1, b"go\n")
    async with asyncio.timeout(_DEADLINE_S):
        await listener.reaped.wait()
    assert (bytes(listener.output), listener.ended) == (b"up\n", [0])
    # What is left of the job ends with its first process, and the handle is given back.
    assert kernel.terminated == [0x100]
    assert kernel.closed == [0x100]
    await host.close()


@pytest.mark.asyncio
async def test_a_polite_end_is_a_ctrl_break_and_a_hard_one_ends_the_job(
    windows: ModuleType, kernel: Kernel
) -> None:
    for order, signals in (("terminate", [1]), ("kill", [])):
        _Process.signals.clear()
        kernel.terminated.clear()
        listener = Listener()
        host = windows.JobHost(listener.as_listener())
        await host.start()
        host.spawn(spec_of("input()"), hold_stdin=True)
        async with asyncio.timeout(_DEADLINE_S):
            await listener.spawned.wait()
            getattr(host, order)(1)
            await listener.reaped.wait()
        assert _Process.signals == signals
        assert kernel.terminated
        await host.close()


@pytest.mark.asyncio
async def test_a_process_that_gets_into_no_job_does_not_run(
    windows: ModuleType, kernel: Kernel
) -> None:
    kernel.refuses_assignment = True
    listener = Listener()
    host = windows.JobHost(listener.as_listener())
    await host.start()
    host.spawn(spec_of("input()"), hold_stdin=False)
    async with asyncio.timeout(_DEADLINE_S):
        await listener.failed.wait()
    assert "Access is denied" in listener.reason
    assert kernel.closed == [0x100]
    windows.resumed.assert_not_called()
    await host.close()


@pytest.mark.asyncio
async def test_a_port_is_ours_if_all_its_listeners_are_in_the_job(
    windows: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()
    host = windows.JobHost(listener.as_listener())
    await host.start()
    host.spawn(spec_of("input()"), hold_stdin=True)
    async with asyncio.timeout(_DEADLINE_S):
        await listener.spawned.wait()
    pid = host.pid(1)
    listeners: list[SimpleNamespace] = []
    monkeypatch.setattr(windows.psutil, "net_connections", lambda kind: listeners)  # noqa: ARG005
    assert await host.owner(1, "127.0.0.1", 50000) is PortOwner.NONE
    listeners.append(_listening(pid))
    assert await host.owner(1, "127.0.0.1", 50000) is PortOwner.OURS
    listeners.append(_listening(4))
    assert await host.owner(1, "127.0.0.1", 50000) is PortOwner.FOREIGN
    host.kill(1)
    async with asyncio.timeout(_DEADLINE_S):
        await listener.reaped.wait()
    await host.close()


def _listening(pid: int) -> SimpleNamespace:
    address = SimpleNamespace(port=50000)
    return SimpleNamespace(pid=pid, status="LISTEN", laddr=address)


@pytest.mark.asyncio
async def test_closing_ends_every_job(windows: ModuleType, kernel: Kernel) -> None:
    listener = Listener()
    host = windows.JobHost(listener.as_listener())
    await host.start()
    host.spawn(spec_of("import time; time.sleep(600)"), hold_stdin=False)
    async with asyncio.timeout(_DEADLINE_S):
        await listener.spawned.wait()
        await host.close()
    assert kernel.closed == [0x100]
    assert listener.ended == [-signal.SIGKILL]
