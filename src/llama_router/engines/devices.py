"""The memory that this machine has for models: RAM and graphics cards.

Names are those of llama.cpp's devices in lower case ("cuda0", "rocm0"), and "cpu" for RAM. Nothing
here raises for what a machine has or lacks; everything blocks: not for an event loop.
"""

import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from llama_router.engines import devices_amd, devices_nvidia, devices_ram

CPU = "cpu"
_MIB_BYTES = 2**20
_GIB_BYTES = 2**30
# Left to the system and other programs: what llama.cpp leaves free on a graphics card, too
# (``--fit-target``), and a part of the RAM, on which the whole system lives.
_GPU_RESERVE_BYTES = _GIB_BYTES
_RAM_RESERVE_SHARE = 0.1
# A system whose programs fill the RAM swaps out what is idle; this much it always finds.
_LEAST_RAM_BYTES = 256 * _MIB_BYTES

# Loading the libraries of a graphics card can take some seconds.
LIST_TIMEOUT_S = 20.0
_MAX_LIST_CHARS = 65_536
_MAX_DEVICES = 64

# tools/server of llama.cpp: "  CUDA0: NVIDIA GeForce RTX 4090 (24080 MiB, 23500 MiB free)".
_LISTED = re.compile(
    r"^ {2}(?P<name>[A-Za-z]+[0-9]*): (?P<description>.*)"
    r" \((?P<total>[0-9]{1,9}) MiB, (?P<free>[0-9]{1,9}) MiB free\)$",
    re.MULTILINE,
)


class Device(msgspec.Struct, frozen=True):
    """A place for models. ``available_bytes`` is free now, or freed by the system when needed."""

    name: str
    total_bytes: int
    available_bytes: int
    description: str = ""


class Budget(msgspec.Struct, frozen=True):
    """How much of a device the router's engines may take together."""

    device: str
    size_bytes: int


def find_devices() -> tuple[Device, ...]:
    """Look for RAM and graphics cards, RAM first.

    Apple's graphics cards work in RAM and are not listed on their own.
    """
    total_bytes, available_bytes = devices_ram.ram()
    cards = [
        Device(card.name, card.total_bytes, card.free_bytes, card.description)
        for card in (*devices_nvidia.find_cards(), *devices_amd.find_cards())
    ]
    return (Device(CPU, total_bytes, available_bytes), *cards[:_MAX_DEVICES])


def list_devices(
    llama_server: Path, timeout_s: float = LIST_TIMEOUT_S
) -> tuple[Device, ...] | None:
    """Ask a llama-server which graphics cards it finds; None when it does not say.

    It alone knows how its build names and numbers them. Starting it takes up to some seconds.
    """
    try:
        run = subprocess.run(
            [llama_server, "--list-devices"],
            capture_output=True,
            check=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_listed_devices(run.stdout.decode("utf-8", "replace"))


def parse_listed_devices(output: str) -> tuple[Device, ...] | None:
    """Read the output of ``llama-server --list-devices``; None when it is something else."""
    if "Available devices:" not in output:
        return None
    return tuple(
        Device(
            match["name"].lower(),
            int(match["total"]) * _MIB_BYTES,
            int(match["free"]) * _MIB_BYTES,
            match["description"],
        )
        for match in list(_LISTED.finditer(output[:_MAX_LIST_CHARS]))[:_MAX_DEVICES]
    )


def budgets(
    devices: Iterable[Device],
    *,
    overrides: Mapping[str, int] | None = None,
    reserve_bytes: int | None = None,
    held_bytes: Mapping[str, int] | None = None,
) -> tuple[Budget, ...]:
    """Say how much of each device engines may take.

    That is what is available, and what the router's engines hold of it already (``held_bytes``),
    less a reserve: ``reserve_bytes`` of each device, or by default 1 GiB of a graphics card and a
    tenth of the RAM, of which there is always a little. An override is taken as it is and may name
    a device that was not found; 0 takes a device away.
    """
    overrides = {name.lower(): size_bytes for name, size_bytes in (overrides or {}).items()}
    found = []
    for device in devices:
        if device.name in overrides:
            continue
        reserve = _default_reserve(device) if reserve_bytes is None else reserve_bytes
        held = (held_bytes or {}).get(device.name, 0)
        free = min(device.available_bytes + held, device.total_bytes)
        least = min(_LEAST_RAM_BYTES, device.total_bytes) if device.name == CPU else 0
        found.append(Budget(device.name, max(free - reserve, least)))
    given = [Budget(name, size_bytes) for name, size_bytes in overrides.items()]
    return tuple(sorted(found + given, key=lambda budget: (budget.device != CPU, budget.device)))


def _default_reserve(device: Device) -> int:
    return (
        int(device.total_bytes * _RAM_RESERVE_SHARE) if device.name == CPU else _GPU_RESERVE_BYTES
    )
