"""A config that changes under a hundred running streams."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llama_router.catalog.tiny import write_model
from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body, deltas, error_of, events
from tests.support.fake_engine_control import FakeEngines
from tests.support.router_process import RouterProcess

pytestmark = pytest.mark.asyncio

STREAM_COUNT = 100
# Between two tokens of a stream; a slow machine under other tests' load adds seconds of its own. A
# stream that waits for something of the reload waits until the test lets its model's streams end.
GAP_MAX_S = 10.0
DEADLINE_S = 90.0
TOGETHER = {"group": "all"}


class Streaming:
    """One stream, read as it comes, and the longest pause in it."""

    def __init__(self, client: httpx2.AsyncClient, model: str, on_news: Callable[[], None]) -> None:
        self.model = model
        self.text = ""
        self.longest_gap_s = 0.0
        self._on_news = on_news
        self.task = asyncio.create_task(self._read(client), name=f"stream {model}")

    @property
    def token_count(self) -> int:
        return len(deltas(self.text))

    async def _read(self, client: httpx2.AsyncClient) -> None:
        loop = asyncio.get_running_loop()
        question = body(self.model, stream=True)
        async with client.stream("POST", CHAT, json=question) as answer:
            assert answer.status_code == 200
            last_s = 0.0
            async for piece in answer.aiter_text():
                now_s = loop.time()
                if last_s:
                    self.longest_gap_s = max(self.longest_gap_s, now_s - last_s)
                last_s = now_s
                self.text += piece
                self._on_news()


class Crowd:
    """A hundred streams over several models, whose engines speak for as long as they are let."""

    def __init__(self, router: RouterProcess, fakes: FakeEngines, models: tuple[str, ...]) -> None:
        self._fakes = fakes
        self._models = models
        self._news = asyncio.Event()
        self._is_over = False
        self.given = 0
        # The router's own client has no more connections than these streams.
        self._client = httpx2.AsyncClient(
            base_url=router.url,
            timeout=DEADLINE_S,
            trust_env=False,
            limits=httpx2.Limits(max_connections=STREAM_COUNT),
        )
        self.streams = [
            Streaming(self._client, models[number % len(models)], self._news.set)
            for number in range(STREAM_COUNT)
        ]

    async def begin(self) -> None:
        """Wait until every stream is there, and let them go on."""
        self.engines = [await self._fakes.started(model) for model in self._models]
        for engine, model in zip(self.engines, self._models, strict=True):
            for stream in self.streams:
                if stream.model == model:
                    await engine.event("stream_started")
        self._speaking = asyncio.create_task(self._speak(), name="speak")

    async def have(self, more: int) -> None:
        """Wait until every stream has got so many more tokens."""
        wanted = self.given + more
        async with asyncio.timeout(DEADLINE_S):
            while self.given < wanted:
                self._news.clear()
                await self._news.wait()

    async def end(self) -> None:
        """Let every stream come to its end."""
        self._is_over = True
        async with asyncio.timeout(DEADLINE_S):
            await self._speaking
            for engine in self.engines:
                # One that has to go may be ended with its last stream, before it has said so.
                with contextlib.suppress(EOFError):
                    await engine.finish()
            await asyncio.gather(*(stream.task for stream in self.streams))
        await self._client.aclose()

    async def _speak(self) -> None:
        """One token after the other, each when all have got the one before."""
        while not self._is_over:
            for engine in self.engines:
                await engine.next_token()
            self.given += 1
            while min(stream.token_count for stream in self.streams) < self.given:
                self._news.clear()
                await self._news.wait()

    def whole(self, model: str) -> list[str]:
        return [f" {model}", *(f" {number}" for number in range(1, self.given))]


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the config as an editor does, in place and not at once."""
    file = folder / "router.json"
    content = json.loads(file.read_text())
    change(content)
    text = json.dumps(content)
    with file.open("w") as opened:
        opened.write(text[: len(text) // 2])
        opened.flush()
        opened.write(text[len(text) // 2 :])


def changed_added_removed(content: dict[str, Any], folder: Path) -> None:
    """Change beta, remove gamma, add delta."""
    command = [*content["default_spawn"]["command"], "--tokens", "7"]
    models = {entry["name"]: entry for entry in content["models"]}
    models["beta"]["spawn"] = {"command": command}
    del models["gamma"]
    file = folder / "models" / "delta.gguf"
    file.touch()
    models["delta"] = {"name": "delta", "path": str(file), **TOGETHER}
    content["models"] = list(models.values())


@pytest.mark.parametrize("way", ["api", "signal", "watching"])
async def test_under_a_hundred_streams_only_changed_models_are_restarted_when_they_are_free(
    start_router: StartRouter, fakes: FakeEngines, tmp_path: Path, way: str
) -> None:
    names = ("alpha", "beta", "gamma")
    router = await start_router(
        "--gate-stream",
        models=dict.fromkeys(names, TOGETHER),
        router={"watch_config": way == "watching", "watch_models": False},
    )
    crowd = Crowd(router, fakes, names)
    await crowd.begin()
    await crowd.have(5)

    rewrite(tmp_path, lambda content: changed_added_removed(content, tmp_path))
    if way == "api":
        answer = await router.client.post("/admin/reload")
        assert answer.status_code == 200, answer.text
        report = answer.json()
        assert report["status"] == "reloaded"
        assert (report["changed"], report["added"], report["removed"]) == (
            ["beta"],
            ["delta"],
            ["gamma"],
        )
    elif way == "signal":
        router.send(signal.SIGHUP)
    await router.says("reloaded; models: 1 changed, 1 added, 1 removed")
    await crowd.have(5)
    gone = await router.client.post(CHAT, json=body("gamma"))
    assert error_of(gone)["code"] == "model_not_found"
    assert sorted(engine.alias for engine in fakes.engines) == list(names)
    await crowd.end()

    for stream in crowd.streams:
        assert deltas(stream.text) == crowd.whole(stream.model)
        assert events(stream.text)[-1] == "[DONE]"
        assert stream.longest_gap_s < GAP_MAX_S, stream.model
    assert (await router.client.post(CHAT, json=body("alpha"))).status_code == 200
    answer = await router.client.post(CHAT, json=body("beta"))
    assert answer.json()["usage"]["completion_tokens"] == 7
    assert (await router.client.post(CHAT, json=body("delta"))).status_code == 200
    assert [engine.alias for engine in fakes.engines[3:]] == ["beta", "delta"]
    ids = [one["id"] for one in (await router.client.get("/v1/models")).json()["data"]]
    assert sorted(ids) == ["alpha", "beta", "delta"]


async def test_a_broken_file_changes_nothing_and_says_where_until_it_is_mended(
    start_router: StartRouter, fakes: FakeEngines, tmp_path: Path
) -> None:
    router = await start_router("--gate-stream", router={"watch_models": False})
    file = tmp_path / "router.json"
    good = file.read_text()
    streaming = asyncio.create_task(
        router.client.post(CHAT, json=body("alpha", stream=True)), name="stream"
    )
    alpha = await fakes.started("alpha")
    await alpha.event("stream_started")

    file.write_text(good.replace('"version"', '\n  "router": {"port": 0}, "version"', 1))
    answer = await router.client.post("/admin/reload")
    assert answer.status_code == 400
    place = f"{file}:2:"
    assert place in error_of(answer)["message"]
    await router.says(place)
    health = (await router.client.get("/v1/health")).json()
    assert health["status"] == "ok"
    assert health["config"].startswith(f"stale: {file}:2:")

    file.write_text(good)
    assert (await router.client.post("/admin/reload")).status_code == 200
    assert "config" not in (await router.client.get("/v1/health")).json()
    await alpha.next_token(count=3)
    await alpha.finish()
    assert (await streaming).text.endswith("data: [DONE]\n\n")
    assert len(fakes.engines) == 1


async def test_settings_of_the_router_hold_at_once_or_are_named_as_waiting_for_a_restart(
    start_router: StartRouter, tmp_path: Path
) -> None:
    router = await start_router(router={"watch_models": False})

    def lock(content: dict[str, Any]) -> None:
        content["router"] |= {"api_keys": ["a-key-of-some-length"], "base_port": 40000}

    rewrite(tmp_path, lock)
    answer = await router.client.post("/admin/reload")
    assert answer.json()["restart_needed"] == ["router.base_port"]
    refused = await router.client.post(CHAT, json=body("alpha"))
    assert refused.status_code == 401
    bearer = {"Authorization": "Bearer a-key-of-some-length"}
    served = await router.client.post(CHAT, json=body("alpha"), headers=bearer)
    assert served.status_code == 200

    (tmp_path / "router.json").write_text("models: [{}]")
    assert (await router.client.post("/admin/reload", headers=bearer)).status_code == 400
    # Where files are is nothing for who has no key.
    assert (await router.client.get("/v1/health")).json()["config"] == "stale"
    health = (await router.client.get("/v1/health", headers=bearer)).json()
    assert health["config"].startswith(f"stale: {tmp_path}")


async def test_a_folder_that_is_imported_at_the_start_stands_in_the_config_and_is_served(
    start_router: StartRouter, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere" / "deep"
    folder.mkdir(parents=True)
    write_model(folder / "fox.gguf", "fox", name="fox")
    arguments = ("--import-dir", str(folder.parent))
    router = await start_router(arguments=arguments, router={"watch_models": False})
    entries = json.loads((tmp_path / "router.json").read_text())["models"]
    (entry,) = (one for one in entries if one["path"] == str(folder / "fox.gguf"))
    assert entry["state"] == "manual"
    assert (await router.client.post(CHAT, json=body(entry["name"]))).status_code == 200


async def test_a_signal_that_comes_during_the_start_is_followed_after_it(
    start_router: StartRouter, fakes: FakeEngines, tmp_path: Path
) -> None:
    router = await start_router("--gate-load", startup_model="alpha", await_banner=False)
    alpha = await fakes.started("alpha")
    rewrite(tmp_path, lambda content: content["models"][0].update(aliases=["first"]))
    router.send(signal.SIGHUP)
    await router.says("once the router has started")
    await alpha.ready()
    await router.says("reloaded; models: 1 changed")
    assert (await router.client.post(CHAT, json=body("first"))).status_code == 200


async def test_config_changes_and_profiles_are_events(
    start_router: StartRouter, tmp_path: Path
) -> None:
    profiles = {"night": {"pins": {"alpha": ""}}}
    router = await start_router(router={"watch_models": False}, profiles=profiles)
    rewrite(tmp_path, lambda content: content["models"][0].update(aliases=["first"]))
    async with asyncio.timeout(DEADLINE_S):
        async with router.client.stream("GET", "/admin/events?kinds=config&snapshot=1") as feed:
            lines = (line async for line in feed.aiter_lines() if line.startswith("data: "))
            assert json.loads((await anext(lines))[6:])["kind"] == "snapshot"
            assert (await router.client.post("/admin/reload")).status_code == 200
            told = json.loads((await anext(lines))[6:])
            assert (told["kind"], told["changed"], told["error"]) == ("config", 1, "")
            chosen = await router.client.put("/admin/profiles/active", json={"name": "night"})
            assert chosen.status_code == 200, chosen.text
            told = json.loads((await anext(lines))[6:])
            assert (told["kind"], told["profile"]) == ("profile", "night")
