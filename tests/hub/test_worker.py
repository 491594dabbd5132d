"""The hub's process as the router uses it, and what a kill leaves of it."""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import huggingface_hub
import msgspec
import psutil
import pytest

from llama_router.hub.layout import PART_SUFFIX
from llama_router.hub.patience import Patience
from llama_router.hub.protocol import Answer as Given
from llama_router.hub.protocol import (
    Discard,
    Ended,
    Failure,
    Files,
    Header,
    Message,
    Moved,
    Order,
    Remove,
    Search,
    Settings,
    Start,
    Stop,
)
from tests.support.fake_hub import COMMIT, FakeHub, Repo, content

KILLS_COUNT = 10
SECRET = "hf_canary0123456789"


class Process:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def send(self, order: Order) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(order) + b"\n")

    async def next(self) -> Message:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        message: Message = msgspec.json.decode(line, type=Message)
        return message

    async def until(self, is_it: Callable[[Message], bool]) -> Message:
        while True:
            message = await self.next()
            if is_it(message):
                return message

    async def ended(self) -> Ended:
        found = await self.until(lambda message: isinstance(message, Ended))
        assert isinstance(found, Ended)
        return found

    async def answer(self) -> object:
        found = await self.until(lambda message: isinstance(message, Given | Failure))
        if isinstance(found, Failure):
            return found
        assert isinstance(found, Given)
        return json.loads(bytes(found.result))


@asynccontextmanager
async def worker(
    hub: FakeHub, cache: Path, *, token: str = "", is_offline: bool = False
) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "llama_router.hub.worker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    started = Process(process)
    patience = Patience(delay_s=0.01, delay_max_s=0.02, stall_s=60)
    started.send(Settings(hub.url, token, str(cache), is_offline=is_offline, patience=patience))
    try:
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.asyncio
async def test_it_searches_lists_downloads_and_removes(hub: FakeHub, tmp_path: Path) -> None:
    async with asyncio.timeout(50), worker(hub, tmp_path) as process:
        process.send(Search(1, "tiny", 5))
        hits = await process.answer()
        assert isinstance(hits, list)
        assert hits[0]["repo"] == "org/tiny"
        process.send(Files(2, "org/tiny"))
        found = await process.answer()
        assert isinstance(found, dict)
        assert [one["tag"] for one in found["variants"]] == ["Q4_K_M", "Q8_0"]
        process.send(Start("d1", "org/tiny", "Q8_0"))
        ended = await process.ended()
        assert (ended.download, ended.code, ended.message) == ("d1", "", "")
        assert ended.pulled is not None
        assert ended.pulled.model == "org/tiny:Q8_0"
        process.send(Remove(3, ended.pulled.paths))
        removed = await process.answer()
        assert removed == {
            "freed_bytes": 450_000,
            "files": ["mmproj-F16.gguf", "tiny-Q8_0.gguf"],
        }
        assert not (tmp_path / "models--org--tiny").exists()


@pytest.mark.asyncio
async def test_it_brings_the_beginning_of_a_file(hub: FakeHub, tmp_path: Path) -> None:
    to = tmp_path / "header"
    async with asyncio.timeout(50), worker(hub, tmp_path) as process:
        process.send(Header(1, "org/tiny", COMMIT, "tiny-Q8_0.gguf", str(to), 1000))
        assert await process.answer() == 1000
    assert to.read_bytes() == hub.repos["org/tiny"].files["tiny-Q8_0.gguf"][:1000]
    assert hub.requests[0][1] == "bytes=0-999"


@pytest.mark.asyncio
async def test_refusals_come_back_in_words(hub: FakeHub, tmp_path: Path) -> None:
    async with asyncio.timeout(50), worker(hub, tmp_path) as process:
        process.send(Files(1, "../etc"))
        refused = await process.answer()
        assert isinstance(refused, Failure)
        assert refused.code == "bad_request"
        process.send(Start("d", "org/none"))
        ended = await process.ended()
        assert ended.code == "unauthorized"
        assert "HF_TOKEN" in ended.message


@pytest.mark.asyncio
async def test_offline_it_asks_nobody(hub: FakeHub, tmp_path: Path) -> None:
    async with asyncio.timeout(50), worker(hub, tmp_path, is_offline=True) as process:
        process.send(Search(1, "tiny", 5))
        refused = await process.answer()
        assert isinstance(refused, Failure)
        assert refused.code == "offline"
    assert hub.counts == {}


@pytest.mark.asyncio
async def test_stopped_it_keeps_what_has_come_and_resumes(hub: FakeHub, tmp_path: Path) -> None:
    del hub.repos["org/tiny"].files["mmproj-F16.gguf"]
    hub.faults.stall_after = [150_000]
    async with asyncio.timeout(50), worker(hub, tmp_path) as process:
        process.send(Start("d", "org/tiny"))
        await hub.stalled.wait()
        process.send(Stop("d"))
        stopped = await process.ended()
        assert (stopped.pulled, stopped.code) == (None, "")
        process.send(Start("d", "org/tiny"))
        assert (await process.ended()).pulled is not None
    assert len(hub.requests) == 2
    assert hub.sent_bytes == 150_000 + 300_000 - int(hub.requests[1][1].strip("bytes=-") or 0)


@pytest.mark.asyncio
async def test_stopped_before_it_has_begun_it_ends_and_can_begin_again(
    hub: FakeHub, tmp_path: Path
) -> None:
    async with asyncio.timeout(50), worker(hub, tmp_path) as process:
        for _ in range(3):
            process.send(Start("d", "org/tiny"))
            process.send(Stop("d"))
            stopped = await process.ended()
            assert (stopped.pulled, stopped.code) == (None, "")
        process.send(Start("d", "org/tiny"))
        assert (await process.ended()).pulled is not None


@pytest.mark.asyncio
async def test_cancelled_it_leaves_nothing(hub: FakeHub, tmp_path: Path) -> None:
    del hub.repos["org/tiny"].files["mmproj-F16.gguf"]
    hub.faults.stall_after = [150_000]
    async with asyncio.timeout(50), worker(hub, tmp_path) as process:
        process.send(Start("d", "org/tiny"))
        await hub.stalled.wait()
        process.send(Stop("d"))
        ended = await process.ended()
        process.send(Discard(1, "org/tiny", ended.progress.blobs))
        freed_bytes = await process.answer()
        assert isinstance(freed_bytes, int)
        assert 0 <= freed_bytes <= 150_000
    assert list((tmp_path / "models--org--tiny" / "blobs").iterdir()) == []


def has_one_file(name: str, message: Message) -> bool:
    if not isinstance(message, Moved) or message.download != name:
        return False
    return message.progress.files_done_count == 1


@pytest.mark.asyncio
async def test_a_file_that_is_whole_goes_too_unless_another_download_wants_it(
    hub: FakeHub, tmp_path: Path
) -> None:
    blobs = tmp_path / "models--org--tiny" / "blobs"
    async with asyncio.timeout(50), worker(hub, tmp_path) as process:
        for name in "ab":
            # The model's last bytes do not come; the projector, which both have, does.
            hub.faults.stall_after = [150_000]
            process.send(Start(name, "org/tiny", "Q8_0" if name == "b" else ""))
            await process.until(partial(has_one_file, name))
        process.send(Stop("a"))
        gone = await process.ended()
        process.send(Discard(1, "org/tiny", gone.progress.blobs))
        await process.answer()
        assert any(not path.suffix for path in blobs.iterdir())
        process.send(Stop("b"))
        gone = await process.ended()
        process.send(Discard(2, "org/tiny", gone.progress.blobs))
        await process.answer()
    assert list(blobs.iterdir()) == []


@pytest.mark.asyncio
async def test_limits_that_change_hold_for_what_is_under_way(hub: FakeHub, tmp_path: Path) -> None:
    patience = Patience(delay_s=0.01, delay_max_s=0.02, stall_s=60)
    async with asyncio.timeout(50), worker(hub, tmp_path) as process:
        # At this rate it would take years.
        process.send(Settings(hub.url, "", str(tmp_path), bandwidth_bytes_per_s=1))
        process.send(Start("d", "org/tiny", "Q8_0"))
        await hub.asked.wait()
        process.send(Settings(hub.url, "", str(tmp_path), patience=patience))
        assert (await process.ended()).pulled is not None


@pytest.mark.asyncio
async def test_another_hub_and_token_are_for_what_begins_then(hub: FakeHub, tmp_path: Path) -> None:
    del hub.repos["org/tiny"].files["mmproj-F16.gguf"]
    hub.faults.stall_after = [150_000]
    async with FakeHub({"org/else": Repo({"e-Q8_0.gguf": content(50_000)})}) as other:
        other.token = SECRET
        other.repos["org/else"].private = True
        async with asyncio.timeout(50), worker(hub, tmp_path) as process:
            process.send(Start("d", "org/tiny"))
            await hub.stalled.wait()
            process.send(Settings(other.url, SECRET, str(tmp_path)))
            process.send(Start("e", "org/else"))
            ended = await process.ended()
            assert (ended.download, ended.code) == ("e", "")
            # What is under way is so with the hub that it began with, until it is resumed.
            assert [path for path, _range, _token in hub.requests] == ["tiny-Q4_K_M.gguf"]
            process.send(Stop("d"))
            assert (await process.ended()).code == ""
            process.send(Start("d", "org/tiny"))
            assert (await process.ended()).code == "unauthorized"
            process.send(Settings(other.url, SECRET, str(tmp_path), is_offline=True))
            process.send(Files(1, "org/else"))
            refused = await process.answer()
            assert isinstance(refused, Failure)
            assert refused.code == "offline"
    assert SECRET not in str(hub.requests)


@pytest.mark.asyncio
async def test_it_ends_with_its_router(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults.stall_after = [150_000]
    async with asyncio.timeout(50), worker(hub, tmp_path) as process:
        process.send(Start("d", "org/tiny"))
        await hub.stalled.wait()
        assert process.process.stdin is not None
        process.process.stdin.close()
        assert await process.process.wait() == 0


@pytest.mark.asyncio
async def test_its_token_is_seen_by_nobody(hub: FakeHub, tmp_path: Path) -> None:
    hub.token = SECRET
    hub.repos["org/tiny"].private = True
    async with asyncio.timeout(50), worker(hub, tmp_path, token=SECRET) as process:
        process.send(Files(1, "org/tiny"))
        assert isinstance(await process.answer(), dict)
        seen = psutil.Process(process.process.pid)
        assert SECRET not in " ".join(seen.cmdline())
        assert SECRET not in str(seen.environ())


def on_the_disk(hub: FakeHub, cache: Path) -> dict[str, int]:
    """What there is of each file that is not complete."""
    repo = hub.repos["org/big"]
    blobs = cache / "models--org--big" / "blobs"
    parts = {path: blobs / f"{repo.blob(path)}{PART_SUFFIX}" for path in repo.files}
    return {path: part.stat().st_size for path, part in parts.items() if part.exists()}


def assert_resumed(hub: FakeHub, kept: dict[str, int]) -> None:
    """Nothing that was on the disk is asked for again."""
    for path, asked, _token in hub.requests:
        have_bytes = kept.get(path, 0)
        assert asked == (f"bytes={have_bytes}-" if have_bytes else ""), path
    hub.requests.clear()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")
@pytest.mark.slow
@pytest.mark.timeout(200)  # eleven processes, which a slow machine takes its time to start
@pytest.mark.asyncio
async def test_killed_at_random_moments_it_always_resumes(tmp_path: Path) -> None:
    seed = int(os.environ.get("HUB_KILL_SEED", random.randrange(2**32)))  # noqa: S311
    print(f"seed: HUB_KILL_SEED={seed}")  # noqa: T201
    chosen = random.Random(seed)  # noqa: S311
    files = {
        "big-Q8_0-00001-of-00002.gguf": content(4_000_000, 1),
        "big-Q8_0-00002-of-00002.gguf": content(3_000_000, 2),
        "mmproj-BF16.gguf": content(500_000, 3),
    }
    whole_bytes = sum(map(len, files.values()))
    async with asyncio.timeout(190), FakeHub({"org/big": Repo(files)}) as hub:
        hub.faults.bytes_per_s = 20_000_000
        kept: dict[str, int] = {}
        for number in range(KILLS_COUNT):
            async with worker(hub, tmp_path) as process:
                already = hub.sent_bytes
                moment_bytes = chosen.randrange(whole_bytes // KILLS_COUNT)
                is_time = asyncio.Event()

                def look(
                    sent: int, after: int = already + moment_bytes, now: asyncio.Event = is_time
                ) -> None:
                    if sent >= after:
                        now.set()

                hub.on_chunk = look
                process.send(Start("d", "org/big"))
                await is_time.wait()
                process.process.kill()
                await process.process.wait()
            # What it has asked for may still be on its way.
            await hub.caught_up()
            assert huggingface_hub.scan_cache_dir(tmp_path).warnings == [], number
            assert_resumed(hub, kept)
            kept = on_the_disk(hub, tmp_path)
        hub.on_chunk = lambda _sent: None
        async with worker(hub, tmp_path) as process:
            process.send(Start("d", "org/big"))
            ended = await process.ended()
        assert_resumed(hub, kept)
        assert ended.message == ""
        assert ended.pulled is not None
    for name, data in files.items():
        path = huggingface_hub.hf_hub_download(
            "org/big", name, cache_dir=tmp_path, local_files_only=True
        )
        assert (tmp_path / path).read_bytes() == data
    blobs = tmp_path / "models--org--big" / "blobs"
    assert {path.stat().st_size for path in blobs.iterdir()} == set(map(len, files.values()))
