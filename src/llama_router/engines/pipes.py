"""Engine output on POSIX: raw, non-blocking reads of a pipe, on uvloop and asyncio alike.

Not asyncio's StreamReader: one line above its limit ends the reading, and the engine then blocks
on a full pipe.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable

# Per callback of the loop: the capacity of a Linux pipe.
CHUNK_BYTES = 64 * 1024

# What is still read after the engine's end; more can only come from a process that it left behind
# and that goes on writing.
DRAIN_LIMIT_BYTES = 4 * CHUNK_BYTES


class OutputPump:
    """Reads one pipe and delivers what comes, until it ends or is closed.

    It owns ``fd``, which must be non-blocking.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, deliver: Callable[[bytes], None]
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._deliver = deliver
        self._is_open = True
        self._is_paused = False
        self._after_drain: Callable[[], None] | None = None
        self._drained_bytes = 0
        loop.add_reader(fd, self._read)

    def pause(self) -> None:
        """Read nothing for now; the writer blocks when the pipe is full."""
        if self._is_open and not self._is_paused:
            self._is_paused = True
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Go on reading."""
        if self._is_open and self._is_paused:
            self._is_paused = False
            self._loop.add_reader(self._fd, self._read)
            if self._after_drain is not None:
                self._loop.call_soon(self._read)

    def drain(self, then: Callable[[], None]) -> None:
        """Call ``then`` once everything that is in the pipe now has been delivered."""
        self._after_drain = then
        self._drained_bytes = 0
        self._loop.call_soon(self._read if self._is_open else self._drained)

    def close(self) -> None:
        """Stop reading. Idempotent."""
        if self._is_open:
            self._is_open = False
            if not self._is_paused:
                self._loop.remove_reader(self._fd)
            os.close(self._fd)

    def _read(self) -> None:
        if self._is_paused:
            return
        if not self._is_open:
            self._drained()
            return
        try:
            data = os.read(self._fd, CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            self._drained()
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            self._drained()
            return
        self._deliver(data)
        if self._after_drain is not None:
            self._drained_bytes += len(data)
            if self._drained_bytes >= DRAIN_LIMIT_BYTES:
                self._drained()
            else:
                self._loop.call_soon(self._read)

    def _drained(self) -> None:
        then, self._after_drain = self._after_drain, None
        if then is not None:
            then()


class InputPipe:
    """The router's end of an engine's stdin. It owns ``fd``, which must be non-blocking."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_open = True

    def write(self, data: bytes) -> None:
        """Write a few bytes; an engine that has not read its stdin for 64 KiB does not get them."""
        if self._is_open:
            with contextlib.suppress(OSError):
                os.write(self._fd, data)

    def close(self) -> None:
        """Let the engine read the end. Idempotent."""
        if self._is_open:
            self._is_open = False
            os.close(self._fd)
