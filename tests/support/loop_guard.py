"""Holds callbacks of an event loop to a budget of CPU time.

Time spent is that of the thread, so a busy machine does not matter; what the garbage collector
takes is counted off, because it falls on whichever callback is running. Only callbacks of the code
under test are judged: those whose Python code, or whose task's, comes from the router.
"""

import asyncio
import gc
import time
from asyncio.events import Handle
from collections.abc import Iterator
from contextlib import contextmanager

CPU_LIMIT_S = 0.002
_FOREIGN = ("scripted_engine", "raw_client", "/tests/", "asyncio.streams")


class LoopGuard:
    """What was measured."""

    def __init__(self) -> None:
        self.callback_count = 0
        self.worst: list[tuple[float, str]] = []
        self.is_measuring = False
        self._gc_began_s = 0.0
        self.gc_s = 0.0

    def forget(self) -> None:
        """Drop what was measured: caches are warm from here on."""
        self.callback_count = 0
        self.worst = []
        self.is_measuring = True

    def check(self, limit_s: float = CPU_LIMIT_S) -> None:
        """Fail when a callback took longer."""
        assert self.callback_count, "nothing was measured"
        too_long = [f"{took * 1e3:.2f} ms: {what}" for took, what in self.worst if took > limit_s]
        assert not too_long, "\n".join(sorted(too_long, reverse=True)[:10])

    def on_gc(self, phase: str, info: dict[str, int]) -> None:  # noqa: ARG002
        if phase == "start":
            self._gc_began_s = time.thread_time()
        else:
            self.gc_s += time.thread_time() - self._gc_began_s

    def on_ran(self, callback: object, took_s: float) -> None:
        if not self.is_measuring:
            return
        self.callback_count += 1
        if took_s > CPU_LIMIT_S / 4:
            what = _describe(callback)
            if not any(word in what for word in _FOREIGN):
                self.worst.append((took_s, what))


def _describe(callback: object) -> str:
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return f"task {owner!r}"
    protocol = getattr(owner, "_protocol", None)
    return f"{callback!r} of {type(protocol).__module__}.{type(protocol).__qualname__}"


@contextmanager
def loop_guard() -> Iterator[LoopGuard]:
    """Measure every callback of plain asyncio loops in this thread."""
    guard = LoopGuard()
    run = Handle._run  # the one place every callback goes through

    def measured(self: Handle) -> None:
        # A handle that is cancelled while it runs forgets it.
        callback = self._callback  # type: ignore[attr-defined]
        before_s, gc_before_s = time.thread_time(), guard.gc_s
        try:
            run(self)
        finally:
            took_s = time.thread_time() - before_s - (guard.gc_s - gc_before_s)
            guard.on_ran(callback, took_s)

    Handle._run = measured  # type: ignore[method-assign]
    gc.callbacks.append(guard.on_gc)
    try:
        yield guard
    finally:
        gc.callbacks.remove(guard.on_gc)
        Handle._run = run  # type: ignore[method-assign]
