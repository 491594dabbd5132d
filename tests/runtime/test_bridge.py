import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import pytest

from llama_router.control.facade import ControlError, ModelInfo
from llama_router.core.events import EngineReady, EngineSpawned, SpawnFailed
from llama_router.engines.logs import LogStore
from llama_router.proxy.server import ProxyServer, Services
from llama_router.runtime.bridge import Bridge
from llama_router.runtime.desk import Desk
from llama_router.runtime.roster import RosterModel
from tests.runtime.test_desk import open_desk

pytestmark = pytest.mark.asyncio

T = TypeVar("T")


class Connections:
    """What the bridge wants to know of the data plane."""

    connections = (1, 2)
    max_loop_lag_s = 0.0012345678


def bridge_over(desk: Desk) -> tuple[Bridge, LogStore]:
    logs = LogStore()
    plane = Connections()
    return Bridge(desk, logs, cast("Services", plane), cast("ProxyServer", plane)), logs


async def elsewhere(question: Coroutine[Any, Any, T]) -> T:
    """Ask on another thread's loop, as the control plane does."""
    return await asyncio.to_thread(asyncio.run, question)


async def test_models_are_described_with_what_the_core_says_of_them() -> None:
    desk, _room = open_desk("a", "b")
    bridge, _logs = bridge_over(desk)
    desk.post(SpawnFailed("a", 1, "late"))
    models = await elsewhere(bridge.models())
    assert [model.id for model in models] == ["a", "b", "broken", "t1", "t2"]
    broken = models[2]
    assert (broken.state, broken.error) == ("invalid", "cut off")
    assert (await elsewhere(bridge.model("a"))).state == "unloaded"


async def test_a_load_is_answered_when_it_is_done() -> None:
    desk, room = open_desk()
    bridge, _logs = bridge_over(desk)
    loading = asyncio.create_task(elsewhere(bridge.load("a")), name="load")
    async with asyncio.timeout(10):
        await room.spawned.wait()
    desk.post(EngineSpawned("a", 1))
    desk.post(EngineReady("a", 1))
    assert (await loading).state == "loaded"


async def test_a_load_that_fails_says_why_and_when_to_come_back() -> None:
    desk, room = open_desk()
    bridge, _logs = bridge_over(desk)
    loading = asyncio.create_task(elsewhere(bridge.load("a")), name="load")
    async with asyncio.timeout(10):
        await room.spawned.wait()
    desk.post(SpawnFailed("a", 1, "no such program"))
    with pytest.raises(ControlError, match="no such program") as raised:
        await loading
    assert (raised.value.status, raised.value.code) == (503, "model_load_failed")
    described = await elsewhere(bridge.model("a"))
    assert (described.state, described.error) == ("backing_off", "no such program")
    assert described.retry_in_s is not None
    assert 0 < described.retry_in_s <= 1


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [("nobody", 404, "model_not_found"), ("twin", 400, "invalid_request")],
)
async def test_names_that_lead_nowhere_are_errors_of_the_control_plane(
    name: str, status: int, code: str
) -> None:
    desk, _room = open_desk()
    bridge, _logs = bridge_over(desk)
    for question in (bridge.model(name), bridge.load(name), bridge.unload(name)):
        with pytest.raises(ControlError) as raised:
            await elsewhere(question)
        assert (raised.value.status, raised.value.code) == (status, code)


async def test_the_routers_own_numbers() -> None:
    desk, _room = open_desk()
    bridge, _logs = bridge_over(desk)
    info = await elsewhere(bridge.info())
    assert (info.model_count, info.connection_count, info.requests_under_way) == (5, 2, 0)
    assert info.max_loop_lag_s == 0.001235


async def test_a_log_is_followed_from_its_kept_lines_on_without_a_gap() -> None:
    desk, _room = open_desk()
    bridge, logs = bridge_over(desk)
    logs.append("a", "old")
    woken: list[None] = []
    follower = bridge.follow_log("a", lambda: woken.append(None))
    logs.append("a", "new")
    assert list(follower.take()) == ["old", "new"]
    assert woken == [None]
    follower.close()
    assert bridge.log_text("a") == "old\nnew\n"
    assert bridge.log_text(None) == "[a] old\n[a] new\n"


async def test_many_models_are_described_in_portions() -> None:
    desk, _room = open_desk(*(f"m{number:03}" for number in range(250)))
    bridge, _logs = bridge_over(desk)
    turns: list[int] = []
    describe = bridge._describe

    def noted(model: RosterModel) -> ModelInfo:
        turns.append(turn)
        return describe(model)

    turn = 0
    bridge._describe = noted  # type: ignore[method-assign]  # a spy
    asking = asyncio.create_task(bridge._models(), name="ask")
    while not asking.done():
        await asyncio.sleep(0)
        turn += 1
    assert len(await asking) == 253
    assert max(turns.count(each) for each in set(turns)) <= 100
