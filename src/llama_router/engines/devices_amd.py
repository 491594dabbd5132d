"""AMD's graphics cards, from what the kernel's driver says in sysfs.

Source: "AMDGPU Memory Usage Information" of the kernel's documentation.
"""

import re
from pathlib import Path

from llama_router.engines.devices_nvidia import Card

_CLASS = Path("/sys/class/drm")
_CARD = re.compile(r"card([0-9]{1,4})")
_AMD_VENDOR = "0x1002"
_MAX_FILE_CHARS = 256
_MAX_CARDS = 64


def find_cards(root: Path = _CLASS) -> tuple[Card, ...]:
    """Give the cards in the order of their places on the bus, as ROCm numbers them."""
    try:
        entries = [entry for entry in root.iterdir() if _CARD.fullmatch(entry.name)]
    except OSError:
        return ()
    found = []
    for entry in entries[:_MAX_CARDS]:
        device = entry / "device"
        if _text(device / "vendor") != _AMD_VENDOR:
            continue
        total = _number(device / "mem_info_vram_total")
        used = _number(device / "mem_info_vram_used")
        if total:
            name = _text(device / "product_name")
            found.append((device.resolve().name, total, max(total - used, 0), name))
    found.sort()
    return tuple(
        Card(f"rocm{number}", total, free, name)
        for number, (_place, total, free, name) in enumerate(found)
    )


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_FILE_CHARS).strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdecimal() else 0
