"""From the hub into the list of models, through a whole router."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import psutil
import pytest
import pytest_asyncio

from llama_router.catalog.tiny import write_model
from tests.e2e.conftest import StartRouter
from tests.support.fake_hub import FakeHub, Repo
from tests.support.router_process import DEADLINE_S, RouterProcess, gone, process_of

pytestmark = pytest.mark.asyncio
CANARY = "hf_canary0123456789"


def tiny(folder: Path, text: str) -> bytes:
    path = folder / f"{text}.gguf"
    write_model(path, text, name=text)
    return path.read_bytes()


@pytest_asyncio.fixture
async def hub(tmp_path: Path) -> AsyncIterator[FakeHub]:
    files = {f"m-{tag}.gguf": tiny(tmp_path, tag) for tag in ("Q4_K_M", "Q8_0")}
    async with FakeHub({"org/m": Repo(files)}) as made:
        yield made


def environment(hub: FakeHub, **more: str) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, **more}


async def is_listed(router: RouterProcess, model: str) -> bool:
    listed = (await router.client.get("/v1/models")).json()["data"]
    return model in [one["id"] for one in listed]


async def listed(router: RouterProcess, model: str) -> None:
    """Wait until a model is there: the rescan follows the download's end."""
    while not await is_listed(router, model):  # noqa: ASYNC110 - another process
        await asyncio.sleep(0)


async def followed(router: RouterProcess, state: str) -> list[dict[str, Any]]:
    """Events of downloads up to one of this state."""
    events: list[dict[str, Any]] = []
    async with router.client.stream("GET", "/admin/events?kinds=download&snapshot=true") as stream:
        async for line in stream.aiter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line.removeprefix("data: "))
            if event["kind"] == "snapshot":
                if any(one["state"] == state for one in event["downloads"]):
                    return events
                continue
            events.append(event)
            if event["state"] == state:
                return events
    return events


async def ask(router: RouterProcess, path: str, content: object = None) -> httpx2.Response:
    return await router.client.post(path, json=content or {})


def commands_below(pid: int) -> dict[int, list[str]]:
    """Give the commands of a process's living descendants; some end at any moment."""
    found = {}
    for process in process_of(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found[process.pid] = process.cmdline()
    return found


async def test_a_model_is_found_downloaded_served_and_deleted(
    start_router: StartRouter, hub: FakeHub, tmp_path: Path
) -> None:
    router = await start_router(models=(), env=environment(hub))
    async with asyncio.timeout(2 * DEADLINE_S):
        found = (await router.client.get("/admin/hub/search?q=m")).json()
        assert [one["repo"] for one in found["models"]] == ["org/m"]
        files = (await router.client.get("/admin/hub/files?repo=org/m")).json()
        assert [one["tag"] for one in files["variants"]] == ["Q4_K_M", "Q8_0"]
        begun = await ask(router, "/admin/downloads", {"model": "org/m"})
        assert begun.status_code == 200
        events = await followed(router, "complete")
        assert all(event["model"] in ("org/m", "org/m:Q4_K_M") for event in events)
        await listed(router, "org/m:Q4_K_M")
        said = {"model": "org/m", "messages": [{"role": "user", "content": "hi"}]}
        answer = await ask(router, "/v1/chat/completions", said)
        assert answer.status_code == 200, answer.text
        cache = tmp_path / "hf" / "hub"
        assert len(huggingface_hub.scan_cache_dir(cache).repos) == 1
        loaded = await router.client.delete("/admin/models/org/m:Q4_K_M")
        assert loaded.status_code == 409, loaded.text
        deleted = await router.client.delete("/admin/models/org/m:Q4_K_M?force=true")
        assert deleted.status_code == 200, deleted.text
        assert deleted.json()["freed_bytes"] > 0
        assert not await is_listed(router, "org/m:Q4_K_M")
        assert not (cache / "models--org--m").exists()


async def test_a_killed_router_goes_on_and_its_downloads_end_with_it(
    start_router: StartRouter, hub: FakeHub
) -> None:
    size = len(hub.repos["org/m"].files["m-Q8_0.gguf"])
    hub.faults.stall_after = [size // 2]
    router = await start_router(models=(), env=environment(hub, HF_TOKEN=CANARY), is_clean=False)
    async with asyncio.timeout(2 * DEADLINE_S):
        await ask(router, "/admin/downloads", {"model": "org/m:Q8_0"})
        await hub.stalled.wait()
        commands = commands_below(router.pid)
        workers = [one for one in commands if "llama_router.hub.worker" in commands[one]]
        assert len(workers) == 1
        for command in commands.values():
            assert CANARY not in " ".join(command)
        assert CANARY not in str(process_of(workers[0]).environ())
        assert CANARY in [token.removeprefix("Bearer ") for _, _, token in hub.requests]
        router.send(signal.SIGKILL)
        assert await gone({*workers}) == set()
        again = await start_router(models=(), env=environment(hub))
        await listed(again, "org/m:Q8_0")


async def test_hf_downloads_first_and_loads_at_the_start(
    start_router: StartRouter, hub: FakeHub, tmp_path: Path
) -> None:
    router = await start_router(models=(), env=environment(hub), arguments=("-hf", "org/m:Q8_0"))
    async with asyncio.timeout(2 * DEADLINE_S):
        model = (await router.client.get("/v1/models/org/m:Q8_0")).json()
        assert model["status"]["value"] == "loaded"
    assert json.loads((tmp_path / "router.json").read_text())["startup_model"] == "org/m:Q8_0"
    assert "100 %" in router.err
