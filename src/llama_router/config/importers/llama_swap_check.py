"""A llama-swap config held against its keys: every value of its kind, every key accounted for."""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

from llama_router.config.importers.llama_swap_keys import KEYS, Kind
from llama_router.config.importers.llama_swap_macros import ENV
from llama_router.config.importers.report import Fate
from llama_router.config.importers.source import Source
from llama_router.config.problems import Keys

# As Go's YAML library takes them where true or false is wanted.
_TRUTHS = {
    "true": True,
    "yes": True,
    "on": True,
    "y": True,
    "false": False,
    "no": False,
    "off": False,
    "n": False,
}
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_WANTED = {
    Kind.WHOLE: "must be a whole number",
    Kind.TRUTH: "must be true or false",
    Kind.TEXT: "must be text",
    Kind.TEXTS: "must be a list of text",
    Kind.SECTION: "must hold keys and values",
    Kind.NAMED: "must hold names with settings below each",
    Kind.TEXT_BY_NAME: "must hold names with text behind each",
    Kind.WHOLE_BY_NAME: "must hold names with a whole number behind each",
    Kind.OBJECT: "must hold keys and values",
    Kind.OBJECT_BY_NAME: "must hold names with keys and values below each",
}


class _MisfitError(Exception):
    """A value is not of the kind that is wanted."""


class Checker:
    """Goes through a config in which the macros are put in already.

    Faults and what becomes of each key are told to the source.
    """

    def __init__(self, source: Source, env: Mapping[str, str]) -> None:
        self._source = source
        self._env = env
        self._plain: Mapping[Kind, Callable[[Any], Any]] = {
            Kind.WHOLE: self._whole,
            Kind.TRUTH: self._truth,
            Kind.TEXT: _text,
            Kind.TEXTS: _texts,
            # No value is a value here: a pin to nothing.
            Kind.TEXT_BY_NAME: lambda value: _each(value, _text_or_nothing),
            Kind.WHOLE_BY_NAME: lambda value: _each(value, self._whole),
            Kind.OBJECT: _mapping,
            Kind.OBJECT_BY_NAME: lambda value: _each(value, _mapping),
            Kind.IGNORED: lambda value: value,
        }

    def check(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is of use in the config; keys without a value count as not there."""
        return self._section(content, "", ())

    def _section(self, content: Mapping[str, Any], pattern: str, keys: Keys) -> dict[str, Any]:
        good: dict[str, Any] = {}
        prefix = f"{pattern}." if pattern else ""
        for name, value in content.items():
            below, place = f"{prefix}{name}", (*keys, name)
            key = KEYS.get(below)
            # What is written with a dot or a star in it is no key of theirs.
            if key is None or not name.isidentifier():
                self._unknown(name, prefix, place)
                continue
            if value is None:
                continue
            try:
                good[name] = self._value(key.kind, value, below, place)
            except _MisfitError:
                self._source.fault(place, _WANTED[key.kind])
                continue
            if key.kind is not Kind.SECTION:
                self._source.note(place, key.fate, below, key.native, key.why)
        return good

    def _unknown(self, name: str, prefix: str, place: Keys) -> None:
        known = [key.removeprefix(prefix) for key in KEYS if key.startswith(prefix) and key]
        near = difflib.get_close_matches(name, [key for key in known if "." not in key], n=1)
        why = f"llama-swap has no such key; did you mean {near[0]}?" if near else ""
        self._source.note(
            place, Fate.UNKNOWN, f"{prefix}{name}", why=why or "llama-swap has no such key"
        )

    def _value(self, kind: Kind, value: Any, pattern: str, keys: Keys) -> Any:  # noqa: ANN401 - any YAML value
        if kind is Kind.SECTION:
            return self._section(_mapping(value), pattern, keys)
        if kind is Kind.NAMED:
            return {
                name: self._named(part, f"{pattern}.*", (*keys, name))
                for name, part in _mapping(value).items()
            }
        return self._plain[kind](value)

    def _named(self, value: Any, pattern: str, keys: Keys) -> dict[str, Any]:  # noqa: ANN401 - any YAML value
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._source.fault(keys, _WANTED[Kind.SECTION])
            return {}
        return self._section(value, pattern, keys)

    def _whole(self, value: Any) -> int:  # noqa: ANN401 - any YAML value
        if isinstance(value, str):
            # From the environment, or a macro within a text.
            text = self._with_variables(value).strip()
            if _WHOLE.fullmatch(text):
                return int(text)
        elif isinstance(value, float) and value.is_integer():
            return int(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            return value
        raise _MisfitError

    def _truth(self, value: Any) -> bool:  # noqa: ANN401 - any YAML value
        if isinstance(value, str):
            value = _TRUTHS.get(self._with_variables(value).strip().lower())
        if isinstance(value, bool):
            return value
        raise _MisfitError

    def _with_variables(self, text: str) -> str:
        return ENV.sub(lambda match: self._env[match[1]], text)


def _text(value: Any) -> str:  # noqa: ANN401 - any YAML value
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise _MisfitError


def _text_or_nothing(value: Any) -> str:  # noqa: ANN401 - any YAML value
    return "" if value is None else _text(value)


def _texts(value: Any) -> list[str]:  # noqa: ANN401 - any YAML value
    if not isinstance(value, list):
        raise _MisfitError
    return [_text(item) for item in value if item is not None]


def _each(value: Any, read: Callable[[Any], Any]) -> dict[str, Any]:  # noqa: ANN401 - any YAML value
    return {name: read(item) for name, item in _mapping(value).items()}


def _mapping(value: Any) -> dict[str, Any]:  # noqa: ANN401 - any YAML value
    if not isinstance(value, dict):
        raise _MisfitError
    return value
