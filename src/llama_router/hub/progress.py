"""How far a download is, and what comes of it.

Without the code that downloads: the router itself knows this much and starts without the rest.
"""

import msgspec

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_UNIT_FACTOR = 1024


class Progress(msgspec.Struct, frozen=True):
    """How far a download is. ``model`` is the id that the catalogue will give it.

    ``total_bytes`` is 0 as long as it is not known; ``note`` is the last thing worth telling;
    ``blobs`` are the names of its files in the cache.
    """

    model: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    speed_bytes_per_s: int = 0
    file_count: int = 0
    files_done_count: int = 0
    note: str = ""
    blobs: tuple[str, ...] = ()


class Pulled(msgspec.Struct, frozen=True):
    """A model that is whole in the cache.

    ``paths`` are its parts in the snapshot, without its projector; ``size_bytes`` is of all.
    """

    model: str
    paths: tuple[str, ...]
    size_bytes: int
    commit: str


def in_words(size_bytes: float) -> str:
    """Return a size as people say it."""
    unit = 0
    while size_bytes >= _UNIT_FACTOR and unit < len(_UNITS) - 1:
        size_bytes /= _UNIT_FACTOR
        unit += 1
    return f"{size_bytes:.0f} {_UNITS[unit]}" if unit == 0 else f"{size_bytes:.1f} {_UNITS[unit]}"
