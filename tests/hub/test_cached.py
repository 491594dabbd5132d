from pathlib import Path

import pytest

from llama_router.hub.cached import find_cached, find_cached_id
from llama_router.hub.download import Download, Hub
from llama_router.hub.errors import HubError
from llama_router.hub.names import parse_reference
from llama_router.hub.session import HubSession
from tests.support.fake_hub import FakeHub, Repo, content


@pytest.mark.asyncio
async def test_what_only_ends_so_is_not_taken_from_the_cache(
    hub: FakeHub, session: HubSession, tmp_path: Path
) -> None:
    hub.repos["org/f"] = Repo({"m-BF16.gguf": content(5000), "m-UD-Q4_K_XL.gguf": content(6000, 2)})
    shared = Hub(session, tmp_path)
    for tag in ("BF16", "UD-Q4_K_XL"):
        pulled = await Download(shared, parse_reference(f"org/f:{tag}")).run()
        assert find_cached(tmp_path, parse_reference(f"org/f:{tag.lower()}")) == pulled
    assert find_cached(tmp_path, parse_reference("org/f:F16")) is None


@pytest.mark.asyncio
async def test_a_model_is_found_by_its_exact_id(
    hub: FakeHub, session: HubSession, tmp_path: Path
) -> None:
    hub.repos["org/n"] = Repo({"a/plain model.gguf": content(5000), "m-BF16.gguf": content(6000)})
    shared = Hub(session, tmp_path)
    for file in hub.repos["org/n"].files:
        pulled = await Download(shared, parse_reference("org/n", file)).run()
        assert find_cached_id(tmp_path, pulled.model)[0] == pulled
    ids = ("org/n/a/plain model", "org/n:BF16")
    for name in ("org/n", "org/n:F16", "org/n:bf16", "org/n/a"):
        assert find_cached_id(tmp_path, name) == (None, ids)
    with pytest.raises(HubError):
        find_cached_id(tmp_path, "n")
