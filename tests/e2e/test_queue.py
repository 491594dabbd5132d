"""Crowds that wait for a swap."""

import asyncio
import json

import pytest

from tests.e2e.conftest import StartRouter
from tests.support.chat import CHAT, body
from tests.support.data_plane import until
from tests.support.fake_engine_control import FakeEngines
from tests.support.ports import HOST
from tests.support.router_process import RouterProcess, process_of

pytestmark = pytest.mark.asyncio

CLIENTS_COUNT = 200
# What allocators and caches may keep after the first round.
MARGIN_BYTES = 4 * 1024 * 1024

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect_and_ask(router: RouterProcess, model: str, **rest: object) -> Connection:
    reader, writer = await asyncio.open_connection(HOST, router.port)
    content = json.dumps(body(model, **rest)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)
    return reader, writer


async def close(connection: Connection) -> None:
    connection[1].close()
    await connection[1].wait_closed()


async def crowd(router: RouterProcess, fakes: FakeEngines) -> None:
    """Two hundred wait behind a swap, half of them leave, the others are answered."""
    loaded = asyncio.create_task(router.client.post(CHAT, json=body("alpha")), name="alpha")
    await (await fakes.started("alpha")).ready()
    assert (await loaded).status_code == 200
    started_count = len(fakes.engines)
    clients = [await connect_and_ask(router, "beta") for _ in range(CLIENTS_COUNT)]
    beta = await fakes.started("beta")
    await router.busy_with(CLIENTS_COUNT)
    for leaving in clients[::2]:
        await close(leaving)
    await router.busy_with(CLIENTS_COUNT // 2)
    await beta.ready()
    for staying in clients[1::2]:
        head = await staying[0].readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        await staying[0].readuntil(b" beta 1 2 3 4")
        await close(staying)
    await router.busy_with(0)
    assert (await beta.state())["inference_requests"] == CLIENTS_COUNT // 2
    assert len(fakes.engines) == started_count + 1
    done = await router.client.post("/admin/unload", json={"model": "beta"})
    assert done.status_code == 200


async def test_of_two_hundred_queued_behind_a_swap_half_leave_and_nothing_stays_behind(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-load")
    process = process_of(router.pid)
    await crowd(router, fakes)
    await crowd(router, fakes)
    memory_bytes, descriptors_count = process.memory_info().rss, process.num_fds()
    await crowd(router, fakes)
    await until(lambda: process.num_fds() <= descriptors_count)
    assert process.memory_info().rss <= memory_bytes + MARGIN_BYTES


async def test_when_all_who_wait_leave_nothing_is_loaded_for_them(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-stream")
    streaming = await connect_and_ask(router, "alpha", stream=True)
    alpha = await fakes.started("alpha")
    await alpha.event("stream_started")
    waiting = [await connect_and_ask(router, "beta") for _ in range(5)]
    await router.busy_with(6)
    for each in waiting:
        await close(each)
    await router.busy_with(1)
    await alpha.finish()
    await streaming[0].readuntil(b"[DONE]")
    await close(streaming)
    await router.busy_with(0)
    assert (await router.state_of("alpha"))["value"] == "loaded"
    assert [engine.alias for engine in fakes.engines] == ["alpha"]


async def test_a_running_stream_is_never_cut_for_a_swap(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    router = await start_router("--gate-stream", router={"policy": "arrival"})
    stream = asyncio.create_task(
        router.client.post(CHAT, json=body("alpha", stream=True)), name="stream"
    )
    alpha = await fakes.started("alpha")
    await alpha.event("stream_started")
    other = asyncio.create_task(router.client.post(CHAT, json=body("beta")), name="other")
    await router.busy_with(2)
    # A newcomer for the loaded model waits behind the one who wants another.
    late = asyncio.create_task(router.client.post(CHAT, json=body("alpha")), name="late")
    await router.busy_with(3)
    await alpha.next_token(count=3)
    await alpha.finish()
    assert (await stream).text.endswith("data: [DONE]\n\n")
    assert (await other).status_code == 200
    assert (await late).status_code == 200
    assert [engine.alias for engine in fakes.engines] == ["alpha", "beta", "alpha"]


async def test_models_of_one_group_run_together(
    start_router: StartRouter, fakes: FakeEngines
) -> None:
    models = {"alpha": {"group": "small"}, "beta": {"group": "small"}, "small": {}}
    router = await start_router(models=models)
    for model in ("alpha", "beta"):
        assert (await router.client.post(CHAT, json=body(model))).status_code == 200
    for model in ("alpha", "beta"):
        assert (await router.state_of(model))["value"] == "loaded"
    # A loner that is called like the group is not of the group.
    assert (await router.client.post(CHAT, json=body("small"))).status_code == 200
    for model in ("alpha", "beta"):
        assert (await router.state_of(model))["value"] == "unloaded"
    assert len(fakes.engines) == 3
