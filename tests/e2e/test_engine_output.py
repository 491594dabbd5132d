"""What engines write, and where it can be read."""

import asyncio

import pytest

from llama_router.engines.logs import RING_BYTES
from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body
from tests.support.fake_engine_control import FakeEngines
from tests.support.router_process import DEADLINE_S

pytestmark = pytest.mark.asyncio


async def test_each_line_is_shown_with_its_models_name_and_kept_by_model(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router()
    for model in ("alpha", "beta"):
        await router.client.post(CHAT, json=body(model))
        engine = await fakes.started(model)
        await engine.say(f"I am {model}\n".encode())
        await engine.say(b"and this is stderr\n", stderr=True)
        await router.says(f"[{model}] I am {model}\n")
        await router.says(f"[{model}] and this is stderr\n")
    alone = await router.client.get("/logs/alpha")
    assert sorted(alone.text.splitlines()) == ["I am alpha", "and this is stderr"]
    joint = (await router.client.get("/logs")).text.splitlines()
    assert {"[alpha] I am alpha", "[beta] I am beta"} <= set(joint)


@pytest.mark.parametrize("path", ["/logs/alpha", "/logs"])
async def test_a_log_can_be_followed_from_its_first_line_on_and_nothing_stays_when_one_leaves(
    start_router: StartRouter, fakes: FakeEngines, path: str
) -> None:
    router = await start_router(models=("alpha",))
    await router.client.post(CHAT, json=body("alpha"))
    alpha = await fakes.started("alpha")
    await alpha.say(b"old\n")
    await router.says("old\n")
    text = ""
    async with router.client.stream("GET", f"{path}?follow=1") as answer:
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        pieces = answer.aiter_text()
        for line in ("old", "new", "newer"):
            if line != "old":
                await alpha.say(f"{line}\n".encode())
            while f"{line}\n" not in text:
                async with asyncio.timeout(DEADLINE_S):
                    text += await anext(pieces)
    assert [line.removeprefix("[alpha] ") for line in text.splitlines()] == ["old", "new", "newer"]
    async with asyncio.timeout(DEADLINE_S):
        while (await router.client.get("/admin/status")).json()["connection_count"] > 1:
            pass


async def test_a_follower_of_a_log_without_lines_waits_for_the_first(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(models=("alpha",))
    async with asyncio.timeout(DEADLINE_S), router.client.stream("GET", "/logs?follow=1") as answer:
        assert answer.status_code == 200
        await router.client.post(CHAT, json=body("alpha"))
        await (await fakes.started("alpha")).say(b"first\n")
        assert await anext(answer.aiter_text()) == "[alpha] first\n"


async def test_escapes_and_bytes_that_are_no_text_are_harmless(start_router: StartRouter) -> None:
    router = await start_router("--dirty-output", models=("alpha",))
    await router.client.post(CHAT, json=body("alpha"))
    await router.says("[alpha] red")
    await router.says("[alpha] over\n")
    text = (await router.client.get("/logs/alpha")).text
    for forbidden in ("\x1b", "\x07", "\x00", "\r"):
        assert forbidden not in text
        assert forbidden not in router.err
    assert "<b>&amp;" in text
    answer = await router.client.get("/logs/alpha")
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_flood_and_an_endless_line_are_kept_within_bounds(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    flags = ("--flood-bytes", str(3 * RING_BYTES), "--long-line-bytes", str(RING_BYTES))
    router = await start_router(*flags, "--gate-load", models=("alpha",))
    asked = asyncio.create_task(router.client.post(CHAT, json=body("alpha")), name="ask")
    alpha = await fakes.started("alpha")
    # Written behind the flood by the same process, on the other pipe.
    await alpha.ready()
    assert (await asked).status_code == 200
    await router.says("x [...]")
    text = ""
    async with asyncio.timeout(DEADLINE_S):
        while not text.endswith("the end\n"):
            await alpha.say(b"the end\n")
            text = (await router.client.get("/logs/alpha")).text
    assert len(text) <= RING_BYTES
    assert max(map(len, text.splitlines())) < 10_000
    assert len(text) > RING_BYTES / 4
