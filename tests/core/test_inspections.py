import pytest

from llama_router.core.commands import Inspect, Settled
from llama_router.core.events import (
    EngineReady,
    LoadRequested,
    ModelInspected,
    RequestArrived,
    RequestFinished,
    Timer,
    TimerFired,
    TimerKind,
    UnloadRequested,
)
from llama_router.core.inspections import INSPECTION_DEADLINE_S
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.core.settings import CoreSettings
from tests.core.memory_world import devices
from tests.core.playbook import Stage, play, specs
from tests.core.test_swaps import ready, reaped, spec

IDLE_A = """
> arrive 1 a
...
> ready a#1
...
> finish 1
"""
STOP_A = "a: ready -> stopping\nterminate a#1\nset stop_grace a#1 @2\n"


def stage_with_a_idle(*others: str) -> Stage:
    """Room for one model of 6 out of 10, and ``a`` in it."""
    stage = Stage(
        [spec(name, 6) for name in ("a", *others)],
        BenefitOrder(),
        CoreSettings(budgets=devices(gpu=10), min_residency_s=0.0),
        inspects=False,
    )
    play("", IDLE_A, stage=stage)
    return stage


def questions(stage: Stage) -> list[tuple[str, int]]:
    return [(each.model, each.inspection) for each in stage.commands if isinstance(each, Inspect)]


def test_nobody_is_stopped_before_the_new_model_was_inspected() -> None:
    play(
        "",
        """
        > arrive 2 b
        inspect b#1
        set inspection b#1 @5
        ...
        = a loaded
        > inspected b#1
        unset inspection b#1
        a: ready -> stopping
        terminate a#1
        set stop_grace a#1 @2
        > inspected b#1
        > reaped a#1
        ...
        spawn b#2
        ...
        """,
        stage=stage_with_a_idle("b"),
    )


def test_a_broken_model_costs_no_healthy_one_and_backs_off_like_a_failed_load() -> None:
    stage = play(
        "",
        """
        > arrive 2 b
        ...
        > load 3 b
        > inspected b#1 "there is no file /models/b.gguf"
        unset inspection b#1
        reject 2 model_load_failed retry=1
        settled 3 model_load_failed
        b: unloaded -> cooling
        set backoff b#2 @1
        = a loaded
        = b backing_off retry_at=1.0 last_error="there is no file /models/b.gguf"
        > arrive 4 b
        reject 4 model_backing_off retry=1
        @ 1
        > fired backoff b#2
        b: cooling -> unloaded
        > arrive 5 b
        inspect b#2
        set inspection b#2 @6
        ...
        > inspected b#2 "it is no GGUF file"
        ...
        set backoff b#3 @3
        # The first pause's timer, late or told twice, does not end the second pause.
        > fired backoff b#2
        = b backing_off retry_at=3.0 last_error="it is no GGUF file"
        """,
        stage=stage_with_a_idle("b"),
    )
    assert "there is no file /models/b.gguf" in stage.auditor.rejects[0].reason
    assert not stage.core.ledger.claims


def test_newcomers_are_served_by_the_victim_as_long_as_the_question_is_open() -> None:
    stage = stage_with_a_idle("b")
    stage.handle(RequestArrived(2, "b"))
    stage.handle(RequestArrived(3, "a"))
    assert stage.core.view("a").in_flight == 1
    stage.handle(ModelInspected("b", 1))
    stage.handle(RequestArrived(4, "a"))
    assert (stage.core.view("a").in_flight, stage.core.view("a").waiting) == (1, 1)
    stage.handle(RequestFinished(3))
    assert stage.core.view("a").state == "unloading"


def test_no_answer_in_time_is_as_good_as_a_yes() -> None:
    stage = stage_with_a_idle("b")
    stage.handle(RequestArrived(2, "b"))
    stage.now = INSPECTION_DEADLINE_S
    stage.handle(TimerFired(Timer(TimerKind.INSPECTION, "b", 1)))
    assert stage.core.view("a").state == "unloading"
    stage.handle(ModelInspected("b", 1, "too late"))
    assert stage.core.view("b").waiting == 1


def test_answers_to_other_questions_are_ignored() -> None:
    stage = stage_with_a_idle("b")
    stage.handle(RequestArrived(2, "b"))
    for wrong in (("b", 0), ("b", 2), ("a", 1), ("nowhere", 1)):
        stage.handle(ModelInspected(*wrong, "broken"))
        stage.handle(ModelInspected(*wrong))
    assert stage.core.view("a").state == "loaded"
    assert stage.core.view("b").waiting == 1


def test_a_model_that_finds_room_is_started_without_a_question() -> None:
    stage = Stage(specs("a/g b/g"), BenefitOrder(), inspects=False)
    stage.handle(RequestArrived(1, "a"))
    stage.handle(RequestArrived(2, "b"))
    assert stage.auditor.spawns == ["a", "b"]
    assert questions(stage) == []


def test_room_that_comes_about_meanwhile_is_taken_without_the_answer() -> None:
    stage = stage_with_a_idle("b")
    stage.handle(RequestArrived(2, "b"))
    play(
        "",
        "> exited a#1\n...\n> reaped a#1\n...\nspawn b#2\n...\nunset inspection b#1",
        stage=stage,
    )
    stage.handle(ModelInspected("b", 1, "broken"))
    assert stage.core.view("b").state == "loading"


@pytest.mark.parametrize(
    "end",
    ["cancel 2", "models a", "unload 9 a", "shutdown 30", "force"],
)
def test_a_question_that_is_of_no_use_any_more_is_dropped(end: str) -> None:
    stage = stage_with_a_idle("b")
    play("", f"> arrive 2 b\n...\n> {end}\n...", stage=stage)
    if end == "unload 9 a":
        play("", "> reaped a#1\n...", stage=stage)
    assert stage.core.ledger.inspections == {}
    assert not any(timer.kind is TimerKind.INSPECTION for timer in stage.auditor.timers)
    spawned = [*stage.auditor.spawns]
    stage.handle(ModelInspected("b", 1))
    stage.handle(ModelInspected("b", 1, "broken"))
    assert stage.auditor.spawns == spawned


def test_a_changed_model_is_inspected_anew() -> None:
    stage = Stage(specs("a b"), inspects=False)
    play(
        "",
        IDLE_A
        + """
        > arrive 2 b
        inspect b#1
        set inspection b#1 @5
        > models a b:2
        unset inspection b#1
        inspect b#2
        set inspection b#2 @5
        > inspected b#1
        > inspected b#2
        unset inspection b#2
        """
        + STOP_A,
        stage=stage,
    )


def test_an_unrelated_change_does_not_ask_again() -> None:
    stage = stage_with_a_idle("b")
    stage.handle(RequestArrived(2, "b"))
    play("", "> arrive 3 b\n@ 1", stage=stage)
    stage.handle(LoadRequested(4, "b"))
    stage.handle(RequestArrived(5, "a"))
    stage.handle(RequestFinished(5))
    assert questions(stage) == [("b", 1)]


def test_the_answer_holds_for_one_claim_only() -> None:
    stage = stage_with_a_idle("b")
    stage.handle(RequestArrived(2, "b"))
    stage.handle(ModelInspected("b", 1))
    reaped(stage, "a")
    ready(stage, "b")
    stage.handle(RequestFinished(2))
    stage.handle(RequestArrived(3, "a"))
    stage.handle(ModelInspected("a", 2))
    reaped(stage, "b")
    ready(stage, "a")
    stage.handle(RequestFinished(3))
    stage.handle(RequestArrived(4, "b"))
    assert questions(stage) == [("b", 1), ("a", 2), ("b", 3)]
    assert stage.core.view("a").state == "loaded"


def test_a_load_that_finds_waiters_meanwhile_is_finished_and_used() -> None:
    stage = stage_with_a_idle("b", "c")
    play("", "> arrive 2 b\n...\n> inspected b#1\n...\n> reaped a#1\n...", stage=stage)
    play("", "> cancel 2\n> arrive 3 c\n...\n> arrive 4 b", stage=stage)
    assert questions(stage)[-1][0] == "c"
    stage.handle(ModelInspected("c", questions(stage)[-1][1]))
    assert stage.core.view("b").state == "loading"
    stage.handle(EngineReady("b", 2))
    assert stage.core.view("b").in_flight == 1


def test_plain_order_asks_too() -> None:
    stage = Stage(specs("a b"), inspects=False)
    play(
        "",
        IDLE_A
        + """
        > arrive 2 b
        inspect b#1
        set inspection b#1 @5
        > inspected b#1
        unset inspection b#1
        """
        + STOP_A
        + """
        > reaped a#1
        ...
        spawn b#2
        ...
        > ready b#2
        ...
        > finish 2
        > load 3 a
        inspect a#2
        ...
        > inspected a#2 'no such file'
        ...
        settled 3 model_load_failed
        ...
        """,
        stage=stage,
    )
    assert stage.core.view("b").state == "loaded"
    assert [each.reason for each in stage.commands if isinstance(each, Settled)] == [
        "Model 'a' could not be loaded: no such file"
    ]


def test_who_had_to_go_says_for_whom_and_why() -> None:
    stage = stage_with_a_idle("b")
    assert stage.core.view("a").last_eviction == ""
    stage.handle(RequestArrived(2, "b"))
    stage.handle(ModelInspected("b", 1))
    assert stage.core.view("a").last_eviction == "for b: nobody uses it"
    reaped(stage, "a")
    assert stage.core.view("a").last_eviction == "for b: nobody uses it"


def test_who_still_goes_for_an_earlier_claim_says_nothing_about_the_present_one() -> None:
    stage = Stage(
        [spec("a", 4), spec("b", 6), spec("c", 4), spec("d", 6)],
        BenefitOrder(),
        CoreSettings(budgets=devices(gpu=10), min_residency_s=0.0),
        inspects=False,
    )
    for number, name in enumerate(("a", "c"), 1):
        stage.handle(RequestArrived(number, name))
        ready(stage, name)
        stage.handle(RequestFinished(number))
    stage.handle(RequestArrived(3, "b"))
    stage.handle(ModelInspected("b", 1))
    views = stage.views()
    (other,) = [name for name in ("a", "c") if views[name].state == "loaded"]
    stage.handle(UnloadRequested(4, other))
    reaped(stage, other)
    assert stage.core.view("b").state == "loading"  # while the first one does not end
    stage.handle(UnloadRequested(5, "b"))
    reaped(stage, "b")
    stage.handle(RequestArrived(6, "d"))
    ready(stage, "d")
    stage.handle(RequestFinished(6))
    stage.handle(RequestArrived(7, "b"))
    assert questions(stage) == [("b", 1), ("b", 2)]
    assert stage.core.view("d").state == "loaded"
