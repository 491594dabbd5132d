"""Faults of a config file, each with its place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Keys = tuple[str | int, ...]
"""Where a value is: names of keys and indices of lists, from the top of the file."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault. ``line`` counts from 1; 0 when it has none (a file that cannot be read)."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        """Give ``file:line: key: message``, without what is not known."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigError(Exception):
    """The config cannot be used. ``str()`` lists every fault, one per line, by line number."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Issue:
    """A fault whose place in a file is not looked up yet."""

    keys: Keys
    message: str


def format_keys(keys: Sequence[str | int]) -> str:
    """Write a place as users read it: ``models[2].spawn.command[0]``."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += f".{key}" if text else key
    return text
