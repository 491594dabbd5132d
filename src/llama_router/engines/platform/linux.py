"""Linux: /proc, prctl and pidfds. Standard library only: the guardian imports this."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path

from llama_router.engines.platform import linux_listeners
from llama_router.engines.platform.interface import Tree
from llama_router.engines.record import MARK_VARIABLE

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# An environment is limited to a quarter of the stack; this is far above any real one.
_MAX_ENVIRON_BYTES = 4 * 1024 * 1024

# proc_pid_stat(5): the fields 6, 22, 23 and 51, counted from the third, which is the first that
# _stat returns.
_SESSION, _START_TIME, _VSIZE, _ENV_END = 3, 19, 20, 48

# At a process that has no environment at the moment.
_MAX_LOOKS = 50

_PROC = Path("/proc")

# Tells type checkers on other platforms to skip what follows.
assert sys.platform == "linux"  # noqa: S101


class LinuxProcessTable:
    """See :class:`llama_router.engines.platform.interface.ProcessTable`."""

    def __init__(self) -> None:
        self._prctl = ctypes.CDLL(None).prctl
        self._prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
        # CONFIG_PROC_CHILDREN; without it every process has to be looked at.
        self._has_children_files = Path(f"/proc/self/task/{os.getpid()}/children").exists()

    def become_subreaper(self) -> None:
        """Adopt orphaned descendants (prctl(2), Linux 3.4)."""
        self._prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def die_with_parent(self, parent_pid: int) -> None:
        """Have the kernel send SIGKILL when the parent's spawning thread ends (prctl(2))."""
        self._prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent_pid:
            # It ended before the request took effect.
            os._exit(1)

    def exit_watch(self, pid: int) -> int | None:
        """Return a pidfd (Linux 5.3)."""
        try:
            return os.pidfd_open(pid)
        except OSError:
            return None

    def boot_id(self) -> str:
        """Return the kernel's random id of this boot."""
        return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()

    def start_time(self, pid: int) -> str | None:
        """Return the start in clock ticks since boot (proc_pid_stat(5), field 22)."""
        fields = _stat(pid)
        if fields is None or fields[0] in "ZX":
            return None
        return fields[_START_TIME]

    def collect_exit(self, before_reap: Callable[[int], None]) -> tuple[int, int] | None:
        """Reap one ended child; its pid and process group stay taken while ``before_reap`` runs."""
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return None
        if ended is None:
            return None
        before_reap(ended.si_pid)
        return os.waitpid(ended.si_pid, 0)

    def tree(self, main_pid: int | None, session: int, mark: bytes, others: Container[int]) -> Tree:
        """Walk down from the main process and from this process's adopted children.

        Orphans of an engine become children of the subreaper that asks here, so no other place
        needs to be searched. Which engine they came from tells their environment, or their session
        when they have changed that.
        """
        found: set[int] = set()
        is_whole = True
        if main_pid is not None and self.start_time(main_pid) is not None:
            found |= {main_pid} | self.descendants(main_pid)
        for child in self._children(os.getpid()):
            if child == main_pid or child in others:
                continue
            belongs = _belongs(child, session, mark)
            if belongs:
                found |= {child} | self.descendants(child)
            is_whole = is_whole and belongs is not None
        return Tree(found, is_whole)

    def descendants(self, pid: int) -> set[int]:
        """Return all living processes below ``pid``; zombies are not among them."""
        found: set[int] = set()
        todo = [pid]
        while todo:
            for child in self._children(todo.pop()):
                if child not in found:
                    found.add(child)
                    todo.append(child)
        return found

    def marked(self, mark: bytes) -> set[int]:
        """Look through the environments of all processes that may be read."""
        wanted = b"\0" + mark
        return {pid for pid in _pids() if pid != os.getpid() and wanted in _environ(pid)}

    def kill_if(self, pid: int, is_meant: Callable[[], bool]) -> bool:
        """Kill through a pidfd, which cannot come to mean another process."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        try:
            if not is_meant():
                return False
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(pidfd)

    def listener_owners(self, host: str, port: int, pids: Iterable[int]) -> tuple[int, int]:
        """Match the inodes of the sockets with the processes' descriptors."""
        inodes = linux_listeners.listening_inodes(host, port)
        if not inodes:
            return 0, 0
        wanted = {f"socket:[{inode}]" for inode in inodes}
        held: set[str] = set()
        for pid in pids:
            held |= wanted & set(_descriptors(pid))
            if held == wanted:
                break
        return len(wanted), len(held)

    def _children(self, pid: int) -> list[int]:
        if not self._has_children_files:
            parent = str(pid)
            return [
                candidate
                for candidate in _pids()
                if (fields := _stat(candidate)) and fields[1] == parent and fields[0] not in "ZX"
            ]
        children: list[int] = []
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names, not paths
                with contextlib.suppress(OSError):
                    listed = Path(f"/proc/{pid}/task/{task}/children").read_text("ascii")
                    children += [int(child) for child in listed.split()]
        return [child for child in children if self.start_time(child) is not None]


def _pids() -> Iterator[int]:
    names = os.listdir(_PROC)  # noqa: PTH208 - names, not paths
    return (int(name) for name in names if name.isdigit())


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/pid/stat from the third on (state, ppid, pgrp, session, ...)."""
    try:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the command in parentheses and may itself contain anything.
    return raw[raw.rfind(b")") + 2 :].decode("ascii").split()


def _environ(pid: int) -> bytes:
    try:
        with Path(f"/proc/{pid}/environ").open("rb") as file:
            # Entries end with NUL; one in front lets every entry be found by its start.
            return b"\0" + file.read(_MAX_ENVIRON_BYTES)
    except OSError:
        return b""


def _belongs(pid: int, session: int, mark: bytes) -> bool | None:
    """Tell whose adopted child ``pid`` is by its environment, or by its session without one.

    A process in the middle of exec, or on its way out, has no environment to be seen. The latter
    counts as one of the tree's, which must not be called empty yet. The former is over in a moment,
    unless the machine is busy: None then, if its session does not tell either.
    """
    for _ in range(_MAX_LOOKS):
        environ = _environ(pid)
        if f"\0{MARK_VARIABLE}=".encode() in environ:
            return b"\0" + mark in environ
        fields = _stat(pid)
        if fields is None or fields[0] in "ZX":
            return False
        if fields[_VSIZE] == "0" or fields[_SESSION] == str(session):
            return True
        if environ != b"\0" or fields[_ENV_END] != "0":
            return False
        os.sched_yield()
    return None


def _descriptors(pid: int) -> Iterator[str]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - names, not paths
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115 - the text, not a path
