"""An engine that accepts and never answers."""

import os
import signal

import psutil
import pytest

from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body, error_of
from tests.support.data_plane import until
from tests.support.fake_engine_control import FakeEngines

pytestmark = pytest.mark.asyncio


async def test_an_engine_that_hangs_is_replaced_and_the_next_request_is_answered(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router(router={"read_timeout_s": 1})
    assert (await router.client.post(CHAT, json=body("alpha"))).status_code == 200
    hanging = await fakes.started("alpha")
    os.kill(hanging.pid, signal.SIGSTOP)
    process = psutil.Process(hanging.pid)
    await until(lambda: process.status() == psutil.STATUS_STOPPED)
    silent = await router.client.post(CHAT, json=body("alpha"))
    assert (silent.status_code, error_of(silent)["code"]) == (504, "engine_timeout")
    status = await router.becomes("alpha", "backing_off")
    assert "was silent and does not answer its health check" in str(status)
    refused = await router.client.post(CHAT, json=body("alpha"))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    await hanging.gone()
    await router.becomes("alpha", "unloaded")
    assert (await router.client.post(CHAT, json=body("alpha"))).status_code == 200
