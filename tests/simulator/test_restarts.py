import pytest

from llama_router.core.commands import Command
from llama_router.core.crashes import (
    FAILED_AFTER_CRASHES,
    FAILED_WINDOW_S,
    FIRST_BACKOFF_S,
    TRIAL_AFTER_S,
)
from llama_router.core.events import Event
from llama_router.core.invariants import InvariantViolation
from llama_router.core.lifecycle import MAX_ADDRESS_TRIES
from llama_router.core.machine import Core
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.simulator.faults import Plan
from llama_router.simulator.restarts import Restarts
from llama_router.simulator.swarm import Swarm

PAUSE = "a crash is followed by a pause"
BAN = "a model that was given up is left alone"


def crashed(times: int, apart_s: float) -> tuple[Restarts, float]:
    restarts = Restarts()
    for number in range(times):
        restarts.crashed("a", number * apart_s)
    return restarts, (times - 1) * apart_s


def test_a_crash_is_followed_by_a_pause() -> None:
    restarts, last = crashed(1, 0.0)
    assert restarts.why_not("a", last) == PAUSE
    assert restarts.why_not("a", last + FIRST_BACKOFF_S) == ""
    assert restarts.why_not("b", last) == ""


def test_too_many_crashes_are_followed_by_a_ban() -> None:
    restarts, last = crashed(FAILED_AFTER_CRASHES, 10.0)
    assert restarts.why_not("a", last + TRIAL_AFTER_S - 1.0) == BAN
    assert restarts.why_not("a", last + TRIAL_AFTER_S) == ""


def test_crashes_long_ago_do_not_count() -> None:
    restarts, last = crashed(FAILED_AFTER_CRASHES, FAILED_WINDOW_S)
    assert restarts.why_not("a", last + FIRST_BACKOFF_S) == ""


def test_an_operator_may_have_it_tried_at_once() -> None:
    restarts, last = crashed(FAILED_AFTER_CRASHES, 10.0)
    restarts.forget("a")
    assert restarts.why_not("a", last) == ""


def test_lost_addresses_count_when_they_go_on() -> None:
    restarts = Restarts()
    for _ in range(MAX_ADDRESS_TRIES - 1):
        restarts.lost_address("a", 1.0)
    assert restarts.why_not("a", 1.0) == ""
    restarts.became_ready("a")
    for _ in range(MAX_ADDRESS_TRIES):
        restarts.lost_address("a", 1.0)
    assert restarts.why_not("a", 1.0) == PAUSE


class ForgetsCrashes(Core):
    def handle(self, event: Event, now: float) -> list[Command]:
        commands = super().handle(event, now)
        for model in self.ledger.models.values():
            model.crashes.clear()
        return commands


class NeverGivesUp(Core):
    def handle(self, event: Event, now: float) -> list[Command]:
        commands = super().handle(event, now)
        for model in self.ledger.models.values():
            model.crashes.times.clear()
        return commands


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rule"), [(ForgetsCrashes, PAUSE), (NeverGivesUp, BAN)])
def test_walks_find_a_core_that_starts_again_and_again(kind: type[Core], rule: str) -> None:
    def factory(plan: Plan) -> Core:
        return kind(plan.models, BenefitOrder(), plan.settings)

    found: list[str] = []
    for seed in range(300):
        try:
            Swarm(seed, factory).run()
        except InvariantViolation as error:
            found.append(str(error))
            if rule in found[-1]:
                return
    pytest.fail(f"300 walks found only {found}")
