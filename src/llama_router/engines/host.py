"""What starts and ends engine processes, whatever the operating system: the interface.

POSIX has :class:`llama_router.engines.guardian_client.GuardianClient`, Windows
:class:`llama_router.engines.platform.windows.JobHost`.
"""

from enum import Enum
from typing import Protocol

from llama_router.engines.launch import LaunchSpec


class Stream(Enum):
    """One of the two pipes that an engine writes to."""

    STDOUT = "stdout"
    STDERR = "stderr"


class PortOwner(Enum):
    """Who listens on a port, seen from one engine."""

    # Every listener there belongs to the engine's process tree.
    OURS = "ours"
    # At least one listener belongs to somebody else.
    FOREIGN = "foreign"
    # Nobody listens there.
    NONE = "none"


class HostListener(Protocol):
    """Told what happens to the processes. All methods are called on the loop of the host.

    Per generation: ``on_spawn_failed`` alone, or ``on_spawned``, ``on_exited``, ``on_reaped`` in
    this order, once each.
    """

    def on_spawned(self, generation: int) -> None:
        """The process exists and runs the engine's program."""

    def on_spawn_failed(self, generation: int, reason: str) -> None:
        """There is no process; ``reason`` carries the operating system's error text."""

    def on_output(self, generation: int, stream: Stream, data: bytes) -> None:
        """The engine wrote ``data``, at most 64 KiB, cut anywhere."""

    def on_exited(self, generation: int, returncode: int | None) -> None:
        """The main process ended and what it wrote has been delivered.

        ``returncode``: its exit status, or minus the signal's number; None when nobody saw it.
        """

    def on_reaped(self, generation: int) -> None:
        """Nothing of the engine's process tree is left."""


class EngineHost(Protocol):
    """Starts, stops and watches processes. No method but the coroutines takes noticeable time.

    A generation that is not known (any more) is ignored.
    """

    async def start(self) -> None:
        """Make ready for the first spawn. Raises :class:`HostError`."""

    def spawn(self, spec: LaunchSpec, *, hold_stdin: bool) -> None:
        """Start ``spec``; stdin is a pipe held open, or the null device."""

    def send(self, generation: int, data: bytes) -> None:
        """Write a few bytes to the engine's held stdin; dropped when it does not take them."""

    def close_stdin(self, generation: int) -> None:
        """Let the engine read the end of its stdin."""

    def terminate(self, generation: int) -> None:
        """Ask the engine's process group to end."""

    def kill(self, generation: int) -> None:
        """End the whole process tree now."""

    def pause_output(self, generation: int, stream: Stream) -> None:
        """Read nothing more of ``stream`` for now."""

    def resume_output(self, generation: int, stream: Stream) -> None:
        """Go on reading."""

    def pid(self, generation: int) -> int | None:
        """The pid of the engine's main process; None when there is none (any more)."""

    async def owner(self, generation: int, host: str, port: int) -> PortOwner:
        """Who listens on ``host:port``, seen from the engine of ``generation``."""

    async def close(self) -> None:
        """End every engine that is left, then the host's own helpers. Idempotent."""


class HostError(Exception):
    """Engines cannot be started at all on this machine, as things are."""
