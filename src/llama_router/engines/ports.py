"""Ports for engines: upward from a base, each proven free when it is handed out."""

import errno
import socket
from collections.abc import Container

MAX_PORT = 65535

# Ports looked at per request. A bind takes some 10 us; and where this many in a row are taken, the
# base port is badly chosen.
MAX_TRIES = 200

_WILDCARDS = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 - tried, not served


class NoFreePortError(Exception):
    """Every port that was tried is in use."""


class PortAllocator:
    """Hands out ports of ``host`` from ``base_port`` upward, and again from there after the last.

    A port given back is not the next to be handed out, so that a late connection to an engine that
    has ended does not reach its successor.
    """

    def __init__(self, base_port: int, host: str) -> None:
        if not 1 <= base_port <= MAX_PORT:
            raise ValueError(f"base_port {base_port} is not between 1 and {MAX_PORT}")
        self._base_port = base_port
        self._host = host
        self._next = base_port
        self._in_use: set[int] = set()

    def acquire(self, avoided: Container[int] = ()) -> int:
        """Return a free port and keep it reserved; ``avoided`` are somebody else's, free or not.

        Raises :class:`NoFreePortError`.
        """
        for _ in range(min(MAX_TRIES, MAX_PORT - self._base_port + 1)):
            port = self._next
            self._next = port + 1 if port < MAX_PORT else self._base_port
            if port in self._in_use or port in avoided:
                continue
            if _is_free(self._host, port):
                self._in_use.add(port)
                return port
        raise NoFreePortError(
            f"no free port for an engine on {self._host}: tried {MAX_TRIES} from base_port "
            f"{self._base_port} upward; set base_port to a range that nothing else uses"
        )

    def release(self, port: int) -> None:
        """Give a port back. Idempotent."""
        self._in_use.discard(port)


def _is_free(host: str, port: int) -> bool:
    """Bind to the port, on the host's address and on all, without SO_REUSEADDR.

    So a listener on either counts, and so does a connection in TIME_WAIT: an engine that does not
    set SO_REUSEADDR itself could not bind.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return all(_can_bind(family, address, port) for address in (host, _WILDCARDS[family]))


def _can_bind(family: socket.AddressFamily, address: str, port: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise NoFreePortError(
                f"engines cannot listen on {address}: {error.strerror}"
            ) from error
    return True
