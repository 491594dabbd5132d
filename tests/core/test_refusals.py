from llama_router.core.commands import Reject
from llama_router.core.events import ModelSpec, RequestArrived
from llama_router.core.machine import Core
from llama_router.core.settings import CoreSettings
from tests.core.memory_world import devices


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
