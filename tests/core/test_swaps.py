from llama_router.core.commands import Emit, Spawn, Terminate
from llama_router.core.events import (
    EngineReady,
    EngineReaped,
    ModelSpec,
    RequestArrived,
    RequestCancelled,
    RequestFinished,
    Timer,
    TimerFired,
    TimerKind,
)
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.core.settings import CoreSettings
from tests.core.memory_world import devices
from tests.core.playbook import Stage


def stage_of(*specs: ModelSpec, **settings: float) -> Stage:
    given = {"max_wait_s": 20.0, "min_residency_s": 0.0} | settings
    return Stage(
        specs,
        BenefitOrder(),
        CoreSettings(budgets=devices(gpu=10), **given),  # type: ignore[arg-type]
    )


def spec(name: str, gpu: int, **more: object) -> ModelSpec:
    return ModelSpec(name, "", memory=devices(gpu=gpu), **more)  # type: ignore[arg-type]


def spawned(stage: Stage) -> list[str]:
    return [command.model for command in stage.commands if isinstance(command, Spawn)]


def ready(stage: Stage, name: str) -> None:
    stage.handle(EngineReady(name, stage.core.view(name).generation))


def reaped(stage: Stage, name: str) -> None:
    stage.handle(EngineReaped(name, stage.core.view(name).generation))


def test_models_that_fit_load_side_by_side() -> None:
    stage = stage_of(spec("a", 4), spec("b", 6))
    stage.handle(RequestArrived(1, "a"))
    stage.handle(RequestArrived(2, "b"))
    assert spawned(stage) == ["a", "b"]


def test_an_idle_model_goes_at_once_and_the_next_starts_with_the_reap() -> None:
    stage = stage_of(spec("a", 6), spec("b", 6))
    stage.handle(RequestArrived(1, "a"))
    ready(stage, "a")
    stage.handle(RequestFinished(1))
    stage.handle(RequestArrived(2, "b"))
    assert spawned(stage) == ["a"]
    assert any(isinstance(each, Terminate) for each in stage.commands)
    reaped(stage, "a")
    assert spawned(stage) == ["a", "b"]
    reasons = [each.reason for each in stage.commands if isinstance(each, Emit)]
    assert "swap for b: nobody uses it" in reasons


def busy_with_a_claim() -> Stage:
    stage = stage_of(spec("a", 6), spec("b", 6))
    stage.handle(RequestArrived(1, "a"))
    ready(stage, "a")
    stage.handle(RequestArrived(2, "b"))
    stage.handle(RequestArrived(3, "a"))
    assert stage.core.view("a").in_flight == 2  # loaded models are served meanwhile
    stage.now = 20.0
    stage.handle(TimerFired(Timer(TimerKind.SWITCH)))
    stage.handle(RequestArrived(4, "a"))
    assert stage.core.view("a").waiting == 1
    return stage


def test_a_claim_closes_the_door_and_cuts_nothing() -> None:
    stage = busy_with_a_claim()
    stage.handle(RequestFinished(1))
    assert stage.core.view("a").state == "loaded"
    stage.handle(RequestFinished(3))
    assert stage.core.view("a").state == "unloading"
    reaped(stage, "a")
    assert stage.core.view("b").state == "loading"


def test_a_claim_that_nobody_waits_for_any_more_opens_the_door_again() -> None:
    stage = busy_with_a_claim()
    stage.handle(RequestCancelled(2))
    assert (stage.core.view("a").waiting, stage.core.view("a").in_flight) == (0, 3)


def test_two_claims_do_not_count_on_the_same_memory() -> None:
    stage = stage_of(spec("a", 6), spec("b", 6), spec("c", 4), spec("d", 5))
    stage.handle(RequestArrived(1, "a"))
    ready(stage, "a")
    stage.handle(RequestFinished(1))
    stage.handle(RequestArrived(2, "b"))
    stage.handle(RequestArrived(3, "c"))  # fits beside b, and beside what goes for it
    stage.handle(RequestArrived(4, "d"))  # does not
    assert spawned(stage) == ["a"] or spawned(stage) == ["a", "c"]
    reaped(stage, "a")
    assert sorted(spawned(stage)) == ["a", "b", "c"]


def test_the_models_allowed_at_a_time_are_counted() -> None:
    stage = stage_of(spec("a", 1), spec("b", 1), max_loaded=1)
    stage.handle(RequestArrived(1, "a"))
    ready(stage, "a")
    stage.handle(RequestArrived(2, "b"))
    assert spawned(stage) == ["a"]
    stage.handle(RequestFinished(1))
    reaped(stage, "a")
    assert spawned(stage) == ["a", "b"]
