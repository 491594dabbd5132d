"""Which models go: the set that frees enough at the least loss.

The loss of a model is ``uses * load_cost_s``, the seconds of loading that it would have cost not to
have it: the terms of Greedy-Dual-Size-Frequency (Cao and Irani 1997, Cherkasova 1998). Its third,
the size, is a divisor only where models are compared one by one; of a set it counts what it frees,
as far as that is wanted. The loss of what is not used any more falls as the uses of others grow in
weight, see ``usage``. The configuration may make a model so many times as dear as others.
"""

from collections.abc import Mapping, Sequence
from operator import sub
from typing import Final

from llama_router.core.model import Model

CONSIDERED: Final = 16
"""So many are looked at first: those whose loss is the least for each byte that they hold."""

EXACT_UP_TO: Final = 10
"""Among this many candidates the best set is looked for exactly; more are met greedily as well."""

MAX_NODES: Final = 128
"""Steps of the exact search: it must not hold up the event loop."""


def loss_of(model: Model) -> float:
    """Return what it costs to evict ``model``; comparable and addable, in a unit that grows."""
    return model.uses * model.load_cost_s * model.eviction_cost


def cheapest(
    candidates: Sequence[Model], shortfall: Mapping[str, int], places: int = 0
) -> list[Model] | None:
    """Return the set with the smallest sum of losses that frees enough, or None if none does.

    ``shortfall`` is in bytes by device, ``places`` how many have to go at least. Of many
    ``candidates`` a part is looked at alone if it is enough.
    """
    if len(candidates) < places or sum([each.held_bytes for each in candidates]) < sum(
        shortfall.values()
    ):
        return None
    wanted = (*shortfall.values(), *((places,) if places > 0 else ()))
    items = _some(candidates, wanted, list(shortfall))
    if items is None:
        return None
    items.sort(key=lambda item: _price(item, wanted))
    best = _greedy(items, wanted)
    if len(items) > 1:
        best = _Search(items[:EXACT_UP_TO], best).run(wanted)
    return [model for _, _, model in best]


_Amounts = tuple[int, ...]
_Item = tuple[float, _Amounts, Model]
"""The loss of a model, and what it frees of each thing that is wanted: bytes, or its place."""


def _some(
    candidates: Sequence[Model], wanted: _Amounts, devices: Sequence[str]
) -> list[_Item] | None:
    """Return of those who free anything wanted so many that they are enough; None if none are."""
    items: list[_Item] = []
    missing = wanted
    place = (1,) if len(wanted) > len(devices) else ()
    # Who alone frees a place is no better for being large.
    for model in sorted(candidates, key=_loss_by_size if devices else loss_of):
        frees = (*[model.holds_on(device) for device in devices], *place)
        if not any(frees):
            continue
        items.append((loss_of(model), frees, model))
        missing = _less(missing, frees)
        if len(items) >= CONSIDERED and max(missing) <= 0:
            break
    return items if max(missing, default=0) <= 0 else None


def _loss_by_size(model: Model) -> float:
    return loss_of(model) / (model.held_bytes or 1)


def _price(item: _Item, wanted: _Amounts) -> float:
    """Return the loss for what is covered by it of all that is wanted."""
    loss, frees, _ = item
    return loss / sum(
        [min(free, want) / want for free, want in zip(frees, wanted, strict=True) if want > 0]
    )


def _loss(items: Sequence[_Item]) -> float:
    return sum(item[0] for item in items)


def _greedy(by_price: Sequence[_Item], wanted: _Amounts) -> list[_Item]:
    """Take the cheapest for what it frees until there is enough, then leave out who can stay."""
    chosen: list[_Item] = []
    missing = wanted
    for item in by_price:
        if max(missing) <= 0:
            break
        chosen.append(item)
        missing = _less(missing, item[1])
    for item in sorted(chosen, key=lambda each: -each[0]):
        without = tuple(each + free for each, free in zip(missing, item[1], strict=True))
        if max(without) <= 0:
            chosen.remove(item)
            missing = without
    return chosen


def _less(missing: _Amounts, frees: _Amounts) -> _Amounts:
    return tuple(map(sub, missing, frees))


class _Search:
    """Branch and bound over few items, the cheapest first; ``best`` starts as the greedy set."""

    def __init__(self, items: Sequence[_Item], best: list[_Item]) -> None:
        self._items = items
        self._best = best
        self._best_loss = _loss(best)
        self._nodes = 0
        self._chosen: list[_Item] = []
        # Of all from an index on: what they free together, and the least loss for each unit of it.
        count = len(items[0][1])
        rests: list[list[tuple[int, float]]] = [[(0, float("inf"))] * count]
        for loss, frees, _ in reversed(items):
            rests.append(
                [
                    (rest + free, min(price, loss / free) if free else price)
                    for free, (rest, price) in zip(frees, rests[-1], strict=True)
                ]
            )
        self._rests = rests[::-1]

    def run(self, wanted: _Amounts) -> list[_Item]:
        self._try(0, 0.0, wanted)
        return self._best

    def _try(self, index: int, loss: float, missing: _Amounts) -> None:
        self._nodes += 1
        if loss >= self._best_loss or self._nodes > MAX_NODES:
            return
        is_enough = True
        for want, (rest, price) in zip(missing, self._rests[index], strict=True):
            if want > 0:
                is_enough = False
                if want > rest or loss + want * price >= self._best_loss:
                    return
        if is_enough:
            self._best, self._best_loss = list(self._chosen), loss
            return
        item = self._items[index]
        self._chosen.append(item)
        self._try(index + 1, loss + item[0], _less(missing, item[1]))
        self._chosen.pop()
        self._try(index + 1, loss, missing)
