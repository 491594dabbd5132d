import asyncio
import logging
from typing import Any, cast

import pytest

from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.config.schema import Config
from llama_router.core.events import (
    EngineReady,
    EngineReaped,
    EngineSpawned,
    ShutdownForced,
    ShutdownRequested,
)
from llama_router.core.machine import Core
from llama_router.proxy.errors import (
    BadRequestError,
    EndpointNotAllowedError,
    ModelNotFoundError,
    ShuttingDownError,
)
from llama_router.proxy.gate import NoticeKind
from llama_router.proxy.upstream import Upstream
from llama_router.runtime.desk import MAX_DEEDS_PER_CALLBACK, Desk
from llama_router.runtime.engine_room import EngineRoom
from llama_router.runtime.feed import REQUEST, RequestStarted
from llama_router.runtime.foresight import Foresight
from llama_router.runtime.names import PeerNames
from llama_router.runtime.roster import Roster, build_roster
from tests.support.waiter import Waiter

pytestmark = pytest.mark.asyncio


class Room:
    """An engine room whose engines are ready when the test says so."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        self.gone: set[int] = set()
        self.spawned = asyncio.Event()
        self.terminated = asyncio.Event()

    def spawn(self, model: str, generation: int) -> None:
        self.spawned.set()
        self.log.append((f"spawn {model}", generation))

    def terminate(self, generation: int) -> None:
        self.log.append(("terminate", generation))
        self.terminated.set()

    def kill(self, generation: int) -> None:
        self.log.append(("kill", generation))

    def doubt(self, model: str, generation: int) -> None:
        self.log.append((f"doubt {model}", generation))

    def upstream(self, generation: int) -> Upstream:
        if generation in self.gone:
            raise KeyError(generation)
        return cast("Upstream", generation)


def roster_of(
    *ids: str,
    selectors: dict[str, Any] | None = None,
    profiles: dict[str, Any] | None = None,
    **spawn: Any,  # noqa: ANN401 - plain data
) -> Roster:
    found = [CatalogModel(id=each, path=None, source=ModelSource.MODELS_DIR) for each in ids]
    twins = [
        CatalogModel(id=each, path=None, source=ModelSource.MODELS_DIR, names=("twin",))
        for each in ("t1", "t2")
    ]
    broken = CatalogModel(id="broken", path=None, source=ModelSource.MODELS_DIR, invalid="cut off")
    config = Config.model_validate(
        {"default_spawn": spawn, "selectors": selectors or {}, "profiles": profiles or {}}
    )
    return build_roster(config, [*found, *twins, broken])


def open_desk(
    *ids: str,
    peers: PeerNames | None = None,
    **spawn: Any,  # noqa: ANN401 - plain data
) -> tuple[Desk, Room]:
    desk, room = Desk(), Room()
    roster = roster_of(*(ids or ("a", "b")), **spawn)
    desk.open(Core(roster.specs()), roster, cast("EngineRoom", room), peers)
    return desk, room


def ready(desk: Desk, model: str, generation: int) -> None:
    desk.post(EngineSpawned(model, generation))
    desk.post(EngineReady(model, generation))


async def test_a_request_starts_its_engine_and_is_dispatched_when_that_is_ready() -> None:
    desk, room = open_desk()
    waiter = Waiter()
    request = desk.submit(waiter, "a", may_load=True, wants_notices=True)
    assert room.log == [("spawn a", 1)]
    assert waiter.log == [(NoticeKind.LOADING, "a", None)]
    ready(desk, "a", 1)
    assert waiter.log[-1] == 1
    assert desk.root_target() == "a"
    assert request is not None
    assert desk.waiter_count == 1
    desk.finished(request)
    assert desk.waiter_count == 0


async def test_what_is_refused_at_once_has_no_id() -> None:
    desk, room = open_desk()
    waiter = Waiter()
    assert desk.submit(waiter, "a", may_load=False, wants_notices=False) is None
    assert waiter.log == ["model_not_loaded"]
    assert (desk.waiter_count, room.log) == (0, [])


async def test_one_who_leaves_is_forgotten_and_a_late_end_does_no_harm() -> None:
    desk, _room = open_desk()
    waiter = Waiter()
    request = desk.submit(waiter, "a", may_load=True, wants_notices=False)
    assert request is not None
    desk.cancel(request)
    desk.cancel(request)
    desk.finished(request)
    ready(desk, "a", 1)
    assert (waiter.log, desk.waiter_count) == ([], 0)


async def test_names_lead_to_models_or_to_the_error_that_says_why_not() -> None:
    desk, _room = open_desk("a", "org/b")
    assert desk.resolve("a").model == "a"
    with pytest.raises(ModelNotFoundError, match="'nobody' is not known"):
        desk.resolve("nobody")
    with pytest.raises(BadRequestError, match="t1, t2"):
        desk.resolve("twin")
    with pytest.raises(ModelNotFoundError, match="cut off"):
        desk.resolve("broken")
    assert desk.find("broken").invalid == "cut off"
    target = desk.resolve_prefix("org/b/props")
    assert target is not None
    assert (target.model, target.rest) == ("org/b", "/props")
    assert desk.resolve_prefix("nobody/props") is None
    with pytest.raises(BadRequestError, match="t1, t2"):
        desk.resolve_prefix("twin/props")
    with pytest.raises(ModelNotFoundError, match="cut off"):
        desk.resolve_prefix("broken/props")


async def test_a_list_of_endpoints_closes_all_others() -> None:
    desk, _room = open_desk(proxy_endpoints=["/v1/"])
    desk.check_endpoint("a", "/v1/chat/completions")
    for path in ("/completion", "/v1/../slots", "/v1/%2e%2e/slots", "/v1/x/..%2f..%2fslots"):
        with pytest.raises(EndpointNotAllowedError, match="proxy_endpoints"):
            desk.check_endpoint("a", path)
    desk, _room = open_desk()
    desk.check_endpoint("a", "/completion")


async def test_an_operators_order_ends_when_it_is_carried_out() -> None:
    desk, room = open_desk()
    loading = asyncio.ensure_future(desk.load("a"))
    await asyncio.sleep(0)
    assert not loading.done()
    ready(desk, "a", 1)
    await loading
    unloading = asyncio.ensure_future(desk.unload("a"))
    await asyncio.sleep(0)
    assert room.log[-1] == ("terminate", 1)
    desk.post(EngineReaped("a", 1))
    await unloading
    assert desk.core.view("a").state == "unloaded"


async def test_an_order_that_nobody_waits_for_any_more_is_withdrawn() -> None:
    desk, _room = open_desk()
    loading = asyncio.ensure_future(desk.load("a"))
    await asyncio.sleep(0)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert desk.core.view("a").waiting == 0


async def test_an_order_that_cannot_be_carried_out_says_why() -> None:
    desk, _room = open_desk()
    with pytest.raises(ModelNotFoundError):
        await desk.load("nobody")


async def test_a_mistake_with_one_request_costs_that_request_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk, _room = open_desk()
    broken, whole = Waiter(), Waiter()
    broken.is_broken = True
    for waiter in (broken, whole):
        desk.submit(waiter, "a", may_load=True, wants_notices=False)
    with caplog.at_level(logging.ERROR):
        ready(desk, "a", 1)
    assert broken.log == ["abort internal_error"]
    assert whole.log == [1]
    assert "fault while sending a request to a" in caplog.text


async def test_a_forced_end_aborts_and_kills_and_says_so_in_the_right_words() -> None:
    desk, room = open_desk()
    waiter, late = Waiter(), Waiter()
    desk.submit(waiter, "a", may_load=True, wants_notices=False)
    ready(desk, "a", 1)
    desk.post(ShutdownRequested(30.0))
    desk.submit(late, "a", may_load=True, wants_notices=False)
    assert late.log == ["shutting_down"]
    desk.post(ShutdownForced())
    assert waiter.log == [1, "abort shutting_down"]
    assert room.log[-1] == ("kill", 1)
    assert not desk.shut_down.is_set()
    desk.post(EngineReaped("a", 1))
    assert desk.shut_down.is_set()


async def test_once_closed_nothing_is_started_any_more_and_orders_end() -> None:
    desk, room = open_desk()
    loading = asyncio.ensure_future(desk.load("a"))
    await asyncio.sleep(0)
    desk.close()
    with pytest.raises(ShuttingDownError):
        await loading
    spawned = list(room.log)
    desk.post(EngineReaped("a", 1))
    assert desk.submit(Waiter(), "b", may_load=True, wants_notices=False) is not None
    assert room.log == spawned


async def test_a_crowd_is_dispatched_in_portions_in_order_and_later_events_wait() -> None:
    desk, _room = open_desk()
    order: list[int] = []

    class Numbered(Waiter):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def dispatch(self, upstream: Upstream) -> None:
            super().dispatch(upstream)
            order.append(self.number)

    count = 3 * MAX_DEEDS_PER_CALLBACK
    waiters = [Numbered(number) for number in range(count)]
    requests = [desk.submit(one, "a", may_load=True, wants_notices=False) for one in waiters]
    ready(desk, "a", 1)
    assert 0 < len(order) <= MAX_DEEDS_PER_CALLBACK
    last = requests[-1]
    assert last is not None
    desk.cancel(last)
    late = Numbered(count)
    assert desk.submit(late, "a", may_load=True, wants_notices=False) is not None
    for _ in range(5):
        await asyncio.sleep(0)
    assert order == [*range(count - 1), count]
    assert desk.core.view("a").in_flight == count


async def test_a_timer_that_is_due_among_the_deeds_waits_for_them() -> None:
    desk, _room = open_desk()
    for _ in range(2 * MAX_DEEDS_PER_CALLBACK):
        desk.submit(Waiter(), "a", may_load=True, wants_notices=False)
    timer = next(iter(desk._timers))
    ready(desk, "a", 1)
    assert desk._commands
    handle = desk._timers[timer] = asyncio.get_running_loop().call_later(3600, lambda: None)
    desk._fire(timer)
    assert timer in desk._timers
    desk._timers[timer].cancel()
    del desk._timers[timer]
    handle.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not desk._commands


async def test_a_request_for_an_engine_that_has_just_gone_is_sent_again() -> None:
    desk, room = open_desk()
    waiter = Waiter()
    desk.submit(waiter, "a", may_load=True, wants_notices=False)
    room.gone.add(1)
    ready(desk, "a", 1)
    assert waiter.log == []
    desk.post(EngineReaped("a", 1))
    assert waiter.log == []
    assert desk.core.view("a").waiting == 1


async def test_silence_is_looked_into_only_while_the_request_is_with_an_engine() -> None:
    desk, room = open_desk()
    request = desk.submit(Waiter(), "a", may_load=True, wants_notices=False)
    assert request is not None
    desk.silent(request)
    ready(desk, "a", 1)
    desk.silent(request)
    desk.finished(request)
    desk.silent(request)
    assert [entry for entry in room.log if entry[0].startswith("doubt")] == [("doubt a", 1)]
    assert desk._places == {}


async def test_an_engine_that_gave_no_byte_is_looked_at() -> None:
    desk, room = open_desk()
    request = desk.submit(Waiter(), "a", may_load=True, wants_notices=False)
    assert request is not None
    ready(desk, "a", 1)
    desk.bounced(request)
    # It may live and refuse connections, of which no exit ever tells.
    assert ("doubt a", 1) in room.log


async def test_those_who_watch_are_told_of_requests_whose_end_is_told_too() -> None:
    desk, _room = open_desk("a")
    follower = desk.feed.subscribe(lambda: None, topics=frozenset({REQUEST}))
    first = desk.submit(Waiter(), "a", may_load=True, wants_notices=False)
    assert desk.submit(Waiter(), "a", may_load=False, wants_notices=False) is None
    desk.submit(Waiter(), "a", may_load=True, wants_notices=False, takes_slot=False)
    second = desk.submit(Waiter(), "a", may_load=True, wants_notices=False)
    told = [event for event in follower.take() if isinstance(event, RequestStarted)]
    assert [(one.request_id, one.model) for one in told] == [(first, "a"), (second, "a")]


async def test_a_selector_spills_over_while_it_is_not_yet_known_what_its_targets_need() -> None:
    desk = Desk()
    selector = {"strategy": "spillover", "targets": ["a", "b"], "spillover": 2}
    roster = roster_of("a", "b", selectors={"any": selector})
    desk.open(Core(roster.specs()), roster, cast("EngineRoom", Room()))
    may_end = asyncio.Event()

    async def look(_name: str) -> None:
        await may_end.wait()

    desk.foresight = Foresight({"a", "b"}, look, desk.post)
    chosen = []
    for _ in range(4):
        chosen.append(desk.resolve("any").model)
        desk.submit(Waiter(), chosen[-1], may_load=True, wants_notices=False)
    assert chosen == ["a", "a", "b", "b"]
    desk.close()
