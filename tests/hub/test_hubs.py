import asyncio
from pathlib import Path

import pytest

from llama_router.hub.errors import HubError
from llama_router.hub.hubs import Hubs
from llama_router.hub.protocol import Settings

pytestmark = pytest.mark.asyncio


def settings(folder: Path, **other: object) -> Settings:
    given = {"endpoint": "http://127.0.0.1:9", "token": "", "cache": str(folder), **other}
    return Settings(**given)  # type: ignore[arg-type]  # as the test says


async def test_limits_hold_at_once_for_the_same_hub(tmp_path: Path) -> None:
    async with Hubs() as hubs:
        await hubs.go_by(settings(tmp_path))
        first = hubs.now
        await hubs.go_by(settings(tmp_path, max_parallel_files=1, bandwidth_bytes_per_s=5000))
        assert hubs.now is first
        assert (first.gate.limit, first.throttle.rate_bytes_per_s) == (1, 5000)
    assert hubs.open_count == 0


async def test_another_hub_is_for_who_comes_then_under_one_limit_for_all(tmp_path: Path) -> None:
    async with Hubs() as hubs:
        await hubs.go_by(settings(tmp_path))
        first, over = hubs.now, asyncio.Event()
        user = asyncio.create_task(over.wait())
        hubs.used_by(user)
        await hubs.go_by(settings(tmp_path, is_offline=True, bandwidth_bytes_per_s=5000))
        second = hubs.now
        assert (first.is_offline, second.is_offline) == (False, True)
        assert second.gate is first.gate
        assert second.needs is first.needs
        assert first.throttle.rate_bytes_per_s == 5000
        assert hubs.open_count == 2
        over.set()
        await user
        await asyncio.sleep(0)
        assert hubs.open_count == 1
        with pytest.raises(HubError):
            await hubs.go_by(settings(tmp_path, endpoint="nonsense"))
        assert hubs.now is second


async def test_a_hub_that_nobody_uses_is_closed_with_the_next(tmp_path: Path) -> None:
    async with Hubs() as hubs:
        for number in range(5):
            await hubs.go_by(settings(tmp_path, token=f"hf_{number}"))
        assert hubs.open_count == 1
