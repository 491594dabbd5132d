"""Tells the feed how loads and queues change, by looking now and then while anybody follows.

A router under load changes a queue thousands of times a second. Nothing is done for that on the
way of a request: whoever follows sees where things stand a few times a second.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec

from llama_router.runtime.feed import Feed, LoadProgress, QueueChanged

# Often enough for a progress bar to move.
PULSE_S = 0.25


class Reading(msgspec.Struct, frozen=True):
    """Where one model stands. ``fraction`` is None unless it is loading and says how far."""

    waiting: int = 0
    in_flight: int = 0
    fraction: float | None = None


_QUIET = Reading()


class Pulse:
    """``read`` returns the readings of all models that run or are waited for, by name."""

    def __init__(self, read: Callable[[], Mapping[str, Reading]]) -> None:
        self.feed = Feed(self._on_follow)
        self._read = read
        self._loop = asyncio.get_running_loop()
        self._last: dict[str, Reading] = {}
        self._has_newcomer = False
        self._handle: asyncio.TimerHandle | None = None
        self._is_closed = False

    def close(self) -> None:
        """Look no more."""
        self._is_closed = True
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _on_follow(self) -> None:
        # From the follower's thread. It begins with how things stand.
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._has_newcomer = True
        if self._handle is None:
            self._beat()

    def _beat(self) -> None:
        self._handle = None
        if self._is_closed or not self.feed.is_followed:
            return
        self.look()
        self._handle = self._loop.call_later(PULSE_S, self._beat)

    def look(self) -> None:
        """Publish what has changed since the last look, or to a newcomer all that is not quiet."""
        readings, last = dict(self._read()), self._last
        self._last = readings
        tells_all, self._has_newcomer = self._has_newcomer, False
        now_s = time.time()
        for model in dict.fromkeys((*last, *readings)):
            new, old = readings.get(model, _QUIET), last.get(model, _QUIET)
            queue = (new.waiting, new.in_flight)
            if queue != (old.waiting, old.in_flight) or (tells_all and queue != (0, 0)):
                self.feed.publish(QueueChanged(now_s, model, *queue))
            if new.fraction is not None and (tells_all or new.fraction != old.fraction):
                self.feed.publish(LoadProgress(now_s, model, new.fraction))
