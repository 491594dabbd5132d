import pytest

from llama_router.core.events import DeviceBytes
from llama_router.core.settings import CoreSettings
from llama_router.simulator.experiments import Shape, play, skewed
from llama_router.simulator.schedulers import SCHEDULERS, core_settings

SMALL = Shape(models_count=10, requests_count=200, room_for=3)


def test_the_core_gets_the_budget_of_the_machine() -> None:
    case = skewed(SMALL, 0)
    settings = core_settings(case.fleet, CoreSettings(max_wait_s=7.0))
    assert settings.budgets == (DeviceBytes("gpu0", case.fleet.machine.memory_bytes),)
    assert settings.max_wait_s == 7.0


@pytest.mark.parametrize("policy", SCHEDULERS)
@pytest.mark.parametrize("seed", range(3))
def test_everybody_is_served_within_the_memory(policy: str, seed: int) -> None:
    print(f"seed={seed}")  # noqa: T201 - to run it again
    case = skewed(SMALL, seed)
    result = play(case, policy)
    assert result.served == result.requests == 200
    assert not result.rejected
    assert 0 < result.peak_memory_bytes <= case.fleet.machine.memory_bytes


@pytest.mark.parametrize("policy", SCHEDULERS)
def test_the_same_case_is_the_same_result(policy: str) -> None:
    assert play(skewed(SMALL, 1), policy) == play(skewed(SMALL, 1), policy)
