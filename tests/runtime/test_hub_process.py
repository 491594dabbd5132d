import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from llama_router.hub.errors import HubError
from llama_router.hub.protocol import Ended, Moved, Search, SearchHit, Settings
from llama_router.runtime import hub_process
from llama_router.runtime.hub_process import HubProcess
from tests.support.fake_hub import FakeHub, Repo


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
        async with asyncio.timeout(60):
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
        async with asyncio.timeout(50):
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
        async with asyncio.timeout(50):
            assert await process.ask(lambda n: Search(n, "x", 5), list[object]) == []
            assert process._running is not first
            await process.close()
        assert first is not None
        assert first._process.returncode == 0


@pytest.mark.asyncio
async def test_other_settings_reach_the_process_that_runs(tmp_path: Path) -> None:
    now = Settings("nonsense", "", str(tmp_path))
    process = HubProcess(lambda: now, env={}, on_message=lambda _said: None, on_end=lambda: None)
    async with FakeHub({"org/old": Repo({})}) as old, FakeHub({"org/new": Repo({})}) as new:
        # Without a process there is nobody to tell.
        await process.renew()
        assert not process.is_running
        for hub, repo in ((old, "org/old"), (new, "org/new")):
            now = Settings(hub.url, "", str(tmp_path))
            await process.renew()
            hits = await process.ask(lambda n: Search(n, "org", 5), list[SearchHit])
            assert [hit.repo for hit in hits] == [repo]
        running = process._running
        now = Settings("nonsense", "", str(tmp_path))
        with pytest.raises(HubError, match="HF_ENDPOINT"):
            await process.renew()
        assert process._running is running is not None
        assert running.settings.endpoint == new.url
        await process.close()


@pytest.mark.asyncio
async def test_one_that_cannot_be_killed_holds_up_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(_module: str, **_options: object) -> "subprocess.Popen[bytes]":
        # Like one that waits for a disk: neither the end of its stdin nor a signal ends it.
        command = [sys.executable, "-c", "import threading; threading.Event().wait()"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(child)
        monkeypatch.setattr(child, "kill", lambda: None)
        return child

    monkeypatch.setattr(hub_process, "start_helper", start)
    monkeypatch.setattr(hub_process, "_END_TIMEOUT_S", 0.01)
    monkeypatch.setattr(hub_process, "_KILL_TIMEOUT_S", 0.01)
    process = process_of(Settings("http://127.0.0.1:9", "", str(tmp_path)), Heard())
    async with asyncio.timeout(50):
        await process.send(Search(1, "x", 5))
        running = process._running
        assert running is not None
        await process.close()
        assert started[0].returncode is None
        subprocess.Popen.kill(started[0])
        for thread in running._threads:
            await asyncio.to_thread(thread.join)
    assert started[0].returncode is not None
