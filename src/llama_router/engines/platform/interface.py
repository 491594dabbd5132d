"""What the guardian and the search for leftovers need of a POSIX system.

Standard library only: the guardian imports this.
"""

from collections.abc import Callable, Container, Iterable
from typing import NamedTuple, Protocol


class Tree(NamedTuple):
    """The living processes of one engine, and whether there may be more.

    ``is_whole`` is False while it cannot be told of some process whose it is.
    """

    pids: set[int]
    is_whole: bool = True


class ProcessTable(Protocol):
    """The processes of this machine. A pid that is gone is no error, it is just not there."""

    def become_subreaper(self) -> None:
        """Have orphans of this process's descendants become its children, where possible."""

    def die_with_parent(self, parent_pid: int) -> None:
        """Called between fork and exec: have this process killed when ``parent_pid`` ends."""

    def exit_watch(self, pid: int) -> int | None:
        """Return a descriptor that becomes readable when ``pid`` ends; None where there is none."""

    def boot_id(self) -> str:
        """Return what names this boot of the machine."""

    def start_time(self, pid: int) -> str | None:
        """Return when ``pid`` was started, in a form of the system's own; None when it is gone."""

    def collect_exit(self, before_reap: Callable[[int], None]) -> tuple[int, int] | None:
        """Reap one ended child: (pid, wait status), or None when there is none.

        ``before_reap(pid)`` runs while the pid cannot yet be given to another process, where the
        system allows.
        """

    def tree(self, main_pid: int | None, session: int, mark: bytes, others: Container[int]) -> Tree:
        """Return the living processes of one engine.

        ``main_pid``: its main process, None when that was reaped. ``session``: the session it was
        started in. ``mark``: its entry in the environment. ``others``: main pids of other engines.
        """

    def descendants(self, pid: int) -> set[int]:
        """Return all living processes below ``pid``."""

    def marked(self, mark: bytes) -> set[int]:
        """Return this user's living processes whose environment has an entry starting so."""

    def kill_if(self, pid: int, is_meant: Callable[[], bool]) -> bool:
        """SIGKILL ``pid`` if ``is_meant()`` once the pid is pinned; False when nothing was sent."""

    def listener_owners(self, host: str, port: int, pids: Iterable[int]) -> tuple[int, int]:
        """Count the listening sockets for ``host:port``: (all of them, those held by ``pids``)."""
