"""How much of each device's memory is given out, and what a model would take.

A reservation is made before the spawn and ends with the reap, because what a process holds is only
free when nothing of it is left.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from llama_router.core.events import DeviceBytes
from llama_router.core.model import Model

OUT_OF_MEMORY_GROWTH: Final = 1.25
"""An engine that ran out of memory needs more than was thought; a few such steps reach any size."""


class Memory:
    """Budgets and reservations, in bytes by device. Without budgets nothing is ever short."""

    def __init__(self, budgets: Iterable[DeviceBytes] = ()) -> None:
        self.budgets: dict[str, int] = {}
        self.reserved: dict[str, int] = {}
        self.overdraft: dict[str, int] = {}
        """By how much a device is overbooked: a budget has shrunk, or an engine grown."""
        self.set_budgets(budgets)

    def set_budgets(self, budgets: Iterable[DeviceBytes]) -> None:
        """Replace the budgets; nobody loses a reservation."""
        self.budgets = {budget.device: budget.size_bytes for budget in budgets}
        for device in self.budgets:
            self.reserved.setdefault(device, 0)
        self._note_overdraft()

    def free(self) -> dict[str, int]:
        """Return what is free on each device with a budget; negative where it is overbooked."""
        reserved = self.reserved
        return {device: size - reserved[device] for device, size in self.budgets.items()}

    def never_fits(self, need: Iterable[DeviceBytes]) -> bool:
        """Return whether ``need`` is more than a device has even when it is empty."""
        return lacks(self.budgets, need)

    def reserve(self, model: Model) -> None:
        """Book what ``model`` needs. Its process is about to start."""
        self._book(model, model.memory)

    def release(self, model: Model) -> None:
        """Give back what ``model`` held. Nothing of its process is left."""
        if model.reserved:
            self._book(model, ())
            self._note_overdraft()

    def correct(self, model: Model, memory: tuple[DeviceBytes, ...]) -> None:
        """Book what a running engine turned out to hold."""
        self._book(model, memory)
        self._note_overdraft()

    def raised(self, model: Model) -> tuple[DeviceBytes, ...]:
        """Return what to expect of a model whose engine ran out of memory.

        That is a quarter more than was reserved; but before the model is taken for too large, it
        may try it once with a device of its own.
        """
        held = model.reserved or model.memory
        if not held:
            return tuple(DeviceBytes(device, size) for device, size in self.budgets.items())
        # What is expected may have changed since the reservation.
        raised = {part.device: part.size_bytes for part in model.memory}
        for part in held:
            budget = self.budgets.get(part.device)
            size_bytes = int(part.size_bytes * OUT_OF_MEMORY_GROWTH) + 1
            if budget is not None and part.size_bytes < budget < size_bytes:
                size_bytes = budget
            raised[part.device] = max(size_bytes, raised.get(part.device, 0))
        return tuple(DeviceBytes(device, size_bytes) for device, size_bytes in raised.items())

    def _book(self, model: Model, memory: tuple[DeviceBytes, ...]) -> None:
        reserved = self.reserved
        for part in model.reserved:
            reserved[part.device] = reserved.get(part.device, 0) - part.size_bytes
        for part in memory:
            reserved[part.device] = reserved.get(part.device, 0) + part.size_bytes
        model.reserved = memory
        model.held_bytes = sum(part.size_bytes for part in memory)

    def _note_overdraft(self) -> None:
        self.overdraft = {device: -free for device, free in self.free().items() if free < 0}


def lacks(free: Mapping[str, int], need: Iterable[DeviceBytes]) -> bool:
    """Return whether ``need`` is more than ``free`` on a device that is in ``free``."""
    return any(part.size_bytes > free.get(part.device, part.size_bytes) for part in need)


def greater(one: Iterable[DeviceBytes], other: Iterable[DeviceBytes]) -> tuple[DeviceBytes, ...]:
    """Return the greater amount of each device."""
    found = {part.device: part.size_bytes for part in one}
    for part in other:
        found[part.device] = max(part.size_bytes, found.get(part.device, 0))
    return tuple(DeviceBytes(device, size_bytes) for device, size_bytes in found.items())


def add(free: dict[str, int], memory: Iterable[DeviceBytes], sign: int = 1) -> None:
    """Add ``memory`` to ``free`` (or take it away), on the devices that are in ``free``."""
    for part in memory:
        if part.device in free:
            free[part.device] += sign * part.size_bytes
