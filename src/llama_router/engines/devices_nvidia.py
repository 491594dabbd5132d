"""NVIDIA's graphics cards, through the package nvidia-ml-py where it is installed."""

import importlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

_MAX_CARDS = 64


class Card(msgspec.Struct, frozen=True):
    """A graphics card under the name that llama.cpp gives it."""

    name: str
    total_bytes: int
    free_bytes: int
    description: str = ""


def find_cards() -> tuple[Card, ...]:
    """Give the cards that CUDA programs see; none where the package or the driver is missing."""
    nvml = _nvml()
    if nvml is None:
        return ()
    try:
        return cards_of(nvml, os.environ.get("CUDA_VISIBLE_DEVICES"))
    finally:
        nvml.nvmlShutdown()


def memory_of_processes(pids: Iterable[int]) -> dict[str, int]:
    """Give what these processes hold of each card, as far as the driver tells."""
    nvml = _nvml()
    if nvml is None:
        return {}
    try:
        return held_by(nvml, frozenset(pids), os.environ.get("CUDA_VISIBLE_DEVICES"))
    finally:
        nvml.nvmlShutdown()


def cards_of(nvml: Any, visible: str | None) -> tuple[Card, ...]:  # noqa: ANN401 - an untyped module
    """Ask an initialised NVML for the cards; ``visible`` is CUDA_VISIBLE_DEVICES.

    They are numbered by their place on the bus, which is how CUDA does it too among equal cards,
    or under CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    cards = []
    for number, handle in enumerate(_handles(nvml, visible)):
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            name = nvml.nvmlDeviceGetName(handle)
        except nvml.NVMLError:
            continue
        text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        cards.append(Card(f"cuda{number}", int(memory.total), int(memory.free), text))
    return tuple(cards)


def held_by(nvml: Any, pids: frozenset[int], visible: str | None) -> dict[str, int]:  # noqa: ANN401 - as above
    """Sum what an initialised NVML says of these processes, by card."""
    held: dict[str, int] = {}
    for number, handle in enumerate(_handles(nvml, visible)):
        # Engines that compute by Vulkan are on the list for graphics; some are on both.
        used: dict[int, int] = {}
        for ask in (
            nvml.nvmlDeviceGetComputeRunningProcesses,
            nvml.nvmlDeviceGetGraphicsRunningProcesses,
        ):
            try:
                processes = ask(handle)
            except nvml.NVMLError:
                continue
            for process in processes:
                if process.pid in pids:
                    # None: the driver does not tell (Windows' display driver model).
                    size_bytes = process.usedGpuMemory or 0
                    used[process.pid] = max(size_bytes, used.get(process.pid, 0))
        if used:
            held[f"cuda{number}"] = sum(used.values())
    return held


def visible_indices(visible: str | None, uuids: Sequence[str]) -> tuple[int, ...]:
    """Apply CUDA_VISIBLE_DEVICES: numbers or beginnings of UUIDs; what is unknown ends the list."""
    if visible is None:
        return tuple(range(len(uuids)))
    chosen: list[int] = []
    for entry in (part.strip() for part in visible.split(",")):
        index = _index(entry, uuids)
        if index is None or index in chosen:
            break
        chosen.append(index)
    return tuple(chosen)


def _index(entry: str, uuids: Sequence[str]) -> int | None:
    if entry.isdecimal():
        return int(entry) if int(entry) < len(uuids) else None
    matching = [index for index, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
    return matching[0] if len(matching) == 1 else None


def _handles(nvml: Any, visible: str | None) -> list[Any]:  # noqa: ANN401 - as above
    try:
        count = min(nvml.nvmlDeviceGetCount(), _MAX_CARDS)
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        uuids = [nvml.nvmlDeviceGetUUID(handle) for handle in handles]
    except nvml.NVMLError:
        return []
    texts = [uuid.decode() if isinstance(uuid, bytes) else str(uuid) for uuid in uuids]
    return [handles[index] for index in visible_indices(visible, texts)]


def _nvml() -> Any:  # noqa: ANN401 - as above
    """Give the initialised module, or None."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # no driver
        return None
    return nvml
