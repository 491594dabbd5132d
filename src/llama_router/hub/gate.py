"""How many may be at it at a time."""

import asyncio
import contextlib
from collections import deque
from types import TracebackType


class Gate:
    """Lets so many in, in the order in which they come. ``limit`` counts for who waits, too."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside_count = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """How many. Fewer than are inside: nobody comes in until enough have left."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._let_in()

    @property
    def inside_count(self) -> int:
        """How many are inside."""
        return self._inside_count

    async def __aenter__(self) -> None:
        if not self._waiting and self._inside_count < self._limit:
            self._inside_count += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(waiter)
            else:
                # It was let in, and has its place to give back.
                self._leave()
            raise

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._inside_count -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._inside_count < self._limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._inside_count += 1
                waiter.set_result(None)
