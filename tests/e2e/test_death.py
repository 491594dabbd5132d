"""What is left when the router ends, whichever way it ends."""

import asyncio
import os
import signal

import httpx2
import pytest

from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body, deltas, error_of, events
from tests.support.fake_engine_control import FakeEngines
from tests.support.router_process import DEADLINE_S, RouterProcess, gone, marked_like

pytestmark = pytest.mark.asyncio


class Reading:
    """A stream that a client reads until it ends, however it ends."""

    def __init__(self, router: RouterProcess, model: str) -> None:
        self.text = ""
        self.broke_off = False
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._read(router, model), name=f"read {model}")

    async def says(self, text: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while text not in self.text:
                self._news.clear()
                await self._news.wait()

    async def ended(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self._task

    async def _read(self, router: RouterProcess, model: str) -> None:
        request = router.client.stream("POST", CHAT, json=body(model, stream=True))
        try:
            async with request as answer:
                async for piece in answer.aiter_text():
                    self.text += piece
                    self._news.set()
        except (httpx2.RemoteProtocolError, httpx2.ReadError):
            self.broke_off = True


async def killed(router: RouterProcess) -> None:
    """Kill the router with SIGKILL: soon nothing of it or its engines is left."""
    everything = marked_like(router.pid)
    assert len(everything) >= 3  # the router, its guardian, an engine
    router.send(signal.SIGKILL)
    assert await gone(everything) == set()
    assert await router.ended() == -signal.SIGKILL


async def test_a_kill_in_the_middle_of_a_load_leaves_nothing_and_the_next_start_works(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    first = await start_router("--gate-load", "--child", "--ignore-term", is_clean=False)
    asked = asyncio.create_task(first.client.post(CHAT, json=body("alpha")), name="ask")
    await fakes.started("alpha")
    await fakes.started("alpha/child")
    await killed(first)
    with pytest.raises(httpx2.HTTPError):
        await asked
    second = await start_router()
    assert (await second.client.post(CHAT, json=body("alpha"))).status_code == 200


async def test_a_kill_in_the_middle_of_a_stream_leaves_nothing_and_the_next_start_works(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    first = await start_router("--gate-stream", "--stray", is_clean=False)
    stream = Reading(first, "alpha")
    alpha = await fakes.started("alpha")
    await fakes.started("alpha/stray")
    await alpha.event("stream_started")
    await alpha.next_token()
    await stream.says(" alpha")
    await killed(first)
    await stream.ended()
    assert stream.broke_off
    second = await start_router()
    assert (await second.client.post(CHAT, json=body("beta"))).status_code == 200


async def test_term_lets_streams_end_and_refuses_newcomers(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-stream", router={"shutdown_deadline_s": 15})
    stream = Reading(router, "alpha")
    alpha = await fakes.started("alpha")
    await alpha.event("stream_started")
    await alpha.next_token()
    await stream.says(" alpha")
    waiting = asyncio.create_task(router.client.post(CHAT, json=body("beta")), name="wait")
    await router.busy_with(2)
    router.send(signal.SIGTERM)
    refused = await waiting
    assert (refused.status_code, error_of(refused)["code"]) == (503, "shutting_down")
    assert refused.headers["connection"] == "close"
    await alpha.next_token()
    await alpha.finish()
    await stream.ended()
    assert not stream.broke_off
    assert deltas(stream.text) == [" alpha", " 1"]
    assert events(stream.text)[-1] == "[DONE]"
    assert await router.ended() == 0


async def test_after_the_deadline_streams_end_with_an_error_event_and_the_status_is_still_0(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-stream", router={"shutdown_deadline_s": 0.2})
    stream = Reading(router, "alpha")
    alpha = await fakes.started("alpha")
    await alpha.event("stream_started")
    await alpha.next_token()
    await stream.says(" alpha")
    router.send(signal.SIGTERM)
    await stream.ended()
    assert stream.broke_off
    assert events(stream.text)[-1]["error"]["code"] == "shutting_down"
    assert await router.ended() == 0


async def test_a_second_signal_ends_at_once(start_router: StartRouter, fakes: FakeEngines) -> None:
    router = await start_router(
        *("--gate-stream", "--ignore-term"),
        router={"shutdown_deadline_s": 600, "stop_grace_s": 600},
    )
    stream = Reading(router, "alpha")
    alpha = await fakes.started("alpha")
    await alpha.event("stream_started")
    await alpha.next_token()
    await stream.says(" alpha")
    router.send(signal.SIGTERM)
    await router.says("a second signal ends at once")
    router.send(signal.SIGINT)
    await stream.ended()
    assert events(stream.text)[-1]["error"]["code"] == "shutting_down"
    assert await router.ended() == 0


async def test_term_without_anything_under_way_ends_at_once(start_router: StartRouter) -> None:
    router = await start_router(router={"shutdown_deadline_s": 600})
    assert (await router.client.post(CHAT, json=body("alpha"))).status_code == 200
    router.send(signal.SIGTERM)
    assert await router.ended() == 0
    assert "alpha: stopping -> unloaded" in router.err


@pytest.mark.parametrize("is_nohup", [False, True])
async def test_a_closed_terminal_ends_it_unless_it_was_started_with_nohup(
    start_router: StartRouter,
    is_nohup: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    import pty  # which Windows does not have

    controller, terminal = pty.openpty()
    take_it = (
        f"import fcntl, os, signal, termios; fd = os.open({os.ttyname(terminal)!r}, os.O_RDWR);"
        "fcntl.ioctl(fd, termios.TIOCSCTTY, 0); os.close(fd)"
    )
    if is_nohup:
        take_it += "; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    try:
        router = await start_router(prelude=take_it)
        # An operator's: the terminal is still there.
        router.send(signal.SIGHUP)
        await router.says("reloaded; models: as they were")
    finally:
        os.close(terminal)
        os.close(controller)
    if is_nohup:
        assert (await router.client.get("/v1/health")).status_code == 200
        router.send(signal.SIGTERM)
    assert await router.ended() == 0


async def test_term_in_the_middle_of_a_load_refuses_the_waiter_and_ends(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-load")
    asked = asyncio.create_task(router.client.post(CHAT, json=body("alpha")), name="ask")
    await fakes.started("alpha")
    router.send(signal.SIGTERM)
    assert error_of(await asked)["code"] == "shutting_down"
    assert await router.ended() == 0


async def test_term_while_the_startup_model_loads_ends_the_start(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-load", startup_model="alpha", await_banner=False)
    alpha = await fakes.started("alpha")
    router.send(signal.SIGTERM)
    assert await router.ended() == 0
    await alpha.gone()
    assert router.out == ""
