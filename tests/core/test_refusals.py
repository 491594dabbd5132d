import pytest

from llama_router.core.commands import Dispatch, Reject, RejectKind, Settled
from llama_router.core.crashes import TRIAL_AFTER_S
from llama_router.core.events import (
    EngineExited,
    EngineProgress,
    EngineReady,
    EngineReaped,
    ExitCause,
    LoadRequested,
    ModelSpec,
    RequestArrived,
    RequestFinished,
    Timer,
    TimerFired,
    TimerKind,
)
from llama_router.core.machine import Core
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.core.refusals import MAX_RETRY_AFTER_S
from llama_router.core.settings import CoreSettings
from tests.core.memory_world import devices
from tests.core.playbook import Stage


def test_a_full_queue_and_a_model_that_is_too_large_are_refused_with_a_reason() -> None:
    specs = [ModelSpec("a", "", max_waiting=1), ModelSpec("b", "", memory=devices(gpu=2_000_000))]
    core = Core(specs, settings=CoreSettings(budgets=devices(gpu=1_000_000)))
    core.handle(RequestArrived(1, "a"), 0.0)
    (full,) = core.handle(RequestArrived(2, "a"), 0.0)
    (large,) = core.handle(RequestArrived(3, "b"), 0.0)
    assert isinstance(full, Reject)
    assert isinstance(large, Reject)
    assert (full.kind.value, full.retry_after_s) == ("queue_full", 1.0)
    assert large.kind.value == "does_not_fit"
    assert "2.0 GB" not in large.reason
    assert "0.0 GB of gpu" in large.reason


def test_a_model_has_as_many_requests_as_it_may_loading_or_ready() -> None:
    spec = ModelSpec("a", "", max_requests=2, max_in_flight=2)
    core = Core([spec], BenefitOrder())
    core.handle(RequestArrived(1, "a"), 0.0)
    core.handle(RequestArrived(2, "a"), 0.0)
    for number, ready in ((3, False), (4, True)):
        if ready:
            core.handle(EngineReady("a", 1), 1.0)
        (reject,) = core.handle(RequestArrived(number, "a"), 1.0)
        assert isinstance(reject, Reject)
        assert reject.kind is RejectKind.QUEUE_FULL
        assert "2 requests already" in reject.reason
    core.handle(RequestFinished(1), 2.0)
    (dispatch,) = core.handle(RequestArrived(5, "a"), 2.0)
    assert isinstance(dispatch, Dispatch)


def hint_after(core: Core, number: int, model: str, now: float) -> float | None:
    """What a newcomer is told whom the queue of ``model`` has no place for."""
    (reject,) = core.handle(RequestArrived(number, model), now)
    assert isinstance(reject, Reject)
    assert reject.kind is RejectKind.QUEUE_FULL
    return reject.retry_after_s


def test_a_full_queue_says_how_long_it_takes_until_there_is_a_place() -> None:
    spec = ModelSpec("a", "", max_waiting=1, max_in_flight=1, load_cost_s=20.0)
    core = Core([spec], BenefitOrder())
    core.handle(RequestArrived(1, "a"), 0.0)
    assert hint_after(core, 2, "a", 0.0) == 20.0
    core.handle(EngineProgress("a", 1, 0.75), 0.0)
    assert hint_after(core, 3, "a", 0.0) == pytest.approx(5.0)
    core.handle(EngineReady("a", 1), 0.0)
    core.handle(RequestArrived(4, "a"), 0.0)
    assert hint_after(core, 5, "a", 0.5) == 1.0
    assert hint_after(core, 6, "a", 7.0) == 7.0
    assert hint_after(core, 7, "a", 9999.0) == MAX_RETRY_AFTER_S


def test_who_waits_for_a_place_in_memory_is_told_of_the_longest_wait_and_the_load() -> None:
    specs = [ModelSpec(name, "", memory=devices(gpu=6), max_waiting=1) for name in "ab"]
    core = Core(specs, BenefitOrder(), CoreSettings(budgets=devices(gpu=10), max_wait_s=20.0))
    core.handle(RequestArrived(1, "a"), 0.0)
    core.handle(EngineReady("a", 1), 0.0)
    core.handle(RequestArrived(2, "b"), 0.0)
    assert hint_after(core, 3, "b", 5.0) == 16.0


def test_whoever_has_waited_for_too_long_is_told_when_to_come_again() -> None:
    core = Core(
        [ModelSpec("a", "", load_cost_s=30.0)], BenefitOrder(), CoreSettings(max_queue_s=10.0)
    )
    core.handle(RequestArrived(1, "a"), 0.0)
    core.handle(RequestArrived(2, "a"), 5.0)
    commands = core.handle(TimerFired(Timer(TimerKind.QUEUE_TIMEOUT, "a")), 10.0)
    (reject,) = [each for each in commands if isinstance(each, Reject)]
    assert (reject.request_id, reject.kind) == (1, RejectKind.QUEUE_TIMEOUT)
    assert reject.retry_after_s == 30.0


def test_operators_do_not_fill_a_queue_without_end() -> None:
    core = Core([ModelSpec("a", "", max_waiting=2)], BenefitOrder())
    core.handle(LoadRequested(1, "a"), 0.0)
    core.handle(LoadRequested(2, "a"), 0.0)
    (settled,) = core.handle(LoadRequested(3, "a"), 0.0)
    assert isinstance(settled, Settled)
    assert settled.error is RejectKind.QUEUE_FULL


def test_a_model_that_seemed_too_large_after_running_out_of_memory_is_tried_again_some_time() -> (
    None
):
    stage = Stage(
        [ModelSpec("a", "", memory=devices(gpu=9))],
        BenefitOrder(),
        CoreSettings(budgets=devices(gpu=10)),
    )

    def ask(number: int, at: float) -> list[RejectKind]:
        stage.now = at
        commands = stage.handle(RequestArrived(number, "a"))
        return [each.kind for each in commands if isinstance(each, Reject)]

    for number, at in ((1, 0.0), (2, 10.0)):
        assert ask(number, at) == []
        stage.handle(EngineExited("a", number, "killed", ExitCause.OUT_OF_MEMORY))
        stage.handle(EngineReaped("a", number))
        stage.now = at + 5.0
        stage.handle(TimerFired(Timer(TimerKind.BACKOFF, "a", number)))
    assert ask(3, 20.0) == ask(4, 10.0 + TRIAL_AFTER_S - 1.0) == [RejectKind.DOES_NOT_FIT]
    # What took the memory may have gone away.
    assert ask(5, 10.0 + TRIAL_AFTER_S) == []
    assert stage.core.view("a").memory == devices(gpu=9)
