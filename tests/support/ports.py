"""Ports for routers and engines that no other test has, in this run or in one beside it.

    port = port_window()  # and the nineteen that follow
    port = free_port()  # for one server

A port that was proven free and let go again may be another's a moment later: two runs of the tests
on one machine, or two of their workers, would find the same. So each process takes a block of ports
for as long as it lives, by listening on the block's first port, which the kernel gives back however
the process ends.
"""

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator

HOST = "127.0.0.1"
WINDOW_COUNT = 20

# Below what Linux, macOS and Windows take for outgoing connections.
_FIRST_PORT, _LAST_PORT = 10_000, 32_000
_BLOCK_COUNT = 1_000
# A router hands out its ports upward, one for each load: a test with many leaves its window, and
# at the end of a block must not come to the next.
_SPARE_COUNT = 100
_WINDOWS_COUNT = (_BLOCK_COUNT - _SPARE_COUNT - 1) // WINDOW_COUNT


class PortBlock:
    """The ports of one process. ``close`` gives them back."""

    def __init__(self) -> None:
        for first in range(_FIRST_PORT, _LAST_PORT, _BLOCK_COUNT):
            claim = socket.socket()
            try:
                claim.bind((HOST, first))
                claim.listen(1)
            except OSError:
                claim.close()
                continue
            self._claim = claim
            self.first = first
            break
        else:
            raise OSError(f"every block of ports from {_FIRST_PORT} to {_LAST_PORT} is taken")
        self._windows = self._all_windows()
        self._singles: Iterator[int] = iter(())

    def window(self) -> int:
        """Give the first of the next ports that are all free; those of ended tests come again.

        Those on which connections were just closed (TIME_WAIT) only if there are no others.
        """
        for may_linger in (False, True):
            for first in itertools.islice(self._windows, _WINDOWS_COUNT):
                ports = range(first, first + WINDOW_COUNT)
                if all(_is_free(port, may_linger=may_linger) for port in ports):
                    return first
        raise OSError(f"something else uses the ports from {self.first} upward")

    def single(self) -> int:
        """Give the next port that is free, of windows that are nobody else's."""
        for port in self._singles:
            if _is_free(port, may_linger=False):
                return port
        first = self.window()
        self._singles = iter(range(first + 1, first + WINDOW_COUNT))
        return first

    def close(self) -> None:
        """Let others have the block."""
        self._claim.close()

    def _all_windows(self) -> Iterator[int]:
        first = self.first + 1
        last = first + _WINDOWS_COUNT * WINDOW_COUNT
        return itertools.cycle(range(first, last, WINDOW_COUNT))


def _is_free(port: int, *, may_linger: bool) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        if may_linger and os.name == "posix":  # on Windows it would take another's port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


_block: PortBlock | None = None


def port_window() -> int:
    """Give the first of twenty ports that no other test uses: the router's, then its engines'."""
    return _own_block().window()


def free_port() -> int:
    """Give a port that no other test uses, for one server, or for none."""
    return _own_block().single()


def _own_block() -> PortBlock:
    global _block  # noqa: PLW0603 - one for each process
    if _block is None:
        _block = PortBlock()
    return _block
