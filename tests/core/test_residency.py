"""Who stays loaded for how long, and who goes for whom, where memory is short."""

import math

import pytest

from llama_router.core.commands import RejectKind, Settled
from llama_router.core.events import (
    BudgetsChanged,
    EngineReady,
    EngineReaped,
    LoadRequested,
    ModelInspected,
    ModelsChanged,
    ModelSpec,
    RequestArrived,
    RequestFinished,
    Timer,
    TimerFired,
    TimerKind,
    UnloadRequested,
)
from tests.core.memory_world import devices
from tests.core.playbook import Stage
from tests.core.test_swaps import ready, reaped, spawned, spec, stage_of


def loaded(*specs: ModelSpec, **settings: float) -> Stage:
    """The first of the models is ready and idle."""
    stage = stage_of(*specs, **settings)
    stage.handle(RequestArrived(1, specs[0].name))
    ready(stage, specs[0].name)
    stage.handle(RequestFinished(1))
    return stage


def pass_time(stage: Stage, until: float) -> None:
    while due := [(at, timer) for timer, at in stage.auditor.timers.items() if at <= until]:
        at, timer = min(due, key=lambda each: each[0])
        stage.now = max(stage.now, at)
        stage.handle(TimerFired(timer))
    stage.now = until


def settled(stage: Stage) -> list[tuple[int, RejectKind | None]]:
    return [(each.request_id, each.error) for each in stage.commands if isinstance(each, Settled)]


def state(stage: Stage, name: str) -> str:
    return stage.core.view(name).state


# How long a model stays that nobody uses


def test_the_time_to_live_counts_from_the_end_of_the_last_request() -> None:
    stage = loaded(spec("a", 6, ttl_s=10.0))
    pass_time(stage, 9.0)
    stage.handle(RequestArrived(2, "a"))
    pass_time(stage, 100.0)
    assert state(stage, "a") == "loaded"
    stage.handle(RequestFinished(2))
    assert stage.core.view("a").expires_at == 110.0
    pass_time(stage, 109.0)
    assert state(stage, "a") == "loaded"
    pass_time(stage, 110.0)
    assert state(stage, "a") == "unloading"


def test_a_model_that_was_loaded_on_purpose_expires_too() -> None:
    stage = stage_of(spec("a", 6, ttl_s=10.0))
    stage.handle(LoadRequested(1, "a"))
    ready(stage, "a")
    pass_time(stage, 10.0)
    assert state(stage, "a") == "unloading"


def ask(stage: Stage, number: int, keep_alive_s: float | None) -> None:
    stage.handle(RequestArrived(number, "a", keep_alive_s=keep_alive_s))
    stage.handle(RequestFinished(number))


@pytest.mark.parametrize("forever", [-1.0, math.inf])
def test_a_request_may_keep_its_model_for_ever_until_another_says_otherwise(
    forever: float,
) -> None:
    stage = loaded(spec("a", 6, ttl_s=10.0))
    ask(stage, 2, forever)
    pass_time(stage, 1000.0)
    ask(stage, 3, None)
    pass_time(stage, 2000.0)
    assert (state(stage, "a"), stage.core.view("a").expires_at) == ("loaded", None)
    ask(stage, 4, 5.0)
    pass_time(stage, 2004.0)
    assert state(stage, "a") == "loaded"
    pass_time(stage, 2005.0)
    assert state(stage, "a") == "unloading"


def test_what_a_request_said_of_its_model_holds_until_it_is_unloaded() -> None:
    stage = loaded(spec("a", 6, ttl_s=300.0))
    ask(stage, 2, 0.0)
    pass_time(stage, 0.0)
    stage.handle(EngineReaped("a", 1))
    assert state(stage, "a") == "unloaded"
    stage.handle(RequestArrived(3, "a"))
    ready(stage, "a")
    stage.handle(RequestFinished(3))
    pass_time(stage, 299.0)
    assert (state(stage, "a"), stage.core.view("a").expires_at) == ("loaded", 300.0)


def test_a_request_may_have_its_model_unloaded_as_soon_as_it_is_idle() -> None:
    stage = loaded(spec("a", 6))
    stage.handle(RequestArrived(2, "a"))
    ask(stage, 3, 0.0)
    pass_time(stage, 0.0)
    assert state(stage, "a") == "loaded"
    stage.handle(RequestFinished(2))
    pass_time(stage, 0.0)
    assert state(stage, "a") == "unloading"


def test_a_pinned_model_outlives_every_time_and_everybody_who_waits() -> None:
    stage = loaded(spec("a", 6, ttl_s=1.0, pinned=True), spec("b", 6))
    ask(stage, 2, 0.0)
    pass_time(stage, 50.0)
    stage.handle(RequestArrived(3, "b"))
    pass_time(stage, 100.0)
    assert state(stage, "a") == "loaded"
    (reject,) = stage.auditor.rejects
    assert reject.kind is RejectKind.DOES_NOT_FIT
    assert reject.retry_after_s is not None
    stage.handle(UnloadRequested(4, "a"))
    assert state(stage, "a") == "unloading"


# What operators ask for


def test_a_load_that_would_never_fit_is_refused_with_the_reason() -> None:
    stage = loaded(spec("a", 6, pinned=True), spec("b", 6), spec("c", 11))
    stage.handle(LoadRequested(2, "b"))
    stage.handle(LoadRequested(3, "c"))
    assert settled(stage) == [(2, RejectKind.DOES_NOT_FIT), (3, RejectKind.DOES_NOT_FIT)]
    texts = [each.reason for each in stage.commands if isinstance(each, Settled)]
    assert "beside" in texts[0]
    assert all("does not fit" in text for text in texts)
    assert (state(stage, "a"), state(stage, "b")) == ("loaded", "unloaded")


def test_a_load_waits_for_its_turn_and_holds_up_nobody_who_is_served() -> None:
    stage = loaded(spec("a", 6), spec("b", 6))
    stage.handle(RequestArrived(2, "a"))
    stage.handle(LoadRequested(3, "b"))
    for number in range(4, 8):
        stage.handle(RequestArrived(number, "a"))
    assert stage.core.view("a").in_flight == 5
    pass_time(stage, 20.0)  # max_wait_s
    stage.handle(RequestArrived(8, "a"))
    assert (stage.core.view("a").in_flight, stage.core.view("a").waiting) == (5, 1)


def test_a_model_that_fits_is_loaded_although_somebody_waits_for_a_drain() -> None:
    stage = loaded(spec("a", 6), spec("b", 6), spec("c", 4))
    stage.handle(RequestArrived(2, "a"))
    stage.handle(LoadRequested(3, "b"))
    pass_time(stage, 20.0)  # b is next now, and a goes for it when it is done
    stage.handle(LoadRequested(4, "c"))
    assert spawned(stage) == ["a", "c"]
    ready(stage, "c")
    stage.handle(RequestFinished(2))
    reaped(stage, "a")
    assert spawned(stage) == ["a", "c", "b"]


def test_an_unload_during_the_load_lets_the_next_one_in() -> None:
    stage = stage_of(spec("a", 6), spec("b", 6))
    stage.handle(RequestArrived(1, "a"))
    stage.handle(RequestArrived(2, "b"))
    stage.handle(UnloadRequested(3, "a"))
    assert [each.kind for each in stage.auditor.rejects] == [RejectKind.MODEL_UNLOADED]
    reaped(stage, "a")
    assert settled(stage) == [(3, None)]
    assert spawned(stage) == ["a", "b"]


def test_an_unload_of_one_that_is_about_to_go_is_no_harm() -> None:
    stage = loaded(spec("a", 6), spec("b", 6))
    stage.handle(RequestArrived(2, "a"))
    stage.handle(RequestArrived(3, "b"))
    pass_time(stage, 20.0)
    stage.handle(UnloadRequested(4, "a"))
    stage.handle(RequestArrived(5, "a"))
    stage.handle(RequestFinished(2))
    reaped(stage, "a")
    assert settled(stage) == [(4, None)]
    assert state(stage, "b") == "loading"


# Another configuration in the middle of a swap


def swap_under_way() -> Stage:
    """``b`` is overdue, ``a`` still busy and closed."""
    stage = loaded(spec("a", 6), spec("b", 6))
    stage.inspects = False
    stage.handle(RequestArrived(2, "a"))
    stage.handle(RequestArrived(3, "b"))
    pass_time(stage, 20.0)
    stage.handle(ModelInspected("b", 1))
    stage.handle(RequestArrived(4, "a"))
    assert stage.core.view("a").waiting == 1
    return stage


def test_a_reload_that_changes_nothing_of_it_does_not_delay_a_swap() -> None:
    stage = swap_under_way()
    stage.handle(ModelsChanged((spec("a", 6), spec("b", 6), spec("c", 1))))
    stage.handle(RequestArrived(5, "a"))
    assert stage.core.view("a").waiting == 2
    for number in list(stage.auditor.dispatched):
        stage.handle(RequestFinished(number))
    reaped(stage, "a")
    assert state(stage, "b") == "loading"


def test_a_reload_that_changes_who_is_next_has_it_inspected_anew() -> None:
    stage = swap_under_way()
    stage.handle(ModelsChanged((spec("a", 6), spec("b", 6, fingerprint="2"))))
    assert stage.core.view("a").waiting == 0  # served on, as long as nobody knows
    stage.handle(ModelInspected("b", 2, "not executable"))
    assert [each.kind for each in stage.auditor.rejects] == [RejectKind.MODEL_LOAD_FAILED]
    assert state(stage, "a") == "loaded"


def test_a_reload_that_removes_who_is_next_lets_the_others_stay() -> None:
    stage = swap_under_way()
    stage.handle(ModelsChanged((spec("a", 6),)))
    assert (state(stage, "a"), stage.core.view("a").waiting) == ("loaded", 0)


def test_a_reload_that_pins_who_was_to_go_refuses_who_was_next() -> None:
    stage = swap_under_way()
    stage.handle(ModelsChanged((spec("a", 6, pinned=True), spec("b", 6))))
    assert [each.kind for each in stage.auditor.rejects] == [RejectKind.DOES_NOT_FIT]
    assert stage.core.view("a").waiting == 0


def test_more_memory_ends_a_swap_before_it_costs_anything() -> None:
    stage = swap_under_way()
    stage.handle(BudgetsChanged(devices(gpu=12)))
    assert (state(stage, "a"), state(stage, "b")) == ("loaded", "loading")
    assert stage.core.view("a").waiting == 0


def test_what_hung_in_the_kernel_is_not_started_again_before_its_back_off_is_over() -> None:
    stage = stage_of(spec("a", 6))
    stage.handle(RequestArrived(1, "a"))
    for _ in range(3):
        pass_time(stage, min(stage.auditor.timers.values()))
    assert state(stage, "a") == "stuck"
    stage.core.ledger.models["a"].crashes.retry_at = stage.now + 5.0
    stage.handle(EngineReaped("a", 1))
    assert state(stage, "a") == "backing_off"
    assert Timer(TimerKind.BACKOFF, "a", 1) in stage.auditor.timers
    pass_time(stage, stage.now + 5.0)
    stage.handle(RequestArrived(2, "a"))
    stage.handle(EngineReady("a", 2))
    assert state(stage, "a") == "loaded"


def test_a_priority_that_is_raised_while_many_wait_counts_at_once() -> None:
    waited_for = [spec(f"m{number}", 10) for number in range(20)]
    stage = stage_of(spec("a", 10), *waited_for)
    stage.handle(RequestArrived(1, "a"))
    ready(stage, "a")
    for number, each in enumerate(waited_for, 2):
        stage.handle(RequestArrived(number, each.name))
    assert not stage.core.ledger.claims
    stage.handle(ModelsChanged((spec("a", 10), *waited_for[:-1], spec("m19", 10, priority=1))))
    assert list(stage.core.ledger.claims) == ["m19"]
