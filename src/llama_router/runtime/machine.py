"""How much memory the engines may take on this machine, now and as others come and go.

Everything here blocks: not for the event loop.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from llama_router.config.schema import RouterSettings
from llama_router.engines import devices, devices_nvidia, measure
from llama_router.engines.devices import CPU, Device

_GIB_BYTES = 2**30
_MIB_BYTES = 2**20
# A build that has to load graphics libraries first may need it; the start waits for no longer.
_LIST_TIMEOUT_S = 5.0
# What tells of a graphics card on Linux: the drivers of NVIDIA and AMD, and any that can compute.
_CARD_SIGNS = ("/dev/nvidia0", "/dev/kfd", "/dev/dri/renderD128")
# Less than this is noise: of the whole device, and at least.
_CHANGE_SHARE = 0.02
_LEAST_CHANGE_BYTES = 256 * _MIB_BYTES


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What was found at the start.

    ``measurable``: the devices of which can be told what each process holds. ``configured``: what
    the config says may be taken of a device, in bytes by name.
    """

    devices: tuple[Device, ...] = ()
    measurable: frozenset[str] = frozenset()
    configured: Mapping[str, int] = {}

    @property
    def cards(self) -> tuple[Device, ...]:
        """All but RAM."""
        return tuple(device for device in self.devices if device.name != CPU)

    @property
    def at_most(self) -> dict[str, int]:
        """What one model can have of each device whose budget is only what happens to be free."""
        total = self.total_bytes
        return {name: total[name] for name in total if name not in self.configured}

    @property
    def total_bytes(self) -> dict[str, int]:
        """What each device has."""
        return {device.name: device.total_bytes for device in self.devices}


def look_around(
    found_llama_server: Path | None, configured: Mapping[str, int] | None = None
) -> Machine:
    """Find the devices; where only the engine can see the graphics cards, it is asked.

    ``configured`` cards, bytes by name, are there whatever is found.
    """
    found = devices.find_devices()
    measurable = {CPU} | {card.name for card in devices_nvidia.find_cards()}
    if len(found) == 1 and found_llama_server is not None and may_have_cards():
        found += devices.list_devices(found_llama_server, _LIST_TIMEOUT_S) or ()
    if found[0].total_bytes <= 0:
        found = found[1:]
    names = {device.name for device in found}
    found += tuple(
        Device(name, size_bytes, size_bytes)
        for name, size_bytes in (configured or {}).items()
        if name != CPU and size_bytes and name not in names
    )
    return Machine(
        devices=found, measurable=frozenset(measurable), configured=dict(configured or {})
    )


def budgets_of(
    machine: Machine, settings: RouterSettings, held_bytes: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return what engines may take of each device; nothing when memory is not to be looked at."""
    if not settings.memory_aware:
        return {}
    found = devices.budgets(
        machine.devices,
        overrides=settings.memory,
        reserve_bytes=settings.memory_reserve,
        held_bytes=held_bytes,
    )
    return {budget.device: budget.size_bytes for budget in found}


def look_again(machine: Machine, pids: Iterable[int]) -> tuple[Machine, dict[str, int]]:
    """Return the machine as it is now, and what these processes hold of each device.

    Only devices whose holders can be told are looked at again, so that no engine counts twice. Of
    RAM, files that are mapped are no part of what is held: they are available to the system.
    """
    now = {device.name: device for device in devices.find_devices()}
    found = tuple(
        now.get(device.name, device) if device.name in machine.measurable else device
        for device in machine.devices
    )
    held = devices_nvidia.memory_of_processes(pids := tuple(pids))
    held[CPU] = sum(measure.unreclaimable_bytes(pid) for pid in pids)
    return msgspec.structs.replace(machine, devices=found), held


def is_other(machine: Machine, old: Mapping[str, int], new: Mapping[str, int]) -> bool:
    """Return whether budgets differ by more than what comes and goes all the time."""
    total = machine.total_bytes
    return any(
        abs(size_bytes - old.get(device, 0))
        > max(_LEAST_CHANGE_BYTES, total.get(device, 0) * _CHANGE_SHARE)
        for device, size_bytes in new.items()
    )


def in_words(machine: Machine, budgets: Mapping[str, int]) -> str:
    """Say in one line what there is for engines."""
    if not budgets:
        return "memory is not looked at: models without a group run alone"
    total = machine.total_bytes
    parts = []
    for device, size_bytes in budgets.items():
        name = "RAM" if device == CPU else device
        whole = f" of {total[device] / _GIB_BYTES:.1f}" if device in total else ""
        parts.append(f"{size_bytes / _GIB_BYTES:.1f}{whole} GiB of {name}")
    return f"memory for models: {', '.join(parts)}"


def may_have_cards() -> bool:
    """Tell whether anything speaks for a graphics card."""
    # Windows has no such signs, and asking costs only time there.
    return sys.platform == "win32" or any(Path(sign).exists() for sign in _CARD_SIGNS)
