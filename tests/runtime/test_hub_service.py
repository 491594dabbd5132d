import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from llama_router.catalog.tiny import write_model
from llama_router.config.hub_settings import HubSettings
from llama_router.config.schema import Config
from llama_router.control.facade import ControlError
from llama_router.runtime.feed import FeedEvent
from llama_router.runtime.hub_service import HubService, hub_settings
from tests.support.fake_hub import FakeHub, Repo, content

GIB = 2**30


class Watch:
    def __init__(self) -> None:
        self.events: list[FeedEvent] = []
        self.rescans = 0
        self.rescanned = asyncio.Event()

    async def rescan(self) -> None:
        self.rescans += 1
        self.rescanned.set()


def service_of(
    hub: FakeHub, folder: Path, watch: Watch, budgets: Mapping[str, int] | None = None
) -> HubService:
    settings = HubSettings(endpoint=hub.url)
    return HubService(
        lambda: settings,
        state_dir=folder,
        env={"HF_HUB_CACHE": str(folder / "cache")},
        home=folder,
        publish=watch.events.append,
        rescan=watch.rescan,
        budgets=lambda: budgets or {},
    )


def test_the_config_counts_for_more_than_the_environment(tmp_path: Path) -> None:
    env = {"HF_ENDPOINT": "https://mirror.example", "HF_TOKEN": "hf_env", "LLAMA_CACHE": "/c"}
    found = hub_settings(HubSettings(), env, tmp_path)
    assert (found.endpoint, found.token, found.cache) == (
        "https://mirror.example",
        "hf_env",
        str(Path("/c")),
    )
    settings = HubSettings.model_validate(
        {
            "endpoint": "https://own.example",
            "token": "hf_own",
            "bandwidth": "1MB",
            "offline": True,
        }
    )
    found = hub_settings(settings, env, tmp_path)
    assert (found.endpoint, found.token) == ("https://own.example", "hf_own")
    assert (found.bandwidth_bytes_per_s, found.is_offline) == (1_000_000, True)
    assert "hf_own" not in repr(found)


@pytest.mark.asyncio
async def test_from_the_search_to_the_model_and_back(tmp_path: Path) -> None:
    watch = Watch()
    repo = Repo({"m-Q8_0.gguf": content(100_000), "m-Q4_0.gguf": content(50_000, 2)})
    async with asyncio.timeout(50), FakeHub({"org/m": repo}) as hub:
        service = service_of(hub, tmp_path, watch)
        bridge = service.bridge
        with pytest.raises(ControlError) as refused:
            await bridge.downloads()
        assert refused.value.status == 503
        await service.start()
        try:
            assert [hit.repo for hit in await bridge.search_hub("m", 5)] == ["org/m"]
            begun = await bridge.begin_download("org/m:Q8_0", "")
            await watch.rescanned.wait()
            done = await bridge.download(begun.id)
            assert (done.state, done.model, done.total_bytes) == (
                "complete",
                "org/m:Q8_0",
                100_000,
            )
            found = await bridge.hub_files("org/m")
            assert {one.tag: one.is_cached for one in found.variants} == {
                "Q4_0": False,
                "Q8_0": True,
            }
            path = next((tmp_path / "cache").rglob("m-Q8_0.gguf"))
            assert service.holds(path)
            deleted = await service.delete("org/m:Q8_0", (path,))
            assert (deleted.freed_bytes, watch.rescans) == (100_000, 2)
            with pytest.raises(ControlError) as refused:
                await service.delete("org/m:Q8_0", (path,))
            assert (refused.value.status, refused.value.code) == (404, "not_found")
        finally:
            await service.close()


@pytest.mark.asyncio
async def test_whether_it_fits_is_told_from_the_header(tmp_path: Path) -> None:
    made = tmp_path / "made.gguf"
    write_model(made, "hello", name="tiny")
    data = made.read_bytes()
    files = {"tiny-Q8_0.gguf": data, "more-Q4_0.gguf": data + bytes(1000)}
    async with asyncio.timeout(50), FakeHub({"org/t": Repo(files)}) as hub:
        for budget, expected in ((GIB, "yes"), (1000, "no")):
            service = service_of(hub, tmp_path, Watch(), {"cpu": budget})
            await service.start()
            try:
                found = await service.bridge.hub_files("org/t")
            finally:
                await service.close()
            assert {one.fits for one in found.variants} == {expected}
            assert all("header" in one.fits_because for one in found.variants)
        # One header tells it for all of them.
        assert len(hub.requests) == 2


@pytest.mark.asyncio
async def test_another_bandwidth_holds_for_what_is_under_way(tmp_path: Path) -> None:
    watch = Watch()
    repo = Repo({"m-Q8_0.gguf": content(400_000)})
    async with asyncio.timeout(50), FakeHub({"org/m": repo}) as hub:
        # At this rate it would take minutes.
        settings = HubSettings.model_validate({"endpoint": hub.url, "bandwidth": "1KB"})
        service = HubService(
            lambda: settings,
            state_dir=tmp_path,
            env={"HF_HUB_CACHE": str(tmp_path / "cache")},
            home=tmp_path,
            publish=watch.events.append,
            rescan=watch.rescan,
            budgets=dict,
        )
        await service.start()
        try:
            begun = await service.bridge.begin_download("org/m", "")
            await hub.asked.wait()
            settings = HubSettings(endpoint=hub.url)
            service.follow(Config(hub=settings))
            await watch.rescanned.wait()
            assert (await service.bridge.download(begun.id)).state == "complete"
            assert len(hub.requests) == 1
        finally:
            await service.close()
        service.follow(Config(hub=settings))
