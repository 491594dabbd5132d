"""What the desk passes on and tells of: callers to the core, ends to the history, the feed."""

import asyncio
import logging
from typing import cast

import pytest

from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.config.schema import Config
from llama_router.core.commands import Command
from llama_router.core.events import (
    EngineProgress,
    EngineReady,
    EngineSpawned,
    Event,
    RequestArrived,
)
from llama_router.core.machine import Core
from llama_router.proxy.errors import RequestError
from llama_router.proxy.gate import Caller, Ended, NoticeKind
from llama_router.proxy.upstream import Upstream
from llama_router.runtime.desk import Desk
from llama_router.runtime.engine_room import EngineRoom
from llama_router.runtime.feed import LoadProgress, QueueChanged, StateChanged
from llama_router.runtime.history import MAX_RECORDS_PER_S
from llama_router.runtime.roster import build_roster
from llama_router.store.records import RequestRecord

pytestmark = pytest.mark.asyncio


class ListeningCore(Core):
    """The core, and what it was told."""

    def __init__(self, specs: object) -> None:
        super().__init__(specs)  # type: ignore[arg-type]  # a roster's
        self.heard: list[Event] = []

    def handle(self, event: Event, now: float) -> list[Command]:
        self.heard.append(event)
        return super().handle(event, now)


class Room:
    def spawn(self, model: str, generation: int) -> None:
        """The test says what becomes of it."""

    def upstream(self, generation: int) -> Upstream:
        return cast("Upstream", generation)


class Waiter:
    def dispatch(self, upstream: Upstream) -> None:
        """Nothing is sent."""

    def reject(self, error: RequestError) -> None:
        raise AssertionError(error.message)

    def abort(self, error: RequestError) -> None:
        raise AssertionError(error.message)

    def notify(
        self, kind: NoticeKind, model: str, fraction: float | None, position: int | None = None
    ) -> None:
        """Nobody reads it."""


def open_desk() -> tuple[Desk, ListeningCore]:
    found = [CatalogModel(id=each, path=None, source=ModelSource.MODELS_DIR) for each in "ab"]
    roster = build_roster(Config(), found)
    desk, core = Desk(), ListeningCore(roster.specs())
    desk.open(core, roster, cast("EngineRoom", Room()))
    return desk, core


def ready(desk: Desk, model: str, generation: int) -> None:
    desk.post(EngineSpawned(model, generation))
    desk.post(EngineReady(model, generation))


GOOD = Ended("a", "ann", "-.-", 2.0, 0.5, 1.0, 3, 4)


async def test_what_is_known_of_a_caller_reaches_the_core() -> None:
    desk, core = open_desk()
    desk.submit(
        Waiter(),
        "a",
        may_load=True,
        wants_notices=True,
        caller=Caller("ann", 3, is_batch=True),
        keep_alive_s=60.0,
        takes_slot=False,
    )
    assert core.heard == [
        RequestArrived(
            1,
            "a",
            may_load=True,
            wants_notices=True,
            key="ann",
            priority=3,
            is_batch=True,
            keep_alive_s=60.0,
            takes_slot=False,
        )
    ]


async def test_without_a_history_no_request_is_looked_at() -> None:
    desk, _core = open_desk()
    assert not desk.wants_record()
    desk.remember(GOOD)
    assert desk.unrecorded_count == 0


async def test_what_ends_is_recorded_and_a_flood_only_in_part() -> None:
    desk, _core = open_desk()
    records: list[RequestRecord] = []
    desk.record = records.append
    assert desk.wants_record()
    desk.remember(GOOD)
    assert [(record.model, record.key, record.tokens_out) for record in records] == [
        ("a", "ann", 4)
    ]
    # However slow this is, a second has a limit.
    seen = sum(desk.wants_record() for _ in range(100 * MAX_RECORDS_PER_S))
    assert 0 < seen < 100 * MAX_RECORDS_PER_S
    assert desk.unrecorded_count == 100 * MAX_RECORDS_PER_S - seen


async def test_a_history_that_fails_costs_no_request(caplog: pytest.LogCaptureFixture) -> None:
    desk, _core = open_desk()

    def fail(record: RequestRecord) -> None:  # noqa: ARG001  # as the store takes them
        raise OSError("the disk is gone")

    desk.record = fail
    with caplog.at_level(logging.ERROR):
        desk.remember(GOOD)
    assert "put into the history" in caplog.text


async def test_who_follows_hears_of_states_queues_and_loads() -> None:
    desk, _core = open_desk()
    news = asyncio.Event()
    follower = desk.feed.subscribe(news.set)
    request = desk.submit(Waiter(), "a", may_load=True, wants_notices=False)
    desk.post(EngineProgress("a", 1, 0.5))
    desk._pulse.look()
    first, *others = follower.take()
    assert isinstance(first, StateChanged)
    assert (first.model, first.old, first.new) == ("a", "unloaded", "starting")
    assert first.reason
    told = [(type(each), each.model) for each in others]
    assert told == [(QueueChanged, "a"), (LoadProgress, "a")]
    ready(desk, "a", 1)
    desk._pulse.look()
    state, queue = follower.take()
    assert isinstance(state, StateChanged)
    assert isinstance(queue, QueueChanged)
    assert (state.new, queue.waiting, queue.in_flight) == ("ready", 0, 1)
    assert request is not None
    desk.finished(request)
    desk._pulse.look()
    assert [type(each) for each in follower.take()] == [QueueChanged]
    follower.close()
    desk.close()
