"""What is needed to start one engine, whatever kind it is."""

from collections.abc import Mapping
from enum import Enum

import msgspec


class Readiness(Enum):
    """How an engine makes known that it answers."""

    # Pushed over the engine's stdout (llama.cpp, tools/server/server-models.cpp: the lines
    # "cmd_child_to_router:state:{json}"), and the stdin pipe held open for its exit line.
    PUSHED = "pushed"
    # The health endpoint is asked until it answers 200.
    PROBED = "probed"


class OwnerCheck(Enum):
    """Whose listener on the port is believed."""

    # A process of the engine's own tree must own the listening socket.
    TREE = "tree"
    # Enough that the port was proven free immediately before the spawn (docker run, sudo …).
    PORT = "port"


class LaunchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A command that is ready to run: every placeholder is filled in.

    ``argv`` is never given to a shell. ``env`` is the whole environment of the engine.
    ``host`` and ``port`` are where it will listen, ``path_prefix`` is what goes before the path of
    each request; ``health_path`` answers 200 when it is ready, and is empty for an engine that is
    ready as soon as its port accepts connections. ``is_address_given``: who answers there is
    believed, see ``engines/address.py``.
    ``stop_argv`` is run to stop it in place of a signal, unless it is empty; the pid of its main
    process goes between the parts of each argument.
    """

    model: str
    generation: int
    argv: tuple[str, ...]
    env: Mapping[str, str]
    host: str
    port: int
    health_path: str
    readiness: Readiness
    owner_check: OwnerCheck = OwnerCheck.TREE
    path_prefix: str = ""
    is_address_given: bool = False
    stop_argv: tuple[tuple[str, ...], ...] = ()
