import asyncio
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import uvloop

from llama_router.catalog.tiny import write_model
from llama_router.core.events import ExitCause
from llama_router.engines import readiness, supervisor
from llama_router.engines.launch import OwnerCheck, Readiness
from tests.support.data_plane import until
from tests.support.loop_guard import CPU_LIMIT_S, slowness
from tests.support.ports import HOST
from tests.support.supervised import Supervised, await_gone, supervise
from tests.support.tools import llama_server_path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses pidfds")

CHILDREN = Path(__file__).parent / "children"
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    factory: LoopFactory = request.param
    return factory


def child(name: str) -> str:
    return (CHILDREN / name).read_text("utf-8")


def test_an_exit_is_reported_with_status_and_last_words_then_reaped(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        generation = s.spawn("/bin/sh", "-c", "echo fine; echo 'error: no such tensor' >&2; exit 7")
        assert (await s.wait("exited", generation))[2:4] == (
            "exited with status 7: error: no such tensor",
            ExitCause.EXITED,
        )
        await s.wait("reaped", generation)
        assert s.recorder.kinds(generation) == ["spawned", "exited", "reaped"]
        assert sorted(s.logs.text("m").splitlines()) == ["error: no such tensor", "fine"]

    supervise(loop_factory, tmp_path, scenario)


def test_a_program_that_cannot_be_started_is_reported_with_the_errno_text(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.write_text("not a program")

    async def scenario(s: Supervised) -> None:
        missing = s.spawn("/nowhere/engine")
        report = await s.wait("spawn_failed", missing)
        assert report[2] == "cannot start /nowhere/engine: No such file or directory (ENOENT)"
        forbidden = s.spawn(str(plain))
        report = await s.wait("spawn_failed", forbidden)
        assert report[2] == f"cannot start {plain}: Permission denied (EACCES)"
        nul = s.spawn("/bin/true", "a\0b")
        assert "NUL" in str((await s.wait("spawn_failed", nul))[2])
        for generation in (missing, forbidden, nul):
            assert s.recorder.kinds(generation) == ["spawn_failed"]

    supervise(loop_factory, tmp_path, scenario)


def test_a_crash_names_the_signal(loop_factory: LoopFactory, tmp_path: Path) -> None:
    async def scenario(s: Supervised) -> None:
        generation = s.spawn("/bin/sh", "-c", "kill -SEGV $$")
        assert (await s.wait("exited", generation))[2] == "killed by SIGSEGV"

    supervise(loop_factory, tmp_path, scenario)


@pytest.mark.parametrize(
    ("counts", "cause"),
    [
        ((4, 5), ExitCause.OUT_OF_MEMORY),
        ((4, 4), ExitCause.EXITED),
        ((None, None), ExitCause.OUT_OF_MEMORY),
    ],
)
def test_a_sigkill_that_is_not_ours_counts_as_out_of_memory_unless_the_kernel_says_otherwise(
    loop_factory: LoopFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counts: tuple[int | None, int | None],
    cause: ExitCause,
) -> None:
    told = itertools.chain(counts, itertools.repeat(None))
    monkeypatch.setattr(supervisor, "oom_kill_count", lambda: next(told))

    async def scenario(s: Supervised) -> None:
        foreign = s.spawn("/bin/sh", "-c", "kill -KILL $$")
        assert (await s.wait("exited", foreign))[3] is cause
        ours = s.spawn("/bin/sleep", "1000")
        await s.wait("spawned", ours)
        s.supervisor.kill(ours)
        assert (await s.wait("exited", ours))[2:4] == ("killed by SIGKILL", ExitCause.EXITED)

    supervise(loop_factory, tmp_path, scenario)


def test_terminate_ends_a_willing_engine_and_is_idempotent(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        generation = s.spawn("/bin/sleep", "1000")
        s.supervisor.terminate(generation)
        s.supervisor.terminate(generation)
        assert (await s.wait("exited", generation))[2] == "killed by SIGTERM"
        await s.wait("reaped", generation)
        s.supervisor.terminate(generation)
        s.supervisor.kill(generation)
        s.supervisor.kill(generation + 1)

    supervise(loop_factory, tmp_path, scenario)


def test_kill_ends_a_whole_tree_that_ignores_sigterm(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        generation = s.spawn_python(child("tree.py"))
        pids = [int(pid) for pid in (await s.wait_line("pids ")).split()]
        s.supervisor.terminate(generation)
        # A later engine's whole life gives the signal all the time it could need.
        other = s.spawn("/bin/true")
        await s.wait("reaped", other)
        assert "exited" not in s.recorder.kinds(generation)
        assert [pid for pid in pids if not psutil.pid_exists(pid)] == []
        s.supervisor.kill(generation)
        await s.wait("reaped", generation)
        assert await_gone(pids, 0.0) == set()

    supervise(loop_factory, tmp_path, scenario)


def test_what_a_wrapper_leaves_behind_is_ended_before_reaped(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        wrapper = s.spawn("/bin/sh", "-c", "sleep 1000 & echo child $!; exec sleep 1000")
        in_group = int(await s.wait_line("child "))
        s.supervisor.terminate(wrapper)
        await s.wait("reaped", wrapper)
        assert await_gone([in_group], 0.0) == set()
        leaver = s.spawn("/bin/sh", "-c", "setsid sleep 1000 & echo stray $!; exit 0")
        stray = int(await s.wait_line("stray "))
        await s.wait("reaped", leaver)
        assert await_gone([stray], 0.0) == set()

    supervise(loop_factory, tmp_path, scenario)


def test_strays_are_found_in_the_middle_of_exec_and_awaited_while_they_die(tmp_path: Path) -> None:
    stray = "setsid sh -c 'echo stray-$0 $$; exec sleep 1000' $0"

    async def scenario(s: Supervised) -> None:
        for number in range(30):
            # Ends while the stray is being started; what it said may still be on its way.
            leaver = s.spawn("/bin/sh", "-c", f"{stray} & exit 0", f"a{number}")
            await s.wait("reaped", leaver)
            killed = s.spawn("/bin/sh", "-c", f"{stray} & sleep 1000", f"b{number}")
            pid = int(await s.wait_line(f"stray-b{number} "))
            s.supervisor.kill(killed)
            await s.wait("reaped", killed)
            assert await_gone([pid], 0.0) == set()
        said = [str(report[2]) for report in s.recorder.reports if report[0] == "output"]
        assert await_gone([int(line.split()[1]) for line in said], 0.0) == set()
        guardian = psutil.Process(s.supervisor._host.guardian_pid)  # type: ignore[attr-defined] # POSIX host
        assert guardian.children(recursive=True) == []

    supervise(uvloop.new_event_loop, tmp_path, scenario)


def test_an_engine_that_dies_takes_only_its_own_tree_along(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        staying = s.spawn_python(child("tree.py"))
        pids = [int(pid) for pid in (await s.wait_line("pids ")).split()]
        leaver = s.spawn("/bin/sh", "-c", "setsid sleep 1000 & exit 0")
        await s.wait("reaped", leaver)
        assert await_gone(pids, 0.0) == set(pids)
        s.supervisor.kill(staying)
        await s.wait("reaped", staying)

    supervise(loop_factory, tmp_path, scenario)


def test_a_pushing_engine_reports_progress_and_readiness_and_obeys_the_exit_line(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        generation = s.spawn_python(child("pushing.py"), readiness=Readiness.PUSHED)
        await s.wait("ready", generation)
        progress = [report[2] for report in s.recorder.reports if report[0] == "progress"]
        assert progress == [0.25, 0.75]
        # Protocol lines are no log lines, not even malformed ones.
        assert s.logs.text("m") == "an ordinary line\n"
        s.supervisor.terminate(generation)
        assert (await s.wait("exited", generation))[2] == "exited with status 0"
        assert s.recorder.kinds(generation)[-1:] != ["address_stolen"]

    supervise(loop_factory, tmp_path, scenario)


def test_an_engine_that_should_push_and_does_not_is_probed(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        port = s.ports.acquire()
        generation = s.spawn_python(
            child("healthy.py"), str(port), port=port, readiness=Readiness.PUSHED
        )
        await s.wait("ready", generation)

    supervise(loop_factory, tmp_path, scenario)


def test_a_probed_engine_is_ready_when_it_listens_itself(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        port = s.ports.acquire()
        # Below a wrapper, so that the listener is not the main process.
        generation = s.spawn(
            "/bin/sh", "-c", '"$@"; exit $?', "sh",
            sys.executable, "-I", "-S", "-c", child("healthy.py"), str(port),
            port=port,
        )  # fmt: skip
        await s.wait("ready", generation)
        s.supervisor.terminate(generation)
        await s.wait("reaped", generation)
        assert s.recorder.kinds(generation) == ["spawned", "ready", "exited", "reaped"]

    supervise(loop_factory, tmp_path, scenario)


@pytest.fixture
def thief() -> Iterator[int]:
    """A foreign server that answers 200 to everything; its port."""
    with socket.create_server((HOST, 0)) as server:
        asked = threading.Event()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.set()
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, name="thief")
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_thief_of_the_port_is_never_believed(
    loop_factory: LoopFactory, tmp_path: Path, thief: int
) -> None:
    async def scenario(s: Supervised) -> None:
        generation = s.spawn("/bin/sleep", "1000", port=thief)
        await s.wait("address_stolen", generation)
        pushing = s.spawn_python(child("pushing.py"), readiness=Readiness.PUSHED, port=thief)
        await s.wait("address_stolen", pushing)
        for number in (generation, pushing):
            s.supervisor.kill(number)
            await s.wait("reaped", number)
            assert "ready" not in s.recorder.kinds(number)

    supervise(loop_factory, tmp_path, scenario)


def test_an_engine_that_finds_its_port_taken_exits_with_that_cause(
    loop_factory: LoopFactory, tmp_path: Path, thief: int
) -> None:
    async def scenario(s: Supervised) -> None:
        # It says nothing of the reason, but somebody else is there.
        silent = s.spawn("/bin/sh", "-c", "exit 1", port=thief)
        assert (await s.wait("exited", silent))[3] is ExitCause.ADDRESS_IN_USE
        told = s.spawn("/bin/sh", "-c", "echo 'bind failed: Address already in use'; exit 1")
        assert (await s.wait("exited", told))[3] is ExitCause.ADDRESS_IN_USE

    supervise(loop_factory, tmp_path, scenario)


def test_without_the_tree_check_whoever_listens_is_believed(
    loop_factory: LoopFactory, tmp_path: Path, thief: int
) -> None:
    async def scenario(s: Supervised) -> None:
        generation = s.spawn("/bin/sleep", "1000", port=thief, owner_check=OwnerCheck.PORT)
        await s.wait("ready", generation)

    supervise(loop_factory, tmp_path, scenario)


def test_hostile_output_neither_blocks_the_engine_nor_reaches_the_log_raw(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    program = (
        "import os\n"
        "def write(data):\n"
        "    while data: data = data[os.write(1, data):]\n"
        "write(b'x' * 1_000_000 + b'\\n')\n"
        "write(b'\\x1b[31mred\\x1b[0m \\x1b]0;title\\x07\\xff\\xfe end\\n')\n"
        "write(b'y\\n' * 30_000)\n"
        "write(b'unfinished')\n"
    )

    async def scenario(s: Supervised) -> None:
        generation = s.spawn_python(program)
        await s.wait("exited", generation)
        lines = s.logs.text("m").splitlines()
        assert lines[-2:] == ["y", "unfinished"]
        written = [str(report[2]) for report in s.recorder.reports if report[0] == "output"]
        assert len(written[0]) < 10_000
        assert written[0].endswith("[...]")
        assert written[1] == "red \ufffd\ufffd end"
        assert written.count("y") == 30_000

    supervise(loop_factory, tmp_path, scenario)


def test_a_flood_does_not_hold_the_loop(tmp_path: Path) -> None:
    # CPU time of the thread per callback, because the machine may be busy with other things.
    spent_s: list[float] = []

    async def scenario(s: Supervised) -> None:
        original = s.supervisor.on_output

        def timed(*arguments: object) -> None:
            before = time.thread_time()
            original(*arguments)  # type: ignore[arg-type] # passed on
            spent_s.append((time.thread_time() - before) / slowness())

        s.supervisor._host._listener.on_output = timed  # type: ignore[attr-defined] # white box
        generation = s.spawn_python(
            "import os\nfor _ in range(20): os.write(1, b'\\x1b[1mz\\x1b[0m\\n' * 5_000)"
        )
        await s.wait("exited", generation)

    supervise(uvloop.new_event_loop, tmp_path, scenario)
    assert len(spent_s) > 5
    assert sorted(spent_s)[len(spent_s) * 9 // 10] < CPU_LIMIT_S


def test_many_spawns_leave_no_descriptor_no_process_and_no_zombie(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        own = psutil.Process()
        guardian = psutil.Process(s.supervisor._host.guardian_pid)  # type: ignore[attr-defined] # POSIX host

        def count() -> tuple[int, int, int]:
            return own.num_fds(), guardian.num_fds(), len(own.children(recursive=True))

        await s.wait("reaped", s.spawn("/bin/true"))
        # libuv opens one descriptor, for good, with the first stream of a loop.
        await readiness.is_healthy("127.0.0.1", 1, "/")
        # The guardian takes an orphan away in its own time, and pipes are closed in the loop's.
        await until(lambda: count()[2] == 1)
        baseline = count()
        for _ in range(50):
            generation = s.spawn("/bin/sh", "-c", "true & exit 0", readiness=Readiness.PUSHED)
            await s.wait("reaped", generation)
        await until(lambda: all(now <= then for now, then in zip(count(), baseline, strict=True)))

    supervise(loop_factory, tmp_path, scenario)


def test_close_kills_what_still_runs(loop_factory: LoopFactory, tmp_path: Path) -> None:
    seen: list[int] = []

    async def scenario(s: Supervised) -> None:
        s.spawn_python(child("tree.py"))
        seen.extend(int(pid) for pid in (await s.wait_line("pids ")).split())
        await s.supervisor.close()
        assert s.recorder.reports[-1][0] == "reaped"
        late = s.spawn("/bin/true")
        assert "stopping" in str((await s.wait("spawn_failed", late))[2])

    supervise(loop_factory, tmp_path, scenario)
    assert len(seen) == 3
    assert await_gone(seen, 0.0) == set()


def test_engines_of_a_guardian_that_died_are_ended_and_the_next_spawn_gets_another(
    loop_factory: LoopFactory, tmp_path: Path
) -> None:
    async def scenario(s: Supervised) -> None:
        generation = s.spawn_python(child("tree.py"))
        pids = [int(pid) for pid in (await s.wait_line("pids ")).split()]
        first = s.supervisor._host.guardian_pid  # type: ignore[attr-defined] # POSIX host
        os.kill(first, signal.SIGKILL)
        await s.wait("reaped", generation)
        assert s.recorder.kinds(generation) == ["spawned", "exited", "reaped"]
        assert await_gone(pids, 0.0) == set()
        again = s.spawn("/bin/true")
        await s.wait("reaped", again)
        assert s.supervisor._host.guardian_pid != first  # type: ignore[attr-defined] # POSIX host

    supervise(loop_factory, tmp_path, scenario)


@pytest.mark.llama_server
@pytest.mark.parametrize("readiness", Readiness)
def test_a_real_llama_server_loads_and_stops(
    loop_factory: LoopFactory, tmp_path: Path, readiness: Readiness
) -> None:
    server = llama_server_path()
    (model,) = write_model(tmp_path / "m.gguf", "hello out there", name="m")

    async def scenario(s: Supervised) -> None:
        port = s.ports.acquire()
        pushes = readiness is Readiness.PUSHED
        generation = s.spawn(
            str(server), "--model", str(model), "--host", HOST, "--port", str(port),
            port=port,
            readiness=readiness,
            extra_env={"LLAMA_SERVER_ROUTER_PORT": "0"} if pushes else {},
        )  # fmt: skip
        await s.wait("ready", generation)
        assert ("progress" in s.recorder.kinds(generation)) == pushes
        s.supervisor.terminate(generation)
        # Asked so soon after its start it now and then hangs in its own exit: so the core has a
        # grace, and then kills.
        grace = asyncio.get_running_loop().call_later(2, s.supervisor.kill, generation)
        reason = (await s.wait("exited", generation))[2]
        grace.cancel()
        assert str(reason).startswith(("exited with status 0", "killed by SIGKILL"))
        await s.wait("reaped", generation)

    supervise(loop_factory, tmp_path, scenario)
