"""``${macro}`` and ``${env.NAME}`` in the values of a config, put in after it is parsed.

Macros are those of the section (an entry of ``models``, a template, ``defaults``), then those of
the file; they may use each other in any order. What they stand for is worked out once for each
section, and never read again for further macros. ``$${`` is a plain ``${``.

A value from the environment may be a secret: which values have one is told, so that messages about
them need not quote them. In commands its dollar signs are doubled: it is never a placeholder.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llama_router.config.plain import COMMAND_KEYS
from llama_router.config.problems import Issue, Keys, format_keys
from llama_router.config.values import MACRO_NAME

# The longest value of any setting is an environment variable of 128 KiB.
VALUE_MAX_CHARS = 256 * 1024
# Four times the longest file: beyond it somebody is blowing it up.
EXPANDED_MAX_CHARS = 16 * 1024 * 1024
# Macros of macros; people use two levels.
DEPTH_MAX_LEVELS = 32

_TOKEN = re.compile(r"\$\$\{|\$\{(?P<name>[^{}\n]*)\}|\$\{")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENV = "env."
_TOO_LONG = f"stands for more than {VALUE_MAX_CHARS // 1024} KiB of text"
_HOW_TO_WRITE = "write ${name} or ${env.NAME}, and $${ for a plain ${"


class _TooMuchError(Exception):
    """All values together stand for too much; ``keys`` is where that was."""

    def __init__(self, keys: Keys) -> None:
        super().__init__()
        self.keys = keys


class _UnknownError(Exception):
    """A value cannot be expanded; the text says why and never quotes it. ``keys``: its place."""

    def __init__(self, keys: Keys, message: str) -> None:
        super().__init__(message)
        self.keys = keys


@dataclass(frozen=True, slots=True)
class _Expansion:
    """What a text stands for. ``variable`` is one of the environment that is part of it."""

    value: Any
    variable: str = ""


@dataclass(frozen=True)
class Expanded:
    """The content with every macro put in.

    ``left_out`` are the places of values that could not be expanded. ``variables`` gives, by the
    place of each value that has something of the environment in it, the name of that variable.
    """

    content: dict[str, Any]
    issues: tuple[Issue, ...]
    left_out: frozenset[Keys]
    variables: Mapping[Keys, str]


def expand(content: Mapping[str, Any], env: Mapping[str, str]) -> Expanded:
    """Put in what the macros of ``content`` and the variables of ``env`` stand for.

    The macros themselves stay as they are. A value that cannot be expanded is left out of the
    content, as an issue tells of it.
    """
    return _Expander(content, env).run()


def has_macro(text: str) -> bool:
    """Whether the text has anything that would be expanded, or looks as if it should."""
    return any(token[0] != "$${" for token in _TOKEN.finditer(text))


def without_macros(value: Any) -> Any:  # noqa: ANN401 - any value of a config
    """Return a value that ``expand`` makes what this one is, text that looks like a macro too."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {key: without_macros(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_macros(item) for item in value]
    return value


class _Budget:
    """How much text macros may still make, all of them together."""

    def __init__(self) -> None:
        self._left_chars = EXPANDED_MAX_CHARS

    def take(self, chars_count: int, keys: Keys) -> None:
        """Raise _TooMuchError when there is not as much left."""
        self._left_chars -= chars_count
        if self._left_chars < 0:
            raise _TooMuchError(keys)


class _Scope:
    """The macros that a section sees, and what they stand for, as far as it was asked."""

    def __init__(
        self, env: Mapping[str, str], macros: Mapping[str, tuple[Keys, Any]], budget: _Budget
    ) -> None:
        self._budget = budget
        self._env = env
        self._macros = macros
        self._done: dict[tuple[str, bool], _Expansion | _UnknownError] = {}
        self._under_way: list[str] = []

    def within(self, macros: Mapping[str, tuple[Keys, Any]]) -> "_Scope":
        """Return the scope of a section that has macros of its own."""
        return _Scope(self._env, {**self._macros, **macros}, self._budget) if macros else self

    def expand(self, text: str, keys: Keys, *, is_command: bool) -> _Expansion:
        """Expand one text. Raises _UnknownError."""
        if "${" not in text:
            return _Expansion(text)
        whole = _TOKEN.fullmatch(text)
        if whole is not None and whole["name"] is not None:
            made = self._value(whole["name"], keys, is_command=is_command)
            self._budget.take(len(made.value) if isinstance(made.value, str) else 0, keys)
            return made
        parts: list[str] = []
        variable, end, chars_count = "", 0, len(text)
        for token in _TOKEN.finditer(text):
            parts.append(text[end : token.start()])
            end = token.end()
            if token[0] == "$${":
                # In a command the placeholders' own rule makes `$$` a dollar sign, later.
                parts.append("$${" if is_command else "${")
            elif token["name"] is None:
                raise _UnknownError(keys, f"has a ${{ without a name and }}; {_HOW_TO_WRITE}")
            else:
                part = self._value(token["name"], keys, is_command=is_command)
                parts.append(_as_text(part.value))
                variable = variable or part.variable
            chars_count += len(parts[-1])
            if chars_count > VALUE_MAX_CHARS:
                raise _UnknownError(keys, _TOO_LONG)
        parts.append(text[end:])
        self._budget.take(chars_count, keys)
        return _Expansion("".join(parts), variable)

    def work_out(self, name: str, keys: Keys) -> None:
        """Find out what a macro stands for, of which nothing is used. Raises _UnknownError."""
        self._value(name, keys, is_command=False)

    def _value(self, name: str, keys: Keys, *, is_command: bool) -> _Expansion:
        if name.startswith(_ENV):
            return self._variable(name.removeprefix(_ENV), keys, is_command=is_command)
        if not MACRO_NAME.fullmatch(name):
            raise _UnknownError(keys, f"has a ${{ without a macro's name; {_HOW_TO_WRITE}")
        if name not in self._macros:
            raise _UnknownError(keys, self._unknown(name))
        known = self._done.get((name, is_command))
        if known is None:
            known = self._done[name, is_command] = self._worked_out(name, is_command=is_command)
        if isinstance(known, _UnknownError):
            # One of its own for each place: an error collects every place that it was raised at.
            raise _UnknownError(known.keys, str(known))
        return known

    def _worked_out(self, name: str, *, is_command: bool) -> _Expansion | _UnknownError:
        place, value = self._macros[name]
        if not isinstance(value, str):
            return _Expansion(value)
        if name in self._under_way:
            circle = " -> ".join([*self._under_way[self._under_way.index(name) :], name])
            return _UnknownError(place, f"stands for itself: {circle}")
        if len(self._under_way) >= DEPTH_MAX_LEVELS:
            return _UnknownError(place, f"is nested deeper than {DEPTH_MAX_LEVELS} macros")
        self._under_way.append(name)
        try:
            return self.expand(value, place, is_command=is_command)
        except _UnknownError as error:
            return error
        finally:
            self._under_way.pop()

    def _variable(self, name: str, keys: Keys, *, is_command: bool) -> _Expansion:
        if not _VARIABLE.fullmatch(name):
            raise _UnknownError(keys, f"has no variable's name behind env.; {_HOW_TO_WRITE}")
        value = self._env.get(name)
        if value is None:
            raise _UnknownError(keys, f"needs the environment variable {name}, which is not set")
        if len(value) > VALUE_MAX_CHARS:
            raise _UnknownError(keys, _TOO_LONG)
        return _Expansion(value.replace("$", "$$") if is_command else value, name)

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._macros, n=1)
        if near:
            hint = f"did you mean ${{{near[0]}}}?"
        else:
            hint = f"known are {', '.join(sorted(self._macros)) or 'none'}; $${{ is a plain ${{"
        return f"uses the macro ${{{name}}}, which is not known; {hint}"


class _Expander:
    def __init__(self, content: Mapping[str, Any], env: Mapping[str, str]) -> None:
        self._content = content
        self._issues: dict[tuple[Keys, str], Issue] = {}
        self._left_out: set[Keys] = set()
        self._variables: dict[Keys, str] = {}
        self._budget = _Budget()
        self._file = _Scope(env, _macros_of(content, ()), self._budget)

    def run(self) -> Expanded:
        try:
            content = self._mapping(self._content, (), self._file)
        except _TooMuchError as error:
            message = f"is where macros have grown to {EXPANDED_MAX_CHARS // 1024**2} MiB of text"
            return Expanded({}, (Issue(error.keys, message),), frozenset({()}), {})
        issues = tuple(self._issues.values())
        return Expanded(content, issues, frozenset(self._left_out), self._variables)

    def _expand(self, value: Any, keys: Keys, scope: _Scope) -> Any:  # noqa: ANN401 - any value of the file
        if isinstance(value, str):
            return self._text(value, keys, scope)
        if isinstance(value, dict):
            if _is_scope(keys):
                scope = scope.within(_macros_of(value, keys))
            return self._mapping(value, keys, scope)
        if isinstance(value, list):
            items = (self._expand(item, (*keys, index), scope) for index, item in enumerate(value))
            # One that is left out would move the others.
            return [None if item is _LEFT_OUT else item for item in items]
        return value

    def _mapping(self, mapping: Mapping[str, Any], keys: Keys, scope: _Scope) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in mapping.items():
            if key == "macros" and (not keys or _is_scope(keys)):
                self._check_unused(value, (*keys, key), scope)
                made[key] = value
                continue
            expanded = self._expand(value, (*keys, key), scope)
            if expanded is not _LEFT_OUT:
                made[key] = expanded
        return made

    def _text(self, text: str, keys: Keys, scope: _Scope) -> Any:  # noqa: ANN401 - a macro may be a number
        if "${" not in text:
            return text
        # There `$name` is a placeholder, so that a plain dollar sign is written twice.
        is_command = len(keys) > 1 and keys[-2] in COMMAND_KEYS and isinstance(keys[-1], int)
        try:
            expansion = scope.expand(text, keys, is_command=is_command)
        except _UnknownError as error:
            self._tell(error, keys)
            self._left_out.add(keys)
            return _LEFT_OUT
        if expansion.variable:
            self._variables[keys] = expansion.variable
        return expansion.value

    def _check_unused(self, macros: object, keys: Keys, scope: _Scope) -> None:
        """Find circles among macros that nothing uses; what they lack may be a section's own."""
        for name in macros if isinstance(macros, dict) else ():
            try:
                scope.work_out(name, (*keys, name))
            except _UnknownError as error:
                if "stands for itself" in str(error):
                    self._tell(error, error.keys)

    def _tell(self, error: _UnknownError, keys: Keys) -> None:
        message = str(error)
        if error.keys != keys:
            message += f" (used by {format_keys(keys)})"
        self._issues.setdefault((error.keys, str(error)), Issue(error.keys, message))


_LEFT_OUT = object()


def _is_scope(keys: Keys) -> bool:
    """Whether a section with macros of its own is there."""
    return keys == ("defaults",) or (len(keys) == 2 and keys[0] in {"models", "templates"})  # noqa: PLR2004 - a name or index below


def _macros_of(section: Mapping[str, Any], keys: Keys) -> dict[str, tuple[Keys, Any]]:
    macros = section.get("macros")
    return dict(_usable(macros, (*keys, "macros"))) if isinstance(macros, dict) else {}


def _usable(macros: Mapping[str, Any], keys: Keys) -> Iterator[tuple[str, tuple[Keys, Any]]]:
    for name, value in macros.items():
        if MACRO_NAME.fullmatch(name) and isinstance(value, bool | int | float | str):
            yield name, ((*keys, name), value)


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
