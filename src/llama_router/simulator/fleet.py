"""What is simulated: models with sizes, and a machine that loads and runs them at given rates."""

import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from llama_router.core.events import DeviceBytes, ModelSpec

GB: Final = 10**9
MAX_MODELS_COUNT: Final = 100_000
_MIN_READY_TIMEOUT_S: Final = 60.0
_READY_TIMEOUT_LOADS: Final = 4.0
"""A load that takes this many times what the model says is broken, not slow."""


class FleetError(Exception):
    """The description of models and machine makes no sense; the text says where."""


class SimulatedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model. ``load_s`` replaces what follows from its size; ``slots`` run at the same time."""

    name: str
    size_bytes: int
    load_s: float | None = None
    slots: int = 4
    pinned: bool = False
    ttl_s: float | None = None
    priority: int = 0


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What engines run on.

    Loads do not slow each other down, nor do requests in the slots of one engine; what has no slot
    waits inside its engine, first come, first served.
    """

    memory_bytes: int
    load_bandwidth_bytes_s: float = 5e9
    load_fixed_s: float = 1.0
    stop_s: float = 0.1
    prefill_tokens_s: float = 2000.0
    decode_tokens_s: float = 50.0
    device: str = "gpu0"


class Fleet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All models and their machine."""

    machine: Machine
    models: tuple[SimulatedModel, ...]

    def load_s(self, model: SimulatedModel) -> float:
        """Return how long the engine of ``model`` takes to become ready."""
        if model.load_s is not None:
            return model.load_s
        machine = self.machine
        return machine.load_fixed_s + model.size_bytes / machine.load_bandwidth_bytes_s

    def specs(self) -> tuple[ModelSpec, ...]:
        """Return the models as the core sees them: restricted by memory, by no group."""
        return tuple(
            ModelSpec(
                name=model.name,
                group="",
                ready_timeout_s=max(
                    _MIN_READY_TIMEOUT_S, _READY_TIMEOUT_LOADS * self.load_s(model)
                ),
                memory=(DeviceBytes(self.machine.device, model.size_bytes),),
                load_cost_s=self.load_s(model),
                pinned=model.pinned,
                ttl_s=model.ttl_s,
                priority=model.priority,
                max_in_flight=model.slots,
            )
            for model in self.models
        )

    def safe_count(self) -> int:
        """Return how many models always fit, whichever they are: the limit of LRU by count."""
        room_bytes = self.machine.memory_bytes
        sizes = sorted((model.size_bytes for model in self.models), reverse=True)
        count = 0
        for size_bytes in sizes:
            room_bytes -= size_bytes
            if room_bytes < 0:
                break
            count += 1
        return max(1, count)


def read_fleet(path: Path) -> Fleet:
    """Read a fleet from JSON with ``machine`` and ``models``. Raises FleetError."""
    try:
        fleet = msgspec.json.decode(path.read_bytes(), type=Fleet)
    except (OSError, msgspec.MsgspecError) as error:
        raise FleetError(f"{path}: {error}") from error
    return checked(fleet, str(path))


def checked(fleet: Fleet, name: str) -> Fleet:
    """Return ``fleet`` if it makes sense. Raises FleetError."""
    machine = fleet.machine
    rates = (machine.load_bandwidth_bytes_s, machine.prefill_tokens_s, machine.decode_tokens_s)
    if not all(math.isfinite(rate) and rate > 0 for rate in rates):
        raise FleetError(f"{name}: rates of the machine must be above 0")
    times = (machine.load_fixed_s, machine.stop_s, *(model.load_s or 0.0 for model in fleet.models))
    if not all(math.isfinite(time_s) and time_s >= 0 for time_s in times):
        raise FleetError(f"{name}: times cannot be below 0")
    if not 0 < len(fleet.models) <= MAX_MODELS_COUNT:
        raise FleetError(f"{name}: needs 1 to {MAX_MODELS_COUNT} models")
    seen: set[str] = set()
    for model in fleet.models:
        if model.name in seen:
            raise FleetError(f"{name}: model '{model.name}' is there twice")
        seen.add(model.name)
        if not 0 < model.size_bytes <= machine.memory_bytes:
            raise FleetError(
                f"{name}: model '{model.name}' needs {model.size_bytes} bytes, "
                f"the machine has {machine.memory_bytes}"
            )
        if model.slots < 1:
            raise FleetError(f"{name}: model '{model.name}' needs a slot")
    return fleet


def random_fleet(
    names: Iterable[str],
    seed: int,
    *,
    smallest_bytes: int = 1 * GB,
    largest_bytes: int = 40 * GB,
    room_for: float = 6.0,
) -> Fleet:
    """Give each name a size, evenly distributed, and the machine room for so many average ones."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, no secret
    sizes = {name: rng.randint(smallest_bytes, largest_bytes) for name in names}
    average_bytes = sum(sizes.values()) / len(sizes)
    memory_bytes = max(int(room_for * average_bytes), *sizes.values())
    models = tuple(SimulatedModel(name, size_bytes) for name, size_bytes in sizes.items())
    return checked(Fleet(Machine(memory_bytes), models), "the generated fleet")
