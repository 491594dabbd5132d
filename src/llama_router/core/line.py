"""Which model that is not loaded is next: by rank, and by age."""

from collections.abc import Container, Mapping
from heapq import heapify, heappop, heappush
from typing import Final

from llama_router.core.model import Model
from llama_router.core.states import State

_SLACK: Final = 64  # stale entries that are not worth a clean-up

_Entry = tuple[int, int, str]


class Line:
    """The UNLOADED models with waiters, of which the first can be found in O(log n).

    An entry is stale when its model does not belong here any more or has another place by now.
    Nothing is ever searched for: what is stale is dropped, or put right, when it comes to the top.
    """

    def __init__(self, waiting: Mapping[str, Model], claims: Container[str]) -> None:
        self._waiting = waiting
        self._claims = claims
        self._by_rank: list[_Entry] = []
        self._by_age: list[_Entry] = []

    def add(self, model: Model) -> None:
        """Give a place to a model that has waiters; again whenever it may have a better one."""
        limit = 4 * len(self._waiting) + _SLACK
        for heap, by_rank in ((self._by_rank, True), (self._by_age, False)):
            heappush(heap, _entry(model, by_rank=by_rank))
            if len(heap) > limit:
                fresh = {
                    _entry(each, by_rank=by_rank): None
                    for each in self._waiting.values()
                    if self._belongs(each)
                }
                heap[:] = fresh
                heapify(heap)

    def first(self, count: int, *, by_rank: bool) -> list[Model]:
        """Return up to ``count`` models: the highest ranks first, or else the oldest waiters."""
        heap = self._by_rank if by_rank else self._by_age
        found: dict[str, _Entry] = {}
        models: list[Model] = []
        while heap and len(models) < count:
            entry = heappop(heap)
            model = self._waiting.get(entry[2])
            if model is None or entry[2] in found or not self._belongs(model):
                continue
            right = _entry(model, by_rank=by_rank)
            if entry != right:
                heappush(heap, right)
                # The place it has now is never before the one it had, or it would have been added.
                continue
            found[entry[2]] = entry
            models.append(model)
        for entry in found.values():
            heappush(heap, entry)
        return models

    def __bool__(self) -> bool:
        heap = self._by_age
        while heap:
            model = self._waiting.get(heap[0][2])
            if model is not None and self._belongs(model):
                return True
            heappop(heap)
        return False

    def _belongs(self, model: Model) -> bool:
        return model.state is State.UNLOADED and model.name not in self._claims


def _entry(model: Model, *, by_rank: bool) -> _Entry:
    return (-model.rank if by_rank else 0, model.waiting.head.request_id, model.name)
