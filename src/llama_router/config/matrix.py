"""Which combinations of models a matrix allows, in the notation of llama-swap.

``a & b``: both run together; ``a | b``: one of them; ``( )`` as usual, ``&`` binds tighter than
``|``; ``+name``: what another set says. A word is a short name of ``vars``, else a model's own.
Any subset of a combination may run, too.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from llama_router.config.coexistence import MatrixSettings

# As many as llama-swap's own benchmarks go to; a slip in brackets gives more.
COMBINATIONS_MAX_COUNT = 10_000
# Brackets within brackets; the parser calls itself for each.
DEPTH_MAX_LEVELS = 50

_TOKEN = re.compile(r"\s*(?:(?P<sign>[&|()])|(?P<word>\+?[\w.-]+)|(?P<other>\S))")

Combinations = tuple[frozenset[str], ...]


class MatrixError(ValueError):
    """A set that cannot be read; the text says why. ``set_name``: which."""

    def __init__(self, set_name: str, message: str) -> None:
        super().__init__(message)
        self.set_name = set_name


def expand(matrix: MatrixSettings, known_ids: Collection[str] | None = None) -> Combinations:
    """Return every combination, each once, in the order of the sets; words become models.

    With ``known_ids`` what is no model of these is left out of them. Raises MatrixError.
    """
    expander = _Expander(matrix)
    known = None if known_ids is None else frozenset(known_ids)
    combinations: dict[frozenset[str], None] = {}
    for name in matrix.sets:
        for combination in expander.set(name):
            left = combination if known is None else combination & known
            if left:
                combinations[left] = None
        _check_count(name, combinations)
    return tuple(combinations)


def words_of(matrix: MatrixSettings) -> Iterator[tuple[str, str]]:
    """Yield each set with each of its words that stands for a model, references left out."""
    for name, expression in matrix.sets.items():
        for token in _TOKEN.finditer(expression):
            word = token["word"]
            if word is not None and not word.startswith("+"):
                yield name, word


def faults(matrix: MatrixSettings) -> Iterator[MatrixError]:
    """Find every set that cannot be read, and the one with which there are too many."""
    expander = _Expander(matrix)
    combinations: dict[frozenset[str], None] = {}
    for name in matrix.sets:
        try:
            combinations.update(dict.fromkeys(expander.set(name)))
        except MatrixError as error:
            yield error
            expander.give_up(error.set_name)
        if len(combinations) > COMBINATIONS_MAX_COUNT:
            yield _too_many(name)
            break


def _check_count(name: str, combinations: Collection[frozenset[str]]) -> None:
    if len(combinations) > COMBINATIONS_MAX_COUNT:
        raise _too_many(name)


def _too_many(name: str) -> MatrixError:
    return MatrixError(name, f"makes more than {COMBINATIONS_MAX_COUNT} combinations")


@dataclass
class _Expander:
    matrix: MatrixSettings
    _done: dict[str, Combinations] = field(default_factory=dict)
    _under_way: list[str] = field(default_factory=list)

    def set(self, name: str) -> Combinations:
        """Return the combinations of one set. Raises MatrixError."""
        done = self._done.get(name)
        if done is not None:
            return done
        if name in self._under_way:
            circle = " -> ".join([*self._under_way[self._under_way.index(name) :], name])
            raise MatrixError(self._under_way[-1], f"refers to itself: {circle}")
        if len(self._under_way) >= DEPTH_MAX_LEVELS:
            raise MatrixError(name, f"refers to sets that refer to sets, {DEPTH_MAX_LEVELS} times")
        self._under_way.append(name)
        try:
            made = _Parser(name, self.matrix.sets[name], self.matrix.vars, self).read()
        finally:
            self._under_way.pop()
        self._done[name] = made
        return made

    def give_up(self, name: str) -> None:
        """Take a set that cannot be read as one without models, so that it is told of once."""
        self._done.setdefault(name, ())


class _Parser:
    """Reads one expression by recursive descent."""

    def __init__(
        self, name: str, text: str, variables: Mapping[str, str], expander: _Expander
    ) -> None:
        self._name = name
        self._variables = variables
        self._expander = expander
        self._tokens: list[str] = []
        for token in _TOKEN.finditer(text):
            if token["other"] is not None:
                raise self._error(f"has {token['other']!r}, which is neither a name nor & | ( ) +")
            self._tokens.append(token["sign"] or token["word"])
        self._at = 0

    def read(self) -> Combinations:
        """Return what the whole expression stands for. Raises MatrixError."""
        made = self._either(0)
        if self._at < len(self._tokens):
            raise self._error(f"goes on after its end, with {self._tokens[self._at]!r}")
        return made

    def _either(self, depth: int) -> Combinations:
        made = dict.fromkeys(self._both(depth))
        while self._take("|"):
            made.update(dict.fromkeys(self._both(depth)))
            _check_count(self._name, made)
        return tuple(made)

    def _both(self, depth: int) -> Combinations:
        made = self._one(depth)
        while self._take("&"):
            more = self._one(depth)
            together: dict[frozenset[str], None] = {}
            for one in made:
                together.update(dict.fromkeys(one | other for other in more))
                _check_count(self._name, together)
            made = tuple(together)
        return made

    def _one(self, depth: int) -> Combinations:
        if self._take("("):
            if depth >= DEPTH_MAX_LEVELS:
                raise self._error(f"has brackets in more than {DEPTH_MAX_LEVELS} brackets")
            made = self._either(depth + 1)
            if not self._take(")"):
                raise self._error("has a ( without its )")
            return made
        word = self._tokens[self._at] if self._at < len(self._tokens) else ""
        if not word or word in "&|)":
            raise self._error(
                f"lacks a name before {word!r}" if word else "lacks a name at its end"
            )
        self._at += 1
        if not word.startswith("+"):
            return (frozenset({self._variables.get(word, word)}),)
        if word[1:] not in self._expander.matrix.sets:
            raise self._error(f"refers to {word[1:]}, which is no set")
        return self._expander.set(word[1:])

    def _take(self, sign: str) -> bool:
        is_there = self._at < len(self._tokens) and self._tokens[self._at] == sign
        self._at += is_there
        return is_there

    def _error(self, message: str) -> MatrixError:
        return MatrixError(self._name, message)
