import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from tests.support.ports import HOST
from tests.support.supervised import Supervised, await_gone, supervise

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses pidfds")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
# Says so when it is up, ignores SIGTERM, ends on SIGUSR1.
STUBBORN = "trap '' TERM; trap 'echo told; exit 3' USR1; echo up; while :; do sleep 0.01; done"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    factory: LoopFactory = request.param
    return factory


def shell(script: str) -> tuple[tuple[str, ...], ...]:
    """A stop command of a shell, to which the pid is $0."""
    return (("/bin/sh",), ("-c",), (script,), ("", ""))


def test_a_stop_command_is_run_in_place_of_a_signal(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        stop = shell("echo stopping $0; kill -USR1 $0")
        generation = s.spawn("/bin/sh", "-c", STUBBORN, stop_argv=stop)
        await s.wait_line("up")
        await s.wait("spawned", generation)
        pid = s.supervisor.pid(generation)
        s.supervisor.terminate(generation)
        s.supervisor.terminate(generation)
        assert "status 3" in str((await s.wait("exited", generation))[2])
        await s.wait("reaped", generation)
        lines = s.logs.text("m").splitlines()
        assert sorted(lines) == sorted(["up", f"stopping {pid}", "told"])
        assert s.recorder.kinds(generation) == ["spawned", "exited", "reaped"]

    supervise(loop_factory, tmp_path, scenario)


def test_the_engine_is_gone_only_when_its_stop_command_is(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        script = "kill -USR1 $0; while [ ! -e cleared ]; do sleep 0.01; done; echo cleared"
        stop = shell(f"cd '{tmp_path}'; {script}")
        generation = s.spawn("/bin/sh", "-c", STUBBORN, stop_argv=stop)
        await s.wait_line("up")
        s.supervisor.terminate(generation)
        await s.wait("exited", generation)
        other = s.spawn("/bin/true")
        await s.wait("reaped", other)  # a whole life of another is time enough to be reaped
        assert "reaped" not in s.recorder.kinds(generation)
        (tmp_path / "cleared").touch()
        await s.wait("reaped", generation)
        assert "cleared" in s.logs.text("m")

    supervise(loop_factory, tmp_path, scenario)


@pytest.mark.parametrize(
    "stop",
    [shell("echo no such container; exit 1"), (("/nowhere/stop",), ("", ""))],
    ids=["fails", "is missing"],
)
def test_a_stop_command_that_fails_is_followed_by_the_signal(
    loop_factory: LoopFactory, tmp_path: Path, stop: tuple[tuple[str, ...], ...]
) -> None:
    async def scenario(s: Supervised) -> None:
        generation = s.spawn("/bin/sh", "-c", "echo up; exec sleep 1000", stop_argv=stop)
        await s.wait_line("up")
        s.supervisor.terminate(generation)
        assert (await s.wait("exited", generation))[2] == "killed by SIGTERM"
        await s.wait("reaped", generation)
        assert "its stop command" in s.logs.text("m")
        assert "it is sent a signal instead" in s.logs.text("m")

    supervise(loop_factory, tmp_path, scenario)


def test_one_that_hangs_is_killed_together_with_the_engine(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        stop = shell("echo pids $$; sleep 1000 & echo child $!; wait")
        generation = s.spawn("/bin/sh", "-c", STUBBORN, stop_argv=stop)
        await s.wait_line("up")
        await s.wait("spawned", generation)
        engine_pid = s.supervisor.pid(generation)
        assert engine_pid is not None
        s.supervisor.terminate(generation)
        pids = [int(await s.wait_line("pids ")), int(await s.wait_line("child ")), engine_pid]
        s.supervisor.kill(generation)
        await s.wait("reaped", generation)
        assert await_gone(pids, 0.0) == set()
        assert "it is sent a signal" not in s.logs.text("m")

    supervise(loop_factory, tmp_path, scenario)


def test_a_flood_from_it_is_read_to_the_end(loop_factory: LoopFactory, tmp_path: Path) -> None:
    async def scenario(s: Supervised) -> None:
        stop = shell("seq 1 20000; kill -USR1 $0")
        generation = s.spawn("/bin/sh", "-c", STUBBORN, stop_argv=stop)
        await s.wait_line("up")
        s.supervisor.terminate(generation)
        await s.wait("reaped", generation)
        assert {"19999", "20000"} <= {*s.logs.text("m").splitlines()}

    supervise(loop_factory, tmp_path, scenario)


def test_an_engine_that_is_not_known_to_exist_yet_is_told_as_soon_as_it_is(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        stop = shell("echo stopping; kill -KILL $0")
        generation = s.spawn("/bin/sleep", "1000", stop_argv=stop)
        s.supervisor.terminate(generation)
        await s.wait("reaped", generation)
        assert s.logs.text("m").splitlines() == ["stopping"]

    supervise(loop_factory, tmp_path, scenario)


def test_an_engine_that_ends_meanwhile_by_itself_is_no_matter(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        stop = shell("kill -KILL $0; exit 7")
        generation = s.spawn("/bin/sh", "-c", STUBBORN, stop_argv=stop)
        await s.wait_line("up")
        s.supervisor.terminate(generation)
        await s.wait("reaped", generation)
        assert s.recorder.kinds(generation) == ["spawned", "exited", "reaped"]

    supervise(loop_factory, tmp_path, scenario)


def test_no_stop_command_is_given_the_pid_of_an_engine_that_has_ended(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        # What it leaves behind holds its output open, so that its end is not told for a while.
        leave = f"cd '{tmp_path}'; (trap '' TERM; while [ ! -e go ]; do sleep 0.01; done) &"
        stop = shell("echo stopping $0; touch go")
        generation = s.spawn("/bin/sh", "-c", f"{leave} echo up; exit 3", stop_argv=stop)
        await s.wait("exited", generation)
        s.supervisor.terminate(generation)
        await s.wait("reaped", generation)
        assert "stopping" not in s.logs.text("m")

    supervise(loop_factory, tmp_path, scenario)


def test_without_a_health_endpoint_an_open_port_is_enough(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    mute = "import socket,sys,time; s=socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"

    async def scenario(s: Supervised) -> None:
        port = s.ports.acquire()
        generation = s.spawn_python(f"{mute}time.sleep(1000)", str(port), port=port, health_path="")
        await s.wait("ready", generation)

    supervise(loop_factory, tmp_path, scenario)


def test_who_answers_on_a_given_address_is_believed(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    with socket.create_server((HOST, 0)) as foreign:
        port = foreign.getsockname()[1]

        async def scenario(s: Supervised) -> None:
            sleeper = ("/bin/sleep", "1000")
            believed = s.spawn(*sleeper, port=port, health_path="", is_address_given=True)
            await s.wait("ready", believed)
            doubted = s.spawn(*sleeper, port=port, health_path="")
            await s.wait("address_stolen", doubted)
            # Nor is it blamed for an engine that ends at once.
            failing = s.spawn("/bin/false", port=port, health_path="", is_address_given=True)
            assert (await s.wait("exited", failing))[2] == "exited with status 1"

        supervise(loop_factory, tmp_path, scenario)
