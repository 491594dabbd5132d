"""The models of a trace and the machine, as a router that runs knows them, for the simulator."""

from collections.abc import Collection
from pathlib import Path

import msgspec

from llama_router.cli.router_client import Address, ask
from llama_router.simulator.fleet import Fleet, Machine, SimulatedModel


class NoFiguresError(Exception):
    """The router has nothing to go by; the text says why."""


class _Device(msgspec.Struct):
    name: str
    budget_bytes: int


class _Status(msgspec.Struct):
    """The answer of ``GET /admin/status``, as far as it is needed."""

    devices: list[_Device]


class Residency(msgspec.Struct):
    """What the router knows of a model's needs; as in ``GET /v1/models``."""

    memory: dict[str, int]
    load_cost_s: float
    pinned: bool = False
    ttl_s: float | None = None


class _Model(msgspec.Struct):
    id: str
    residency: Residency


class _Models(msgspec.Struct):
    """The answer of ``GET /v1/models``, as far as it is needed."""

    data: list[_Model]


def ask_fleet(address: Address, names: Collection[str]) -> Fleet:
    """Return the models of these names and the machine, as the router knows them now.

    Raises NoFiguresError, AddressError, RouterClientError.
    """
    try:
        status = msgspec.convert(ask(address, "GET", "/admin/status"), _Status)
        models = msgspec.convert(ask(address, "GET", "/v1/models"), _Models)
    except msgspec.ValidationError as error:
        raise NoFiguresError(
            f"the router's answer cannot be read: {error}; is it of another version?"
        ) from None
    budgets = {device.name: device.budget_bytes for device in status.devices}
    known = {model.id: model.residency for model in models.data}
    return fleet_of(budgets, {name: known.get(name) for name in sorted(names)})


def fleet_of(budgets: dict[str, int], models: dict[str, Residency | None]) -> Fleet:
    """Return the fleet on the device that is short first: the simulator's machine has one.

    A model of which nothing is known takes all of it, as it would have to run alone. Raises
    NoFiguresError.
    """
    budgets = {name: size_bytes for name, size_bytes in budgets.items() if size_bytes > 0}
    if not budgets:
        raise NoFiguresError("the router does not look at memory (router.memory_aware)")
    if not models:
        raise NoFiguresError("there is no request, and so no model")

    def demand(device: str) -> float:
        needs = (residency.memory.get(device, 0) for residency in models.values() if residency)
        return sum(needs) / budgets[device]

    device = max(budgets, key=demand)
    budget_bytes = budgets[device]
    return Fleet(
        Machine(budget_bytes, device=device),
        tuple(_simulated(name, each, device, budget_bytes) for name, each in models.items()),
    )


def _simulated(
    name: str, residency: Residency | None, device: str, budget_bytes: int
) -> SimulatedModel:
    if residency is None or not residency.memory:
        load_s = residency.load_cost_s if residency is not None else None
        return SimulatedModel(name, budget_bytes, load_s=load_s)
    size_bytes = min(max(1, residency.memory.get(device, 0)), budget_bytes)
    return SimulatedModel(
        name,
        size_bytes,
        load_s=residency.load_cost_s,
        pinned=residency.pinned,
        ttl_s=residency.ttl_s,
    )


def write_fleet(path: Path, fleet: Fleet) -> None:
    """Write what ``llama-router simulate --models`` reads. Raises OSError."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(fleet), indent=2) + b"\n")
