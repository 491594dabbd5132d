"""The fake engine's misbehaviour as a process: children, noise, hunger for memory."""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

from llama_router.stress.fake_engine.state import Engine

_SCRIPT = os.path.join(os.path.dirname(__file__), "__main__.py")  # noqa: PTH118, PTH120 - quick
_FLOOD_LINE = b"the quick brown fox floods the pipe until it is full, and then some more\n"
# A child that no controller ends, ends itself: far longer than any test.
_ORPHAN_LIFE_S = 120
_FILL_PIECE_BYTES = 4 * 1024 * 1024
_FILL_MAX_COUNT = 64


def spawn_child(engine: Engine, *, stray: bool) -> None:
    """Run this program as a child; as a stray, its parent is gone and its session is its own."""
    kind = "stray" if stray else "child"
    argv = [sys.executable, "-I", "-S", "-E", _SCRIPT, "--be-child"]
    argv += ["--alias", f"{engine.alias}/{kind}"]
    if engine.options.control:
        argv += ["--control", engine.options.control]
    if engine.options.ignore_term:
        argv.append("--ignore-term")
    if sys.platform != "win32" and os.fork() == 0:
        if stray:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
        os.execv(argv[0], argv)  # noqa: S606 - no shell wanted


def end_with_control(engine: Engine) -> NoReturn:
    """Wait for the end: of the controller, if there is one."""
    if sys.platform != "win32" and engine.link is None:
        signal.alarm(_ORPHAN_LIFE_S)
    while True:
        threading.Event().wait()


def make_noise(options: argparse.Namespace) -> None:
    """Write to stdout, from a thread of its own, what a router must digest."""
    threading.Thread(target=_noise, args=(options,), name="noise", daemon=True).start()


def _noise(options: argparse.Namespace) -> None:
    out = sys.stdout.buffer
    if options.dirty_output:
        out.write(b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \xff\xfe\xc3( \x00 <b>&amp;\rover\r\n\n")
    if options.long_line_bytes:
        out.write(b"x" * options.long_line_bytes + b"\n")
    left = options.flood_bytes
    while left > 0:
        out.write(_FLOOD_LINE)
        left -= len(_FLOOD_LINE)
    out.flush()


def limit_memory(more_bytes: int) -> None:
    """Let this process grow by no more than ``more_bytes`` of address space (RLIMIT_AS)."""
    # Others do not enforce this limit, and fill_memory ends without it.
    if sys.platform == "linux":
        # Slow to import, and few engines need it.
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit_bytes = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def fill_memory() -> NoReturn:
    """Allocate until the limit is met, then end as an engine does whose model does not fit."""
    held: list[bytearray] = []
    try:
        # Bounded all the same, for a system that does not enforce the limit.
        while len(held) < _FILL_MAX_COUNT:
            held.append(bytearray(_FILL_PIECE_BYTES))
    except MemoryError:
        pass
    held.clear()
    sys.stderr.write("llama_model_load: error loading model: failed to allocate buffer\n")
    sys.stderr.flush()
    os._exit(1)
