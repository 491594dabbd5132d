import asyncio
import signal
from pathlib import Path

import pytest

from llama_router.runtime import watching
from llama_router.runtime.watching import watch_file, watch_folders

PATIENCE_S = 20.0


class Changes:
    """Counts what a watch tells."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[None] = asyncio.Queue()

    def __call__(self) -> None:
        self._queue.put_nowait(None)

    async def wait(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self._queue.get()

    def calm_down(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()


@pytest.mark.slow
@pytest.mark.asyncio
async def test_folders_are_watched_by_a_process(tmp_path: Path) -> None:
    changes = Changes()
    watch = watch_folders([tmp_path, tmp_path / "missing"], changes)
    try:
        # Once it watches it says so, as nobody has told what changed before.
        await changes.wait()
        changes.calm_down()
        (tmp_path / "a.gguf").write_bytes(b"x")
        await changes.wait()
    finally:
        watch.close()
        watch.close()


@pytest.mark.slow
@pytest.mark.asyncio
async def test_process_that_ended_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_FIRST_PAUSE_S", 0.01)
    changes = Changes()
    watch = watch_folders([tmp_path], changes)
    try:
        await changes.wait()
        assert isinstance(watch, watching._FolderWatch)
        child = watch._child
        assert child is not None
        child.send_signal(signal.SIGTERM)
        # The first one may have said it twice.
        while watch._child in (child, None):
            await changes.wait()
    finally:
        watch.close()


@pytest.mark.asyncio
async def test_watching_that_cannot_begin_is_a_warning_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries, loop = asyncio.Event(), asyncio.get_running_loop()
    count = 0

    def fail(_module: str) -> None:
        nonlocal count
        count += 1
        if count > 2:
            loop.call_soon_threadsafe(tries.set)
        raise OSError("no more processes")

    monkeypatch.setattr(watching, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(watching, "start_helper", fail)
    watch = watch_folders([tmp_path], lambda: None)
    async with asyncio.timeout(PATIENCE_S):
        await tries.wait()
    watch.close()

    assert "no more processes" in caplog.text


@pytest.mark.asyncio
async def test_a_file_may_be_written_replaced_and_come_back(tmp_path: Path) -> None:
    path, changes = tmp_path / "config.yaml", Changes()
    path.write_text("a")
    watch = watch_file(path, changes, interval_s=0.01)
    try:
        path.write_text("another")
        await changes.wait()
        other = tmp_path / "other"
        other.write_text("another")
        other.rename(path)
        await changes.wait()
        path.unlink()
        await changes.wait()
        path.write_text("back")
        await changes.wait()
    finally:
        watch.close()


@pytest.mark.asyncio
async def test_nothing_is_told_of_a_file_that_stays(tmp_path: Path) -> None:
    path, changes = tmp_path / "config.yaml", Changes()
    path.write_text("a")
    watch = watch_file(path, changes, interval_s=0.001)
    looked = asyncio.Event()
    other = watch_file(tmp_path / "other", looked.set, interval_s=0.001)

    (tmp_path / "other").touch()
    async with asyncio.timeout(PATIENCE_S):
        await looked.wait()
    watch.close()
    other.close()

    assert changes._queue.empty()
