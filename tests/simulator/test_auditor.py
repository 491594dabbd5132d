from collections.abc import Sequence

import pytest

from llama_router.core import events as ev
from llama_router.core.commands import (
    Abort,
    CancelTimer,
    Command,
    Dispatch,
    Emit,
    NoticeKind,
    Notify,
    Reject,
    RejectKind,
    SetTimer,
    Settled,
    ShutdownComplete,
    Spawn,
    Terminate,
)
from llama_router.core.invariants import InvariantViolation
from llama_router.core.model import Request
from llama_router.core.queue import Queue
from llama_router.simulator.auditor import Auditor
from llama_router.simulator.swarm import Swarm

GPU = "gpu0"
TIMER = ev.Timer(ev.TimerKind.READY_TIMEOUT, "a", 1)
STEPS: list[tuple[ev.Event, list[Command]]] = [
    (
        ev.RequestArrived(1, "a"),
        [Emit("a", "unloaded", "starting", "x"), Spawn("a", 1), SetTimer(TIMER, 60.0)],
    ),
    (
        ev.EngineReady("a", 1),
        [
            CancelTimer(TIMER),
            Emit("a", "starting", "ready", "x"),
            Dispatch(1, "a", 1),
        ],
    ),
    (ev.RequestFinished(1), []),
    (
        ev.UnloadRequested(2, "a"),
        [Emit("a", "ready", "stopping", "x"), Terminate("a", 1), SetTimer(TIMER, 70.0)],
    ),
    (
        ev.EngineReaped("a", 1),
        [CancelTimer(TIMER), Emit("a", "stopping", "unloaded", "x"), Settled(2)],
    ),
]


def spec(name: str, size_bytes: int) -> ev.ModelSpec:
    return ev.ModelSpec(name, "", memory=(ev.DeviceBytes(GPU, size_bytes),))


def auditor_after(steps_count: int) -> Auditor:
    auditor = Auditor([spec("a", 6), spec("b", 6)], [ev.DeviceBytes(GPU, 10)])
    for event, commands in STEPS[:steps_count]:
        auditor.observe(event, commands)
    return auditor


def test_an_orderly_life_is_fine_and_leaves_nothing() -> None:
    auditor = auditor_after(len(STEPS))
    auditor.observe(ev.ShutdownRequested(1.0), [ShutdownComplete()])
    assert (auditor.open, auditor.dispatched, auditor.alive, auditor.timers) == ({}, {}, {}, {})
    assert auditor.outcomes == {"finished": 1, "settled": 1}
    assert auditor.completed


FIRED = ev.TimerFired(TIMER)
STARTING_B = Emit("b", "unloaded", "starting", "x")


@pytest.mark.parametrize(
    ("steps_count", "event", "commands", "rule"),
    [
        (1, ev.EngineSpawned("a", 1), [Dispatch(1, "a", 1)], "engine is ready"),
        (2, FIRED, [Dispatch(1, "a", 1)], "dispatched once"),
        (2, ev.RequestArrived(3, "a"), [Dispatch(3, "a", 7)], "engine is alive"),
        (2, ev.RequestArrived(3, "b"), [Dispatch(3, "a", 1)], "another model"),
        (3, FIRED, [Dispatch(1, "a", 1)], "has ended"),
        (4, ev.RequestArrived(3, "a"), [Dispatch(3, "a", 1)], "engine is ready"),
        (2, FIRED, [Reject(1, RejectKind.MODEL_STUCK, "x")], "not refused"),
        (3, FIRED, [Reject(1, RejectKind.MODEL_STUCK, "x")], "one outcome"),
        (1, FIRED, [Reject(1, RejectKind.MODEL_STUCK, "")], "reason"),
        (4, FIRED, [Reject(2, RejectKind.MODEL_STUCK, "x")], "tickets are settled"),
        (5, FIRED, [Settled(2)], "one outcome"),
        (2, FIRED, [Settled(1)], "only tickets"),
        (2, FIRED, [Notify(1, NoticeKind.READY, "a")], "notified"),
        (1, FIRED, [Abort(1, "x")], "is cut"),
        (2, FIRED, [Abort(1, "x"), Abort(1, "x")], "cut once"),
        (1, ev.EngineSpawned("a", 1), [SetTimer(TIMER, 1.0)], "set twice"),
        (2, ev.RequestFinished(1), [CancelTimer(TIMER)], "only a set timer"),
        (1, ev.RequestArrived(3, "b"), [STARTING_B, Spawn("b", 1)], "generations grow"),
        (1, ev.RequestArrived(3, "b"), [STARTING_B, Spawn("b", 2)], "room on gpu0"),
        (1, ev.RequestArrived(3, "b"), [Spawn("b", 2)], "is starting"),
        (1, FIRED, [Spawn("a", 2)], "one engine"),
        (1, FIRED, [SetTimer(TIMER, 0.0)], "set for later"),
        (2, FIRED, [Emit("a", "starting", "ready", "x")], "follow one another"),
        (1, FIRED, [Terminate("b", 1)], "ends its own"),
        (1, ev.ShutdownRequested(1.0), [ShutdownComplete()], "no timers"),
    ],
)
def test_what_must_not_be_is_told(
    steps_count: int, event: ev.Event, commands: Sequence[Command], rule: str
) -> None:
    with pytest.raises(InvariantViolation, match=rule):
        auditor_after(steps_count).observe(event, commands)


def test_memory_is_free_again_with_the_reap() -> None:
    auditor = auditor_after(len(STEPS))
    auditor.observe(ev.RequestArrived(3, "b"), [STARTING_B, Spawn("b", 2)])
    assert auditor.alive == {2: "b"}


def test_measured_footprints_count_where_they_are_lower() -> None:
    auditor = auditor_after(1)
    auditor.observe(ev.FootprintMeasured("a", (ev.DeviceBytes(GPU, 4),)), [])
    auditor.observe(ev.RequestArrived(3, "b"), [STARTING_B, Spawn("b", 2)])
    assert set(auditor.alive) == {1, 2}


def test_a_larger_budget_counts_from_now_on() -> None:
    auditor = auditor_after(1)
    auditor.observe(ev.BudgetsChanged((ev.DeviceBytes(GPU, 12),)), [])
    auditor.observe(ev.RequestArrived(3, "b"), [STARTING_B, Spawn("b", 2)])
    assert set(auditor.alive) == {1, 2}


def test_a_cancelled_request_has_had_its_outcome() -> None:
    auditor = auditor_after(2)
    auditor.observe(ev.RequestCancelled(1), [])
    assert auditor.open == {}
    assert auditor.outcomes == {"cancelled": 1}


def arrival(request_id: int, **changes: object) -> ev.RequestArrived:
    return ev.RequestArrived(request_id, "a", **changes)  # type: ignore[arg-type]  # as the test means


def test_who_came_first_is_served_first() -> None:
    auditor = auditor_after(1)
    auditor.observe(arrival(2), [])
    ready = [CancelTimer(TIMER), Emit("a", "starting", "ready", "x")]
    with pytest.raises(InvariantViolation, match="served first"):
        auditor.observe(ev.EngineReady("a", 1), [*ready, Dispatch(2, "a", 1)])


@pytest.mark.parametrize(
    "other",
    [arrival(2, key="k"), arrival(2, priority=1), arrival(2, is_batch=True)],
    ids=["of another key", "of a higher priority", "of another class"],
)
def test_others_have_a_lane_of_their_own(other: ev.RequestArrived) -> None:
    auditor = auditor_after(1)
    auditor.observe(other, [])
    ready = [CancelTimer(TIMER), Emit("a", "starting", "ready", "x")]
    auditor.observe(ev.EngineReady("a", 1), [*ready, Dispatch(2, "a", 1), Dispatch(1, "a", 1)])
    assert set(auditor.dispatched) == {1, 2}


def crash_and_restart(auditor: Auditor, end: ev.Event, now: float) -> None:
    cooling = [Emit("a", "starting", "stopping", "x"), Emit("a", "stopping", "cooling", "x")]
    auditor.observe(end, [CancelTimer(TIMER), *cooling], 10.0)
    if not isinstance(end, ev.SpawnFailed):
        auditor.observe(ev.EngineReaped("a", 1), [], 10.0)
    again = [Emit("a", "cooling", "unloaded", "x"), Emit("a", "unloaded", "starting", "x")]
    auditor.observe(arrival(3), [*again, Spawn("a", 2)], now)


@pytest.mark.parametrize(
    "end",
    [ev.EngineExited("a", 1, "crashed"), ev.SpawnFailed("a", 1, "x"), ev.EngineReaped("a", 1)],
    ids=["exited", "not spawned", "only reaped"],
)
def test_nothing_is_started_again_and_again(end: ev.Event) -> None:
    with pytest.raises(InvariantViolation, match="followed by a pause"):
        crash_and_restart(auditor_after(1), end, 10.5)
    crash_and_restart(auditor_after(1), end, 11.0)


def test_a_lost_address_may_be_tried_again_at_once() -> None:
    lost = ev.EngineExited("a", 1, "x", ev.ExitCause.ADDRESS_IN_USE)
    crash_and_restart(auditor_after(1), lost, 10.0)


def _newest(queue: Queue) -> Request:
    return next(reversed(list(queue)))


def walk(seeds_count: int) -> None:
    for seed in range(seeds_count):
        Swarm(seed).run()


def test_walks_find_a_core_that_serves_the_last_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "_next", _newest)
    with pytest.raises(InvariantViolation, match="served first"):
        walk(200)
