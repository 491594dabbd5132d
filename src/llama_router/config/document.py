"""The config file as text with structure: parsed, located, changed, written again.

YAML keeps its comments, order and quotes (ruamel.yaml, YAML 1.2). A ``.json`` file is read by the
same parser, as YAML 1.2 contains JSON, and written as JSON.
"""

import json
import re
from contextlib import suppress
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scalarbool import ScalarBoolean

from llama_router.config.problems import ConfigError, Issue, Keys, Problem, format_keys
from llama_router.config.syntax import in_words
from llama_router.config.yaml_text import style_of

# Sections of which not the router knows what their values mean.
_OF_OTHERS = frozenset({"set_params", "set_params_by_id", "metadata", "capabilities"})
# The schema is 5 levels deep.
DEPTH_MAX_LEVELS = 16
# What the file means when every alias is written out: aliases of aliases grow exponentially.
VALUES_MAX_COUNT = 500_000
# Never fold: a command on one line is what its writer wants to see again.
LINE_WIDTH_CHARS = 1_000_000

# Below these no value is one: JSON's null.
_OF_JSON = frozenset({"set_params", "set_params_by_id", "metadata"})
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


class _TooMuchError(Exception):
    """The document means more than it may."""


class _Constructor(RoundTripConstructor):
    """Collects keys that occur twice, instead of stopping at the first."""

    def __init__(self, preserve_quotes: bool | None = None, loader: Any = None) -> None:  # noqa: ANN401, FBT001 - ruamel's signature
        super().__init__(preserve_quotes=preserve_quotes, loader=loader)
        self.duplicates: list[tuple[int, int, str]] = []

    def construct_object(self, node: Any, deep: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002
        """Give errors of Python's own converters (a 13th month, 5000 digits) their line."""
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:
            message = f"cannot be understood: {error}"
            raise MarkedYAMLError(problem=message, problem_mark=node.start_mark) from error

    def check_mapping_key(
        self,
        node: Any,  # noqa: ANN401, ARG002 - ruamel's signature
        key_node: Any,  # noqa: ANN401
        mapping: Any,  # noqa: ANN401
        key: Any,  # noqa: ANN401
        value: Any,  # noqa: ANN401, ARG002
    ) -> bool:
        """Say whether the key is new."""
        if key not in mapping:
            return True
        mark = key_node.start_mark
        self.duplicates.append((mark.line + 1, mark.column + 1, str(key)))
        return False


class Document:
    """One parsed file.

    ``data`` is its root as ruamel's round-trip mapping, to be changed in place; ``text`` is what
    was parsed. Raises ConfigError with every fault that the parser finds.
    """

    def __init__(self, text: str, path: Path) -> None:
        self.text = text
        self.path = path
        self.is_json = path.suffix.lower() == ".json"
        self._yaml = _yaml_for(text)
        self._issues: list[Issue] = []
        self._values_count = 0
        self.data = self._parse()

    @classmethod
    def from_bytes(cls, content: bytes, path: Path) -> "Document":
        """Parse the bytes of a file, which must be UTF-8 (a byte order mark is passed over)."""
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            start = content.rfind(b"\n", 0, error.start) + 1
            column = len(content[start : error.start].decode("utf-8", "replace")) + 1
            problem = Problem(str(path), line, "", "is not UTF-8 text", column)
            raise ConfigError([problem]) from None
        return cls(text, path)

    def _parse(self) -> CommentedMap:
        # In JSON a tab between values is a space; YAML has rules of its own about them.
        text = self.text.replace("\t", " ") if self.is_json else self.text
        # The parser's own errors quote the file, keys and tokens too: none is chained to ours.
        try:
            data = self._yaml.load(text)
        except RecursionError:
            raise self._error(1, f"is nested deeper than {DEPTH_MAX_LEVELS} levels") from None
        except MarkedYAMLError as error:
            message, line, column = in_words(error)
            raise self._error(line, message, column) from None
        except ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            column = error.position - text.rfind("\n", 0, error.position)
            message = "holds a character that text files do not have"
            raise self._error(line, message, column) from None
        except YAMLError as error:
            raise self._error(1, f"cannot be understood: {error}".splitlines()[0]) from None
        duplicates: list[tuple[int, int, str]] = self._yaml.constructor.duplicates
        if duplicates:
            raise ConfigError(
                Problem(str(self.path), line, key, "is set twice", column)
                for line, column, key in duplicates
            )
        if data is None:
            raise self._error(1, "is empty; delete it to have a default one written")
        if not isinstance(data, CommentedMap):
            raise self._error(1, 'must consist of keys and values, such as `version: "1.0"`')
        return data

    def _error(self, line: int, message: str, column: int = 0) -> ConfigError:
        return ConfigError([Problem(str(self.path), line, "", message, column)])

    def plain(self) -> tuple[dict[str, Any], list[Issue]]:
        """Give the content as dicts, lists and scalars, and what has no place in a config.

        A key without a value (``models:``) is left out: it means the default. Where any JSON may
        stand it is null.
        Raises ConfigError when aliases make the document too deep or too large.
        """
        self._issues = []
        self._values_count = 0
        try:
            content = self._plain_map(self.data, ())
        except _TooMuchError as error:
            raise self._error(1, str(error)) from None
        return content, self._issues

    def _plain(self, value: Any, keys: Keys) -> Any:  # noqa: ANN401 - any YAML value
        self._values_count += 1
        if self._values_count > VALUES_MAX_COUNT:
            raise _TooMuchError(f"holds more than {VALUES_MAX_COUNT} values, aliases written out")
        if len(keys) > DEPTH_MAX_LEVELS:
            raise _TooMuchError(f"is nested deeper than {DEPTH_MAX_LEVELS} levels")
        if isinstance(value, CommentedMap):
            return self._plain_map(value, keys)
        if isinstance(value, CommentedSeq):
            return [self._plain(item, (*keys, index)) for index, item in enumerate(value)]
        if isinstance(value, ScalarBoolean):
            return bool(value)
        if isinstance(value, str):
            return _SURROGATE_PAIR.sub(_join_surrogates, str(value))
        for kind in (bool, int, float):
            if isinstance(value, kind):
                return kind(value)
        if value is not None:
            self._issues.append(Issue(keys, _why_no_setting(value)))
        return None

    def _plain_map(self, mapping: CommentedMap, keys: Keys) -> dict[str, Any]:
        content = {}
        for key, value in mapping.items():
            if not isinstance(key, str):
                self._issues.append(Issue(keys, f"the key {key!r} is not text; put it in quotes"))
            elif value is not None:
                plain = self._plain(value, (*keys, str(key)))
                if plain is not None:
                    content[str(key)] = plain
            elif not _OF_OTHERS.isdisjoint(keys) or not _OF_JSON.isdisjoint(keys):
                content[str(key)] = None
        return content

    def place_of(self, keys: Keys) -> tuple[int, int]:
        """Give line and column of a key or list item, or of the nearest thing around it."""
        node: Any = self.data
        place = (1, 1)
        for key in keys:
            # Without a place (missing, or merged from elsewhere): that of what is around it.
            with suppress(AttributeError, KeyError, TypeError, IndexError):
                line, column = node.lc.item(key) if isinstance(key, int) else node.lc.key(key)
                place = (line + 1, column + 1)
            try:
                node = node[key]
            except (KeyError, TypeError, IndexError):
                break
        return place

    def line_of(self, keys: Keys) -> int:
        """Give the line of a key or list item, or of the nearest thing around it that has one."""
        return self.place_of(keys)[0]

    def problem(self, issue: Issue) -> Problem:
        """Look up where an issue is."""
        line, column = self.place_of(issue.keys)
        return Problem(str(self.path), line, format_keys(issue.keys), issue.message, column)

    def dump(self) -> str:
        """Give the text of the document as it is now."""
        if self.is_json:
            return json.dumps(self.plain()[0], indent=2, ensure_ascii=False) + "\n"
        output = StringIO()
        self._yaml.dump(self.data, output)
        text = output.getvalue()
        return text.replace("\n", "\r\n") if "\r\n" in self.text else text


def _yaml_for(text: str) -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.Constructor = _Constructor
    yaml.preserve_quotes = True
    yaml.width = LINE_WIDTH_CHARS
    # Write blocks as far in as they were.
    style = style_of(text)
    offset = style.item_indent
    yaml.indent(mapping=style.key_indent, sequence=offset + 2, offset=offset)
    return yaml


def _why_no_setting(value: object) -> str:
    if isinstance(value, TaggedScalar):
        return "has a tag, which no setting takes; put text in quotes"
    if isinstance(value, date):
        return "is read as a date; put text in quotes"
    return "is of a kind that no setting takes"


def _join_surrogates(pair: re.Match[str]) -> str:
    # JSON writes what is beyond the basic plane as two escapes (RFC 8259, section 7).
    return pair[0].encode("utf-16", "surrogatepass").decode("utf-16")
