"""Changes of the config file that leave alone what they do not change: comments, order, quotes.

A change is put into the text where it belongs, and the outcome is compared with what was meant.
Where the text is written in a way that this cannot handle (aliases between brackets, keys over
several lines), the whole file is written anew: comments, order and quotes stay, blanks may not;
where a comment would not, the change is refused. Comments within a section that is taken out, or
whose kind of value changes, go with it.
"""

import copy
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from llama_router.config import files
from llama_router.config.document import Document
from llama_router.config.local_only import LocalOnlyError, refuse_change
from llama_router.config.places import PlaceError, comments_of, compose, line_end
from llama_router.config.problems import ConfigError, Issue, Keys, Problem, format_keys
from llama_router.config.splice import SpliceError, add_values, remove_value, set_value
from llama_router.config.values import check_json
from llama_router.config.yaml_text import Style, style_of

__all__ = [
    "ChangedError",
    "Edit",
    "LocalOnlyError",
    "edited",
    "edited_document",
    "etag",
    "refuse_local_only",
    "write",
]

# One dialog changes a handful of settings.
EDITS_MAX_COUNT = 256
_BY_NAME = "name="
# What somebody sets first of a model that only its entry makes known.
_OF_A_NEW_MODEL = ("name", "path", "state")


@dataclass(frozen=True, slots=True)
class Edit:
    """One change: a value at a place is set, or taken out so that its default holds.

    ``path`` are keys and indices. Where a list has sections with names, ``name=X`` in place of an
    index is the one with this name; setting something in one that is not there adds it; of models
    an ``auto`` one, with settings for a model that is found. The index behind the last item adds
    one, too.
    """

    op: Literal["set", "remove"]
    path: Keys
    value: Any = None


@dataclass(frozen=True, slots=True)
class _Addition:
    """Values that go behind the last of the list at ``path``: put into the text in one go.

    Each place is looked up in the whole text, which takes its time with hundreds of models.
    """

    path: Keys
    values: list[Any]


class ChangedError(Exception):
    """Somebody else has changed the file meanwhile; nothing was written."""


def write(path: Path, before: str, after: str) -> None:
    """Put ``after`` in place of ``before``, whole, so that a power cut leaves either.

    Raises ChangedError when the file is not ``before`` any more, and ConfigError when it cannot be
    written. Reads and writes the file: not for an event loop.
    """
    try:
        if files.read_bytes(path).decode("utf-8-sig", "replace") != before:
            raise ChangedError(f"{path} has been changed meanwhile; read it again")
        files.replace(path, after.encode())
    except files.FileError as error:
        raise _error(path, (), str(error)) from None


def refuse_local_only(edits: Sequence[Edit]) -> None:
    """Raise LocalOnlyError for edits that take the file itself, see ``local_only``."""
    for edit in edits:
        is_removal = edit.op == "remove" or edit.value is None
        refuse_change(edit.path, edit.value, is_removal=is_removal)


def etag(text: str) -> str:
    """Return what names this text, and no other."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def edited(
    text: str, edits: Sequence[Edit], path: Path, *, max_count: int = EDITS_MAX_COUNT
) -> str:
    """Return the text of the file at ``path`` with the edits made, see ``edited_document``."""
    return edited_document(text, edits, path, max_count=max_count).text


def edited_document(
    text: str, edits: Sequence[Edit], path: Path, *, max_count: int = EDITS_MAX_COUNT
) -> Document:
    """Return the file at ``path``, which says ``text``, with the edits made, in their order.

    It is parsed once, to see that it says what was meant: whoever wants to load it need not do so
    again. It is not held against the schema. What is as it should be already is not touched, so
    that the same edit twice is as once. Raises ConfigError for an edit that cannot be made.
    """
    if len(edits) > max_count:
        raise _error(path, (), f"at most {max_count} changes can be made at a time")
    document = Document(text, path)
    content = document.plain()[0]
    style = style_of(text, is_json=document.is_json)
    wanted: dict[str, Any] = copy.deepcopy(content)
    steps: list[Edit] = []
    splices: list[Edit | _Addition] = []
    for edit in edits:
        try:
            more = list(_steps(wanted, _whole(edit, wanted)))
        except ValueError as error:
            raise ConfigError([document.problem(Issue(edit.path, str(error)))]) from None
        for step in more:
            _plan(splices, step, wanted)
            _apply(wanted, step)
        steps += more
    if not steps:
        return document
    made: str | None = text
    for splice in splices:
        made = None if made is None else _spliced(made, splice, style)
    outcome = None if made is None else _meant(made, wanted, path)
    if outcome is None:
        outcome = _meant(_written_anew(document, steps), wanted, path)
        if outcome is None:
            place = edits[0].path if len(edits) == 1 else ()
            message = "cannot be changed as it is written; change it in the file"
            raise ConfigError([document.problem(Issue(place, message))])
    if len(outcome.text.encode("utf-8", "surrogatepass")) > files.FILE_MAX_BYTES:
        raise _error(path, (), files.TOO_LONG)
    return outcome


def _whole(edit: Edit, content: Any) -> Edit:  # noqa: ANN401 - any value of a config
    """Put indices in place of names. Raises ValueError."""
    if not edit.path:
        raise ValueError("an edit needs the place of a setting")
    check_json(edit.value)
    keys: list[str | int] = []
    node, value = content, edit.value
    for depth, key in enumerate(edit.path):
        last = depth == len(edit.path) - 1
        if isinstance(key, str) and key.startswith(_BY_NAME) and isinstance(node, list | None):
            name, items = key.removeprefix(_BY_NAME), node or []
            index = _index_of(items, name)
            if index == len(items):
                if owner := _owner_of(items, name):
                    raise ValueError(f"{name} is an alias of {owner}: write models[{owner}]")
                rest = edit.path[depth + 1 :]
                value = _named(name, rest, value)
                if _is_of_a_found_model(edit.path):
                    value = {"name": name, "state": "auto"} | value
                return Edit(edit.op, (*keys, index), value)
            keys.append(index)
        else:
            keys.append(key)
        node = None if last else _get(node, keys[-1])
    return Edit(edit.op, tuple(keys), value)


def _index_of(items: Sequence[Any], name: str) -> int:
    for index, item in enumerate(items):
        if isinstance(item, dict) and item.get("name") == name:
            return index
    return len(items)


def _owner_of(items: Sequence[Any], alias: str) -> str:
    """Return the name of the entry that has this alias; "" if none has."""
    for item in items:
        if isinstance(item, dict) and alias in _texts(item.get("aliases")):
            return str(item.get("name", ""))
    return ""


def _texts(value: Any) -> list[Any]:  # noqa: ANN401 - as above
    return value if isinstance(value, list) else []


def _named(name: str, rest: Keys, value: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    for key in reversed(rest):
        value = [value] if isinstance(key, int) else {key: value}
    return {"name": name} | (value if isinstance(value, dict) else {})


def _is_of_a_found_model(path: Keys) -> bool:
    """Whether what is set there makes sense only for a model that is known without its entry."""
    if path[0] != "models" or len(path) <= len(("models", "name")):
        return False
    return path[2] not in _OF_A_NEW_MODEL and path[2:4] != ("spawn", "command")


def _get(node: Any, key: str | int) -> Any:  # noqa: ANN401 - as above
    if isinstance(node, dict) and isinstance(key, str):
        return node.get(key)
    if isinstance(node, list) and isinstance(key, int) and 0 <= key < len(node):
        return node[key]
    return None


def _steps(content: Any, edit: Edit) -> Iterator[Edit]:  # noqa: ANN401 - as above
    """Take an edit apart into the smallest ones that change anything. Raises ValueError."""
    node = content
    for key in edit.path:
        if isinstance(node, list) and (not isinstance(key, int) or not 0 <= key <= len(node)):
            hint = f"; write [{key}]" if isinstance(key, str) else ""
            raise ValueError(f"has no item {key}; it has {len(node)}{hint}")
        if isinstance(node, dict) and not isinstance(key, str):
            raise ValueError("has keys, not numbers")  # noqa: TRY004 - one kind for all of these
        if node is not None and not isinstance(node, dict | list):
            raise ValueError(f"has no {key}, as it is a plain value")
        node = _get(node, key)
    if edit.op == "remove" or edit.value is None:
        if node is not None:
            yield Edit("remove", edit.path)
        return
    yield from _differences(node, edit.value, edit.path)


def _differences(old: Any, new: Any, keys: Keys) -> Iterator[Edit]:  # noqa: ANN401 - as above
    if isinstance(old, dict) and isinstance(new, dict) and old and new:
        for key in [key for key in old if key not in new]:
            yield Edit("remove", (*keys, key))
        for key, value in new.items():
            yield from _differences(old.get(key), value, (*keys, key))
    elif isinstance(old, list) and isinstance(new, list) and old and new:
        for index in reversed(range(len(new), len(old))):
            yield Edit("remove", (*keys, index))
        for index, value in enumerate(new):
            item = old[index] if index < len(old) else None
            yield from _differences(item, value, (*keys, index))
    elif not _same(old, new):
        yield Edit("set", keys, new)


def _same(old: Any, new: Any) -> bool:  # noqa: ANN401 - as above
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    return bool(old == new)


def _apply(content: Any, step: Edit) -> None:  # noqa: ANN401 - as above
    """Make the change in plain content, or in ruamel's."""
    node = content
    for depth, key in enumerate(step.path[:-1]):
        child = _get(node, key)
        if child is None:
            child = _empty_for(step.path[depth + 1], content)
            _put(node, key, child)
        node = child
    if step.op == "remove":
        del node[step.path[-1]]
    else:
        _put(node, step.path[-1], copy.deepcopy(step.value))


def _empty_for(key: str | int, content: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(content, CommentedMap):
        return CommentedSeq() if isinstance(key, int) else CommentedMap()
    return [] if isinstance(key, int) else {}


def _put(node: Any, key: str | int, value: Any) -> None:  # noqa: ANN401 - as above
    if isinstance(node, list) and key == len(node):
        node.append(value)
    else:
        node[key] = value


def _plan(splices: list[Edit | _Addition], step: Edit, content: Any) -> None:  # noqa: ANN401 - as above
    """Add a step, which has not been made in ``content``, to what is put into the text."""
    path, node = step.path[:-1], content
    for key in path:
        node = _get(node, key)
    if not isinstance(node, list) or not node or step.path[-1] != len(node):
        splices.append(step)
        return
    last = splices[-1] if splices else None
    if isinstance(last, _Addition) and last.path == path:
        last.values.append(step.value)
    else:
        splices.append(_Addition(path, [step.value]))


def _spliced(text: str, step: Edit | _Addition, style: Style) -> str | None:
    try:
        if isinstance(step, _Addition):
            return add_values(text, step.path, step.values, style)
        if step.op == "remove":
            return remove_value(text, step.path, style)
        return set_value(text, step.path, step.value, style)
    except (PlaceError, SpliceError, YAMLError):
        return None


def _meant(text: str, wanted: dict[str, Any], path: Path) -> Document | None:
    """Return a text parsed if it says what is wanted."""
    try:
        document = Document(text, path)
        content, issues = document.plain()
    except ConfigError:
        return None
    return document if not issues and _same_settings(content, wanted) else None


def _same_settings(one: Any, other: Any) -> bool:  # noqa: ANN401 - as above
    """Compare content; a section without anything in it is as none."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return all(_same_settings(one.get(key), other.get(key)) for key in keys)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_settings, one, other))
    if one in ({}, [], None) and other in ({}, [], None):
        return True
    return type(one) is type(other) and bool(one == other)


def _written_anew(document: Document, steps: Sequence[Edit]) -> str:
    """Make the changes in the parsed file, whose blanks and brackets may come out otherwise.

    Raises ConfigError when a comment would get lost.
    """
    fresh = Document(document.text, document.path)
    for step in steps:
        try:
            _apply(fresh.data, step)
        except (KeyError, IndexError, TypeError, AttributeError):
            message = "comes from a section merged with <<, or an alias; change it in the file"
            raise ConfigError([document.problem(Issue(step.path, message))]) from None
    text = fresh.dump()
    if not fresh.is_json and _loses_comments(document.text, text, steps):
        message = "cannot be changed without losing comments elsewhere; change it in the file"
        raise ConfigError([document.problem(Issue(steps[0].path, message))])
    return text


def _loses_comments(before: str, after: str, steps: Sequence[Edit]) -> bool:
    """Whether comments are gone, but for those of what the steps take out or replace."""
    spans = [span for step in steps if (span := _span(before, step.path)) is not None]
    kept = Counter(
        comment
        for at, comment in comments_of(before)
        if not any(start <= at < end for start, end in spans)
    )
    return bool(kept - Counter(comment for _, comment in comments_of(after)))


def _span(text: str, keys: Keys) -> tuple[int, int] | None:
    """Return from where to where the lines of a value go; None when it cannot be told."""
    try:
        place = compose(text, is_json=False)
        start = end = -1
        for key in keys:
            part = place.part(key)
            if part is None:
                return None
            start, end, place = part.start, line_end(text, part.end), part.value
    except PlaceError:
        return None
    return start, end


def _error(path: Path, keys: Keys, message: str) -> ConfigError:
    return ConfigError([Problem(str(path), 0, format_keys(keys), message)])
