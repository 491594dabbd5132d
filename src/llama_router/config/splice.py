"""Changing one place of a YAML or JSON text, and no other byte of it.

Comments belong to the line that they stand on; those on lines of their own belong to nobody and
stay, but within a section that is taken out or replaced as a whole. Whoever calls compares the
outcome with what was meant: what nobody writes in a config may come out as something else.
"""

import re
from typing import Any

from llama_router.config.places import Part, Place, compose, line_end
from llama_router.config.problems import Keys
from llama_router.config.yaml_text import Style, as_block, as_flow, fits_one_line, indented

_ANCHOR = re.compile(r"(?:[^\S\n]*[&!][^\s,\[\]{}]*)+")
_COMMA = re.compile(r"\s*,")
_SHARED = "is shared with another place by an alias; change it in the file"


class SpliceError(Exception):
    """The place cannot be changed in the text; the message says why."""


def set_value(text: str, keys: Keys, value: Any, style: Style) -> str:  # noqa: ANN401 - any value of a config
    """Put ``value`` at ``keys``; a key may be new, as may the index behind a list's last."""
    return _set(compose(text, is_json=style.is_json), keys, value, style)


def add_values(text: str, keys: Keys, values: list[Any], style: Style) -> str:
    """Put ``values`` behind the last item of the list at ``keys``, which has some already."""
    place = _list_at(compose(text, is_json=style.is_json), keys)
    return _extended(place, values, style)


def _list_at(place: Place, keys: Keys) -> Place:
    for key in keys:
        part = None if place.is_alias else place.part(key)
        if part is None:
            raise SpliceError(_SHARED)
        place = part.value
    if place.is_alias or not (place.is_list and place.parts):
        raise SpliceError(_SHARED)
    return place


def remove_value(text: str, keys: Keys, style: Style) -> str:
    """Take out what is at ``keys``."""
    place = compose(text, is_json=style.is_json)
    for key in keys[:-1]:
        part = place.part(key)
        if part is None or part.value.is_alias:
            raise SpliceError(_SHARED)
        place = part.value
    return _without(place, keys[-1])


def _set(place: Place, keys: Keys, value: Any, style: Style) -> str:  # noqa: ANN401 - as above
    for depth, key in enumerate(keys):
        if place.is_alias:
            raise SpliceError(_SHARED)
        if place.is_empty:
            return _replaced(place, _nested(keys[depth:], value), style, on_lines=True)
        part = place.part(key)
        if part is None:
            return _added(place, key, _nested(keys[depth + 1 :], value), style)
        place = part.value
    return _replaced(place, value, style)


def _nested(keys: Keys, value: Any) -> Any:  # noqa: ANN401 - as above
    for key in reversed(keys):
        value = [value] if isinstance(key, int) else {key: value}
    return value


def _replaced(place: Place, value: Any, style: Style, *, on_lines: bool = False) -> str:  # noqa: ANN401 - as above
    text = place.text
    one_line = as_flow(value, style, quote=place.quote)
    is_line = fits_one_line(value, one_line) and not on_lines
    is_line = is_line or place.in_flow or style.is_json
    if is_line and not (place.is_below or place.is_block_text):
        space = " " if place.is_empty else ""
        return f"{text[: place.start]}{space}{one_line}{text[place.end :]}"
    head, comment, tail = _cut_out(place)
    if is_line:
        return f"{head} {one_line}{comment}{tail}"
    is_item = text[place.owner - 1] == "-"
    depth = style.item_indent if isinstance(value, list | tuple) else style.key_indent
    column = place.column + (2 if is_item else depth)
    block = indented(as_block(value, style), column, style.newline)
    if is_item and not comment:
        return f"{head} {block.lstrip(' ')}{tail}"
    return f"{head}{comment}{style.newline}{block}{tail}"


def _cut_out(place: Place) -> tuple[str, str, str]:
    """Return what is before a value, the comment on the line of its key, and what is behind."""
    text, head = place.text, place.text[: place.owner]
    if place.is_empty or place.is_below:
        end = line_end(text, place.owner)
        # An anchor goes with what it named.
        anchor = _ANCHOR.match(text, place.owner)
        start = anchor.end() if anchor else place.owner
        return head, text[start:end].rstrip(), text[max(place.end, end) :]
    if place.is_block_text:
        end = line_end(text, place.mark_end)
        return head, text[place.mark_end : end].rstrip(), text[place.end :]
    end = line_end(text, place.end)
    return head, text[place.end : end].rstrip(), text[end:]


def _added(place: Place, key: str | int, value: Any, style: Style) -> str:  # noqa: ANN401 - as above
    new: dict[str, Any] | list[Any]
    if place.is_mapping and isinstance(key, str):
        new = {key: value}
    elif place.is_list and key == len(place.parts):
        new = [value]
    else:
        raise SpliceError("has no room for that: lists have numbers from 0, sections have keys")
    return _extended(place, new, style) if place.parts else _replaced(place, new, style)


def _extended(place: Place, new: dict[str, Any] | list[Any], style: Style) -> str:
    """Put something behind the last part of a place that has one."""
    if place.is_flow:
        parts = [[item] for item in new] if isinstance(new, list) else [new]
        pieces = [as_flow(part, style)[1:-1] for part in parts]
        return _added_in_brackets(place, pieces, style)
    text = place.text
    at = line_end(text, place.end)
    lines = indented(as_block(new, style), place.body_column, style.newline)
    return f"{text[:at]}{style.newline}{lines}{text[at:]}"


def _added_in_brackets(place: Place, pieces: list[str], style: Style) -> str:
    piece = ", ".join(pieces)
    text, first, at = place.text, place.parts[0], place.parts[-1].end
    gap = text[at : place.end - 1]
    if gap.lstrip().startswith(","):
        at, comma = text.index(",", at) + 1, ""
    else:
        comma = ","
    if "\n" not in gap:
        return f"{text[:at]}{comma} {piece}{text[at:]}"
    line_start = text.rfind("\n", 0, first.start) + 1
    indent = text[line_start : first.start]
    if indent.strip():
        return f"{text[:at]}{comma} {piece}{text[at:]}"
    end = line_end(text, at)
    lines = f",{style.newline}{indent}".join(pieces)
    return f"{text[:at]}{comma}{text[at:end]}{style.newline}{indent}{lines}{text[end:]}"


def _without(place: Place, key: str | int) -> str:
    part = None if place.is_alias else place.part(key)
    if part is None:
        raise SpliceError("is not set there; it comes from a section merged with <<, or an alias")
    if place.is_flow:
        return _without_in_brackets(place, part)
    text = place.text
    start, end = text.rfind("\n", 0, part.start) + 1, line_end(text, part.end)
    if not text[start : part.start].strip():
        # All of it is on lines of its own.
        return text[:start] + text[_next_line(text, end) :]
    if len(place.parts) == 1:
        return text[: part.start] + ("{}" if place.is_mapping else "[]") + text[part.end :]
    following = place.parts[1].start
    if not text[end:following].strip():
        return text[: part.start] + text[following:]
    return text[: part.start].rstrip(" ") + text[end:]


def _next_line(text: str, end: int) -> int:
    if text.startswith("\r\n", end):
        return end + 2
    return min(end + 1, len(text))


def _without_in_brackets(place: Place, part: Part) -> str:
    text, parts = place.text, place.parts
    index, last = parts.index(part), len(parts) - 1
    before = parts[index - 1].end if index else place.body + 1
    after = parts[index + 1].start if index < last else place.end - 1
    if "#" in text[before : part.start] + text[part.end : after]:
        return _without_part_alone(text, part)
    if index:
        return text[:before] + text[part.end :]
    return text[: part.start if last else before] + text[after:]


def _without_part_alone(text: str, part: Part) -> str:
    """Take out a part and the comma behind it; the comments around it may be those of others."""
    comma = _COMMA.match(text, part.end)
    end = comma.end() if comma else part.end
    line_start = text.rfind("\n", 0, part.start) + 1
    if not text[line_start : part.start].strip() and not text[end : line_end(text, end)].strip():
        return text[:line_start] + text[_next_line(text, line_end(text, end)) :]
    return text[: part.start] + text[end:]
