import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = "from llama_router.cli.entry import main; main()"


@pytest.mark.skipif(sys.platform == "win32", reason="processes end by signals on POSIX")
def test_an_interrupt_while_modules_are_read_is_an_end_without_a_traceback(tmp_path: Path) -> None:
    # In place of the first large module, the interrupt itself.
    (tmp_path / "typer.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = run_program(env)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("handler", ["default_int_handler", "SIG_IGN"])
def test_commands_have_the_interrupt_as_it_was(tmp_path: Path, handler: str) -> None:
    (tmp_path / "typer_probe.py").write_text(
        "import signal\n"
        f"signal.signal(signal.SIGINT, signal.{handler})\n"
        "import llama_router.cli.main\n"
        "class Probe:\n"
        f"    def __call__(self): print(signal.getsignal(2) == signal.{handler})\n"
        "llama_router.cli.main.app = Probe()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert run_program(env, "import typer_probe; ").stdout == "True\n"


def test_an_interrupt_that_no_command_has_caught_is_told_by_the_status_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "typer_probe.py").write_text(
        "import signal\n"
        "import llama_router.cli.main\n"
        "def probe(): signal.raise_signal(signal.SIGINT)\n"
        "llama_router.cli.main.app = probe\n"
    )
    ended = run_program({**os.environ, "PYTHONPATH": str(tmp_path)}, "import typer_probe; ")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def run_program(env: dict[str, str], first: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", first + PROGRAM],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
