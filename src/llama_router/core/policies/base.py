"""What a scheduling policy is."""

from collections.abc import Collection
from typing import Protocol

import msgspec

from llama_router.core.model import Model


class Serve(msgspec.Struct, frozen=True):
    """Dispatch all who wait for this READY model."""

    model: Model


class Start(msgspec.Struct, frozen=True):
    """Start the engine of this UNLOADED model; nothing that excludes it has a process."""

    model: Model


class Stop(msgspec.Struct, frozen=True):
    """Stop this idle READY model, or this STARTING one that nobody waits for, for another."""

    model: Model
    sake_of: Model


Step = Serve | Start | Stop


class Policy(Protocol):
    """Decides what to do next. Pure: it reads the records, changes nothing, remembers nothing."""

    def plan(self, waiting: Collection[Model], running: Collection[Model]) -> list[Step]:
        """Return what can be done now, in order; nothing when all have to wait.

        ``waiting`` are the models with waiters, ``running`` those with a process, both in no
        useful order. The core carries the steps out and asks again after any Serve; a plan that
        has been carried out must lead to an empty one.
        """

    def excludes(self, one: Model, other: Model) -> bool:
        """Return whether the two may not have a process at the same time."""
