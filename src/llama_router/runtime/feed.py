"""What happens in the router, for whoever wants to watch: one feed with bounded followers."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final

import msgspec

# What a follower that does not keep up is behind at most before it loses the oldest events. One
# swap is six of them.
FOLLOWER_MAX_COUNT = 1000

MODEL: Final = "model"
DOWNLOAD: Final = "download"
REQUEST: Final = "request"
LOG: Final = "log"
CONFIG: Final = "config"
USUAL_TOPICS: Final = frozenset({MODEL, DOWNLOAD, CONFIG})


class FeedEvent(msgspec.Struct, frozen=True, tag_field="kind"):
    """Something worth telling. ``time_s`` is Unix time; ``model`` is empty for no model's own.

    Encoded by msgspec, each subclass says in ``kind`` which it is. Only who follows its ``topic``
    gets it; "" is everybody.
    """

    topic: ClassVar[str] = MODEL

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


class RequestStarted(FeedEvent, frozen=True, tag="request_started"):
    """A request for the model has come; ``key`` is the name of its API key."""

    topic: ClassVar[str] = REQUEST

    request_id: int
    key: str


class RequestEnded(FeedEvent, frozen=True, kw_only=True, tag="request_ended"):
    """A request is over, as the history has it. ``request_id`` is 0 where it never began."""

    topic: ClassVar[str] = REQUEST

    request_id: int
    key: str
    path: str
    status: int
    end: str
    total_s: float
    queue_s: float | None
    first_byte_s: float | None
    tokens_in: int | None
    tokens_out: int | None


class DownloadChanged(FeedEvent, frozen=True, kw_only=True, tag="download"):
    """A download went on: ``fraction`` is None until its size is known.

    ``model`` is what it is called; ``download`` its id in the API.
    """

    topic: ClassVar[str] = DOWNLOAD

    download: str
    state: str
    done_bytes: int
    total_bytes: int | None
    bytes_per_s: float = 0.0
    error: str = ""


class ConfigRead(FeedEvent, frozen=True, kw_only=True, tag="config"):
    """The config was read again, because of ``why``; ``error`` says why it is not followed.

    ``changed``, ``added`` and ``removed`` are how many models, ``restart_needed`` which settings
    hold after a restart only.
    """

    topic: ClassVar[str] = CONFIG

    why: str
    error: str = ""
    changed: int = 0
    added: int = 0
    removed: int = 0
    restart_needed: tuple[str, ...] = ()


class ModelsOnDisk(FeedEvent, frozen=True, kw_only=True, tag="rescan"):
    """So many models have come, gone or changed on disk."""

    topic: ClassVar[str] = CONFIG

    changed: int
    added: int
    removed: int


class ProfileChanged(FeedEvent, frozen=True, tag="profile"):
    """Another profile is active; "" for none."""

    topic: ClassVar[str] = CONFIG

    profile: str


class LogLine(FeedEvent, frozen=True, tag="log"):
    """A line that a model's engine has written, or the router itself (no model)."""

    topic: ClassVar[str] = LOG

    line: str


class EventsDropped(FeedEvent, frozen=True, tag="dropped"):
    """The follower was too slow: ``count`` events between the last and the next are lost."""

    topic: ClassVar[str] = ""

    count: int


class FeedFollower:
    """What happens from a moment on, for one follower. Usable from any thread.

    ``topics`` are what it wants of it. ``wake`` is called, on the thread that publishes, when
    events begin to wait; it must be quick and must not raise.
    """

    def __init__(
        self,
        wake: Callable[[], object],
        on_close: Callable[["FeedFollower"], None],
        max_count: int = FOLLOWER_MAX_COUNT,
        topics: frozenset[str] = USUAL_TOPICS,
    ) -> None:
        self.topics = topics
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

    def put(self, event: FeedEvent) -> None:
        """Add an event, be it of a wanted topic or not."""
        with self._lock:
            if len(self._events) == self._events.maxlen:
                self._dropped_count += 1
            self._events.append(event)
            must_wake = not self._is_waiting
            self._is_waiting = True
        if must_wake:
            self._wake()


class Feed:
    """Published to, and followed, from any thread.

    ``is_followed`` and ``follows_requests`` are for publishers: without followers of the models, or
    of the requests, an event need not even be made. ``on_follow`` is called, on the thread of a new
    follower of the models, once that follower is there.
    """

    def __init__(self, on_follow: Callable[[], object] | None = None) -> None:
        self.is_followed = False
        self.follows_requests = False
        self._on_follow = on_follow
        self._lock = threading.Lock()
        # Replaced and never changed, so that publishing needs no lock to go through it.
        self._followers: tuple[FeedFollower, ...] = ()

    def publish(self, event: FeedEvent) -> None:
        """Tell everybody who wants to know."""
        for follower in self._followers:
            if event.topic in follower.topics:
                follower.put(event)

    def state_changed(self, model: str, old: str, new: str, reason: str) -> None:
        """Tell everybody, if there is anybody, that a model went to another state."""
        if self.is_followed:
            self.publish(StateChanged(time.time(), model, old, new, reason))

    def subscribe(
        self, wake: Callable[[], object], topics: frozenset[str] = USUAL_TOPICS
    ) -> FeedFollower:
        """Follow from now on; ``close`` what this returns at the end."""
        follower = FeedFollower(wake, self._unsubscribe, topics=topics)
        with self._lock:
            self._set((*self._followers, follower))
        if self._on_follow is not None and MODEL in topics:
            self._on_follow()
        return follower

    def _unsubscribe(self, closed: FeedFollower) -> None:
        with self._lock:
            self._set(tuple(one for one in self._followers if one is not closed))

    def _set(self, followers: tuple[FeedFollower, ...]) -> None:
        self._followers = followers
        self.is_followed = any(MODEL in one.topics for one in followers)
        self.follows_requests = any(REQUEST in one.topics for one in followers)
