import asyncio
from pathlib import Path

import pytest

from llama_router.hub.errors import HubError
from llama_router.hub.protocol import Ended, Moved, Search, Settings
from llama_router.runtime.hub_process import HubProcess
from tests.support.fake_hub import FakeHub


class Heard:
    def __init__(self) -> None:
        self.messages: list[Moved | Ended] = []
        self.ended = asyncio.Event()


def process_of(settings: Settings, heard: Heard, idle_s: float = 60.0) -> HubProcess:
    return HubProcess(
        lambda: settings,
        env={},
        on_message=heard.messages.append,
        on_end=heard.ended.set,
        idle_s=idle_s,
    )


@pytest.mark.asyncio
async def test_it_starts_with_the_first_question_and_ends_when_closed(tmp_path: Path) -> None:
    async with FakeHub() as hub:
        process = process_of(Settings(hub.url, "", str(tmp_path)), Heard())
        assert not process.is_running
        assert await process.ask(lambda n: Search(n, "x", 5), list[object]) == []
        running = process._running
        assert running is not None
        await process.close()
    assert running._process.returncode == 0
    assert not any(thread.is_alive() for thread in running._threads)


@pytest.mark.asyncio
async def test_who_waits_is_told_when_it_dies(tmp_path: Path) -> None:
    heard = Heard()
    async with FakeHub() as hub:
        process = process_of(Settings(hub.url, "", str(tmp_path)), heard)
        await process.ask(lambda n: Search(n, "x", 5), list[object])
        running = process._running
        assert running is not None
        running._process.kill()
        async with asyncio.timeout(10):
            await heard.ended.wait()
        # The next question gets another process.
        assert await process.ask(lambda n: Search(n, "x", 5), list[object]) == []
        await process.close()


@pytest.mark.asyncio
async def test_an_address_that_makes_no_sense_is_refused_before_it_starts(tmp_path: Path) -> None:
    heard = Heard()
    process = process_of(Settings("nonsense", "", str(tmp_path)), heard)
    with pytest.raises(HubError) as raised:
        await process.ask(lambda n: Search(n, "x", 5), list[object])
    assert raised.value.code == "bad_request"
    assert "HF_ENDPOINT" in raised.value.message
    assert not process.is_running
    await process.close()


@pytest.mark.asyncio
async def test_it_ends_when_nobody_asks_any_more(tmp_path: Path) -> None:
    heard = Heard()
    async with FakeHub() as hub:
        process = process_of(Settings(hub.url, "", str(tmp_path)), heard, idle_s=0.05)
        await process.ask(lambda n: Search(n, "x", 5), list[object])
        running = process._running
        assert running is not None
        async with asyncio.timeout(20):
            await asyncio.to_thread(running._process.wait)
        assert running._process.returncode == 0
        assert not process.is_running
        assert not heard.ended.is_set()
        assert await process.ask(lambda n: Search(n, "x", 5), list[object]) == []
        await process.close()


@pytest.mark.asyncio
async def test_an_order_given_as_it_ends_for_want_of_any_goes_to_the_next(tmp_path: Path) -> None:
    async with FakeHub() as hub:
        process = process_of(Settings(hub.url, "", str(tmp_path)), Heard())
        await process.ask(lambda n: Search(n, "x", 5), list[object])
        first = process._running
        process._end_if_idle()
        async with asyncio.timeout(20):
            assert await process.ask(lambda n: Search(n, "x", 5), list[object]) == []
            assert process._running is not first
            await process.close()
        assert first is not None
        assert first._process.returncode == 0
