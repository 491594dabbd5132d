"""The life of the embedded engine's process.

llama.cpp's server inside xllamacpp reports to a router by itself when ``LLAMA_SERVER_ROUTER_PORT``
is set: loading progress, then readiness, as lines on stdout, while its log goes to stderr. It would
also watch stdin, but only once the model is loaded, and stops its server instead of the process. So
it is given a stdin that never says anything, and the real one is watched here.

Once it serves, it ends by ``os._exit`` or a signal's default action: there is nothing to save, and
tearing down llama.cpp's threads from within Python is neither quick nor safe.
"""

import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import NoReturn

from llama_router.engines.embedded.flags import FlagError, Settings, parse_flags
from llama_router.engines.embedded.table import TABLE

_NAME = "llama-router embedded engine"

_PUSH_VARIABLE = "LLAMA_SERVER_ROUTER_PORT"
# llama-server's, by which the router keeps an engine within its memory; the command wins over them.
_VARIABLES = {"LLAMA_ARG_CACHE_RAM": "--cache-ram", "LLAMA_ARG_FIT_TARGET": "--fit-target"}
_EXIT_LINE = b"cmd_router_to_child:exit"

# A router sends nothing but the exit line, so a longer line is not a command.
_MAX_LINE_BYTES = 4096

_EXIT_OK, _EXIT_FAILED, _EXIT_USAGE = 0, 1, 2


def main(arguments: Sequence[str]) -> NoReturn:
    """Serve until told to end.

    Exit status: 0 after the exit line, 1 when the model or the address fails or the router is gone,
    2 for a flag that cannot be taken.
    """
    try:
        settings = parse_flags([*flags_of(os.environ), *arguments], TABLE)
        _check(settings)
    except FlagError as error:
        _fail(str(error), _EXIT_USAGE)
    router_fd = _take_stdin() if _PUSH_VARIABLE in os.environ else None
    if router_fd is not None:
        _die_when_spoken_to(router_fd)
    _end_by_signals()
    server = _start(settings)
    _end_by_signals()
    if router_fd is not None:
        _listen_again(router_fd)
        _obey(router_fd)
    threading.Event().wait()
    del server  # it had to live until here
    _exit(_EXIT_OK)


def flags_of(environment: Mapping[str, str]) -> list[str]:
    """Return what the environment says as flags."""
    return [
        part
        for variable, flag in _VARIABLES.items()
        if environment.get(variable)
        for part in (flag, environment[variable])
    ]


def _end_by_signals() -> None:
    # Not by handlers of Python's, which do not run while llama.cpp loads, nor by xllamacpp's, which
    # stop its server and leave the process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _check(settings: Settings) -> None:
    if not settings.values.get("model.path"):
        raise FlagError("option --model is missing: which GGUF file to serve")


def _start(settings: Settings) -> object:
    """Load the model and listen; ends the process when either fails."""
    try:
        import xllamacpp
    except ImportError as error:
        _fail(f"the package xllamacpp cannot be loaded ({error}); install llama-server instead")
    from llama_router.engines.embedded.apply import make_parameters

    try:
        parameters = make_parameters(xllamacpp, settings)
    except FlagError as error:
        _fail(str(error), _EXIT_USAGE)
    try:
        return xllamacpp.Server(parameters)  # returns when it listens and the model is loaded
    except RuntimeError as error:
        # llama.cpp's log has the reason: no such file, no memory, address in use … A thread writes
        # it, so this once the process ends in the orderly way, which waits for that thread.
        where = f"{','.join(parameters.hostnames)}:{parameters.port}"
        sys.stderr.write(
            f"{_NAME}: cannot serve {parameters.model.path} at {where}; "
            f"the log on stderr says why ({error})\n"
        )
        sys.exit(_EXIT_FAILED)


def _take_stdin() -> int:
    """Take the router's pipe away from llama.cpp; give its new descriptor."""
    router_fd = os.dup(0)
    silent_fd, held_open_fd = os.pipe()
    os.dup2(silent_fd, 0)
    os.close(silent_fd)
    os.set_inheritable(held_open_fd, False)
    return router_fd


if sys.platform == "linux":
    import fcntl
    import select

    def _die_when_spoken_to(fd: int) -> None:
        """End the process by a signal as soon as the router's pipe says anything, even its end.

        xllamacpp holds the interpreter's lock during the whole load, so no Python code could react.
        The kernel can, and the router says nothing but "exit".
        """
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGTERM)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
        # What was said before that made no signal.
        if select.select([fd], [], [], 0)[0]:
            _obey(fd)

    def _listen_again(fd: int) -> None:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_ASYNC)

else:

    def _die_when_spoken_to(fd: int) -> None:
        """Do nothing: a loading engine is ended from outside, by a signal or its job object."""

    def _listen_again(fd: int) -> None:
        pass


def _obey(fd: int) -> NoReturn:
    """Read the router's commands until it says exit or is gone."""
    pending = b""
    while True:
        try:
            chunk = os.read(fd, _MAX_LINE_BYTES)
        except OSError:
            chunk = b""
        if not chunk:
            _exit(_EXIT_FAILED)  # as llama-server: the router died
        *lines, pending = (pending + chunk).split(b"\n")
        if any(line.strip() == _EXIT_LINE for line in lines):
            _exit(_EXIT_OK)
        pending = pending[-_MAX_LINE_BYTES:]


def _fail(message: str, status: int = _EXIT_FAILED) -> NoReturn:
    sys.stderr.write(f"{_NAME}: {message}\n")
    _exit(status)


def _exit(status: int) -> NoReturn:
    sys.stderr.flush()
    os._exit(status)
