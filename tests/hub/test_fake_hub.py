"""The fake hub is one to the official library, and both libraries take what the other has left."""

import asyncio
from pathlib import Path

import huggingface_hub
import pytest

from llama_router.hub.cached import find_cached
from llama_router.hub.download import Download, Hub
from llama_router.hub.names import parse_reference
from llama_router.hub.session import HubSession
from tests.support.fake_hub import FakeHub


@pytest.mark.asyncio
async def test_the_official_library_finds_the_same(hub: FakeHub) -> None:
    hub.faults.page_size = 2
    api = huggingface_hub.HfApi(endpoint=hub.url, token=False)
    found = await asyncio.to_thread(lambda: list(api.list_models(search="tiny", filter="gguf")))
    assert [one.id for one in found] == ["org/tiny"]
    tree = await asyncio.to_thread(lambda: list(api.list_repo_tree("org/tiny", recursive=True)))
    sizes = {one.path: one.size for one in tree if isinstance(one, huggingface_hub.hf_api.RepoFile)}
    assert sizes == {path: len(data) for path, data in hub.repos["org/tiny"].files.items()}


@pytest.mark.asyncio
async def test_what_the_official_library_has_downloaded_is_not_downloaded_again(
    hub: FakeHub, session: HubSession, tmp_path: Path
) -> None:
    def download(name: str) -> str:
        return huggingface_hub.hf_hub_download(
            "org/tiny", name, cache_dir=tmp_path, endpoint=hub.url, token=False
        )

    path = await asyncio.to_thread(download, "tiny-Q4_K_M.gguf")
    hub.requests.clear()
    pulled = await Download(Hub(session, tmp_path), parse_reference("org/tiny")).run()
    assert pulled.paths == (path,)
    assert [path for path, _range, _token in hub.requests] == ["mmproj-F16.gguf"]
    assert find_cached(tmp_path, parse_reference("org/tiny")) == pulled
    # And the other way round, with one small question about what it is.
    sent = hub.sent_bytes
    await asyncio.to_thread(download, "mmproj-F16.gguf")
    assert hub.sent_bytes == sent
    assert huggingface_hub.scan_cache_dir(tmp_path).warnings == []
