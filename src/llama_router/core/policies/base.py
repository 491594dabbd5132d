"""What a scheduling policy is."""

from typing import Protocol

import msgspec

from llama_router.core.commands import RejectKind
from llama_router.core.ledger import Ledger
from llama_router.core.model import Model


class Serve(msgspec.Struct, frozen=True):
    """Dispatch the first ``limit`` who wait for this READY model, or all (None)."""

    model: Model
    limit: int | None = None


class Start(msgspec.Struct, frozen=True):
    """Start the engine of this UNLOADED model; nothing that excludes it has a process."""

    model: Model


class Stop(msgspec.Struct, frozen=True):
    """Stop this idle READY model, or this STARTING one that nobody waits for, for another."""

    model: Model
    sake_of: Model


class Claim(msgspec.Struct, frozen=True):
    """Start this UNLOADED model as soon as there is room; ``victims`` take no newcomers and go.

    Nothing is cut for it: they finish what they are doing first. ``reason`` is for people.
    """

    model: Model
    victims: tuple[Model, ...]
    reason: str


class Refuse(msgspec.Struct, frozen=True):
    """Reject all who wait for this model: its turn would never come."""

    model: Model
    kind: RejectKind
    reason: str


class Wake(msgspec.Struct, frozen=True):
    """Ask again at this time at the latest: the passing of time alone may change the answer."""

    at: float


Step = Serve | Start | Stop | Claim | Refuse | Wake


class Policy(Protocol):
    """Decides what to do next. Pure: it reads the records, changes nothing, remembers nothing.

    With ``serves_at_once`` the core itself gives requests to any ready model that is not closing
    for a claim, whoever else waits. Without it, nobody is served as long as anybody waits, except
    by ``Serve``. With ``serves_load`` all who wait for a model when it gets ready are served.
    """

    serves_at_once: bool
    serves_load: bool

    def plan(self, ledger: Ledger) -> list[Step]:
        """Return what can be done now, in order; nothing when all have to wait.

        The core carries the steps out and asks again after any Serve, Claim or Refuse; a plan that
        has been carried out must lead to an empty one, but for ``Wake``.
        """
