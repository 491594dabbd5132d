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
from llama_router.simulator.auditor import Auditor

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
