"""What happens to the models, for whoever wants to watch: one feed with bounded followers."""

import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

# What a follower that does not keep up is behind at most before it loses the oldest events. One
# swap is six of them.
FOLLOWER_MAX_COUNT = 1000


class FeedEvent(msgspec.Struct, frozen=True, tag_field="kind"):
    """Something worth telling. ``time_s`` is Unix time; ``model`` is empty for no model's own.

    Encoded by msgspec, each subclass says in ``kind`` which it is.
    """

    time_s: float
    model: str


class StateChanged(FeedEvent, frozen=True, tag="state"):
    """The model went from one state to another (values of ``core.states.State``)."""

    old: str
    new: str
    reason: str


class LoadProgress(FeedEvent, frozen=True, tag="progress"):
    """The model's load has come as far as ``fraction`` (0 to 1)."""

    fraction: float


class QueueChanged(FeedEvent, frozen=True, tag="queue"):
    """So many requests wait for the model now, and so many are being answered by it."""

    waiting: int
    in_flight: int


class EventsDropped(FeedEvent, frozen=True, tag="dropped"):
    """The follower was too slow: ``count`` events between the last and the next are lost."""

    count: int


class FeedFollower:
    """What happens from a moment on, for one follower. Usable from any thread.

    ``wake`` is called, on the thread that publishes, when events begin to wait; it must be quick
    and must not raise.
    """

    def __init__(
        self,
        wake: Callable[[], object],
        on_close: Callable[["FeedFollower"], None],
        max_count: int = FOLLOWER_MAX_COUNT,
    ) -> None:
        self._wake = wake
        self._on_close = on_close
        self._lock = threading.Lock()
        self._events: deque[FeedEvent] = deque(maxlen=max_count)
        self._dropped_count = 0
        self._is_waiting = False

    def take(self) -> list[FeedEvent]:
        """Return the events that wait; where some were lost, the first one says how many."""
        with self._lock:
            events = list(self._events)
            dropped_count = self._dropped_count
            self._events.clear()
            self._dropped_count = 0
            self._is_waiting = False
        if dropped_count:
            events.insert(0, EventsDropped(events[0].time_s, "", dropped_count))
        return events

    def close(self) -> None:
        """Follow no longer. Idempotent."""
        self._on_close(self)

    def _put(self, event: FeedEvent) -> None:
        with self._lock:
            if len(self._events) == self._events.maxlen:
                self._dropped_count += 1
            self._events.append(event)
            must_wake = not self._is_waiting
            self._is_waiting = True
        if must_wake:
            self._wake()


class Feed:
    """Published to by one thread, followed from any.

    ``is_followed`` is for publishers: without followers an event need not even be made.
    ``on_follow`` is called, on the thread of a new follower, once that follower is there.
    """

    def __init__(self, on_follow: Callable[[], object] | None = None) -> None:
        self.is_followed = False
        self._on_follow = on_follow
        self._lock = threading.Lock()
        # Replaced and never changed, so that publishing needs no lock to go through it.
        self._followers: tuple[FeedFollower, ...] = ()

    def publish(self, event: FeedEvent) -> None:
        """Tell everybody."""
        for follower in self._followers:
            follower._put(event)

    def state_changed(self, model: str, old: str, new: str, reason: str) -> None:
        """Tell everybody, if there is anybody, that a model went to another state."""
        if self.is_followed:
            self.publish(StateChanged(time.time(), model, old, new, reason))

    def subscribe(self, wake: Callable[[], object]) -> FeedFollower:
        """Follow from now on; ``close`` what this returns at the end."""
        follower = FeedFollower(wake, self._unsubscribe)
        with self._lock:
            self._followers = (*self._followers, follower)
            self.is_followed = True
        if self._on_follow is not None:
            self._on_follow()
        return follower

    def _unsubscribe(self, closed: FeedFollower) -> None:
        with self._lock:
            self._followers = tuple(one for one in self._followers if one is not closed)
            self.is_followed = bool(self._followers)
