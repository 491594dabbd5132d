"""New values of a config as YAML, or JSON, in the way that the file around them is written."""

import json
import re
from dataclasses import dataclass
from typing import Any

# Longer ones get lines of their own.
_FLOW_MAX_CHARS = 72
_INDENT_MAX_CHARS = 8
# What nobody reads as anything but text, in whatever place.
_PLAIN = re.compile(r"[A-Za-z_/$][A-Za-z0-9_./$+@-]*(?::[A-Za-z0-9_./$+@-]+)*|~/[A-Za-z0-9_./+@-]+")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
# YAML takes these for line breaks, or for nothing.
_UNPRINTABLE = re.compile(
    "[^ -~\u00a0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
# A key with nothing behind it, and how far in its list or its mapping begins.
_LIST_BELOW_KEY = re.compile(r"^( *)[^\s#-][^\n]*:[^\S\n]*\n( *)- ", re.MULTILINE)
_KEYS_BELOW_KEY = re.compile(r"^( *)[^\s#-][^\n]*:[^\S\n]*\n\1( +)[^\s#-]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Style:
    """How a file is written: how far in, in characters, keys and items stand below their key."""

    key_indent: int = 2
    item_indent: int = 2
    newline: str = "\n"
    is_json: bool = False


def style_of(text: str, *, is_json: bool = False) -> Style:
    """Tell from a file how it is written."""
    keys, items = _KEYS_BELOW_KEY.search(text), _LIST_BELOW_KEY.search(text)
    key_indent = min(len(keys[2]), _INDENT_MAX_CHARS) if keys else 2
    item_indent = max(0, min(len(items[2]) - len(items[1]), _INDENT_MAX_CHARS)) if items else 2
    return Style(key_indent, item_indent, "\r\n" if "\r\n" in text else "\n", is_json)


def as_scalar(value: object, style: Style, quote: str = "") -> str:
    """Write one value; ``quote`` is what its predecessor had around it."""
    if not isinstance(value, str):
        return json.dumps(value, allow_nan=False)
    if style.is_json or (quote != "'" and (quote or not is_plain(value))):
        return _quoted(value)
    if quote == "'" and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    return value if is_plain(value) else _quoted(value)


def is_plain(text: str) -> bool:
    """Whether the text needs no quotes anywhere in YAML."""
    return _PLAIN.fullmatch(text) is not None and text.lower() not in _WORDS


def _quoted(text: str) -> str:
    # YAML knows the escapes of JSON.
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(_escaped, quoted)


def _escaped(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]


def as_flow(value: Any, style: Style, *, quote: str = "") -> str:  # noqa: ANN401 - any value of a config
    """Write a value on one line."""
    if isinstance(value, dict):
        pairs = (f"{as_scalar(key, style)}: {as_flow(item, style)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(as_flow(item, style) for item in value) + "]"
    return as_scalar(value, style, quote)


def fits_one_line(value: object, one_line: str) -> bool:
    """Whether a value is best written on one line."""
    if isinstance(value, dict):
        is_flat = not any(isinstance(item, dict | list | tuple) for item in value.values())
    elif isinstance(value, list | tuple):
        is_flat = not any(isinstance(item, dict | list | tuple) for item in value)
    else:
        return True
    return not value or (is_flat and len(one_line) <= _FLOW_MAX_CHARS)


def as_block(value: Any, style: Style) -> str:  # noqa: ANN401 - any value of a config
    """Write a mapping or list on lines of its own, the first of which is not indented."""
    if isinstance(value, dict):
        return "\n".join(_pair(key, item, style) for key, item in value.items())
    return "\n".join(_item(item, style) for item in value)


def _pair(key: str, value: Any, style: Style) -> str:  # noqa: ANN401 - as above
    one_line = as_flow(value, style)
    if fits_one_line(value, one_line):
        return f"{as_scalar(key, style)}: {one_line}"
    depth = style.item_indent if isinstance(value, list | tuple) else style.key_indent
    return f"{as_scalar(key, style)}:\n{indented(as_block(value, style), depth)}"


def _item(value: Any, style: Style) -> str:  # noqa: ANN401 - as above
    if isinstance(value, dict) and value:
        return "- " + indented(as_block(value, style), 2).lstrip(" ")
    return "- " + as_flow(value, style)


def indented(lines: str, column: int, newline: str = "\n") -> str:
    """Move lines in, so that they begin at this column, counted from 0."""
    indent = " " * column
    return newline.join(indent + line for line in lines.split("\n"))
