from collections.abc import AsyncIterator, Sequence

import httpx2
import pytest
import pytest_asyncio

from llama_router.control.app import create_app
from llama_router.control.facade import ControlError
from llama_router.control.facades import DownloadInfo, FileInfo, HitInfo, RepoInfo, VariantInfo
from tests.support.control_facade import Router

TINY = DownloadInfo(
    id="7", repo="org/tiny", tag="Q8_0", file="", state="running", created_s=1.5, total_bytes=10
)


class Hub:
    """Knows one download and one repository."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, ...]] = []

    async def downloads(self) -> Sequence[DownloadInfo]:
        return [TINY]

    async def download(self, number: str) -> DownloadInfo:
        if number != TINY.id:
            raise ControlError(404, "not_found", f"no download {number}")
        return TINY

    async def begin_download(self, reference: str, file: str) -> DownloadInfo:
        self.orders.append(("begin", reference, file))
        return TINY

    async def pause_download(self, number: str) -> DownloadInfo:
        return await self._ordered("pause", number)

    async def resume_download(self, number: str) -> DownloadInfo:
        return await self._ordered("resume", number)

    async def cancel_download(self, number: str) -> DownloadInfo:
        return await self._ordered("cancel", number)

    async def search_hub(self, query: str, limit: int) -> Sequence[HitInfo]:
        self.orders.append(("search", query, str(limit)))
        return [HitInfo(repo="org/tiny", downloads=5)]

    async def hub_files(self, repo: str) -> RepoInfo:
        if repo != "org/tiny":
            raise ControlError(424, "hub_failed", "the hub says no")
        file = FileInfo("m-Q8_0.gguf", 10)
        variant = VariantInfo(
            id="org/tiny:Q8_0", tag="Q8_0", size_bytes=10, files=(file,), projector=file
        )
        return RepoInfo(repo=repo, commit="c", variants=(variant,), projectors=(file,), drafts=())

    async def _ordered(self, what: str, number: str) -> DownloadInfo:
        self.orders.append((what, number))
        return await self.download(number)


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest_asyncio.fixture
async def client(hub: Hub) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(create_app(Router(), version="1", downloads=hub))
    async with httpx2.AsyncClient(transport=transport, base_url="http://control") as made:
        yield made


@pytest.mark.asyncio
async def test_downloads_are_listed_and_begun(client: httpx2.AsyncClient, hub: Hub) -> None:
    listed = (await client.get("/admin/downloads")).json()
    assert [one["id"] for one in listed["downloads"]] == ["7"]
    begun = await client.post("/admin/downloads", json={"model": "org/tiny:Q8_0"})
    assert (begun.status_code, begun.json()["total_bytes"]) == (200, 10)
    await client.post("/admin/downloads", json={"model": "org/tiny", "file": "a.gguf"})
    assert hub.orders == [("begin", "org/tiny:Q8_0", ""), ("begin", "org/tiny", "a.gguf")]
    assert (await client.get("/admin/downloads/7")).json()["repo"] == "org/tiny"


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ["pause", "resume", "cancel"])
async def test_orders(client: httpx2.AsyncClient, hub: Hub, what: str) -> None:
    assert (await client.post(f"/admin/downloads/7/{what}")).status_code == 200
    assert (await client.post(f"/admin/downloads/8/{what}")).status_code == 404
    # Nothing is changed by looking.
    assert (await client.get(f"/admin/downloads/7/{what}")).status_code == 405
    assert hub.orders == [(what, "7"), (what, "8")]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body", [{}, {"model": ""}, {"model": "x" * 301}, {"model": 5}, {"model": "a/b", "url": "x"}]
)
async def test_what_cannot_be_ordered(client: httpx2.AsyncClient, body: object) -> None:
    assert (await client.post("/admin/downloads", json=body)).status_code == 400


@pytest.mark.asyncio
async def test_the_hub_can_be_looked_at(client: httpx2.AsyncClient, hub: Hub) -> None:
    found = (await client.get("/admin/hub/search", params={"q": "tiny", "limit": 3})).json()
    assert found["models"][0]["repo"] == "org/tiny"
    assert hub.orders == [("search", "tiny", "3")]
    files = (await client.get("/admin/hub/files", params={"repo": "org/tiny"})).json()
    assert files["variants"][0]["projector"] == {"path": "m-Q8_0.gguf", "size_bytes": 10}
    assert files["variants"][0]["fits"] == "unknown"
    failed = await client.get("/admin/hub/files", params={"repo": "org/none"})
    assert (failed.status_code, failed.json()["error"]["code"]) == (424, "hub_failed")
    assert (await client.get("/admin/hub/search", params={"q": ""})).status_code == 400


@pytest.mark.asyncio
async def test_answers_are_as_they_are_described(client: httpx2.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()["components"]["schemas"]
    listed = (await client.get("/admin/downloads")).json()["downloads"][0]
    assert set(listed) == set(schema["DownloadShape"]["properties"])
    files = (await client.get("/admin/hub/files", params={"repo": "org/tiny"})).json()
    assert set(files) == set(schema["RepoShape"]["properties"])
    assert set(files["variants"][0]) == set(schema["VariantShape"]["properties"])
    hit = (await client.get("/admin/hub/search", params={"q": "x"})).json()["models"][0]
    assert set(hit) == set(schema["HitShape"]["properties"])


@pytest.mark.asyncio
async def test_without_a_hub_there_are_no_such_routes() -> None:
    transport = httpx2.ASGITransport(create_app(Router(), version="1"))
    async with httpx2.AsyncClient(transport=transport, base_url="http://control") as client:
        assert (await client.get("/admin/downloads")).status_code == 404
