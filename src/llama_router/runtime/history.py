"""The history of requests: how many of them are remembered, and in what form."""

import asyncio
from collections.abc import Callable

from llama_router.proxy.gate import Ended
from llama_router.runtime.feed import RequestEnded
from llama_router.store.records import RequestRecord

# More than people cause, far less than a loop of small requests does; a record costs some 10 µs.
MAX_RECORDS_PER_S = 500


class RecordRate:
    """Lets so many requests of each second be remembered, and counts the others.

    ``call_later`` is an event loop's: a clock would be asked at each request.
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], object]], asyncio.TimerHandle],
        limit_per_s: int = MAX_RECORDS_PER_S,
    ) -> None:
        self.left_out_count = 0
        self._call_later = call_later
        self._limit_per_s = limit_per_s
        self._left = limit_per_s
        self._refilling: asyncio.TimerHandle | None = None

    def admits(self) -> bool:
        """Tell whether a request that ends now is to be remembered."""
        if self._left:
            self._left -= 1
            if self._refilling is None:
                self._refilling = self._call_later(1.0, self._refill)
            return True
        self.left_out_count += 1
        return False

    def close(self) -> None:
        """Admit no more than is left of this second."""
        if self._refilling is not None:
            self._refilling.cancel()

    def _refill(self) -> None:
        self._left = self._limit_per_s
        self._refilling = None


def record_of(ended: Ended, now_s: float) -> RequestRecord:
    """Return the record of a request that ends ``now_s`` (Unix time)."""
    return RequestRecord(
        time_s=now_s - ended.total_s,
        model=ended.model,
        total_s=ended.total_s,
        end=ended.end,
        key=ended.key,
        tokens_in=ended.tokens_in,
        tokens_out=ended.tokens_out,
        queue_s=ended.queue_s,
        first_byte_s=ended.first_byte_s,
        prompt=ended.prompt or "",
        path=ended.path,
        status=ended.status,
    )


def request_ended(ended: Ended, now_s: float) -> RequestEnded:
    """Return what is told of it to those who watch: nothing of what was asked."""
    return RequestEnded(
        time_s=now_s,
        model=ended.model,
        request_id=ended.request_id,
        key=ended.key,
        path=ended.path,
        status=ended.status,
        end=ended.end,
        total_s=round(ended.total_s, 6),
        queue_s=ended.queue_s,
        first_byte_s=ended.first_byte_s,
        tokens_in=ended.tokens_in,
        tokens_out=ended.tokens_out,
    )
