"""Engine output in memory: the last lines of each model and of the whole router."""

import threading
from collections import deque
from collections.abc import Callable, Iterable

# Per model, and for all together.
RING_BYTES = 1024 * 1024

# Counted per line on top of its text, so that a flood of short lines is bounded too: about what
# Python needs for a string.
LINE_OVERHEAD_BYTES = 64

# What a follower that does not keep up is behind at most before it loses lines.
SUBSCRIPTION_BYTES = 256 * 1024


class _Ring:
    """The newest lines that fit into ``limit_bytes``."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lines: deque[str] = deque()
        self._size_bytes = 0

    def append(self, line: str) -> int:
        """Add a line; return how many old ones had to go."""
        self._lines.append(line)
        self._size_bytes += _cost(line)
        dropped = 0
        while self._size_bytes > self._limit_bytes and len(self._lines) > 1:
            self._size_bytes -= _cost(self._lines.popleft())
            dropped += 1
        return dropped

    def lines(self) -> list[str]:
        return list(self._lines)

    def clear(self) -> None:
        self._lines.clear()
        self._size_bytes = 0


class Subscription:
    """The lines of one log from a moment on, for one follower. Usable from any thread.

    ``wake`` is called, on the thread that writes the log, when lines begin to wait; it must be
    quick and must not raise.
    """

    def __init__(
        self, wake: Callable[[], object], on_close: Callable[["Subscription"], None]
    ) -> None:
        self._wake = wake
        self._on_close = on_close
        self._lock = threading.Lock()
        self._ring = _Ring(SUBSCRIPTION_BYTES)
        # Lines from before the subscription, as many as there were.
        self._kept: list[str] = []
        self._dropped = 0
        self._is_waiting = False

    def take(self) -> list[str]:
        """Return the lines that wait; where some were lost, a line in brackets says how many."""
        with self._lock:
            lines, dropped = self._ring.lines(), self._dropped
            kept, self._kept = self._kept, []
            self._ring.clear()
            self._dropped = 0
            self._is_waiting = False
        if kept and dropped:
            # Later ones are lost already: these would have been the first to go.
            dropped += len(kept)
        elif kept:
            ring = _Ring(SUBSCRIPTION_BYTES)
            dropped = sum(ring.append(line) for line in (*kept, *lines))
            lines = ring.lines()
        return [f"[{dropped} lines dropped]", *lines] if dropped else lines

    def close(self) -> None:
        """Follow no longer. Idempotent."""
        self._on_close(self)

    def _begin_with(self, kept: list[str]) -> None:
        """Take over lines before anything else is put; they are fitted in by ``take``."""
        self._kept = kept
        self._is_waiting = bool(kept)

    def _put(self, lines: Iterable[str]) -> None:
        with self._lock:
            for line in lines:
                self._dropped += self._ring.append(line)
            must_wake = not self._is_waiting
            self._is_waiting = True
        if must_wake:
            self._wake()


class LogStore:
    """The logs of all models. Written by one thread, readable from any.

    ``model`` None means the joint log, whose lines begin with "[model] ".
    """

    def __init__(self, ring_bytes: int = RING_BYTES) -> None:
        self._ring_bytes = ring_bytes
        self._lock = threading.Lock()
        self._rings: dict[str | None, _Ring] = {None: _Ring(ring_bytes)}
        self._subscriptions: dict[str | None, list[Subscription]] = {}
        # Replaced and never changed.
        self._listeners: tuple[Callable[[str, str], object], ...] = ()

    def listen(self, listener: Callable[[str, str], object]) -> Callable[[], None]:
        """Call ``listener`` with the model of each line and the line; return how to stop that.

        It is called on the thread that writes the log; it must be quick and must not raise.
        """
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not listener)

        return stop

    def append(self, model: str, line: str) -> None:
        """Add a line of ``model``'s engine."""
        joint_line = f"[{model}] {line}"
        with self._lock:
            ring = self._rings.get(model)
            if ring is None:
                ring = self._rings[model] = _Ring(self._ring_bytes)
            ring.append(line)
            self._rings[None].append(joint_line)
            followers = [*self._subscriptions.get(model, ())]
            joint_followers = [*self._subscriptions.get(None, ())]
        for listener in self._listeners:
            listener(model, line)
        for follower in followers:
            follower._put((line,))
        for follower in joint_followers:
            follower._put((joint_line,))

    def text(self, model: str | None) -> str:
        """Return all lines that are kept, newline-terminated."""
        with self._lock:
            ring = self._rings.get(model)
            lines = ring.lines() if ring is not None else []
        return "".join(f"{line}\n" for line in lines)

    def subscribe(
        self, model: str | None, wake: Callable[[], object], *, with_kept_lines: bool = False
    ) -> Subscription:
        """Follow a log, from its kept lines on if asked, else from now on; without a gap."""
        subscription = Subscription(wake, lambda closed: self._unsubscribe(model, closed))
        kept: list[str] = []
        with self._lock:
            if with_kept_lines and model in self._rings:
                # No more than a copy: whoever writes a line waits for this lock.
                kept = self._rings[model].lines()
                subscription._begin_with(kept)
            self._subscriptions.setdefault(model, []).append(subscription)
        if kept:
            wake()
        return subscription

    def forget(self, model: str) -> None:
        """Drop the lines of a model that is no longer known."""
        with self._lock:
            self._rings.pop(model, None)

    def _unsubscribe(self, model: str | None, subscription: Subscription) -> None:
        with self._lock:
            followers = self._subscriptions.get(model, [])
            if subscription in followers:
                followers.remove(subscription)
            if not followers:
                self._subscriptions.pop(model, None)


def _cost(line: str) -> int:
    size_bytes = len(line) if line.isascii() else len(line.encode("utf-8", "replace"))
    return size_bytes + LINE_OVERHEAD_BYTES
