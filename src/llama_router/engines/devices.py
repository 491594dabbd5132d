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
# Left to the system and other programs: a part of the whole, within bounds.
_RESERVED_SHARE = 0.05
_LEAST_RESERVE_BYTES = {CPU: _GIB_BYTES // 2}
_LEAST_GPU_RESERVE_BYTES = _GIB_BYTES // 4
_MOST_RESERVE_BYTES = 4 * _GIB_BYTES

# Loading the libraries of a graphics card can take some seconds.
_LIST_TIMEOUT_S = 20.0
_MAX_LIST_CHARS = 65_536
_MAX_DEVICES = 64

# tools/server of llama.cpp: "  CUDA0: NVIDIA GeForce RTX 4090 (24080 MiB, 23500 MiB free)".
_LISTED = re.compile(
    r"^ {2}(?P<name>[A-Za-z]+[0-9]*): (?P<description>.*)"
    r" \((?P<total>[0-9]{1,9}) MiB, (?P<free>[0-9]{1,9}) MiB free\)$",
    re.MULTILINE,
)
_SIZE = re.compile(
    r"(?P<number>[0-9]{1,18}(?:\.[0-9]{1,18})?)\s*(?P<unit>[KMGT]i?B?|B)?", re.IGNORECASE
)
_EXPONENTS = {"K": 1, "M": 2, "G": 3, "T": 4}
_MAX_SIZE_BYTES = 2**50


class Device(msgspec.Struct, frozen=True):
    """A place for models. ``available_bytes`` is free now, or freed by the system when needed."""

    name: str
    total_bytes: int
    available_bytes: int
    description: str = ""


class Budget(msgspec.Struct, frozen=True):
    """How much of a device the router's engines may take together. ``source`` is for people."""

    device: str
    size_bytes: int
    source: str = ""


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


def list_devices(llama_server: Path) -> tuple[Device, ...] | None:
    """Ask a llama-server which graphics cards it finds; None when it does not say.

    It alone knows how its build names and numbers them. Starting it takes up to some seconds.
    """
    try:
        run = subprocess.run(
            [llama_server, "--list-devices"],
            capture_output=True,
            check=True,
            timeout=_LIST_TIMEOUT_S,
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
    less a reserve: ``reserve_bytes`` of each device, or by default a twentieth of it, within
    bounds. An override is taken as it is and may name a device that was not found; 0 takes a
    device away.
    """
    overrides = {name.lower(): size_bytes for name, size_bytes in (overrides or {}).items()}
    found = []
    for device in devices:
        if device.name in overrides:
            continue
        reserve = _default_reserve(device) if reserve_bytes is None else reserve_bytes
        held = (held_bytes or {}).get(device.name, 0)
        free = min(device.available_bytes + held, device.total_bytes)
        found.append(Budget(device.name, max(free - reserve, 0), "found"))
    given = [Budget(name, size_bytes, "configured") for name, size_bytes in overrides.items()]
    return tuple(sorted(found + given, key=lambda budget: (budget.device != CPU, budget.device)))


def parse_size(text: str) -> int:
    """Read a size such as "24GiB", "512 MiB", "8GB" or "1073741824", in bytes.

    K, M, G and T alone are powers of 1024, as in GiB; KB to TB are powers of 1000. Raises
    `ValueError`, whose text says what is wrong.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write a number and a unit, such as 24GiB")
    unit = (match["unit"] or "B").upper()
    base = 1000 if len(unit) == len("GB") else 1024
    size_bytes = int(float(match["number"]) * base ** _EXPONENTS.get(unit[0], 0))
    if size_bytes > _MAX_SIZE_BYTES:
        raise ValueError(f"{text!r} is more memory than any machine has")
    return size_bytes


def _default_reserve(device: Device) -> int:
    least = _LEAST_RESERVE_BYTES.get(device.name, _LEAST_GPU_RESERVE_BYTES)
    share = int(device.total_bytes * _RESERVED_SHARE)
    return min(max(share, least), _MOST_RESERVE_BYTES)
