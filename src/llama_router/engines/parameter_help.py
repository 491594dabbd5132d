"""Reads what llama-server says of its options: the output of its ``--help``.

An entry begins in the first column: the names, separated by commas, then what the option takes,
then, after a gap or on the next line, what it does (llama.cpp, common/arg.cpp, ``to_string``).
Whatever cannot be understood is left out, so that it cannot be set.
"""

import re
from collections.abc import Iterator

from llama_router.engines.parameters import (
    Parameter,
    ParameterKind,
    ParameterTable,
    is_reserved_value,
    table_of,
)

# Help is 60 kB in 2026; a chat template that were mistaken for it would not be either.
MAX_OPTIONS_COUNT = 2000
MAX_HELP_CHARS = 1000

_NAME = re.compile(r"(?P<name>-{1,2}[A-Za-z0-9][A-Za-z0-9_.-]*)(?P<more>,)?(?P<gap> *)")
_DEFAULT = re.compile(r"default: *'?([^,);']*)")
_FLOAT = re.compile(r"-?[0-9]+\.[0-9]+(?= |$)")
_WHOLE = re.compile(r"-?[0-9]+(?= |$)")
# Fractions whose default is no number.
_FRACTIONS = frozenset({"rope-scale", "rope-freq-base", "rope-freq-scale", "defrag-thold"})
_RANGE = re.compile(r"<(-?[0-9]+)\.\.\.(-?[0-9]+)>")
_VALID_RANGE = re.compile(r"valid range (-?[0-9.]+) to (-?[0-9]+(?:\.[0-9]+)?)")
_WORDS = re.compile(r"[\[{<]([A-Za-z0-9_+.-]+(?:[|,][A-Za-z0-9_+.-]+)+)[\]}>]")
_WORD_LIST = re.compile(r"[a-z0-9-]+(?:,[a-z0-9-]+)+")
_ALLOWED = re.compile(r"allowed values: ([a-z0-9_]+(?:, [a-z0-9_]+)*)", re.IGNORECASE)
_QUOTED = re.compile(r"(?<![\w'])'([a-z]+)'(?!\w)")


def parse_help(text: str) -> ParameterTable:
    """Return which options may be set; none for a text that is something else."""
    parameters: list[Parameter] = []
    for number, (head, description) in enumerate(_entries(text)):
        if number >= MAX_OPTIONS_COUNT:
            break
        if (parameter := _parameter(head, description)) is not None:
            parameters.append(parameter)
    return table_of(parameters)


def _entries(text: str) -> Iterator[tuple[str, str]]:
    head = ""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("-") and not line.startswith("-----"):
            if head:
                yield head, " ".join(lines)
            head, lines = line.rstrip(), []
        elif head and line.startswith(" "):
            lines.append(line.strip())
    if head:
        yield head, " ".join(lines)


def _parameter(head: str, description: str) -> Parameter | None:
    names, taken, first_line = _split(head)
    description = f"{first_line} {description}".strip()
    longs = [name[2:] for name in names if name.startswith("--")]
    if not longs or is_reserved_value(taken, description):
        return None
    positives = [name for name in longs if not name.startswith("no-")] or longs
    name = positives[0]
    # The names of the opposite come last, the short ones among them say nothing of it.
    last = names.index(f"--{positives[-1]}")
    others = tuple(each.lstrip("-") for each in names[: last + 1] if each != f"--{name}")
    opposites = sorted(names[last + 1 :], key=lambda each: not each.startswith("--"))
    default = _DEFAULT.search(description)
    said = default[1].strip() if default else ""
    kind, choices, bounds = _shape(name, taken, description, said)
    return Parameter(
        name=name,
        kind=kind,
        aliases=others,
        opposites=tuple(each.lstrip("-") for each in opposites),
        choices=choices,
        is_list=_WORD_LIST.fullmatch(taken) is not None,
        minimum=bounds[0],
        maximum=bounds[1],
        default=said,
        help=description[:MAX_HELP_CHARS],
    )


def _split(head: str) -> tuple[list[str], str, str]:
    """Return the names, what the option takes, and what of its description is on this line."""
    names: list[str] = []
    at = 0
    while match := _NAME.match(head, at):
        names.append(match["name"])
        at = match.end()
        if not match["more"]:
            if len(match["gap"]) > 1:
                return names, "", head[at:]
            break
    taken, _, description = head[at:].partition("  ")
    return names, taken.strip(), description.strip()


_Bounds = tuple[float | None, float | None]


def _shape(
    name: str, taken: str, description: str, default: str
) -> tuple[ParameterKind, tuple[str, ...], _Bounds]:
    """Return the kind of value, its words, and its range."""
    if not taken:
        return ParameterKind.FLAG, (), (None, None)
    whole = _RANGE.fullmatch(taken)
    if whole:
        return ParameterKind.INTEGER, (), (float(whole[1]), float(whole[2]))
    if ".." not in taken and (words := _WORDS.fullmatch(taken)):
        return ParameterKind.CHOICE, tuple(re.split(r"[|,]", words[1])), (None, None)
    if _WORD_LIST.fullmatch(taken):
        return ParameterKind.CHOICE, tuple(taken.split(",")), (None, None)
    if allowed := _ALLOWED.search(description):
        return ParameterKind.CHOICE, tuple(allowed[1].split(", ")), (None, None)
    valid = _VALID_RANGE.search(description)
    bounds = (float(valid[1]), float(valid[2])) if valid else (None, None)
    is_numeric = taken == "N" or (
        re.fullmatch(r"[A-Z]+", taken) and (_WHOLE.match(default) or _FLOAT.match(default))
    )
    if not is_numeric:
        return ParameterKind.TEXT, (), bounds
    if valid or _FLOAT.match(default) or name in _FRACTIONS:
        return ParameterKind.NUMBER, (), bounds
    in_place = tuple(dict.fromkeys(_QUOTED.findall(description)))
    return ParameterKind.INTEGER, in_place, bounds
