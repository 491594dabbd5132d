import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from llama_router.engines.guardian_client import GuardianClient
from llama_router.engines.host import HostError, PortOwner, Stream
from llama_router.engines.launch import LaunchSpec, Readiness

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")


class Listener:
    """Keeps what a host reports."""

    def __init__(self) -> None:
        self.reports: list[tuple[object, ...]] = []
        self.end = asyncio.Event()

    def on_spawned(self, generation: int) -> None:
        self.reports.append(("spawned", generation))

    def on_spawn_failed(self, generation: int, reason: str) -> None:
        self.reports.append(("failed", generation, reason))
        self.end.set()

    def on_output(self, generation: int, stream: Stream, data: bytes) -> None:
        self.reports.append((stream, generation, data))

    def on_exited(self, generation: int, returncode: int | None) -> None:
        self.reports.append(("exited", generation, returncode))

    def on_reaped(self, generation: int) -> None:
        self.reports.append(("reaped", generation))
        self.end.set()


def spec(*argv: str, env: dict[str, str] | None = None) -> LaunchSpec:
    return LaunchSpec(
        model="m\n",
        generation=1,
        argv=argv,
        env=env if env is not None else {"PATH": "/usr/bin:/bin"},
        host="127.0.0.1",
        port=1,
        health_path="/",
        readiness=Readiness.PROBED,
    )


async def finish(listener: Listener) -> None:
    async with asyncio.timeout(20):
        await listener.end.wait()


def test_output_comes_before_the_exit_and_stdin_is_held(tmp_path: Path) -> None:
    async def run() -> None:
        listener = Listener()
        host = GuardianClient(listener, tmp_path)
        await host.start()
        host.spawn(spec("/bin/sh", "-c", "read a; echo got $a; read b || exit 5"), hold_stdin=True)
        host.send(1, b"line\n")
        host.close_stdin(1)
        await finish(listener)
        # What the engine writes does not pass through the guardian, and may be here first.
        listener.reports.remove(("spawned", 1))
        assert listener.reports == [
            (Stream.STDOUT, 1, b"got line\n"),
            ("exited", 1, 5),
            ("reaped", 1),
        ]
        await host.close()
        await host.close()

    uvloop.run(run())


def test_an_environment_larger_than_the_socket_buffer_arrives_whole(tmp_path: Path) -> None:
    env = {f"V{number}": "\udcfe" * 100_000 for number in range(8)} | {"PATH": "/usr/bin:/bin"}

    async def run() -> None:
        listener = Listener()
        host = GuardianClient(listener, tmp_path)
        await host.start()
        host.spawn(spec("/bin/sh", "-c", "echo ${#V7}", env=env), hold_stdin=False)
        await finish(listener)
        assert (Stream.STDOUT, 1, b"100000\n") in listener.reports
        await host.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(run())


def test_the_guardian_has_none_of_the_routers_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ROUTER_API_KEY", "canary")

    async def run() -> None:
        host = GuardianClient(Listener(), tmp_path)
        await host.start()
        guardian = psutil.Process(host.guardian_pid)
        assert "canary" not in str(guardian.environ()) + str(guardian.cmdline())
        assert os.getsid(guardian.pid) == guardian.pid
        assert await host.owner(7, "127.0.0.1", 1) is PortOwner.NONE
        await host.close()
        assert host.guardian_pid is None
        assert await host.owner(7, "127.0.0.1", 1) is PortOwner.NONE

    uvloop.run(run())


def test_a_guardian_that_cannot_start_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("llama_router.engines.guardian_client._GUARDIAN_PROGRAM", tmp_path / "no")

    async def run() -> None:
        host = GuardianClient(Listener(), tmp_path)
        with pytest.raises(HostError, match="did not start"):
            await host.start()
        await host.close()

    uvloop.run(run())
    assert "can't open file" in capfd.readouterr().err


def test_a_spawn_without_free_descriptors_fails_and_leaks_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        listener = Listener()
        host = GuardianClient(listener, tmp_path)
        await host.start()
        before = psutil.Process().num_fds()
        pipes = iter([os.pipe()])

        def scarce() -> tuple[int, int]:
            try:
                return next(pipes)
            except StopIteration:
                raise OSError(24, "Too many open files") from None

        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe", scarce)
            host.spawn(spec("/bin/true"), hold_stdin=True)
        await finish(listener)
        assert "Too many open files" in str(listener.reports)
        assert psutil.Process().num_fds() == before
        await host.close()

    uvloop.run(run())


def test_a_lost_guardian_is_replaced_without_holding_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starters: list[threading.Thread] = []
    start = subprocess.Popen.__init__

    def noted(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - passed on
        starters.append(threading.current_thread())
        start(*arguments, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", noted)

    async def run() -> None:
        listener = Listener()
        host = GuardianClient(listener, tmp_path)
        host.spawn(spec("/bin/sh", "-c", "echo here"), hold_stdin=False)
        await finish(listener)
        assert (Stream.STDOUT, 1, b"here\n") in listener.reports
        await host.close()

    uvloop.run(run())
    assert len(starters) == 1
    assert threading.main_thread() not in starters


def test_a_guardian_that_the_system_does_not_start_fails_the_spawn_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    async def run() -> None:
        listener = Listener()
        host = GuardianClient(listener, tmp_path)
        host.spawn(spec("/bin/true"), hold_stdin=False)
        await finish(listener)
        assert [report[0] for report in listener.reports] == ["failed"]
        assert "No such file or directory" in str(listener.reports)
        with pytest.raises(HostError, match="No such file or directory"):
            await host.start()
        await host.close()

    uvloop.run(run())


def test_an_answer_that_nobody_waits_for_any_more_does_no_harm(tmp_path: Path) -> None:
    async def run() -> None:
        listener = Listener()
        host = GuardianClient(listener, tmp_path)
        host.spawn(spec("/bin/sh", "-c", "echo here"), hold_stdin=False)
        guardian = host._guardian
        assert guardian is not None
        asking = asyncio.create_task(guardian.owner(1, "127.0.0.1", 1))
        await asyncio.sleep(0)
        # The answer is there before the task has noticed its end.
        asking.cancel()
        guardian._handle({"event": "owner", "question": 1, "owner": PortOwner.NONE.value})
        with pytest.raises(asyncio.CancelledError):
            await asking
        await finish(listener)
        await host.close()

    uvloop.run(run())
