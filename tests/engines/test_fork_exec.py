"""The function forks, so it runs in a process of its own, as small as the guardian."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

PROGRAM = """
import json, os, signal, sys
sys.path.append(sys.argv[2])
from llama_router.engines import fork_exec
if sys.argv.pop(1) == "fork":
    fork_exec.setpriv = lambda: None
signal.signal(signal.SIGTERM, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
held = os.open(os.devnull, os.O_RDWR)
reader, writer = os.pipe()
argv = [os.fsencode(text) for text in sys.argv[2:]]
environment = {b"PATH": b"/usr/bin:/bin", b"KEPT": b"1"}
try:
    pid = fork_exec.start(argv, environment, [held, writer, held], lambda parent: None)
except (OSError, ValueError) as error:
    print(json.dumps({"error": getattr(error, "errno", None), "text": str(error)}))
else:
    os.close(writer)
    with open(reader, "rb") as pipe:
        output = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(json.dumps({"pid": pid, "output": output, "status": status}))
"""

Start = Callable[..., dict[str, object]]
SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(params=["spawn", "fork"])
def start(request: pytest.FixtureRequest) -> Start:
    return partial(_start, request.param)


def _start(way: str, *argv: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, way, str(SOURCE), *argv],
        stdout=subprocess.PIPE,
        check=True,
    )
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_the_program_gets_its_environment_its_session_and_only_three_descriptors(
    start: Start,
) -> None:
    looked = start("sh", "-c", "echo $KEPT; ps -o sess= -p $$; ls /proc/$$/fd; exit 4")
    kept, session, *descriptors = str(looked["output"]).split()
    assert (kept, session) == ("1", str(looked["pid"]))
    assert descriptors == ["0", "1", "2"]
    assert looked["status"] == 4


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_signals_are_as_a_fresh_process_has_them(start: Start) -> None:
    status = str(start("cat", "/proc/self/status")["output"])
    signals = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
    assert int(signals["SigBlk"], 16) == 0
    # glibc's posix_spawn ignores its own two (32 and 33), which each program sets up for itself.
    assert int(signals["SigIgn"], 16) & ~(0b11 << 31) == 0


def test_errors_of_exec_come_back_as_their_errno(start: Start, tmp_path: Path) -> None:
    assert start("/nowhere/engine")["error"] == 2
    assert start("no-such-program-on-path")["error"] == 2
    assert start(str(tmp_path))["error"] == 13
    junk = tmp_path / "junk"
    junk.write_bytes(b"\0junk")
    junk.chmod(0o755)
    assert start(str(junk))["error"] == 8


def test_an_empty_command_is_refused(start: Start) -> None:
    assert "empty" in str(start()["text"])
