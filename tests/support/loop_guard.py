"""Holds callbacks of an event loop to a budget of CPU time.

Time spent is that of the thread, so a busy machine does not matter; what the garbage collector
takes is counted off, because it falls on whichever callback is running; and on a slower processor,
or one that is shared at the moment, callbacks may take as much longer as everything else does. Only
callbacks of the code under test are judged: those whose Python code, or whose task's, comes from
the router.
"""

import asyncio
import gc
import time
from asyncio.events import Handle
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec

_P = ParamSpec("_P")

CPU_LIMIT_S = 0.002
_ATTEMPTS = 5
_FOREIGN = ("scripted_engine", "raw_client", "/tests/", "asyncio.streams")

# What a usual server of 2026 takes for `reference_work`, for which the limit is meant.
REFERENCE_S = 125e-6
_REFERENCE_HEAD = b"".join(b"x-%d: %b\r\n" % (number, b"y" * 40) for number in range(200))


def reference_work() -> None:
    """Compute what a relay does: cut bytes, make some, keep them."""
    for _ in range(4):
        found = {}
        for line in _REFERENCE_HEAD.split(b"\r\n"):
            name, _, value = line.partition(b": ")
            found[name.lower()] = value.strip()


def slowness() -> float:
    """Tell how often slower this thread computes at this moment than the limit is meant for."""
    took_s = []
    for _ in range(2):
        before_s = time.thread_time()
        reference_work()
        took_s.append(time.thread_time() - before_s)
    return max(1.0, min(took_s) / REFERENCE_S)


class LoopHeldError(AssertionError):
    """A callback took longer than it may."""


def every_time(
    test: Callable[_P, Coroutine[object, object, None]],
) -> Callable[_P, Coroutine[object, object, None]]:
    """Let a test fail only if the loop is held in each of five attempts.

    Code that computes for too long does so every time. A virtual machine that is stopped for a
    moment counts as CPU time of the thread that it was running, and is not code.
    """

    @wraps(test)
    async def attempted(*args: _P.args, **kwargs: _P.kwargs) -> None:
        for left in reversed(range(_ATTEMPTS)):
            try:
                await test(*args, **kwargs)
            except LoopHeldError:
                if not left:
                    raise
            else:
                return

    return attempted


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
        if too_long:
            raise LoopHeldError("\n".join(sorted(too_long, reverse=True)[:10]))

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
            took_s /= slowness()
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
