"""Another program's config as it is read: values, their places, and what is said of them."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from llama_router.config.document import Document
from llama_router.config.importers.report import Fate, Note, Report
from llama_router.config.problems import ConfigError, Issue, Keys, Problem, format_keys


class Places(Protocol):
    """What knows where in a file a key is."""

    @property
    def path(self) -> Path:
        """The file."""

    def problem(self, issue: Issue) -> Problem:
        """Look up where an issue is."""

    def place_of(self, keys: Keys) -> tuple[int, int]:
        """Give the line and column of a key, or of the nearest thing around it that has one."""


class Source:
    """A file with what is found wrong in it and what became of its keys."""

    def __init__(self, places: Places, form: str) -> None:
        self.places = places
        self.form = form
        self.issues: list[Issue] = []
        self.notes: list[Note] = []

    def fault(self, keys: Keys, message: str) -> None:
        """Remember that a value cannot be used."""
        self.issues.append(Issue(keys, message))

    def note(
        self,
        keys: Keys,
        fate: Fate,
        pattern: str = "",
        native: str = "",
        why: str = "",
        *,
        shown: str = "",
    ) -> None:
        """Remember what became of a key; ``shown`` is what it is called, if not by its place."""
        line = self.places.place_of(keys)[0]
        self.notes.append(Note(shown or format_keys(keys), line, fate, pattern, native, why))

    def check(self) -> None:
        """Raise ConfigError if there are faults."""
        if self.issues:
            raise ConfigError(self.places.problem(issue) for issue in self.issues)

    def report(self) -> Report:
        """Give what became of all keys, in the order of the file."""
        notes = sorted(self.notes, key=lambda note: note.line)
        return Report(str(self.places.path), self.form, tuple(notes))


class Native:
    """Our own config while it is made, and which key of the source each part comes from."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {}
        self._origins: dict[Keys, Keys] = {}

    def put(self, keys: Keys, value: object, origin: Keys) -> None:
        """Set a value below mappings, which are made, or lists, of which ``keys`` names an item.

        A list's next item is made when it is named.
        """
        node: Any = self.content
        for key, following in pairwise(keys):
            empty: Any = [] if isinstance(following, int) else {}
            if isinstance(node, list):
                index = int(key)
                if index == len(node):
                    node.append(empty)
                node = node[index]
            else:
                node = node.setdefault(key, empty)
        if isinstance(node, list) and keys[-1] == len(node):
            node.append(value)
        else:
            node[keys[-1]] = value
        self._origins[keys] = origin

    def origin_of(self, keys: Keys) -> Keys:
        """Say which key of the source a place of our config comes from, or what is around it."""
        for length in range(len(keys), 0, -1):
            origin = self._origins.get(keys[:length])
            if origin is not None:
                return origin
        return ()


def plain_with_nulls(document: Document) -> dict[str, Any]:
    """Give a document's content with keys that have no value.

    To llama-swap they mean something: a name that is pinned to nothing is refused. Raises
    ConfigError for a document that is too deep or too large, or has values that no setting takes.
    """
    plain, issues = document.plain()
    if issues:
        raise ConfigError(document.problem(issue) for issue in issues)
    content: dict[str, Any] = _with_nulls(document.data, plain)
    return content


def _with_nulls(node: Any, plain: Any) -> Any:  # noqa: ANN401 - any YAML value
    if isinstance(plain, dict) and isinstance(node, Mapping):
        return {
            str(key): None if value is None else _with_nulls(value, plain[str(key)])
            for key, value in node.items()
            if value is None or str(key) in plain
        }
    if isinstance(plain, list):
        return [_with_nulls(item, part) for item, part in zip(node, plain, strict=True)]
    return plain
