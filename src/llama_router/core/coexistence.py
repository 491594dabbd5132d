"""Which models may have processes at the same time, as the configuration says it.

There are two forms, after llama-swap's "groups" and "matrix". With *groups*, what happens depends
on the group of the model that is loaded: a ``swap`` group runs one of its members at a time, an
``exclusive`` one sends the models of all other groups away, a ``persistent`` one is never sent
away by others. A group without a rule runs together and sends all others away, so that without any
rule models of one group run together and different groups exclude each other. The relation is not
symmetric: what is loaded for a group that is not exclusive runs beside whatever is there.

With *combinations*, those that run must all belong to one combination; a model that is in none runs
alone. Of the ways to make room for a model the cheapest is taken. Groups mean nothing then.

Whatever the rules are, no two run at a time whose engines always listen on the same address: who
answers there could not be told.

Memory is another matter: what may run together need not fit.
"""

import math
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from functools import lru_cache, reduce
from typing import Final, Protocol

from llama_router.core.eviction import loss_of
from llama_router.core.model import Model
from llama_router.core.settings import CoreSettings, GroupRule

MAX_NODES: Final = 128
"""Steps of the search for who goes: it must not hold up the event loop. Half a dozen models that
run do not take as many, however many combinations there are; of more, the answer may be no better
than to keep the dearest first."""

_SAME_ADDRESS: Final = "that listens on the same address"

Readiness = Callable[[Model], int]
"""How readily a model goes; the smaller, the sooner."""


class Coexistence(Protocol):
    """The rules. ``running`` are the models with a process, ``going`` those of them that go."""

    has_rules: bool
    """Whether there is more to it than that different groups exclude each other."""

    def key_of(self, model: Model) -> str:
        """Return what the answers depend on: models with the same key get the same ones."""

    def may_start(self, model: Model, running: Iterable[Model]) -> bool:
        """Return whether the engine of ``model`` may be started while these have processes."""

    def may_join(self, model: Model, claimants: Collection[Model]) -> bool:
        """Return whether all of these, none of which runs, may be started, in whatever order."""

    def would_delay(
        self,
        model: Model,
        elder: Model,
        running: Mapping[str, Model],
        going: Container[str],
        claimants: Collection[Model],
    ) -> bool:
        """Return whether ``elder`` might have to wait for it that ``model`` was loaded first."""

    def outlaws(
        self,
        model: Model,
        running: Mapping[str, Model],
        going: Container[str],
        claimants: Collection[Model],
        readiness: Readiness,
    ) -> list[Model]:
        """Return who has to go for ``model``, however much memory there is.

        ``claimants`` are to run beside it; they may, see ``may_join``. Who goes already is not
        named again. ``readiness`` decides only between what costs the same.
        """

    def why(self, model: Model, outlaw: Model) -> str:
        """Return for people why the second has to go for the first."""


def coexistence_of(settings: CoreSettings) -> Coexistence:
    """Return what the settings say: combinations if there are any, else groups."""
    if settings.combinations:
        return Combinations(settings.combinations)
    return Groups(settings.groups)


class Groups:
    """Rules for whole groups; all answers depend on nothing but groups and addresses."""

    def __init__(self, rules: Iterable[GroupRule]) -> None:
        rules = tuple(rules)
        self.has_rules = bool(rules)
        self._swapping = frozenset(rule.name for rule in rules if rule.swap)
        self._open = frozenset(rule.name for rule in rules if not rule.exclusive)
        self._persistent = frozenset(rule.name for rule in rules if rule.persistent)

    def key_of(self, model: Model) -> str:
        """See ``Coexistence``."""
        group, address = model.spec.group, model.address
        return f"{group}\n{address}" if address else group

    def may_start(self, model: Model, running: Iterable[Model]) -> bool:
        """See ``Coexistence``."""
        return not any(self._evicts(model, other) for other in running)

    def may_join(self, model: Model, claimants: Collection[Model]) -> bool:
        """See ``Coexistence``."""
        return not any(self._exclude_each_other(model, other) for other in claimants)

    def would_delay(
        self,
        model: Model,
        elder: Model,
        running: Mapping[str, Model],  # noqa: ARG002 - groups are compared two by two
        going: Container[str],  # noqa: ARG002
        claimants: Collection[Model],  # noqa: ARG002
    ) -> bool:
        """See ``Coexistence``."""
        return self._exclude_each_other(model, elder)

    def outlaws(
        self,
        model: Model,
        running: Mapping[str, Model],
        going: Container[str],
        claimants: Collection[Model],  # noqa: ARG002
        readiness: Readiness,  # noqa: ARG002 - there is no choice
    ) -> list[Model]:
        """See ``Coexistence``."""
        group, evicts = model.spec.group, self._evicts
        if not self.has_rules and not model.address:  # there may be hundreds
            return [
                other
                for other in running.values()
                if other.spec.group != group and other.name not in going
            ]
        return [
            other for other in running.values() if evicts(model, other) and other.name not in going
        ]

    def why(self, model: Model, outlaw: Model) -> str:
        """See ``Coexistence``."""
        if _share_address(model, outlaw):
            return _SAME_ADDRESS
        if model.spec.group == outlaw.spec.group:
            return "of the same group, which runs one model at a time"
        return "of another group"

    def _evicts(self, model: Model, other: Model) -> bool:
        """Return whether loading ``model`` sends another one away."""
        if model.address and _share_address(model, other):
            return True
        group, its_group = model.spec.group, other.spec.group
        if group == its_group:
            return group in self._swapping
        return group not in self._open and its_group not in self._persistent

    def _exclude_each_other(self, one: Model, other: Model) -> bool:
        return self._evicts(one, other) or self._evicts(other, one)


class Combinations:
    """Sets of models: of each model, in which of them it is, as the bits of one number.

    So any question is a few operations on numbers of as many bits as there are combinations.
    """

    has_rules = True

    def __init__(self, combinations: tuple[frozenset[str], ...]) -> None:
        self._having = _bits_of(combinations)

    def key_of(self, model: Model) -> str:
        """See ``Coexistence``."""
        return model.spec.name

    def may_start(self, model: Model, running: Iterable[Model]) -> bool:
        """See ``Coexistence``."""
        return self._admits(model, running)

    def may_join(self, model: Model, claimants: Collection[Model]) -> bool:
        """See ``Coexistence``."""
        return self._admits(model, claimants)

    def would_delay(
        self,
        model: Model,
        elder: Model,
        running: Mapping[str, Model],
        going: Container[str],
        claimants: Collection[Model],
    ) -> bool:
        """See ``Coexistence``.

        Two by two does not do: either of two may run beside a third, and not both.
        """
        if not self._admits(model, (elder, *claimants)):
            return True
        staying = [other for other in running.values() if other.name not in going]
        return not self._admits(model, (elder, *claimants, *staying))

    def outlaws(
        self,
        model: Model,
        running: Mapping[str, Model],
        going: Container[str],
        claimants: Collection[Model],
        readiness: Readiness,
    ) -> list[Model]:
        """See ``Coexistence``."""
        having, address = self._having, model.address
        allowed = having.get(model.spec.name, 0)
        for other in claimants:
            allowed &= having.get(other.spec.name, 0)
        victims: list[Model] = []
        others: list[tuple[Model, int]] = []
        together = allowed
        for name, other in running.items():
            if name in going:
                continue
            bits = having.get(name, 0)
            if not allowed & bits or (address and other.address == address):
                victims.append(other)
            else:
                others.append((other, bits))
                together &= bits
        if others and not together:
            search = _Search(others, lambda victim: _price_of(victim, readiness))
            start = reduce(_sum, (_price_of(victim, readiness) for victim in victims), _NOTHING)
            victims += search.run(allowed, start)
        return victims

    def why(self, model: Model, outlaw: Model) -> str:
        """See ``Coexistence``."""
        if _share_address(model, outlaw):
            return _SAME_ADDRESS
        return "of no common combination"

    def _admits(self, model: Model, others: Iterable[Model]) -> bool:
        """Return whether all of these may run together; who is alone may."""
        having, address = self._having, model.address
        allowed = 0
        for number, other in enumerate(others):
            if not number:
                allowed = having.get(model.spec.name, 0)
            allowed &= having.get(other.spec.name, 0)
            if not allowed or (address and other.address == address):
                return False
        return True


_Price = tuple[bool, float, int, float, int]
"""Of victims, in the order of what counts: whether any is pinned, their costs, the least ready of
them, their losses, their number."""
_NOTHING: Final[_Price] = (False, 0.0, 0, 0.0, 0)


def _price_of(victim: Model, readiness: Readiness) -> _Price:
    return (
        victim.spec.pinned,
        victim.eviction_cost,
        readiness(victim),
        loss_of(victim),
        1,  # nobody goes only because it costs nothing
    )


def _sum(one: _Price, other: _Price) -> _Price:
    return (
        one[0] or other[0],
        one[1] + other[1],
        max(one[2], other[2]),
        one[3] + other[3],
        one[4] + other[4],
    )


class _Search:
    """Branch and bound over who may stay, the dearest first."""

    def __init__(
        self, others: Iterable[tuple[Model, int]], price_of: Callable[[Model], _Price]
    ) -> None:
        priced = [(price_of(other), bits, other) for other, bits in others]
        priced.sort(key=lambda item: item[0], reverse=True)
        self._items = priced
        self._nodes = 0
        self._is_answered = False
        self._chosen: list[Model] = []
        self._best: list[Model] = [other for _, _, other in priced]
        self._best_price: _Price = (True, math.inf, 0, math.inf, 0)

    def run(self, allowed: int, start: _Price) -> list[Model]:
        """Return who has to go so that one of the ``allowed`` combinations has all the others.

        ``start``: the price of those who have to go in any case.
        """
        self._try(0, allowed, start)
        return self._best

    def _try(self, index: int, allowed: int, price: _Price) -> None:
        self._nodes += 1
        if price >= self._best_price or (self._nodes > MAX_NODES and self._is_answered):
            return
        if index == len(self._items):
            self._best, self._best_price = list(self._chosen), price
            self._is_answered = True
            return
        own, bits, model = self._items[index]
        with_it = allowed & bits
        if with_it:
            self._try(index + 1, with_it, price)
        if with_it != allowed:
            self._chosen.append(model)
            self._try(index + 1, allowed, _sum(price, own))
            self._chosen.pop()


@lru_cache(maxsize=2)
def _bits_of(combinations: tuple[frozenset[str], ...]) -> Mapping[str, int]:
    """Return, by model, in which combinations it is.

    Ten thousand take 20 ms. Kept, so that whoever makes the settings, aside, can have it done.
    """
    size_bytes = (len(combinations) + 7) // 8
    rows: dict[str, bytearray] = {}
    for number, each in enumerate(combinations):
        for name in each:
            if name not in rows:
                rows[name] = bytearray(size_bytes)
            rows[name][number >> 3] |= 1 << (number & 7)
    return {name: int.from_bytes(row, "little") for name, row in rows.items()}


def _share_address(one: Model, other: Model) -> bool:
    return bool(one.address) and one.address == other.address
