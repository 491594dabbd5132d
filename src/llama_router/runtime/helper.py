"""Helper processes of the router: what would hold up the event loop runs in one of these."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping


def start_helper(
    module: str, *, env: Mapping[str, str] | None = None, is_mute: bool = True
) -> "subprocess.Popen[bytes]":
    """Start a module of ours with pipes on both sides; it has to end when its stdin does.

    ``env`` is its environment, None for the router's own. What a mute one says on stderr is lost.
    -P keeps the working directory off the module search path. The session is its own: Ctrl-C in a
    terminal is for the router. Where whoever starts a process gives its priority, it is a low one;
    elsewhere it makes itself nice. Raises OSError.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if is_mute else None,
        env=None if env is None else dict(env),
        start_new_session=os.name == "posix",
        creationflags=getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0),
    )


def end_helper(child: "subprocess.Popen[bytes]") -> None:
    """Kill a process, wait for its end and let go of its pipes. Idempotent."""
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            # What was not sent yet cannot be any more.
            with contextlib.suppress(OSError):
                stream.close()
