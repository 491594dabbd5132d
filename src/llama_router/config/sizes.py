"""Amounts of memory as people write them, and the names of the devices that have it."""

import difflib
import re
from fractions import Fraction

# 1 PiB: more than any machine has, so a longer number is a slip.
SIZE_MAX_BYTES = 2**50
# A number without a unit that is less than this was meant in some unit.
UNITLESS_MIN_BYTES = 2**20
# An error repeats what was written; nobody needs more of it.
_QUOTED_MAX_CHARS = 40

_SIZE = re.compile(
    r"(?P<number>[0-9]{1,18}([.,][0-9]{1,9})?)\s*(?P<unit>([KMGT]i?)?B?)", re.IGNORECASE
)
_EXPONENTS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_HINT = "write a number and a unit, such as 24GiB, 1.5GB or 512MiB"

_DEVICE = re.compile(r"[a-z]{2,32}[0-9]{0,3}")
# What ggml's backends call their devices, before the number; there are more, and will be others.
_NUMBERED = ("cuda", "rocm", "vulkan", "sycl", "mtl", "musa", "cann", "rpc")
_NO_DEVICES = frozenset({"ram", "memory", "mem", "host", "system", "gpu", "vram", "nvidia", "amd"})
_DEVICE_HINT = (
    "write cpu for RAM, or a graphics card as `llama-server --list-devices` names it, such as cuda0"
)


def parse_size(value: object) -> int:
    """Read "24GiB", "1.5 GB", "512M" or a number of bytes; return bytes, rounded down.

    KiB to TiB, and K to T alone, are powers of 1024; KB to TB are powers of 1000 (IEC 80000-13).
    Raises ValueError, saying what to write.
    """
    if isinstance(value, str):
        return _parse_text(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a size; {_HINT}")  # noqa: TRY004 - pydantic makes an issue of it
    return _checked(value, str(value), has_unit=False)


def _parse_text(text: str) -> int:
    quoted = repr(text if len(text) <= _QUOTED_MAX_CHARS else text[:_QUOTED_MAX_CHARS] + "…")
    if text.lstrip().startswith("-"):
        raise ValueError(f"{quoted} is negative")
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{quoted} is no size; {_HINT}")
    if "," in match["number"]:
        with_point = text.strip().replace(",", ".")
        raise ValueError(f"{quoted} is no size; write a point, not a comma: {with_point}")
    unit = match["unit"].upper()
    prefix = unit.rstrip("B")
    base = 1000 if len(prefix) == 1 and unit.endswith("B") else 1024
    size_bytes = int(Fraction(match["number"]) * base ** _EXPONENTS[prefix[:1]])
    return _checked(size_bytes, text.strip(), has_unit=bool(unit))


def _checked(size_bytes: int, text: str, *, has_unit: bool) -> int:
    if size_bytes < 0:
        raise ValueError(f"{text} is negative")
    if size_bytes > SIZE_MAX_BYTES:
        raise ValueError(f"{text[:_QUOTED_MAX_CHARS]} is more memory than any machine has")
    if not has_unit and 0 < size_bytes < UNITLESS_MIN_BYTES:
        raise ValueError(f"means {size_bytes} bytes; {_HINT}")
    return size_bytes


def parse_device(name: str) -> str:
    """Return the name of a device in lower case, in which the whole router has it.

    "cpu" is RAM. The others are those of llama.cpp, of which only the shape can be checked, as its
    builds differ. Raises ValueError for what cannot be one, or is likely a slip.
    """
    lower = name.lower()
    kind = lower.rstrip("0123456789")
    if not _DEVICE.fullmatch(lower) or kind in _NO_DEVICES:
        raise ValueError(f"is no device; {_DEVICE_HINT}")
    if lower == "cpu":
        return lower
    if kind == "cpu":
        raise ValueError("is no device; RAM is cpu, without a number")
    near = difflib.get_close_matches(kind, _NUMBERED, n=1, cutoff=0.75)
    meant = f"{near[0]}{lower[len(kind) :] or 0}" if near else lower
    if meant != lower:
        raise ValueError(f"is no device; did you mean {meant}?")
    return lower
