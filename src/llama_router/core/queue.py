"""Those who wait for one model, in two orders: by age, and by whose turn it is."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llama_router.core.model import Request

OVERTAKEN_AT_MOST_COUNT: Final = 8
"""So many of the highest rank are served in a row while others wait; then one of the others is. A
batch gets on beside people who never stop asking, and costs them little.
"""


class Queue:
    """First come, first served within a rank and a key; leaving is O(1).

    The higher rank goes first, but not for ever. Within one, the keys take turns of one request
    each (deficit round-robin, every request costing the same), so that a key with many waiters
    delays the others by one request and not by all of its own. Requests that were bounced go before
    all others.
    """

    __slots__ = ("_bounced", "_items", "_lanes", "_overtaken_count", "arrived_sum_s")

    def __init__(self) -> None:
        self._items: OrderedDict[int, Request] = OrderedDict()
        self._bounced = 0
        self._lanes: dict[int, OrderedDict[str, OrderedDict[int, Request]]] = {}
        # How many of the highest rank were served since one of another was, or waited.
        self._overtaken_count = 0
        self.arrived_sum_s = 0.0
        """The times of arrival of all who wait, added up."""

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator["Request"]:
        return iter(self._items.values())

    @property
    def head(self) -> "Request":
        """The oldest, the bounced before all others. Only for a queue that is not empty."""
        return next(iter(self._items.values()))

    @property
    def newest(self) -> "Request":
        """The one who came last. Only for a queue that is not empty."""
        return next(reversed(self._items.values()))

    def upcoming(self) -> Iterator["Request"]:
        """Yield all who wait in the order in which they would be served."""
        yield from takewhile(lambda request: request.bounced, self._items.values())
        turns = {rank: _by_turns(lanes) for rank, lanes in self._lanes.items()}
        heads: dict[int, Request] = {}
        for rank, requests in turns.items():
            if (request := next(requests, None)) is not None:
                heads[rank] = request
        count = self._overtaken_count
        while heads:
            rank = _next_rank(heads, count)
            count = count + 1 if rank == max(heads) and len(heads) > 1 else 0
            yield heads.pop(rank)
            if (request := next(turns[rank], None)) is not None:
                heads[rank] = request

    @property
    def rank(self) -> int:
        """The highest rank that waits. Only for a queue that is not empty."""
        return max(self._lanes)

    def append(self, request: "Request") -> None:
        """Add a newcomer at the end."""
        self._items[request.request_id] = request
        self._enter_lane(request)

    def give_back(self, request: "Request") -> None:
        """Put a bounced request before all who were never served, the bounced in their order."""
        older = list(
            takewhile(
                lambda other: other.bounced and other.request_id < request.request_id,
                self._items.values(),
            )
        )
        self._items[request.request_id] = request
        for each in [request, *reversed(older)]:
            self._items.move_to_end(each.request_id, last=False)
        self._bounced += 1
        self._enter_lane(request)

    def remove(self, request: "Request") -> bool:
        """Take out one who leaves; return whether it was the head."""
        was_head = next(iter(self._items)) == request.request_id
        self._take_out(request)
        return was_head

    def take(self, limit: int | None = None) -> list["Request"]:
        """Take out the next ``limit`` requests, or all, in the order in which they are served."""
        if limit is None or limit > len(self._items):
            limit = len(self._items)
        taken: list[Request] = []
        while len(taken) < limit:
            request = self._next()
            self._count_overtaking(request)
            self._take_out(request)
            taken.append(request)
            lane = self._lanes.get(request.rank)
            if lane is not None and request.key in lane:
                lane.move_to_end(request.key)
        return taken

    def waited_s(self, now: float) -> float:
        """Return how long all who wait have waited, added up."""
        return len(self._items) * now - self.arrived_sum_s

    def _next(self) -> "Request":
        if self._bounced:
            return self.head
        if len(self._lanes) == 1 or self._overtaken_count < OVERTAKEN_AT_MOST_COUNT:
            return _first(self._lanes[max(self._lanes)])
        heads = {rank: _first(lanes) for rank, lanes in self._lanes.items()}
        return heads[_next_rank(heads, self._overtaken_count)]

    def _count_overtaking(self, request: "Request") -> None:
        if not request.bounced:
            is_overtaking = len(self._lanes) > 1 and request.rank == max(self._lanes)
            self._overtaken_count = self._overtaken_count + 1 if is_overtaking else 0

    def _enter_lane(self, request: "Request") -> None:
        self.arrived_sum_s += request.arrived_at
        keys = self._lanes.setdefault(request.rank, OrderedDict())
        keys.setdefault(request.key, OrderedDict())[request.request_id] = request

    def _take_out(self, request: "Request") -> None:
        del self._items[request.request_id]
        if request.bounced:
            self._bounced -= 1
        self.arrived_sum_s = self.arrived_sum_s - request.arrived_at if self._items else 0.0
        keys = self._lanes[request.rank]
        requests = keys[request.key]
        del requests[request.request_id]
        if not requests:
            del keys[request.key]
            if not keys:
                del self._lanes[request.rank]


def _first(lanes: "OrderedDict[str, OrderedDict[int, Request]]") -> "Request":
    """Return whose turn it is within a rank."""
    return next(iter(next(iter(lanes.values())).values()))


def _next_rank(heads: "dict[int, Request]", overtaken_count: int) -> int:
    """Return the rank that is next, of those who are next within theirs."""
    highest = max(heads)
    if overtaken_count < OVERTAKEN_AT_MOST_COUNT or len(heads) == 1:
        return highest
    return min((rank for rank in heads if rank != highest), key=lambda each: heads[each].arrived_at)


def _by_turns(lanes: "OrderedDict[str, OrderedDict[int, Request]]") -> Iterator["Request"]:
    """Yield those of a rank who were not bounced, the keys in turn."""
    # Not a list: who asks for the first few is not to pay for all keys.
    unfinished: Iterable[Iterator[Request]] = (
        iter(requests.values()) for requests in lanes.values()
    )
    while unfinished:
        left: list[Iterator[Request]] = []
        for lane in unfinished:
            request = next((each for each in lane if not each.bounced), None)
            if request is not None:
                yield request
                left.append(lane)
        unfinished = left
