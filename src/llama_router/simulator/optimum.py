"""The least load time that any schedule could need, found by looking at all of them.

What counts is the sequence of models, and every set of models that fits is a state, so the cases
have to be small. :func:`in_order` knows the future and serves requests in their order, which
bounds all routers that neither know the future nor reorder. :func:`with_batching` bounds those as
well that put off a request to serve it together with later ones for the same model.
:func:`fractional` is for traces of any size: close to the first, and quick.
:func:`without_foresight` bounds what a router can do that knows how popular each model is.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, combinations
from typing import Final

from llama_router.simulator.fleet import GB, Fleet
from llama_router.simulator.trace import TraceRequest

MAX_STATES_COUNT: Final = 200_000
"""Sets of models kept at one moment: about 100 MiB, and a minute for a short trace."""
MAX_MODELS_COUNT: Final = 16
"""With more, finding that there are too many sets takes minutes by itself."""


_STARTS_COUNT: Final = 20
"""Which requests are apart depends on the first one; the best bound of a few counts."""


_DUAL_STEPS_COUNT: Final = 400
_DUAL_SLOWDOWN_STEPS: Final = 20.0
"""Found by trial: within a few per cent of the exact bound for 2000 requests, in a second."""


class TooLargeError(Exception):
    """The case has too many sets of models to look at them all."""


def in_order(fleet: Fleet, trace: Sequence[TraceRequest]) -> float:
    """Return the least total load time, in seconds, for serving ``trace`` in its order.

    Raises TooLargeError.
    """
    names = [request.model for request in trace]
    merged = [name for number, name in enumerate(names) if not number or names[number - 1] != name]
    return _least(fleet, merged)


def with_batching(fleet: Fleet, trace: Sequence[TraceRequest], max_wait_s: float) -> float:
    """Return a lower bound of the load time when no request waits longer than ``max_wait_s``.

    Of requests that are further apart than this, each needs its model before the next one arrives,
    so their order is that of every schedule, and serving only them costs no more than serving all.
    No schedule may be as good. Raises TooLargeError.
    """
    load_s = {model.name: fleet.load_s(model) for model in fleet.models}
    once_s = sum(load_s[name] for name in {request.model for request in trace})
    bounds_s = [once_s]
    for start in range(min(len(trace), _STARTS_COUNT)):
        apart: list[str] = []
        end_s = -1.0
        for request in trace[start:]:
            if request.time_s > end_s:
                apart.append(request.model)
                end_s = request.time_s + max_wait_s
        bounds_s.append(_least(fleet, apart))
    return max(bounds_s)


def _least(fleet: Fleet, sequence: Sequence[str]) -> float:
    size = {model.name: model.size_bytes for model in fleet.models}
    load_s = {model.name: fleet.load_s(model) for model in fleet.models}
    room = fleet.machine.memory_bytes
    last_use = {name: number for number, name in enumerate(sequence)}
    if len(last_use) > MAX_MODELS_COUNT:
        raise TooLargeError(f"{len(last_use)} models are more than {MAX_MODELS_COUNT}")
    states: dict[frozenset[str], float] = {frozenset(): 0.0}
    for number, name in enumerate(sequence):
        following: dict[frozenset[str], float] = {}
        for held, cost_s in states.items():
            if name in held:
                choices = [(held, cost_s)]
            else:
                paid_s = cost_s + load_s[name]
                choices = [(kept | {name}, paid_s) for kept in _kept(held, room - size[name], size)]
            for choice, paid_s in choices:
                # What is never asked for again only takes room.
                live = frozenset(each for each in choice if last_use[each] > number)
                if paid_s < following.get(live, float("inf")):
                    following[live] = paid_s
        if len(following) > MAX_STATES_COUNT:
            raise TooLargeError(f"more than {MAX_STATES_COUNT} sets of models after {number} steps")
        states = following
    return min(states.values())


def _kept(held: frozenset[str], room: int, size: dict[str, int]) -> list[frozenset[str]]:
    """Return the largest subsets of ``held`` that fit in ``room``: giving up more never helps."""
    if sum(size[name] for name in held) <= room:
        return [held]
    names = sorted(held)
    found: list[frozenset[str]] = []
    for gone_count in range(1, len(names) + 1):
        for gone in combinations(names, gone_count):
            kept = held.difference(gone)
            if sum(size[name] for name in kept) > room:
                continue
            if not any(kept < other for other in found):
                found.append(kept)
    return found


def fractional(fleet: Fleet, trace: Sequence[TraceRequest]) -> float:
    """Return a lower bound of :func:`in_order` for a trace of any size, in seconds.

    Keeping a model from one request to its next saves a load and takes room at every request in
    between. Of what can be saved when parts of models may be kept, which is no less than what can
    be saved with whole ones, the dual gives an upper bound for any prices of the room: what the
    room is worth, and for each stay what it saves beyond its price. The prices are bettered step by
    step (subgradients); stopping early makes the bound weaker, never wrong.
    """
    size_gb = {model.name: model.size_bytes / GB for model in fleet.models}
    load_s = {model.name: fleet.load_s(model) for model in fleet.models}
    names = [request.model for request in trace]
    names = [name for number, name in enumerate(names) if not number or names[number - 1] != name]
    stays: list[tuple[int, int, float, float]] = []
    seen: dict[str, int] = {}
    for number, name in enumerate(names):
        if name in seen:
            stays.append((seen[name] + 1, number, size_gb[name], load_s[name]))
        seen[name] = number
    all_s = sum(load_s[name] for name in names)
    room_gb = [fleet.machine.memory_bytes / GB - size_gb[name] for name in names]
    return all_s - _most_saved(stays, room_gb)


def without_foresight(fleet: Fleet, shares: Mapping[str, float]) -> float:
    """Return what no router does better, in seconds of loading for each request, in the mean.

    For routers that serve requests in their order and do not know the future, but do know
    ``shares``, how likely each request is for each model. Whichever models are kept, the next
    request is for one of them with the sum of their shares; what they save together is at most what
    the best set within the room saves that has in it the model that was asked for last.
    """
    size = {model.name: model.size_bytes for model in fleet.models}
    saved_s = {model.name: shares[model.name] * fleet.load_s(model) for model in fleet.models}
    by_worth = sorted(size, key=lambda name: -saved_s[name] / size[name])
    best_s = 0.0
    for last, size_bytes in size.items():
        others = [(size[name], saved_s[name]) for name in by_worth if name != last]
        room = fleet.machine.memory_bytes - size_bytes
        best_s += shares[last] * (saved_s[last] + _most_worth(others, room))
    return sum(saved_s.values()) - best_s


def _most_worth(items: Sequence[tuple[int, float]], room: int) -> float:
    """Return the most that a set of ``(size, worth)`` within ``room`` is worth.

    ``items`` are in the order of their worth by size. Whatever the rest is worth that still fits
    when it may be cut (Dantzig 1957) bounds what there is to find.
    """
    best = 0.0
    stack = [(0, room, 0.0)]
    while stack:
        index, left, worth = stack.pop()
        best = max(best, worth)
        bound, space = worth, left
        for size, value in items[index:]:
            if size > space:
                bound += value * space / size
                break
            bound += value
            space -= size
        if bound <= best or index == len(items):
            continue
        size, value = items[index]
        stack.append((index + 1, left, worth))
        if size <= left:
            stack.append((index + 1, left - size, worth + value))
    return best


def _most_saved(stays: list[tuple[int, int, float, float]], room_gb: list[float]) -> float:
    """Return an upper bound of what stays ``(first, end, size, saving)`` save within the room."""
    count = len(room_gb)
    prices = [0.0] * count
    best_s = sum(saving for *_, saving in stays)
    step = best_s / max(1.0, sum(room * room for room in room_gb))
    for number in range(_DUAL_STEPS_COUNT):
        cost = [0.0, *accumulate(prices)]
        bound_s = sum(price * room for price, room in zip(prices, room_gb, strict=True))
        change = [0.0] * (count + 1)
        for first, end, size, saving in stays:
            gain = saving - size * (cost[end] - cost[first])
            if gain > 0:
                bound_s += gain
                change[first] += size
                change[end] -= size
        best_s = min(best_s, bound_s)
        length = step / (1.0 + number / _DUAL_SLOWDOWN_STEPS) ** 0.5
        prices = [
            max(0.0, price + length * (used - room))
            for price, used, room in zip(prices, accumulate(change), room_gb, strict=False)
        ]
    return best_s
