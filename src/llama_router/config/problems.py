"""Faults of a config file, each with its place."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Keys = tuple[str | int, ...]
"""Where a value is: names of keys and indices of lists, from the top of the file."""
# More of them do not tell more.
_ALIKE_MAX_COUNT = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault.

    ``line`` and ``column`` count from 1; 0 when there is none (a file that cannot be read).
    """

    file: str
    line: int
    key: str
    message: str
    column: int = 0

    def __str__(self) -> str:
        """Give ``file:line:column: key: message``, without what is not known."""
        places = (self.file, self.line, self.column if self.line else 0)
        place = ":".join(str(part) for part in places if part)
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigError(Exception):
    """The config cannot be used. ``str()`` lists every fault, one per line, by line number."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line, problem.column)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def shortened(problems: Sequence[Problem], what: str) -> list[Problem]:
    """Return the first few of faults that are alike, and in place of the others their count.

    They are of lines that do not belong into ``what``: many of them mean that the file is none.
    """
    if len(problems) <= _ALIKE_MAX_COUNT:
        return list(problems)
    shown, first = problems[: _ALIKE_MAX_COUNT - 1], problems[_ALIKE_MAX_COUNT - 1]
    count = len(problems) - len(shown)
    more = Problem(first.file, first.line, "", f"and {count} more lines like these: is it {what}?")
    return [*shown, more]


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


_STEP = re.compile(
    r"""(?:^|\.)(?P<key>[^.\[\]"]+)"""
    r"""|\[(?:(?P<index>[0-9]{1,9})|"(?P<quoted>[^"]*)"|name=(?P<name>[^\[\]]+)"""
    r"""|(?!name=|-[0-9])(?P<plain>[^\[\]"]+))\]"""
)


def parse_keys(text: str) -> Keys:
    """Read a place as ``format_keys`` writes it, or as people do.

    ``models[coder].ttl_s``, or ``models[name=7].ttl_s``, has the entry of that name. A key with
    dots in it stands in brackets: ``templates[qwen2.5].ttl_s``, or ``templates["7"]`` for one of
    digits. Raises ValueError.
    """
    keys: list[str | int] = []
    at = 0
    while at < len(text) or not keys:
        step = _STEP.match(text, at)
        if step is None:
            raise ValueError(f"'{text}' is no place; write router.port or models[qwen].ttl_s")
        if step["index"] is not None:
            keys.append(int(step["index"]))
        elif step["name"] is not None:
            keys.append(f"name={step['name']}")
        elif step["plain"] is not None:
            keys.append(f"name={step['plain']}" if keys == ["models"] else step["plain"])
        else:
            keys.append(step["quoted"] if step["key"] is None else step["key"])
        at = step.end()
    return tuple(keys)
