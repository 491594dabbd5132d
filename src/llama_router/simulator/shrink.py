"""Makes a failing log short: delta debugging.

After Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002).
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

Item = TypeVar("Item")

MAX_TRIES_COUNT: Final = 500
"""A try replays a log, which takes some hundredths of a second for a long one."""


def shrink(
    items: Sequence[Item],
    fails: Callable[[Sequence[Item]], bool],
    max_tries_count: int = MAX_TRIES_COUNT,
) -> list[Item]:
    """Return a part of ``items``, in their order, for which ``fails`` is still true.

    If the tries suffice, leaving out any single item of it makes the failure go away.
    """
    kept = list(items)
    parts_count = 2
    tries = 0
    while kept and tries < max_tries_count:
        size = max(1, len(kept) // parts_count)
        removed = False
        start = 0
        while start < len(kept) and tries < max_tries_count:
            candidate = kept[:start] + kept[start + size :]
            tries += 1
            if fails(candidate):
                kept = candidate
                removed = True
            else:
                start += size
        if size == 1 and not removed:
            break
        if not removed or size > len(kept):
            parts_count = min(max(2, len(kept)), parts_count * 2)
    return kept
