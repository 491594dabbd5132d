"""Fake engines' parts without a process."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from llama_router.stress.fake_engine.__main__ import _options
from llama_router.stress.fake_engine.connection import Connection
from llama_router.stress.fake_engine.state import Engine


class Heard:
    """A Reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def tell(self, event: str, **facts: object) -> None:
        self.events.append((event, facts))


def engine_of(*switches: str) -> Engine:
    engine = Engine(_options(["--alias", "alpha", *switches]), "alpha")
    engine.is_ready = True
    return engine


@contextmanager
def connected(engine: Engine) -> Iterator[tuple[Connection, socket.socket]]:
    """Give the engine's end of a connection and its client's."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    with ours, theirs:
        yield Connection(engine, ours), theirs
