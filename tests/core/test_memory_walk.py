import pytest

from llama_router.core import events as ev
from llama_router.core.policies.arrival import ArrivalOrder
from llama_router.core.policies.base import Policy
from llama_router.core.policies.benefit import BenefitOrder
from tests.core.memory_world import walk

POLICIES = pytest.mark.parametrize("policy", [BenefitOrder, ArrivalOrder])


@POLICIES
@pytest.mark.parametrize("seed", range(60))
def test_memory_is_never_overcommitted_and_everybody_is_answered(
    seed: int, policy: type[Policy]
) -> None:
    print(f"seed={seed}")  # noqa: T201 - to run it again
    world = walk(seed, policy)

    world.settle_down()

    assert world.stage.auditor.models == {}
    assert world.stage.auditor.dispatched == {}
    left = {timer.kind for timer in world.stage.auditor.timers}
    assert left <= {ev.TimerKind.TTL}
    assert world.stage.core.ledger.claims == {}
