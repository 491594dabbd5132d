"""How one start of an engine goes: drawn from the seed, the model and the number of the start."""

import random
from dataclasses import dataclass

# Streams of slow readers; every request says how much of it it wants.
_TOKENS = 20_000
_MEMORY_LIMIT_BYTES = 48 * 1024 * 1024
_ALWAYS = ("--tokens", str(_TOKENS))

# Of a hundred starts, how many load so.
_LOADS = {
    "well": 68,
    "slow": 12,
    "theft": 7,
    "exit": 5,
    "memory": 5,
    "hang": 3,
}
_EXTRAS: dict[str, tuple[str, ...]] = {
    "flood": ("--flood-bytes", "1000000"),
    "long-line": ("--long-line-bytes", "300000"),
    "dirty": ("--dirty-output",),
    "ignore-term": ("--ignore-term",),
    "ignore-exit-line": ("--ignore-exit-line",),
    "child": ("--child",),
    "stray": ("--stray",),
    "close-idle": ("--close-idle",),
    "memory-limit": ("--memory-limit-bytes", str(_MEMORY_LIMIT_BYTES)),
}
_EXTRA_CHANCE = 0.15
_ENDS = ("kill", "crash", "exit")
_END_CHANCE = 0.25
_END_MAX_S = 4.0
_SLOW_LOAD_S = (0.2, 2.0)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """``kinds`` are for the table; delays count from listening, and from being ready."""

    kinds: tuple[str, ...] = ("well",)
    switches: tuple[str, ...] = _ALWAYS
    ready_after_s: float | None = None
    end: str = ""
    end_after_s: float = 0.0


HEALTHY = Behaviour()


def draw(seed: int, alias: str, number: int) -> Behaviour:
    """Return the behaviour of the ``number``-th start of a model; the same for the same."""
    dice = random.Random(f"{seed}/{alias}/{number}")  # noqa: S311 - no secret
    load = dice.choices([*_LOADS], weights=[*_LOADS.values()])[0]
    extras = [name for name in _EXTRAS if dice.random() < _EXTRA_CHANCE]
    switches = [*_ALWAYS]
    for name in extras:
        switches += _EXTRAS[name]
    ready_after_s = None
    match load:
        case "slow":
            switches.append("--gate-load")
            ready_after_s = dice.uniform(*_SLOW_LOAD_S)
        case "hang":
            switches.append("--gate-load")
        case "theft":
            switches.append("--gate-bind")
        case "exit":
            switches += ["--exit-in-load", str(dice.randint(0, 3))]
        case "memory":
            switches += ["--memory-limit-bytes", str(_MEMORY_LIMIT_BYTES), "--fill-memory"]
        case _:
            pass
    end = dice.choice(_ENDS) if dice.random() < _END_CHANCE else ""
    return Behaviour(
        kinds=(load, *extras, *([end] if end else [])),
        switches=tuple(switches),
        ready_after_s=ready_after_s,
        end=end,
        end_after_s=dice.uniform(0.0, _END_MAX_S),
    )
