"""The history of requests: how many of them are remembered, and in what form."""

from llama_router.proxy.gate import Ended
from llama_router.store.records import RequestRecord

# More than people cause, far less than a loop of small requests does; a record costs some 10 µs.
MAX_RECORDS_PER_S = 500


class RecordRate:
    """Lets so many requests of each second be remembered, and counts the others."""

    def __init__(self, limit_per_s: int = MAX_RECORDS_PER_S) -> None:
        self.left_out_count = 0
        self._limit_per_s = limit_per_s
        self._left = 0
        self._ends_s = float("-inf")

    def admits(self, now_s: float) -> bool:
        """Tell whether a request that ends ``now_s`` (monotonic) is to be remembered."""
        if now_s >= self._ends_s:
            self._ends_s = now_s + 1.0
            self._left = self._limit_per_s
        if self._left:
            self._left -= 1
            return True
        self.left_out_count += 1
        return False


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
    )
