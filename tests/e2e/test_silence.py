"""An engine that accepts and never answers."""

import asyncio
import os
import signal

import psutil
import pytest

from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body, error_of
from tests.support.data_plane import until
from tests.support.fake_engine_control import FakeEngine, FakeEngines

pytestmark = pytest.mark.asyncio


async def stopped(fakes: FakeEngines) -> FakeEngine:
    """Hold an engine that has answered before."""
    engine = await fakes.started("alpha")
    os.kill(engine.pid, signal.SIGSTOP)
    process = psutil.Process(engine.pid)
    await until(lambda: process.status() == psutil.STATUS_STOPPED)
    return engine


async def test_an_engine_that_hangs_is_replaced_by_one_that_answers(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(router={"read_timeout_s": 1})
    assert (await router.client.post(CHAT, json=body("alpha"))).status_code == 200
    hanging = await stopped(fakes)
    waiting = asyncio.create_task(router.client.post(CHAT, json=body("alpha")), name="waiting")
    await hanging.gone()
    # It had not got a byte of an answer, so it may be sent again.
    assert (await waiting).status_code == 200
    await router.says("was silent and does not answer its health check")


async def test_an_engine_that_reads_for_longer_than_the_read_timeout_is_left_alone(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(models=("alpha",), router={"read_timeout_s": 0.5})
    reading = asyncio.create_task(
        router.client.post(CHAT, json=body("alpha", fake_fault="hang")), name="reading"
    )
    alpha = await fakes.started("alpha")
    await alpha.event("request", target=CHAT)
    for _ in range(2):
        # The router asks whether it is alive, and it is.
        await alpha.event("request", target="/health")
    assert not reading.done()
    assert (await router.state_of("alpha"))["value"] == "loaded"
    reading.cancel()
    await asyncio.wait([reading])


async def test_an_engine_that_hangs_for_longer_than_allowed_is_replaced(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    # Long enough to be met by who asks during it, on any machine.
    prelude = "import llama_router.core.crashes as it; it.FIRST_BACKOFF_S = 4"
    router = await start_router(router={"first_byte_timeout_s": 1}, prelude=prelude)
    assert (await router.client.post(CHAT, json=body("alpha"))).status_code == 200
    hanging = await stopped(fakes)
    silent = await router.client.post(CHAT, json=body("alpha"))
    assert (silent.status_code, error_of(silent)["code"]) == (504, "engine_timeout")
    status = await router.becomes("alpha", "backing_off")
    assert "was silent and does not answer its health check" in str(status)
    refused = await router.client.post(CHAT, json=body("alpha"))
    assert refused.status_code == 503
    assert 1 <= int(refused.headers["retry-after"]) <= 4
    await hanging.gone()
    await router.becomes("alpha", "unloaded")
    assert (await router.client.post(CHAT, json=body("alpha"))).status_code == 200
