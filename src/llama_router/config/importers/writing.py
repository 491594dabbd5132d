"""An imported config as a file of ours: written anew, or put into one that is there already.

What a file of ours says already stays: an import adds, and says what it would have had otherwise.
So the same import again changes nothing.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from llama_router.config.document import LINE_WIDTH_CHARS, Document
from llama_router.config.edit import EDITS_MAX_COUNT, Edit, edited
from llama_router.config.importers.report import Report
from llama_router.config.problems import Keys, format_keys
from llama_router.config.schema import Config, RouterSettings
from llama_router.config.section import Section

# More new models than this are added together, at the price of the list's own spacing.
_ONE_BY_ONE_MAX_COUNT = 16
_MODEL_PATH_LENGTH = 2
# Lists to which an import adds what they lack; of others the file's own stays.
_SETS = frozenset({("router", "api_keys"), ("router", "preload")})
_SECTIONS: Mapping[Keys, type[Section]] = {(): Config, ("router",): RouterSettings}
_WHY = {
    "memory_aware": "Groups or the matrix alone say what runs side by side, as they did; without"
    " this line memory is looked at, too.",
    "upstream_ignore_paths": "Paths below /upstream that do not load a model.",
}


@dataclass(frozen=True, slots=True)
class Merged:
    """A file's text with an import in it, and the settings of which the file's own stayed."""

    text: str
    kept: tuple[str, ...] = ()


def rendered(content: Mapping[str, Any], report: Report) -> str:
    """Write a file of ours, with comments that say where it comes from and what is not in it."""
    root = _commented(content)
    lines = [
        f"llama-router's configuration, from {Path(report.source).absolute().name} ({report.form})."
    ]
    lost = [line.strip() for line in report.lines() if line.startswith("  not carried:")]
    if lost:
        lines += ["", *lost]
    root.yaml_set_start_comment("\n".join(_printable(line) for line in lines) + "\n")
    router = root.get("router")
    if isinstance(router, CommentedMap):
        for key, why in _WHY.items():
            if key in router:
                router.yaml_set_comment_before_after_key(key, before=why, indent=2)
    output = StringIO()
    yaml = YAML(typ="rt", pure=True)
    yaml.width = LINE_WIDTH_CHARS
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(root, output)
    return output.getvalue()


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else " " for char in line)


def _commented(value: Any) -> Any:  # noqa: ANN401 - any value of a config
    if isinstance(value, Mapping):
        return CommentedMap((key, _commented(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        items = CommentedSeq(_commented(item) for item in value)
        if not any(isinstance(item, CommentedMap | CommentedSeq) for item in items):
            items.fa.set_flow_style()
        return items
    return value


def merged_text(text: str, path: Path, content: Mapping[str, Any]) -> Merged:
    """Put the content into the text of the config at ``path``. Raises ConfigError."""
    existing = Document(text, path).plain()[0]
    kept: list[str] = []
    edits = list(_additions(existing, content, (), kept))
    fresh = [edit for edit in edits if _is_new_model(edit)]
    together = len(fresh) > _ONE_BY_ONE_MAX_COUNT or not existing.get("models")
    if together:
        edits = [edit for edit in edits if not _is_new_model(edit)]
    for start in range(0, len(edits), EDITS_MAX_COUNT):
        text = edited(text, edits[start : start + EDITS_MAX_COUNT], path)
    if together:
        text = _with_models(text, path, [edit.value for edit in fresh], existing)
    return Merged(text, tuple(kept))


def _is_new_model(edit: Edit) -> bool:
    return edit.path[0] == "models" and len(edit.path) == _MODEL_PATH_LENGTH


def _with_models(
    text: str, path: Path, models: list[dict[str, Any]], existing: Mapping[str, Any]
) -> str:
    """Add models all at once: each edit of its own would read the whole text again."""
    if not models:
        return text
    if not existing.get("models"):
        return edited(text, [Edit("set", ("models",), models)], path)
    document = Document(text, path)
    document.data["models"].extend(_commented(models))
    return document.dump()


def _additions(old: Any, new: Any, keys: Keys, kept: list[str]) -> Iterator[Edit]:  # noqa: ANN401 - any value of a config
    if keys == ("models",):
        yield from _models(old or [], new, kept)
    elif keys in _SETS and isinstance(old, list):
        lacking = [item for item in new if item not in old and {"key": item} not in _keys(old)]
        if lacking:
            yield Edit("set", keys, [*old, *lacking])
    elif isinstance(new, Mapping) and isinstance(old, Mapping):
        for key, value in new.items():
            yield from _additions(old.get(key), value, (*keys, key), kept)
    elif old is None or (old != new and _is_default(keys, old)):
        yield Edit("set", keys, new)
    elif old != new:
        kept.append(format_keys(keys))


def _models(
    old: Sequence[Any], new: Sequence[Mapping[str, Any]], kept: list[str]
) -> Iterator[Edit]:
    entries = {entry.get("name"): entry for entry in old if isinstance(entry, dict)}
    for entry in new:
        name = entry["name"]
        place: Keys = ("models", f"name={name}")
        if name not in entries:
            yield Edit("set", place, copy.deepcopy(dict(entry)))
        else:
            yield from _additions(entries[name], entry, place, kept)


def _keys(entries: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {"key": entry["key"]} for entry in entries if isinstance(entry, dict) and "key" in entry
    ]


def _is_default(keys: Keys, value: object) -> bool:
    """Whether a setting is as if it were not written: the first run's file shows some so."""
    section = _SECTIONS.get(keys[:-1])
    field = None if section is None else section.model_fields.get(str(keys[-1]))
    return field is not None and bool(field.default == value)
