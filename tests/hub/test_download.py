import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

import huggingface_hub
import pytest

from llama_router.hub import download as downloads
from llama_router.hub import fetch
from llama_router.hub.cached import find_cached
from llama_router.hub.choice import RepoFile
from llama_router.hub.download import Download, Hub
from llama_router.hub.errors import HubError
from llama_router.hub.names import parse_reference
from llama_router.hub.progress import Progress
from llama_router.hub.removal import discard_parts
from llama_router.hub.session import HubSession
from tests.support.fake_hub import FakeHub, Repo, content


def seen_by_the_official_library(cache: Path) -> dict[str, int]:
    found = huggingface_hub.scan_cache_dir(cache)
    assert found.warnings == []
    return {
        file.file_name: file.size_on_disk
        for repo in found.repos
        for revision in repo.revisions
        for file in revision.files
    }


@pytest.mark.asyncio
async def test_the_official_library_finds_what_was_downloaded(
    hub: FakeHub, session: HubSession, tmp_path: Path
) -> None:
    pulled = await Download(Hub(session, tmp_path), parse_reference("org/tiny")).run()
    assert pulled.model == "org/tiny:Q4_K_M"
    assert pulled.size_bytes == 350_000
    assert (tmp_path / pulled.paths[0]).read_bytes() == hub.repos["org/tiny"].files[
        "tiny-Q4_K_M.gguf"
    ]
    assert seen_by_the_official_library(tmp_path) == {
        "tiny-Q4_K_M.gguf": 300_000,
        "mmproj-F16.gguf": 50_000,
    }
    cached = huggingface_hub.try_to_load_from_cache("org/tiny", "tiny-Q4_K_M.gguf", tmp_path)
    assert cached == pulled.paths[0]
    found = huggingface_hub.hf_hub_download(
        "org/tiny", "mmproj-F16.gguf", cache_dir=tmp_path, local_files_only=True
    )
    assert (tmp_path / found).read_bytes() == hub.repos["org/tiny"].files["mmproj-F16.gguf"]


@pytest.mark.asyncio
async def test_nothing_is_downloaded_twice(
    hub: FakeHub, session: HubSession, tmp_path: Path
) -> None:
    shared = Hub(session, tmp_path)
    await Download(shared, parse_reference("org/tiny")).run()
    again = Download(shared, parse_reference("org/tiny:q4_k_m"))
    await again.run()
    await Download(shared, parse_reference("org/tiny:Q8_0")).run()
    asked = sorted(path for path, _range, _token in hub.requests)
    assert asked == ["mmproj-F16.gguf", "tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf"]
    assert again.progress.done_bytes == again.progress.total_bytes == 350_000
    assert shared.needs == {}


@pytest.mark.asyncio
async def test_a_draft_is_had_by_its_name_only_and_stands_beside_its_model(
    hub: FakeHub, session: HubSession, tmp_path: Path
) -> None:
    hub.repos["org/tiny"].files["mtp-tiny-Q8_0.gguf"] = content(20_000, 4)
    shared = Hub(session, tmp_path)
    model = await Download(shared, parse_reference("org/tiny:Q8_0")).run()
    snapshot = Path(model.paths[0]).parent
    assert {path.name for path in snapshot.iterdir()} == {"tiny-Q8_0.gguf", "mmproj-F16.gguf"}
    draft = await Download(shared, parse_reference("org/tiny", "mtp-tiny-Q8_0.gguf")).run()
    assert draft.paths == (str(snapshot / "mtp-tiny-Q8_0.gguf"),)


@pytest.mark.asyncio
async def test_two_at_once_share_a_file(hub: FakeHub, session: HubSession, tmp_path: Path) -> None:
    hub.faults.bytes_per_s = 3_000_000
    shared = Hub(session, tmp_path)
    one, other = (Download(shared, parse_reference("org/tiny")) for _ in range(2))
    first, second = await asyncio.gather(one.run(), other.run())
    assert first == second
    assert len(hub.requests) == 2


@pytest.mark.asyncio
async def test_parts_of_a_split_model_all_come(
    hub: FakeHub, session: HubSession, tmp_path: Path
) -> None:
    files = {f"big/big-Q8_0-0000{n}-of-00003.gguf": content(20_000, n) for n in (1, 2, 3)}
    hub.repos["org/big"] = Repo(files)
    progress: list[Progress] = []
    download = Download(
        Hub(session, tmp_path, max_parallel_files=2),
        parse_reference("org/big"),
        lambda: progress.append(download.progress),
    )
    pulled = await download.run()
    assert pulled.model == "org/big:Q8_0"
    assert pulled.paths[0].endswith("big/big-Q8_0-00001-of-00003.gguf")
    assert (progress[-1].file_count, progress[-1].files_done_count) == (3, 3)
    assert progress[-1].total_bytes == 60_000
    done = [one.done_bytes for one in progress]
    assert done == sorted(done)


@pytest.mark.asyncio
async def test_a_new_commit_keeps_the_other_models(
    hub: FakeHub, session: HubSession, tmp_path: Path
) -> None:
    shared = Hub(session, tmp_path)
    await Download(shared, parse_reference("org/tiny:Q8_0")).run()
    repo = hub.repos["org/tiny"]
    repo.commit = "c" * 40
    repo.files["tiny-Q4_K_M.gguf"] = content(310_000, 9)
    await Download(shared, parse_reference("org/tiny:Q4_K_M")).run()
    found = find_cached(tmp_path, parse_reference("org/tiny:Q8_0"))
    assert found is not None
    assert found.commit == "c" * 40
    assert len([path for path, _range, _token in hub.requests if "Q8_0" in path]) == 1
    assert seen_by_the_official_library(tmp_path)["tiny-Q4_K_M.gguf"] == 310_000


@pytest.mark.asyncio
async def test_a_disk_without_room_is_told_before_anything_comes(
    hub: FakeHub, session: HubSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_bytes = downloads.SPACE_LEFT_BYTES + 349_999
    usage = shutil.disk_usage(tmp_path)._replace(free=free_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(HubError, match=r"needs 341\.8 KiB more") as raised:
        await Download(Hub(session, tmp_path / "not" / "there"), parse_reference("org/tiny")).run()
    assert raised.value.code == "disk_full"
    assert hub.requests == []


@pytest.mark.asyncio
async def test_what_others_still_need_counts(
    hub: FakeHub, session: HubSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=downloads.SPACE_LEFT_BYTES + 500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    hub.faults.stall_after = [0, 0]
    shared = Hub(session, tmp_path)
    first = asyncio.create_task(Download(shared, parse_reference("org/tiny")).run())
    await hub.stalled.wait()
    with pytest.raises(HubError, match="of which other downloads need"):
        await Download(shared, parse_reference("org/tiny:Q8_0")).run()
    first.cancel()
    await asyncio.wait((first,))
    assert shared.needs == {}


@pytest.mark.asyncio
async def test_offline_takes_what_is_there_and_asks_nobody(
    hub: FakeHub, session: HubSession, tmp_path: Path
) -> None:
    pulled = await Download(Hub(session, tmp_path), parse_reference("org/tiny")).run()
    asked = len(hub.requests), dict(hub.counts)
    offline = Hub(session, tmp_path, is_offline=True)
    assert await Download(offline, parse_reference("org/tiny")).run() == pulled
    with pytest.raises(HubError, match="not in the cache") as raised:
        await Download(offline, parse_reference("org/tiny:Q8_0")).run()
    assert raised.value.code == "offline"
    assert (len(hub.requests), dict(hub.counts)) == asked


@pytest.mark.asyncio
async def test_discard_removes_parts_and_keeps_what_is_complete(
    hub: FakeHub, session: HubSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_WRITE_BYTES", 1)
    del hub.repos["org/tiny"].files["mmproj-F16.gguf"]
    shared = Hub(session, tmp_path)
    await Download(shared, parse_reference("org/tiny:Q8_0")).run()
    hub.faults.stall_after = [200_000]
    has_come = asyncio.Event()

    def look() -> None:
        if download.progress.done_bytes == 200_000:
            has_come.set()

    download = Download(shared, parse_reference("org/tiny"), look)
    running = asyncio.create_task(download.run())
    await has_come.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    blobs = tmp_path / "models--org--tiny" / "blobs"
    assert sorted(path.suffix for path in blobs.iterdir()) == ["", ".incomplete", ".part"]
    # Nothing of it is a model yet, and the official library is not disturbed.
    assert seen_by_the_official_library(tmp_path) == {"tiny-Q8_0.gguf": 400_000}
    parts = download.progress.blobs
    assert discard_parts(tmp_path, "org/tiny", parts) == 200_000
    assert [path.stat().st_size for path in blobs.iterdir()] == [400_000]


@pytest.mark.asyncio
async def test_nothing_of_it_is_a_model_before_all_is_there(
    hub: FakeHub, session: HubSession, tmp_path: Path
) -> None:
    hub.repos["org/tiny"].gated = True
    with pytest.raises(HubError) as raised:
        await Download(Hub(session, tmp_path), parse_reference("org/tiny")).run()
    assert raised.value.code == "gated"
    assert f"{hub.url}/org/tiny" in raised.value.message
    assert len(hub.requests) <= 2
    assert find_cached(tmp_path, parse_reference("org/tiny")) is None
    assert seen_by_the_official_library(tmp_path) == {}


@pytest.mark.asyncio
async def test_the_cap_holds_for_all_files_together(session: HubSession, tmp_path: Path) -> None:
    shared = Hub(session, tmp_path, bandwidth_bytes_per_s=700_000)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await Download(shared, parse_reference("org/tiny")).run()
    # Without the cap it takes milliseconds.
    assert loop.time() - started > 0.3


@pytest.mark.asyncio
async def test_what_is_deleted_in_between_is_not_linked_to(
    session: HubSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Hub(session, tmp_path)
    await Download(shared, parse_reference("org/tiny")).run()
    fetched = Download._fetch_all

    async def fetch_and_lose(
        download: Download, commit: str, wanted: Mapping[str, RepoFile]
    ) -> None:
        await fetched(download, commit, wanted)
        for path in (tmp_path / "models--org--tiny" / "blobs").iterdir():
            path.unlink()

    monkeypatch.setattr(Download, "_fetch_all", fetch_and_lose)
    with pytest.raises(HubError, match="deleted meanwhile"):
        await Download(shared, parse_reference("org/tiny")).run()


@pytest.mark.asyncio
async def test_who_waits_for_the_hub_is_told_why(
    hub: FakeHub, session: HubSession, tmp_path: Path
) -> None:
    hub.faults.api_statuses = [503]
    notes: list[str] = []
    download = Download(Hub(session, tmp_path), parse_reference("org/tiny"))
    download._on_change = lambda: notes.append(download.progress.note)
    await download.run()
    assert "answers with 503; again in" in notes[0]
