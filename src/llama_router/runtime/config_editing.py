"""Changes of the file that a router's config is read from. Everything here blocks its thread."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_router.config import files
from llama_router.config.edit import ChangedError, Edit, etag, write
from llama_router.config.macros import without_macros
from llama_router.config.problems import ConfigError, Problem
from llama_router.runtime.config_aside import ConfigAside
from llama_router.runtime.config_file import ConfigSource, Reading

# A person or an editor saves it in the very moment of an edit once, hardly twice.
_TRIES_MAX_COUNT = 3


class NotEditableError(Exception):
    """There is no file of the router's own form that could be changed."""


class EditConflictError(Exception):
    """The file is not what it was when the edit was made; ``etag`` is what it is now."""

    def __init__(self, now: str) -> None:
        super().__init__("the config file has been changed meanwhile; read it again")
        self.etag = now


def text_of(source: ConfigSource, reading: Reading) -> tuple[str, str]:
    """Return the file as it is now, and its etag; ``reading`` is what it was read as last.

    Raises NotEditableError or ConfigError.
    """
    path = _editable_path(source, reading)
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
    except (files.FileError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), 0, "", str(error))]) from None
    return text, etag(text)


def write_edited(
    aside: ConfigAside,
    source: ConfigSource,
    reading: Reading,
    edits: Sequence[Edit],
    known_etag: str | None,
) -> Reading:
    """Change the file, and return what it says then.

    ``known_etag`` names the text that the edits were made for; None: whatever it is, also when it
    changes meanwhile. Raises EditConflictError, NotEditableError, ConfigError, ReadError: nothing
    is changed then.
    """
    path = _editable_path(source, reading)
    for _ in range(_TRIES_MAX_COUNT):
        text, now = text_of(source, reading)
        if known_etag is not None and now != known_etag:
            raise EditConflictError(now)
        changed = aside.edit(source, path, text, edits)
        with contextlib.suppress(ChangedError):
            write(path, text, changed.text or "")
            return changed
    raise EditConflictError(text_of(source, reading)[1])


def says(path: Path, text: str | None) -> bool:
    """Tell whether a file says this."""
    try:
        return files.read_bytes(path).decode("utf-8-sig", "replace") == text
    except files.FileError:
        return False


def edits_for(entries: Sequence[Mapping[str, Any]]) -> list[Edit]:
    """Return the edits that add entries of models. Files may be called anything, `${env.X}` too."""
    found = map(without_macros, entries)
    return [Edit("set", ("models", f"name={entry['name']}"), entry) for entry in found]


def _editable_path(source: ConfigSource, reading: Reading) -> Path:
    path = source.path
    if path is None or reading.is_foreign:
        raise NotEditableError("this router's config is in no file of its own form")
    return path
