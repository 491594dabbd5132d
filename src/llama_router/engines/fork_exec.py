"""Starting a program by fork and exec. Standard library only: the guardian imports this.

Not ``subprocess``: its objects wait for their own children, and here one loop waits for all.
Only for processes with one thread.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

# Tells type checkers on other platforms to skip what follows.
assert sys.platform != "win32"  # noqa: S101

# What the guardian or Python changed and exec would hand on, or the router's own parent did.
_RESTORED_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)


def start(
    argv: list[bytes],
    environment: Mapping[bytes, bytes],
    stdio: Sequence[int],
    die_with_parent: Callable[[int], None],
) -> int:
    """Run ``argv`` in a session of its own; return its pid once its program has replaced ours.

    ``stdio``: descriptors for its stdin, stdout and stderr; it gets no others (all of ours close
    on exec, PEP 446). A name without a slash is looked up on the PATH of ``environment``.
    Raises OSError with the errno of fork or exec, ValueError for a NUL in an argument.
    """
    if len(stdio) != len(("stdin", "stdout", "stderr")):
        # The kernel drops passed descriptors when the receiver has no room for them.
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    if not argv or any(b"\0" in text for text in (*argv, *environment, *environment.values())):
        raise ValueError("the command is empty, or it or its environment contains a NUL byte")
    parent_pid = os.getpid()
    errno_reader, errno_writer = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(errno_reader)
        os.close(errno_writer)
        raise
    if pid == 0:
        _become(argv, environment, stdio, die_with_parent, parent_pid, errno_writer)
    os.close(errno_writer)
    # The end of the pipe comes with exec.
    with open(errno_reader, "rb") as reader:  # noqa: PTH123 - a descriptor, not a path
        failure = reader.read()
    if failure:
        os.waitpid(pid, 0)
        number = int(failure)
        raise OSError(number, os.strerror(number))
    return pid


def _become(
    argv: list[bytes],
    environment: Mapping[bytes, bytes],
    stdio: Sequence[int],
    die_with_parent: Callable[[int], None],
    parent_pid: int,
    errno_writer: int,
) -> None:
    """Turn the forked child into the engine. Does not return."""
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        die_with_parent(parent_pid)
        for number in _RESTORED_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        os.execvpe(argv[0], argv, environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(errno_writer, str(error.errno or 0).encode())
    finally:
        os._exit(127)
