"""Options of an engine as settings: named, typed, held against what the engine itself says it has.

Settings may come over the network, so nothing of them is free text on a command line: an option is
one that the engine lists, its value has the type and the range that the engine states, and it is
one argument of its own that cannot be taken for another option. Options that name files, addresses,
keys or downloads, or that would move the engine away from the router, are never to be had.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

import msgspec

ParameterValue = bool | int | float | str | tuple[bool | int | float | str, ...]
"""True is the bare option, False its opposite where it has one; several values are one list."""

MAX_TEXT_CHARS: Final = 8 * 1024
"""A chat template's arguments and a grammar are smaller; no argument may get anywhere near what
exec refuses."""
MAX_ITEMS_COUNT: Final = 256
_INTEGER_LIMIT: Final = 2**31
# Seeds are unsigned.
_UNSIGNED_LIMIT: Final = 2**32

RESERVED: Final = frozenset(
    {
        # The router's own: where the engine listens, what it runs, what it is called.
        *("host", "port", "reuse-port", "api-prefix", "model", "alias", "mmproj", "tags"),
        *("mmproj-auto", "props", "sleep-idle-seconds", "timeout", "threads-http"),
        # Keys, and who may talk to it.
        *("api-key", "cors-origins", "cors-methods", "cors-headers", "cors-credentials"),
        # Other machines.
        *("rpc", "offline"),
        # Programs, files and folders.
        *("tools", "tools-runtime", "agent", "mcp-servers-json", "ui-mcp-proxy", "ui-config"),
        *("path", "lora", "lora-scaled", "control-vector", "control-vector-scaled", "ui"),
        *("lookup-cache-static", "lookup-cache-dynamic", "models-preset", "models-max"),
        *("models-autoload", "spec-draft-model", "model-draft", "override-kv"),
        # What the router reads from its output.
        *("log-disable", "log-jsonl", "log-colors", "log-prefix", "log-timestamps"),
        # Those that say something and end.
        *("help", "usage", "version", "cache-list", "completion-bash", "list-devices"),
    }
)
"""Never to be set as parameters, by whichever of their names."""

_RESERVED_NAME = re.compile(r"(?:^|-)(?:url|file|dir|path|token|key|hf|hfd|repo)(?:-|$)")
_RESERVED_VALUE = re.compile(r"FNAME|FILE|PATH|DIR\b|URL|KEY\b|TOKEN$|<user>|<repo>|START END")
_NO_LONGER = re.compile(r"argument has been removed|can download weights", re.IGNORECASE)


# How alike two names are, of 1, when one is likely to be the other misspelt.
_NEAR = 0.75


class ParameterError(ValueError):
    """Parameters that cannot be given to an engine. The text says which and why."""


class ParameterKind(Enum):
    """What an option takes."""

    FLAG = "flag"
    INTEGER = "integer"
    NUMBER = "number"
    CHOICE = "choice"
    TEXT = "text"


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One option of an engine.

    ``name`` is its first long name without dashes, ``aliases`` are the others. ``opposites`` are
    the names of its opposite, a long one first, if it has one. ``choices`` are the words that it
    takes: all there are for a CHOICE, and in place of a number for an INTEGER. ``is_list``: several
    of them, joined by commas. ``minimum`` and ``maximum``: as the engine states them.
    """

    name: str
    kind: ParameterKind
    aliases: tuple[str, ...] = ()
    opposites: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    is_list: bool = False
    minimum: float | None = None
    maximum: float | None = None
    default: str = ""
    help: str = ""


class ParameterTable(msgspec.Struct, frozen=True):
    """All options of one engine that may be set. ``reserved`` are those that it has as well."""

    parameters: Mapping[str, Parameter]
    names: Mapping[str, str]
    """Every name of each, and the one that it is listed by."""
    reserved: frozenset[str] = frozenset()

    def find(self, name: str) -> Parameter | None:
        """Return the option of this name, written with dashes or underscores."""
        return self.parameters.get(self.names.get(name.replace("_", "-"), ""))

    def check(self, parameters: Mapping[str, object]) -> list[str]:
        """Return what is wrong with these, for people; nothing when they can be set."""
        problems: list[str] = []
        seen: dict[str, str] = {}
        for name, value in parameters.items():
            parameter = self.find(name)
            if parameter is None:
                problems.append(self._why_not(name))
                continue
            if parameter.name in seen:
                problems.append(f"{name} is the same option as {seen[parameter.name]}")
            seen[parameter.name] = name
            if problem := _problem_of(parameter, value):
                problems.append(f"{name}: {problem}")
        return problems

    def arguments(self, parameters: Mapping[str, ParameterValue]) -> tuple[str, ...]:
        """Return the command line's part. Raises ParameterError."""
        if problems := self.check(parameters):
            raise ParameterError("parameters: " + "; ".join(problems))
        arguments: list[str] = []
        for name, value in parameters.items():
            parameter = self.find(name)
            if parameter is None:  # found a moment ago
                continue
            if parameter.kind is ParameterKind.FLAG:
                if bool(value) is not (name.replace("_", "-") in parameter.opposites):
                    arguments.append(f"--{parameter.name}")
                elif parameter.opposites:
                    arguments.append(f"--{parameter.opposites[0]}")
            else:
                arguments += (f"--{parameter.name}", _text_of(value))
        return tuple(arguments)

    def _why_not(self, name: str) -> str:
        plain = name.replace("_", "-")
        if plain in self.reserved or is_reserved(plain):
            return f"{name} is the router's own, or names a file, key or address: it cannot be set"
        near = difflib.get_close_matches(plain, self.names, n=1, cutoff=_NEAR)
        meant = f" (did you mean {near[0]}?)" if near else ""
        return f"{name} is not an option of the engine{meant}"


def table_of(parameters: Iterable[Parameter]) -> ParameterTable:
    """Return the table of those that may be set."""
    allowed: dict[str, Parameter] = {}
    names: dict[str, str] = {}
    reserved: dict[str, None] = {}
    for parameter in parameters:
        every = [parameter.name, *parameter.aliases, *parameter.opposites]
        if any(map(is_reserved, every)):
            reserved.update(dict.fromkeys(every))
            continue
        allowed[parameter.name] = parameter
        for name in every:
            names.setdefault(name, parameter.name)
    return ParameterTable(allowed, names, frozenset(reserved))


def is_reserved(name: str) -> bool:
    """Return whether an option of this name may never be set, whatever the engine says of it."""
    return name in RESERVED or _RESERVED_NAME.search(name) is not None


def is_reserved_value(placeholder: str, description: str) -> bool:
    """Return whether what an option takes, or does, rules it out."""
    return bool(_RESERVED_VALUE.search(placeholder) or _NO_LONGER.search(description))


def arguments_of(
    parameters: Mapping[str, ParameterValue], table: ParameterTable | None
) -> tuple[str, ...]:
    """Return parameters as arguments: by the engine's table, or, without one, as they are.

    Without a table there is nothing that False could be turned into, so it is nothing. Raises
    ParameterError.
    """
    if table is not None:
        return table.arguments(parameters)
    arguments: list[str] = []
    for name, value in parameters.items():
        plain = name.replace("_", "-")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", plain, re.IGNORECASE):
            raise ParameterError(f"parameters: {name!r} is not the long name of an option")
        if isinstance(value, bool):
            arguments += [f"--{plain}"] if value else []
            continue
        if problem := _text_problem(value):
            raise ParameterError(f"parameters: {name}: {problem}")
        arguments += (f"--{plain}", _text_of(value))
    return tuple(arguments)


def _text_of(value: ParameterValue) -> str:
    if isinstance(value, tuple | list):
        return ",".join(_text_of(item) for item in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _problem_of(parameter: Parameter, value: object) -> str:
    """Return what is wrong with a value, "" for nothing."""
    if parameter.kind is ParameterKind.FLAG:
        return "" if isinstance(value, bool) else "takes true or false"
    if isinstance(value, bool):
        if {"on", "off"} <= {*parameter.choices}:
            return ""
        return "takes a value, not true or false"
    if isinstance(value, tuple | list):
        if parameter.kind is not ParameterKind.TEXT and not parameter.is_list:
            return "takes one value"
        if len(value) > MAX_ITEMS_COUNT:
            return f"takes at most {MAX_ITEMS_COUNT} values"
        if any(isinstance(item, tuple | list) for item in value):
            return "takes a list of values, not of lists"
        problems = [_one_problem(parameter, item) for item in value]
        if any("," in str(item) for item in value):
            problems.append("a value of a list cannot hold a comma")
        return next(filter(None, problems), "") or _text_problem(tuple(value))
    if parameter.is_list and isinstance(value, str):
        problems = [_one_problem(parameter, item) for item in value.split(",")]
        return next(filter(None, problems), "")
    return _one_problem(parameter, value)


def _one_problem(parameter: Parameter, value: object) -> str:
    choices = ", ".join(parameter.choices)
    match parameter.kind:
        case ParameterKind.CHOICE:
            if isinstance(value, bool) or str(value) not in parameter.choices:
                return f"takes one of {choices}"
            return ""
        case ParameterKind.INTEGER | ParameterKind.NUMBER:
            if isinstance(value, str) and value in parameter.choices:
                return ""
            return _number_problem(parameter, value, choices)
        case _:
            return _text_problem(value)


def _number_problem(parameter: Parameter, value: object, choices: str) -> str:
    is_whole = parameter.kind is ParameterKind.INTEGER
    kinds = int if is_whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        kind = "a whole number" if is_whole else "a number"
        return f"takes {kind} or one of {choices}" if choices else f"takes {kind}"
    if isinstance(value, float) and not math.isfinite(value):
        return "takes a number that is finite"
    highest = parameter.maximum
    if highest is None:
        highest = (_UNSIGNED_LIMIT if parameter.name == "seed" else _INTEGER_LIMIT) - 1
        highest = highest if is_whole else math.inf
    lowest = parameter.minimum
    if lowest is None:
        lowest = -_INTEGER_LIMIT if is_whole else -math.inf
    if not lowest <= value <= highest:
        return f"takes a number between {lowest:.15g} and {highest:.15g}"
    return ""


def _text_problem(value: object) -> str:
    """Return why a text cannot be an argument of its own, "" if it can."""
    if isinstance(value, tuple | list):
        return next(filter(None, map(_text_problem, value)), "") or _text_problem(
            _text_of(tuple(value))
        )
    if isinstance(value, float) and not math.isfinite(value):
        return "takes a number that is finite"
    if isinstance(value, int | float):
        return ""
    if not isinstance(value, str):
        return "takes a text"
    if not value or len(value) > MAX_TEXT_CHARS:
        return f"takes a text of 1 to {MAX_TEXT_CHARS} characters"
    if value.startswith("-"):
        return "takes a text that does not begin with a dash, as options do"
    if any(not letter.isprintable() and letter not in "\t\n" for letter in value):
        return "takes a text without control characters"
    return ""
