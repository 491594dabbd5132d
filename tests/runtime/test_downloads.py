import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from llama_router.hub.errors import HubError
from llama_router.hub.patience import Patience
from llama_router.hub.protocol import Ended, Moved, Settings
from llama_router.runtime.downloads import FILE_NAME, Downloads, UnknownDownloadError
from llama_router.runtime.feed import DownloadChanged, FeedEvent
from tests.support.fake_hub import FakeHub, Repo, content


class Watch:
    """What is told of downloads, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[DownloadChanged] = []
        self.completed: list[str] = []
        self._changed = asyncio.Event()

    def publish(self, event: FeedEvent) -> None:
        assert isinstance(event, DownloadChanged)
        self.events.append(event)
        self._changed.set()

    async def complete(self, model: str) -> None:
        self.completed.append(model)
        self._changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(50):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    async def state(self, wanted: str) -> None:
        await self.until(lambda: any(event.state == wanted for event in self.events))


@pytest_asyncio.fixture
async def hub() -> AsyncIterator[FakeHub]:
    files = {"tiny-Q4_K_M.gguf": content(300_000), "tiny-Q8_0.gguf": content(400_000, 2)}
    async with FakeHub({"org/tiny": Repo(files)}) as fake:
        yield fake


@pytest.fixture
def watch() -> Watch:
    return Watch()


@asynccontextmanager
async def downloads_of(
    hub: FakeHub, folder: Path, watch: Watch, token: Callable[[], str] = str
) -> AsyncIterator[Downloads]:
    patience = Patience(attempts_max_count=3, delay_s=0.01, delay_max_s=0.02, stall_s=10)
    made = Downloads(
        lambda: Settings(hub.url, token(), str(folder / "cache"), patience=patience),
        state_dir=folder,
        env={},
        publish=watch.publish,
        on_complete=watch.complete,
    )
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@pytest.mark.asyncio
async def test_a_download_is_told_of_until_the_model_is_there(
    hub: FakeHub, tmp_path: Path, watch: Watch
) -> None:
    hub.faults.bytes_per_s = 600_000
    async with downloads_of(hub, tmp_path, watch) as downloads:
        begun = await downloads.begin("org/tiny")
        # What is returned lives: on a slow disk it is complete before the list is kept.
        assert (watch.events[0].state, begun.repo) == ("running", "org/tiny")
        await watch.until(lambda: bool(watch.completed))
        await watch.state("complete")
    assert watch.completed == ["org/tiny:Q4_K_M"]
    done = [event.done_bytes for event in watch.events]
    assert done == sorted(done)
    assert len(done) > 2
    assert watch.events[-1].model == "org/tiny:Q4_K_M"
    assert (watch.events[-1].done_bytes, watch.events[-1].total_bytes) == (300_000, 300_000)
    assert (tmp_path / "cache" / "models--org--tiny" / "refs" / "main").exists()


@pytest.mark.asyncio
async def test_pause_resume_and_cancel(hub: FakeHub, tmp_path: Path, watch: Watch) -> None:
    blobs = tmp_path / "cache" / "models--org--tiny" / "blobs"
    hub.faults.stall_after = [200_000, 50_000]
    async with downloads_of(hub, tmp_path, watch) as downloads:
        number = (await downloads.begin("org/tiny")).id
        await hub.stalled.wait()
        assert (await downloads.pause(number)).state == "paused"
        assert (await downloads.pause(number)).state == "paused"
        parts = [path.stat().st_size for path in blobs.glob("*.incomplete")]
        hub.stalled.clear()
        # The same again is the same download.
        assert (await downloads.begin("org/tiny")).id == number
        await hub.stalled.wait()
        assert hub.requests[-1][1] == (f"bytes={sum(parts)}-" if sum(parts) else "")
        await downloads.cancel(number)
        assert list(blobs.iterdir()) == []
        assert downloads.all() == []
        with pytest.raises(UnknownDownloadError):
            downloads[number]
    assert watch.events[-1].state == "cancelled"


@pytest.mark.asyncio
async def test_a_paused_one_can_be_cancelled_without_the_hub(
    hub: FakeHub, tmp_path: Path, watch: Watch
) -> None:
    hub.faults.stall_after = [200_000]
    async with downloads_of(hub, tmp_path, watch) as downloads:
        number = (await downloads.begin("org/tiny")).id
        await hub.stalled.wait()
        await downloads.pause(number)
    hub.faults.api_statuses = [500] * 100
    async with downloads_of(hub, tmp_path, watch) as downloads:
        assert [one.state for one in downloads.all()] == ["paused"]
        await downloads.cancel(number)
    assert list((tmp_path / "cache" / "models--org--tiny" / "blobs").iterdir()) == []


@pytest.mark.asyncio
async def test_the_next_router_goes_on_unless_it_was_paused(
    hub: FakeHub, tmp_path: Path, watch: Watch
) -> None:
    hub.faults.stall_after = [150_000, 250_000]
    async with downloads_of(hub, tmp_path, watch) as downloads:
        await downloads.begin("org/tiny:Q4_K_M")
        await hub.stalled.wait()
        hub.stalled.clear()
        paused = await downloads.begin("org/tiny:Q8_0")
        await hub.stalled.wait()
        await downloads.pause(paused.id)
    later = Watch()
    async with downloads_of(hub, tmp_path, later) as downloads:
        await later.until(lambda: bool(later.completed))
        assert later.completed == ["org/tiny:Q4_K_M"]
        assert [one.state for one in downloads.all()] == ["complete", "paused"]
        assert (await downloads.begin("org/tiny:Q8_0")).id == paused.id
        await later.until(lambda: len(later.completed) == 2)
    assert len(hub.requests) == 4


@pytest.mark.asyncio
async def test_a_process_that_was_killed_is_followed_by_another(
    hub: FakeHub, tmp_path: Path, watch: Watch
) -> None:
    hub.faults.stall_after = [200_000]
    async with downloads_of(hub, tmp_path, watch) as downloads:
        await downloads.begin("org/tiny")
        await hub.stalled.wait()
        running = downloads._process._running
        assert running is not None
        running._process.kill()
        await watch.until(lambda: bool(watch.completed))
    assert len(hub.requests) == 2


@pytest.mark.asyncio
async def test_failures_are_kept_and_can_be_tried_again(
    hub: FakeHub, tmp_path: Path, watch: Watch
) -> None:
    hub.repos["org/tiny"].gated = True
    async with downloads_of(hub, tmp_path, watch) as downloads:
        number = (await downloads.begin("org/tiny")).id
        await watch.state("failed")
        assert downloads[number].error_code == "gated"
        assert "conditions" in watch.events[-1].error
        hub.repos["org/tiny"].gated = False
        told = watch.events[-1]
        assert (await downloads.resume(number)).id == number
        assert watch.events[watch.events.index(told) + 1].state == "running"
        await watch.until(lambda: bool(watch.completed))
        assert (downloads[number].error, downloads[number].error_code) == ("", "")


@pytest.mark.asyncio
async def test_questions_are_answered_or_refused(
    hub: FakeHub, tmp_path: Path, watch: Watch
) -> None:
    async with downloads_of(hub, tmp_path, watch) as downloads:
        hits, found = await asyncio.gather(downloads.search("tiny", 5), downloads.files("org/tiny"))
        assert [hit.repo for hit in hits] == ["org/tiny"]
        assert [one.id for one in found.variants] == ["org/tiny:Q4_K_M", "org/tiny:Q8_0"]
        to = tmp_path / "header"
        assert await downloads.header("org/tiny", found.commit, "tiny-Q8_0.gguf", to, 10) == 10
        with pytest.raises(HubError) as raised:
            await downloads.remove([tmp_path / "other.gguf"])
        assert raised.value.code == "bad_request"
        with pytest.raises(HubError, match="no repository"):
            await downloads.begin("tiny")


@pytest.mark.asyncio
async def test_what_is_remembered_wrongly_is_left_alone(
    hub: FakeHub, tmp_path: Path, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_text("[{")
    async with downloads_of(hub, tmp_path, watch) as downloads:
        assert downloads.all() == []
    assert "cannot be read" in caplog.text


@pytest.mark.asyncio
async def test_resumed_while_it_is_cancelled_it_is_gone(
    hub: FakeHub, tmp_path: Path, watch: Watch
) -> None:
    hub.faults.stall_after = [200_000]
    async with downloads_of(hub, tmp_path, watch) as downloads:
        number = (await downloads.begin("org/tiny")).id
        await hub.stalled.wait()
        cancelled, resumed, begun = await asyncio.gather(
            downloads.cancel(number),
            downloads.resume(number),
            downloads.begin("org/tiny"),
            return_exceptions=True,
        )
        assert not isinstance(cancelled, BaseException)
        assert isinstance(resumed, UnknownDownloadError)
        assert not isinstance(begun, BaseException)
        assert begun.id != number
        await watch.until(lambda: bool(watch.completed))
        assert [one.id for one in downloads.all()] == [begun.id]


@pytest.mark.asyncio
async def test_resumed_before_it_had_stopped_it_goes_on(
    hub: FakeHub, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_router.runtime.downloads._STOP_TIMEOUT_S", 0)
    hub.faults.stall_after = [200_000]
    async with downloads_of(hub, tmp_path, watch) as downloads:
        number = (await downloads.begin("org/tiny")).id
        await hub.stalled.wait()
        await downloads.pause(number)
        await downloads.resume(number)
        await watch.until(lambda: bool(watch.completed))
        assert downloads[number].state == "complete"


@pytest.mark.asyncio
async def test_a_token_set_meanwhile_is_used_when_it_is_tried_again(
    hub: FakeHub, tmp_path: Path, watch: Watch
) -> None:
    hub.repos["org/tiny"].gated = True
    hub.token = "hf_" + "x" * 20
    tokens = [""]
    async with downloads_of(hub, tmp_path, watch, lambda: tokens[-1]) as downloads:
        await downloads.begin("org/tiny")
        await watch.state("failed")
        tokens.append(hub.token)
        await downloads.begin("org/tiny")
        await watch.until(lambda: bool(watch.completed))


@pytest.mark.asyncio
async def test_a_process_that_dies_of_it_is_not_started_for_ever(
    hub: FakeHub, tmp_path: Path, watch: Watch
) -> None:
    hub.faults.stall_after = [0] * 20
    async with asyncio.timeout(50), downloads_of(hub, tmp_path, watch) as downloads:
        process = downloads._process
        pass_on = process._on_message
        told = asyncio.Event()

        def hear(message: Moved | Ended) -> None:
            pass_on(message)
            told.set()

        def begin_again() -> None:
            go_on()
            told.set()

        go_on, process._on_end = process._on_end, begin_again
        process._on_message = hear
        one = await downloads.begin("org/tiny")
        killed = []
        while one.state == "running":
            await told.wait()
            told.clear()
            if process._running is not None and process._running not in killed:
                killed.append(process._running)
                process._running._process.kill()
        assert (one.error_code, len(killed)) == ("internal_error", 4)


@pytest.mark.asyncio
async def test_one_of_two_routers_keeps_the_list(
    hub: FakeHub, tmp_path: Path, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults.stall_after = [200_000]
    async with downloads_of(hub, tmp_path, watch) as first:
        number = (await first.begin("org/tiny:Q4_K_M")).id
        await hub.stalled.wait()
        await first.pause(number)
        other = Watch()
        async with downloads_of(hub, tmp_path, other) as second:
            assert "another router keeps" in caplog.text
            assert second.all() == []
            await second.begin("org/tiny:Q8_0")
            await other.until(lambda: bool(other.completed))
    async with downloads_of(hub, tmp_path, Watch()) as later:
        assert [(one.tag, one.state) for one in later.all()] == [("Q4_K_M", "paused")]
