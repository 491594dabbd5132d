"""What a waiting client reads in its own stream."""

import asyncio
from pathlib import Path

import pytest

from llama_router.catalog.tiny import write_model
from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body, deltas, events
from tests.support.fake_engine_control import FakeEngines
from tests.support.ports import port_window
from tests.support.router_process import DEADLINE_S, RouterProcess, launched, write_config
from tests.support.tools import need_embedded

pytestmark = pytest.mark.asyncio

NOTIFY = {"notify_model_swap": True}


class Watching:
    """A stream whose reasoning is read while it comes."""

    def __init__(self, router: RouterProcess, model: str) -> None:
        self.text = ""
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._read(router, model), name=f"watch {model}")

    @property
    def notices(self) -> list[str]:
        return [text.strip() for text in deltas(self.text, "reasoning_content")]

    async def reads(self, notice: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while f"[llama-router] {notice}" not in self.notices:
                self._news.clear()
                await self._news.wait()

    async def whole(self) -> str:
        async with asyncio.timeout(DEADLINE_S):
            await self._task
        return self.text

    async def _read(self, router: RouterProcess, model: str) -> None:
        request = router.client.stream("POST", CHAT, json=body(model, stream=True))
        async with request as answer:
            assert answer.headers["x-accel-buffering"] == "no"
            async for piece in answer.aiter_text():
                self.text += piece
                self._news.set()


async def test_a_swap_is_told_with_the_engines_own_percentages(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-load", as_llama_server=True, router=NOTIFY)
    first = asyncio.create_task(router.client.post(CHAT, json=body("alpha")), name="first")
    await (await fakes.started("alpha")).ready()
    assert (await first).json()["object"] == "chat.completion"
    watching = Watching(router, "beta")
    beta = await fakes.started("beta")
    await beta.event("listening")
    await watching.reads("Loading beta: 0 %")
    await beta.progress(0.25)
    await watching.reads("Loading beta: 25 %")
    await beta.progress(0.5)
    await watching.reads("Loading beta: 50 %")
    await beta.ready()
    text = await watching.whole()
    prefix = "[llama-router] "
    assert [notice.removeprefix(prefix) for notice in watching.notices] == [
        *("Waiting for beta: position 1", "Unloading alpha", "Loading beta", "Loading beta: 0 %"),
        *("Loading beta: 25 %", "Loading beta: 50 %", "Loading beta: 100 %", "beta is ready"),
    ]
    for event in events(text)[:-1]:
        assert event["object"] == "chat.completion.chunk"
        assert {"id", "created", "model", "choices"} <= set(event)
        assert event["choices"][0]["index"] == 0
    assert "".join(deltas(text)) == " beta 1 2 3 4"
    assert events(text)[-1] == "[DONE]"


async def test_an_engine_without_percentages_has_none_at_first_and_then_elapsed_of_expected(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-load", router=NOTIFY, models=("alpha",))
    watching = Watching(router, "alpha")
    alpha = await fakes.started("alpha")
    await watching.reads("Loading alpha")
    await alpha.ready()
    assert "%" not in await watching.whole()
    await router.client.post("/admin/unload", json={"model": "alpha"})
    watching = Watching(router, "alpha")
    alpha = await fakes.started("alpha")
    # Longer than the first time, and yet never done before it is.
    await watching.reads("Loading alpha: 99 %")
    await alpha.ready()
    await watching.whole()
    assert "100 %" not in watching.text


async def test_a_load_that_fails_after_notices_ends_the_stream_with_one_error_event(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-load", router=NOTIFY)
    watching = Watching(router, "alpha")
    alpha = await fakes.started("alpha")
    await watching.reads("Loading alpha")
    await alpha.exit(3)
    text = await watching.whole()
    errors = [event for event in events(text) if "error" in event]
    assert [event["error"]["code"] for event in errors] == ["model_load_failed"]
    assert events(text)[-1] == errors[0]
    assert "[DONE]" not in text


async def test_an_engines_error_answer_after_notices_is_one_error_event(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-load", "--fault", "status-400:1", router=NOTIFY)
    watching = Watching(router, "alpha")
    alpha = await fakes.started("alpha")
    await watching.reads("Loading alpha")
    await alpha.ready()
    text = await watching.whole()
    assert events(text)[-1]["error"]["message"] == "told to answer 400"
    assert text.count('"error"') == 1


async def test_without_the_setting_and_without_a_stream_nothing_is_told(
    start_router: StartRouter,
) -> None:
    router = await start_router()
    answer = await router.client.post(CHAT, json=body("alpha", stream=True))
    assert "llama-router" not in answer.text
    assert deltas(answer.text, "reasoning_content") == []


@pytest.mark.embedded
async def test_the_embedded_engine_is_told_of_too(tmp_path: Path) -> None:
    need_embedded()
    folder = tmp_path / "gguf"
    folder.mkdir()
    write_model(folder / "fox.gguf", "The quick brown fox jumps over it.", name="fox")
    port = port_window()
    router_settings = {**NOTIFY, "base_port": port + 1, "models_dirs": [str(folder)]}
    config = write_config(tmp_path, router=router_settings)
    async with launched(tmp_path, config, port=port) as router:
        await router.listening()
        for _ in range(2):
            watching = Watching(router, "fox")
            text = await watching.whole()
            notices = watching.notices
            assert notices[0] == "[llama-router] Loading fox"
            assert notices[-1] == "[llama-router] fox is ready"
            assert "".join(deltas(text)).startswith("The quick brown fox")
            await router.client.post("/admin/unload", json={"model": "fox"})
