"""macOS: ps, lsof and kqueue. Standard library only: the guardian imports this.

There is no subreaper and no parent-death signal; orphans are found by the mark in their
environment, which ps shows for the user's own processes.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Container, Iterable

from llama_router.engines.platform.interface import Tree

# ps and lsof answer in some ten milliseconds; one that takes this long is stuck.
_TOOL_TIMEOUT_S = 2.0

# Tells type checkers on other platforms to skip what follows.
assert sys.platform == "darwin"  # noqa: S101


class DarwinProcessTable:
    """See :class:`llama_router.engines.platform.interface.ProcessTable`."""

    def __init__(self) -> None:
        # Kept, because a collected kqueue closes its descriptor.
        self._watches: list[object] = []

    def become_subreaper(self) -> None:
        """Do nothing: orphans go to launchd."""

    def die_with_parent(self, parent_pid: int) -> None:
        """Do what can be done: end at once when the parent has ended already."""
        if os.getppid() != parent_pid:
            os._exit(1)

    def exit_watch(self, pid: int) -> int | None:
        """Return a kqueue that becomes readable with NOTE_EXIT."""
        queue = select.kqueue()
        exit_event = select.kevent(
            pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT
        )
        try:
            queue.control([exit_event], 0, 0)
        except OSError:
            queue.close()
            return None
        self._watches.append(queue)
        return queue.fileno()

    def boot_id(self) -> str:
        """Return the kernel's id of this boot."""
        return _run("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid").strip()

    def start_time(self, pid: int) -> str | None:
        """Return the start in seconds, as ps prints it."""
        state, _, started = _run("/bin/ps", "-o", "state=,lstart=", "-p", str(pid)).partition(" ")
        if not state or state.startswith("Z"):
            return None
        return " ".join(started.split())

    def collect_exit(self, before_reap: Callable[[int], None]) -> tuple[int, int] | None:
        """Reap one ended child.

        os.waitid came to macOS with Python 3.13; pids are given out in sequence there, so one is
        not taken again in the moment until ``before_reap`` has used it.
        """
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        before_reap(pid)
        return pid, status

    def tree(self, main_pid: int | None, session: int, mark: bytes, others: Container[int]) -> Tree:
        """Gather descendants, members of the process group and everything with the mark."""
        parents, groups = _families()
        found = {pid for pid, group in groups.items() if group == session}
        found |= self.marked(mark)
        if main_pid is not None and main_pid in parents:
            found.add(main_pid)
        found |= _below(found, parents)
        return Tree({pid for pid in found if pid not in others and pid != os.getpid()})

    def descendants(self, pid: int) -> set[int]:
        """Return all living processes below ``pid``."""
        return _below({pid}, _families()[0])

    def marked(self, mark: bytes) -> set[int]:
        """Search the environments that ps shows."""
        # ps separates the entries by spaces.
        wanted = " " + mark.rstrip(b"\0").decode()
        whole_entry = mark.endswith(b"\0")
        found = set()
        for line in _run("/bin/ps", "-xEww", "-o", "pid=,command=").splitlines():
            pid, _, command = line.strip().partition(" ")
            padded = f" {command} "
            if (f"{wanted} " if whole_entry else wanted) in padded and pid.isdigit():
                found.add(int(pid))
        return found - {os.getpid()}

    def kill_if(self, pid: int, is_meant: Callable[[], bool]) -> bool:
        """Check, then kill: macOS cannot pin a pid that is not a child."""
        if not is_meant():
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            return False
        return True

    def listener_owners(self, host: str, port: int, pids: Iterable[int]) -> tuple[int, int]:
        """Ask lsof who listens; ``host`` is not looked at, which can only refuse too much."""
        del host
        listing = _run("/usr/sbin/lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fp")
        owners = {int(line[1:]) for line in listing.splitlines() if line.startswith("p")}
        return len(owners), len(owners & set(pids))


def _run(*command: str) -> str:
    """Return what a tool of the system prints, or nothing when it fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C", "TZ": "UTC"},
            timeout=_TOOL_TIMEOUT_S,
            check=False,
            text=True,
            errors="replace",
        ).stdout
    return ""


def _families() -> tuple[dict[int, int], dict[int, int]]:
    """Return the parent and the process group of every living process."""
    parents: dict[int, int] = {}
    groups: dict[int, int] = {}
    for line in _run("/bin/ps", "-axo", "pid=,ppid=,pgid=,state=").splitlines():
        pid, parent, group, state = line.split()
        if not state.startswith("Z"):
            parents[int(pid)] = int(parent)
            groups[int(pid)] = int(group)
    return parents, groups


def _below(roots: set[int], parents: dict[int, int]) -> set[int]:
    found: set[int] = set()
    todo = set(roots)
    while todo:
        todo = {pid for pid, parent in parents.items() if parent in todo} - found
        found |= todo
    return found
