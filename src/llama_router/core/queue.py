"""Those who wait for one model, in two orders: by age, and by whose turn it is."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_router.core.model import Request


class Queue:
    """First come, first served within a rank and a key; leaving is O(1).

    The higher rank goes first. Within one, the keys take turns of one request each (deficit
    round-robin, every request costing the same), so that a key with many waiters delays the others
    by one request and not by all of its own. Requests that were bounced go before all others.
    """

    __slots__ = ("_bounced", "_items", "_lanes", "arrived_sum_s")

    def __init__(self) -> None:
        self._items: OrderedDict[int, Request] = OrderedDict()
        self._bounced = 0
        self._lanes: dict[int, OrderedDict[str, OrderedDict[int, Request]]] = {}
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
        for rank in sorted(self._lanes, reverse=True):
            # Not a list: who asks for the first few is not to pay for all keys.
            lanes: Iterable[Iterator[Request]]
            lanes = (iter(requests.values()) for requests in self._lanes[rank].values())
            is_over = False
            while not is_over:
                unfinished: list[Iterator[Request]] = []
                for lane in lanes:
                    request = next((each for each in lane if not each.bounced), None)
                    if request is not None:
                        yield request
                        unfinished.append(lane)
                lanes = unfinished
                is_over = not unfinished

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
        keys = self._lanes[max(self._lanes)]
        return next(iter(next(iter(keys.values())).values()))

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
