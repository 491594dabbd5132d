"""Starting a program. Standard library only: the guardian imports this.

Not ``subprocess``: its objects wait for their own children, and here one loop waits for all.
Only for processes with one thread.

posix_spawn is the quick way: 0.1 ms, where a forked Python takes 2 to 7 ms to get to its exec, most
of it page faults. It cannot arrange for the program to die with its parent, so that is left to
setpriv (util-linux), which execs the program. Where there is none, it is fork and exec.
"""

import errno
import functools
import os
import signal
import stat
import sys
from collections.abc import Callable, Mapping, Sequence

# Tells type checkers on other platforms to skip what follows.
assert sys.platform != "win32"  # noqa: S101

# What the guardian or Python changed and exec would hand on, or the router's own parent did.
_RESTORED_SIGNALS = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)


_SETPRIV_PLACES = (b"/usr/bin/setpriv", b"/bin/setpriv")
_KNOWN_BEGINNINGS = (b"\x7fELF", b"#!")
_DIE_WITH_PARENT = (b"--pdeathsig", b"KILL", b"--")


@functools.cache
def setpriv() -> bytes | None:
    """Return the path of a setpriv that can do what is needed of it, or None.

    The one of busybox cannot. Runs it once.
    """
    for path in _SETPRIV_PLACES if sys.platform == "linux" else ():
        if not os.access(path, os.X_OK):
            continue
        null = os.open(os.devnull, os.O_RDWR)
        try:
            argv = [path, *_DIE_WITH_PARENT, path, b"--version"]
            pid = _posix_spawn(argv, {}, (null, null, null))
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
                return path
        except OSError:
            continue
        finally:
            os.close(null)
    return None


def start(
    argv: list[bytes],
    environment: Mapping[bytes, bytes],
    stdio: Sequence[int],
    die_with_parent: Callable[[int], None],
) -> int:
    """Run ``argv`` in a session of its own, to be killed if we die; return its pid.

    ``stdio``: descriptors for its stdin, stdout and stderr; it gets no others (all of ours close
    on exec, PEP 446). A name without a slash is looked up on the PATH of ``environment``.
    Raises OSError with the errno of fork or exec, ValueError for a NUL in an argument.
    """
    if len(stdio) != len(("stdin", "stdout", "stderr")):
        # The kernel drops passed descriptors when the receiver has no room for them.
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    if not argv or any(b"\0" in text for text in (*argv, *environment, *environment.values())):
        raise ValueError("the command is empty, or it or its environment contains a NUL byte")
    launcher = setpriv()
    if launcher is not None:
        program = _find(argv[0], environment)
        # Whatever else it may be, exec has to judge: setpriv would hand it to a shell.
        if _begins_with(program, _KNOWN_BEGINNINGS):
            whole = [launcher, *_DIE_WITH_PARENT, program, *argv[1:]]
            return _posix_spawn(whole, environment, stdio)
    return _fork(argv, environment, stdio, die_with_parent)


def _posix_spawn(
    argv: list[bytes], environment: Mapping[bytes, bytes], stdio: Sequence[int]
) -> int:
    return os.posix_spawn(
        argv[0],
        argv,
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(stdio)],
        setsid=True,
        setsigmask=(),
        setsigdef=_RESTORED_SIGNALS,
    )


def _begins_with(program: bytes, beginnings: tuple[bytes, ...]) -> bool:
    try:
        with open(program, "rb", buffering=0) as file:  # noqa: PTH123 - bytes
            return file.read(max(map(len, beginnings))).startswith(beginnings)
    except OSError:
        # A program may be executable without being readable.
        return False


def _find(name: bytes, environment: Mapping[bytes, bytes]) -> bytes:
    """Return where a program is, as execvpe would look for it. Raises OSError if it cannot run."""
    if b"/" in name:
        places = [name]
    else:
        search_path = environment.get(b"PATH", os.fsencode(os.defpath))
        places = [os.path.join(folder, name) for folder in search_path.split(b":")]  # noqa: PTH118
    number = errno.ENOENT
    for place in places:
        try:
            is_file = stat.S_ISREG(os.stat(place).st_mode)  # noqa: PTH116 - bytes
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                number = error.errno or number
            continue
        if is_file and os.access(place, os.X_OK):
            return place
        number = errno.EACCES
    raise OSError(number, os.strerror(number))


def _fork(
    argv: list[bytes],
    environment: Mapping[bytes, bytes],
    stdio: Sequence[int],
    die_with_parent: Callable[[int], None],
) -> int:
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
