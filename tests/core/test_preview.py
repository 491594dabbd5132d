from llama_router.core.crashes import FAILED_AFTER_CRASHES, TRIAL_AFTER_S
from llama_router.core.events import EngineReady, RequestArrived, RequestFinished, SpawnFailed
from tests.core.memory_world import devices
from tests.core.test_swaps import ready, spec, stage_of


def test_the_plan_says_who_would_go_and_changes_nothing() -> None:
    stage = stage_of(spec("a", 6), spec("b", 6), spec("c", 4), spec("d", 99))
    assert stage.core.plan("a", 0.0).reason == "there is room for it"
    stage.handle(RequestArrived(1, "a"))
    assert stage.core.plan("a", 0.0).state == "loading"
    ready(stage, "a")
    assert stage.core.plan("a", 0.0).wait_s == 0.0
    busy = stage.core.plan("b", 0.0)
    assert [(each.model, each.in_flight) for each in busy.victims] == [("a", 1)]
    assert busy.wait_s == 21.0
    stage.handle(RequestFinished(1))
    idle = stage.core.plan("b", 7.0)
    assert idle.wait_s == 1.0
    assert idle.victims[0].reason.startswith("not used for 7 s")
    assert stage.core.plan("c", 0.0).victims == ()
    assert (stage.core.plan("d", 0.0).fits, stage.core.plan("d", 0.0).wait_s) == (False, None)
    assert (idle.needs, idle.free) == (devices(gpu=6), devices(gpu=4))
    assert stage.auditor.spawns == ["a"]


def test_what_is_being_loaded_for_somebody_is_loaded_first() -> None:
    stage = stage_of(spec("a", 6), spec("b", 6))
    stage.handle(RequestArrived(1, "a"))
    plan = stage.core.plan("b", 0.0)
    assert (plan.fits, plan.victims) == (True, ())
    stage.handle(EngineReady("a", 1))
    assert [each.model for each in stage.core.plan("b", 0.0).victims] == ["a"]


def test_where_pinned_models_fill_all_places_another_does_not_fit() -> None:
    stage = stage_of(spec("a", 1, pinned=True), spec("b", 1), max_loaded=1)
    stage.handle(RequestArrived(1, "a"))
    ready(stage, "a")
    plan = stage.core.plan("b", 0.0)
    assert (plan.fits, plan.wait_s) == (False, None)
    stage.handle(RequestArrived(2, "b"))
    assert [each.kind.value for each in stage.auditor.rejects] == ["does_not_fit"]


def test_a_model_that_may_be_tried_again_is_not_said_to_be_refused() -> None:
    stage = stage_of(spec("a", 6))
    model = stage.core.ledger.models["a"]
    model.crashes.times = [0.0] * (FAILED_AFTER_CRASHES - 1)
    stage.handle(RequestArrived(1, "a"))
    stage.handle(SpawnFailed("a", 1, "no such file"))
    assert stage.core.view("a").state == "failed"
    assert stage.core.plan("a", 0.0).wait_s is None
    assert stage.core.plan("a", TRIAL_AFTER_S).wait_s == 1.0
