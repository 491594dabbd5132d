"""A folder of a disk that does not answer, as processes that scan find it.

Whoever asks it for anything waits in the system, at a FIFO that nobody opens, until it answers.
"""

import os
import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import os, sys

folder, gate = sys.argv[1:]

def guarded(real):
    def call(path=".", *rest, **named):
        if not isinstance(path, int) and os.fsdecode(path).startswith(folder) and is_dead():
            try:
                real_open(gate, os.O_RDONLY)
            except FileNotFoundError:
                pass
        return real(path, *rest, **named)
    return call

def is_dead():
    try:
        real_stat(gate)
    except FileNotFoundError:
        return False
    return True

real_open, real_stat = os.open, os.stat
for name in ("open", "stat", "lstat", "scandir", "listdir"):
    setattr(os, name, guarded(getattr(os, name)))

from llama_router.catalog import worker
code = worker.main()
sys.stdout.flush()
os._exit(code)
"""


class DeadFolder:
    """Answers until it ``dies``. ``start`` stands in the place of ``start_helper``."""

    def __init__(self, folder: Path, gate: Path) -> None:
        self.folder = folder
        self._gate = gate
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, _module: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _SCRIPT, str(self.folder), str(self._gate)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.processes.append(process)
        return process

    def die(self) -> None:
        os.mkfifo(self._gate)

    def answer(self) -> None:
        """Let all go on that wait."""
        try:
            writer = os.open(self._gate, os.O_RDWR)
        except FileNotFoundError:
            return
        self._gate.unlink()
        os.close(writer)
