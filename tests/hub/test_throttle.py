import asyncio

import pytest

from llama_router.hub.throttle import Throttle


@pytest.mark.asyncio
async def test_the_rate_holds_for_all_together() -> None:
    throttle = Throttle(1_000_000)
    loop = asyncio.get_running_loop()
    started = loop.time()

    async def take() -> None:
        for _ in range(10):
            await throttle.take(10_000)

    await asyncio.gather(*(take() for _ in range(3)))
    assert 0.25 < loop.time() - started < 2


@pytest.mark.asyncio
async def test_without_a_rate_nobody_waits() -> None:
    throttle = Throttle()
    loop = asyncio.get_running_loop()
    started = loop.time()
    for _ in range(1000):
        await throttle.take(10**9)
    assert loop.time() - started < 1


def test_portions_fit_the_rate() -> None:
    assert Throttle().portion_bytes == 256 * 1024
    assert Throttle(100_000).portion_bytes == 25_000
    assert Throttle(10).portion_bytes == 1024
