"""Which models go: the set that frees enough at the least loss.

The loss of a model is its Greedy-Dual-Size-Frequency value (Cao and Irani 1997, Cherkasova 1998):
``inflation + uses * load_cost_s / size``, size being its share of the budgets. ``inflation`` is the
loss of the costliest eviction when the model was used last, so that what is not used grows old
against what is, without a clock.
"""

from collections.abc import Mapping, Sequence
from operator import sub
from typing import Final

import msgspec

from llama_router.core.model import Model

CONSIDERED: Final = 32
"""So many of the cheapest are looked at first."""

EXACT_UP_TO: Final = 12
"""Among this many candidates the best set is looked for exactly; more are met greedily as well."""

MAX_NODES: Final = 256
"""Steps of the exact search: it must not hold up the event loop."""


class Candidate(msgspec.Struct, frozen=True):
    """A model that may go, and what its going costs."""

    model: Model
    loss: float


def loss_of(model: Model) -> float:
    """Return what it costs to evict ``model``: seconds of loading for each share of the memory."""
    return model.inflation + model.uses * model.load_cost_s / model.share


def cheapest(
    candidates: Sequence[Candidate], shortfall: Mapping[str, int], places: int = 0
) -> list[Candidate] | None:
    """Return the set with the smallest sum of losses that frees enough, or None if none does.

    ``shortfall`` is in bytes by device, ``places`` how many have to go at least. With many
    ``candidates``, which come in the order of their losses, the first of them are looked at alone
    if they are enough.
    """
    few = _cheapest(candidates[:CONSIDERED], shortfall, places)
    if few is None and len(candidates) > CONSIDERED:
        return _cheapest(candidates, shortfall, places)
    return few


def _cheapest(
    candidates: Sequence[Candidate], shortfall: Mapping[str, int], places: int
) -> list[Candidate] | None:
    devices = list(shortfall)
    wanted = (*(shortfall[device] for device in devices), max(0, places))
    useful = []
    for candidate in candidates:
        frees = [0] * len(devices)
        for part in candidate.model.reserved:
            if part.device in shortfall:
                frees[devices.index(part.device)] += part.size_bytes
        if places > 0 or any(frees):
            useful.append((candidate.loss, (*frees, 1), candidate))
    if any(sum(item[1][i] for item in useful) < want for i, want in enumerate(wanted)):
        return None
    bound = _greedy(useful, wanted)
    if len(useful) == 1:
        return [bound[0][2]]
    best = _Search(useful[:EXACT_UP_TO], bound).run(wanted)
    return [item[2] for item in best]


_Item = tuple[float, tuple[int, ...], Candidate]


def _loss(items: Sequence[_Item]) -> float:
    return sum(item[0] for item in items)


def _greedy(useful: Sequence[_Item], wanted: tuple[int, ...]) -> list[_Item]:
    """Take the cheapest for what it frees until there is enough, then leave out who can stay."""

    def price(item: _Item) -> float:
        covered = sum(
            min(free, want) / want for free, want in zip(item[1], wanted, strict=True) if want
        )
        return item[0] / covered if covered else float("inf")

    chosen: list[_Item] = []
    missing = wanted
    for item in sorted(useful, key=price):
        if all(each <= 0 for each in missing):
            break
        chosen.append(item)
        missing = _less(missing, item[1])
    for item in sorted(chosen, key=lambda each: -each[0]):
        slack = tuple(-each for each in missing)
        if all(free <= spare for free, spare in zip(item[1], slack, strict=True)):
            chosen.remove(item)
            missing = tuple(each + free for each, free in zip(missing, item[1], strict=True))
    return chosen


def _less(missing: tuple[int, ...], frees: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(sub, missing, frees))


class _Search:
    """Branch and bound over few items, the cheapest first; ``best`` starts as the greedy set."""

    def __init__(self, items: Sequence[_Item], best: list[_Item]) -> None:
        self._items = items
        self._best = best
        self._best_loss = _loss(best)
        self._nodes = 0
        self._chosen: list[_Item] = []
        # What all from an index on would free together.
        self._rest: list[tuple[int, ...]] = [tuple(0 for _ in items[0][1])]
        for item in reversed(items):
            total = tuple(a + b for a, b in zip(item[1], self._rest[0], strict=True))
            self._rest.insert(0, total)

    def run(self, wanted: tuple[int, ...]) -> list[_Item]:
        self._try(0, 0.0, wanted)
        return self._best

    def _try(self, index: int, loss: float, missing: tuple[int, ...]) -> None:
        self._nodes += 1
        if loss >= self._best_loss:
            return
        if all(each <= 0 for each in missing):
            self._best, self._best_loss = list(self._chosen), loss
            return
        if self._nodes > MAX_NODES:
            return
        if any(
            want > rest for want, rest in zip(missing, self._rest[index], strict=True) if want > 0
        ):
            return
        item = self._items[index]
        self._chosen.append(item)
        self._try(index + 1, loss + item[0], _less(missing, item[1]))
        self._chosen.pop()
        self._try(index + 1, loss, missing)
