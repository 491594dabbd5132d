import asyncio
import gc
import json
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar, cast

import msgspec
import pytest

from llama_router.control.facade import HISTORY_MAX_COUNT, ControlError, DeviceInfo, ModelInfo
from llama_router.core.events import (
    DeviceBytes,
    EngineExited,
    EngineReady,
    EngineReaped,
    EngineSpawned,
    FootprintMeasured,
    ModelsPatched,
    SpawnFailed,
)
from llama_router.core.machine import Core
from llama_router.core.settings import CoreSettings
from llama_router.engines.logs import LogStore
from llama_router.proxy.gate import Door, Target
from llama_router.proxy.server import ProxyServer, Services
from llama_router.runtime.bridge import Bridge
from llama_router.runtime.desk import Desk
from llama_router.runtime.engine_room import EngineRoom
from llama_router.runtime.feed import FOLLOWER_MAX_COUNT, USUAL_TOPICS
from llama_router.runtime.roster import RosterModel
from llama_router.store.records import RequestRecord
from llama_router.store.store import StoreError
from tests.runtime.test_desk import Room, open_desk, ready, roster_of
from tests.runtime.test_names import Elsewhere
from tests.support.waiter import Waiter

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


async def test_models_that_go_while_they_are_listed_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llama_router.runtime.bridge._PORTION_COUNT", 1)
    for question in ("_models", "_listing"):
        desk, _room = open_desk("a", "b", "c")
        bridge, _logs = bridge_over(desk)
        arguments = ("",) if question == "_listing" else ()
        listing = asyncio.create_task(getattr(bridge, question)(*arguments), name="list")
        await asyncio.sleep(0)
        desk.post(ModelsPatched((), ("b",)))
        listed = [getattr(one, "id", "") for one in await listing]
        assert listed == ["a", "broken", "c", "t1", "t2"]


async def test_a_load_is_answered_when_it_is_done() -> None:
    desk, room = open_desk()
    bridge, _logs = bridge_over(desk)
    loading = asyncio.create_task(elsewhere(bridge.load("a")), name="load")
    async with asyncio.timeout(60):
        await room.spawned.wait()
    desk.post(EngineSpawned("a", 1))
    desk.post(EngineReady("a", 1))
    assert (await loading).state == "loaded"


async def test_a_load_that_fails_says_why_and_when_to_come_back() -> None:
    desk, room = open_desk()
    bridge, _logs = bridge_over(desk)
    loading = asyncio.create_task(elsewhere(bridge.load("a")), name="load")
    async with asyncio.timeout(60):
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


async def test_a_name_that_is_switched_off_can_neither_be_loaded_nor_planned_but_unloaded() -> None:
    desk, room = open_desk("a", "b", profiles={"work": {"pins": {"a": "", "b": "a"}}})
    bridge, _logs = bridge_over(desk)
    request_id = desk.submit(Waiter(), "a", may_load=True, wants_notices=False)
    ready(desk, "a", 1)
    desk.finished(cast("int", request_id))
    desk.names.activate("work")
    for question in (bridge.load("a"), bridge.plan("a"), bridge.listed("a", "")):
        with pytest.raises(ControlError, match="switched off by the profile 'work'") as raised:
            await elsewhere(question)
        assert (raised.value.status, raised.value.code) == (404, "model_not_found")
    listed = [one.id for one in await elsewhere(bridge.listing(""))]
    assert listed == ["b", "broken", "t1", "t2"]
    # Only requests, and what acts like one, are led elsewhere.
    assert (await elsewhere(bridge.model("a"))).state == "loaded"
    assert (await elsewhere(bridge.plan("b"))).model == "a"
    assert (await elsewhere(bridge.unload("b"))).id == "b"
    unloading = asyncio.create_task(elsewhere(bridge.unload("a")), name="unload")
    async with asyncio.timeout(60):
        await room.terminated.wait()
    desk.post(EngineExited("a", 1, "done"))
    desk.post(EngineReaped("a", 1))
    assert (await unloading).id == "a"


async def test_a_model_that_is_gone_by_the_end_of_an_order_is_not_found() -> None:
    desk, room = open_desk()
    bridge, _logs = bridge_over(desk)
    request_id = desk.submit(Waiter(), "a", may_load=True, wants_notices=False)
    ready(desk, "a", 1)
    desk.finished(cast("int", request_id))
    unloading = asyncio.create_task(elsewhere(bridge.unload("a")), name="unload")
    async with asyncio.timeout(60):
        await room.terminated.wait()
    desk.roster.follow(roster_of("b"), leaving={"a": desk.roster["a"]})
    desk.rename()
    desk.post(ModelsPatched((), ("a",)))
    desk.post(EngineExited("a", 1, "done"))
    desk.post(EngineReaped("a", 1))
    with pytest.raises(ControlError) as raised:
        await unloading
    assert (raised.value.status, raised.value.code) == (404, "model_not_found")


async def test_models_of_peers_take_requests_and_no_orders() -> None:
    desk, _room = open_desk("a", peers=Elsewhere())
    bridge, _logs = bridge_over(desk)
    for question in (bridge.load("big"), bridge.plan("big"), bridge.unload("box/big")):
        with pytest.raises(ControlError, match="'box/big' is on another machine") as raised:
            await elsewhere(question)
        assert (raised.value.status, raised.value.code) == (404, "endpoint_not_allowed")


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


async def test_many_models_of_peers_are_listed_in_portions_and_found_by_their_names() -> None:
    class Crowd(Elsewhere):
        def target(self, name: str) -> Target | None:
            return Target(name, door=cast("Door", self)) if name.startswith("far-") else None

        def listed(self) -> Iterator[tuple[str, str]]:
            for number in range(450):
                turns.append(turn)
                yield f"far-{number}", "box"

    desk, _room = open_desk(peers=Crowd())
    bridge, _logs = bridge_over(desk)
    turns: list[int] = []
    turn = 0
    listing = asyncio.create_task(bridge._listing(""), name="list")
    looking = asyncio.create_task(bridge._listed("far-449", ""), name="look")
    while not (listing.done() and looking.done()):
        await asyncio.sleep(0)
        turn += 1
    assert sum(one.kind == "peer" for one in await listing) == 450
    assert (await looking).id == "far-449"
    # Of both.
    assert max(turns.count(each) for each in set(turns)) <= 200


async def test_lists_of_thousands_are_nothing_to_the_garbage_collector() -> None:
    desk, _room = open_desk()
    bridge, _logs = bridge_over(desk)
    for one in await bridge._listing(""):
        assert not gc.is_tracked(one)
        assert not gc.is_tracked(one.info)


class OneStore:
    """A store with these requests."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[tuple[float, int]] = []

    def requests(self, since_s: float, limit: int) -> list[RequestRecord]:
        self.asked.append((since_s, limit))
        if self.error is not None:
            raise self.error
        return [RequestRecord(time_s=5.0, model="a", total_s=1.5, end="-.-", key="mine")]


def open_small_desk() -> tuple[Desk, Room]:
    """Two models on a device that holds one of them."""
    desk, room = Desk(), Room()
    roster = roster_of("a", "b")
    need = (DeviceBytes("cpu", 60),)
    specs = [
        msgspec.structs.replace(spec, memory=need, ttl_s=300.0 if spec.name == "a" else None)
        for spec in roster.specs()
    ]
    settings = CoreSettings(budgets=(DeviceBytes("cpu", 100),))
    desk.open(Core(specs, settings=settings), roster, cast("EngineRoom", room))
    return desk, room


async def test_devices_and_what_models_hold_of_them() -> None:
    desk, _room = open_small_desk()
    bridge, _logs = bridge_over(desk)
    bridge.total_bytes = {"cpu": 1000}
    loading = asyncio.create_task(desk.load("a"), name="load")
    await asyncio.sleep(0)
    ready(desk, "a", 1)
    await loading
    assert (await elsewhere(bridge.info())).devices == (
        DeviceInfo(
            name="cpu", total_bytes=1000, budget_bytes=100, reserved_bytes=60, free_bytes=40
        ),
    )
    a, b = [await elsewhere(bridge.model(name)) for name in ("a", "b")]
    assert (a.memory, a.is_booked, a.is_measured) == ({"cpu": 60}, True, False)
    assert (b.memory, b.is_booked, b.expires_at_s) == ({"cpu": 60}, False, None)
    assert a.ttl_s == 300.0
    assert a.expires_at_s is not None
    assert a.expires_at_s > 1.7e9
    desk.post(FootprintMeasured("a", (DeviceBytes("cpu", 70),)))
    a = await elsewhere(bridge.model("a"))
    assert (a.memory, a.is_measured) == ({"cpu": 70}, True)
    assert (await elsewhere(bridge.info())).devices[0].free_bytes == 30


async def test_a_plan_says_what_a_request_would_cause_and_causes_nothing() -> None:
    desk, room = open_small_desk()
    bridge, _logs = bridge_over(desk)
    plan = await elsewhere(bridge.plan("b"))
    assert (plan.model, plan.state, plan.fits, plan.victims) == ("b", "unloaded", True, ())
    assert (plan.needs, plan.free) == ({"cpu": 60}, {"cpu": 100})
    assert plan.wait_s == plan.load_cost_s > 0
    assert room.log == []
    desk.submit(Waiter(), "a", may_load=True, wants_notices=False)
    ready(desk, "a", 1)
    plan = await elsewhere(bridge.plan("b"))
    assert [(victim.model, victim.in_flight) for victim in plan.victims] == [("a", 1)]
    assert plan.free == {"cpu": 40}
    assert "a" in plan.reason
    assert [what for what, _ in room.log] == ["spawn a"]
    with pytest.raises(ControlError) as raised:
        await elsewhere(bridge.plan("nobody"))
    assert (raised.value.status, raised.value.code) == (404, "model_not_found")


async def test_the_history_is_the_stores_within_its_bound() -> None:
    desk, _room = open_desk()
    bridge, _logs = bridge_over(desk)
    with pytest.raises(ControlError) as raised:
        await elsewhere(bridge.history(0.0, 10))
    assert (raised.value.status, raised.value.code) == (404, "not_found")
    bridge.store = store = OneStore()
    (record,) = await elsewhere(bridge.history(4.0, 10**9))
    assert store.asked == [(4.0, HISTORY_MAX_COUNT)]
    assert json.loads(record) == {
        "time_s": 5.0,
        "model": "a",
        "total_s": 1.5,
        "end": "-.-",
        "key": "mine",
        "tokens_in": None,
        "tokens_out": None,
        "queue_s": None,
        "first_byte_s": None,
        "path": "",
        "status": 0,
        "prompt": "",
    }
    bridge.store = OneStore(StoreError("the disk is gone"))
    with pytest.raises(ControlError, match="the disk is gone") as raised:
        await elsewhere(bridge.history(0.0, 10))
    assert (raised.value.status, raised.value.code) == (500, "internal_error")


async def test_events_come_as_json_with_the_apis_names_of_states_and_for_one_model_if_asked() -> (
    None
):
    desk, _room = open_desk()
    bridge, _logs = bridge_over(desk)
    woken = asyncio.Event()
    everything = bridge.follow_events(None, woken.set, USUAL_TOPICS)
    of_b = bridge.follow_events("b", lambda: None, USUAL_TOPICS)
    desk.submit(Waiter(), "a", may_load=True, wants_notices=False)
    ready(desk, "a", 1)
    async with asyncio.timeout(60):
        await woken.wait()
    events = [json.loads(line) for line in everything.take()]
    states = [(one["model"], one["old"], one["new"]) for one in events if one["kind"] == "state"]
    assert states == [("a", "unloaded", "loading"), ("a", "loading", "loaded")]
    assert all(one["reason"] and one["time_s"] > 1.7e9 for one in events if one["kind"] == "state")
    assert of_b.take() == []
    everything.close()
    of_b.close()
    assert not desk.feed.is_followed
    desk.close()


async def test_whoever_follows_one_model_is_told_too_that_events_were_lost() -> None:
    desk, _room = open_desk()
    bridge, _logs = bridge_over(desk)
    follower = bridge.follow_events("b", lambda: None, USUAL_TOPICS)
    for _ in range(FOLLOWER_MAX_COUNT + 5):
        desk.feed.state_changed("a", "ready", "draining", "why")
    (lost,) = [json.loads(line) for line in follower.take()]
    assert (lost["kind"], lost["count"]) == ("dropped", 5)
    follower.close()
    desk.close()
