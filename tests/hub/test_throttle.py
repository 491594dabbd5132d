import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

import pytest

from llama_router.hub.throttle import Throttle


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: so much time has passed."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now_s += timeout or 0.0
        return super().select(0)


def seconds_of(work: Coroutine[Any, Any, object]) -> float:
    """Run this on a loop that is never late, and return how long it takes there."""
    selector = _Selector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now_s  # type: ignore[method-assign]
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()
    return selector.now_s


def test_the_rate_holds_for_all_together() -> None:
    throttle = Throttle(1_000_000)

    async def take() -> None:
        for _ in range(10):
            await throttle.take(10_000)

    async def take_all() -> None:
        await asyncio.gather(*(take() for _ in range(3)))

    assert seconds_of(take_all()) == pytest.approx(0.3, abs=0.01)


def test_without_a_rate_nobody_waits() -> None:
    throttle = Throttle()

    async def take() -> None:
        for _ in range(1000):
            await throttle.take(10**9)

    assert seconds_of(take()) == 0


def test_portions_fit_the_rate() -> None:
    assert Throttle().portion_bytes == 256 * 1024
    assert Throttle(100_000).portion_bytes == 25_000
    assert Throttle(10).portion_bytes == 1024


@pytest.mark.parametrize(("rate_bytes_per_s", "took_s"), [(0, 0), (1_000_000, 1)])
def test_another_rate_holds_at_once_for_who_waits(rate_bytes_per_s: int, took_s: float) -> None:
    throttle = Throttle(1)

    async def change() -> None:
        waiting = asyncio.create_task(throttle.take(1_000_000))
        await asyncio.sleep(0)
        assert not waiting.done()
        throttle.rate_bytes_per_s = rate_bytes_per_s
        await waiting
        await throttle.take(1_000_000)

    assert seconds_of(change()) == pytest.approx(took_s, abs=0.01)
