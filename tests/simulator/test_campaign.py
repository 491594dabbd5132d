import secrets

import pytest

from llama_router.core import events as ev
from llama_router.core.commands import Command, Dispatch
from llama_router.core.machine import Core
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.simulator import campaign
from llama_router.simulator.campaign import describe, run, summary, walk
from llama_router.simulator.faults import Plan
from llama_router.simulator.swarm import Swarm


class ForgetsNotices(Core):
    """Breaks only for a request that wants notices and is dispatched."""

    def handle(self, event: ev.Event, now: float) -> list[Command]:
        commands = super().handle(event, now)
        if isinstance(event, ev.RequestArrived) and event.wants_notices:
            return commands + [each for each in commands if isinstance(each, Dispatch)]
        return commands


def broken(plan: Plan) -> Core:
    return ForgetsNotices(plan.models, BenefitOrder(), plan.settings)


def test_a_sound_core_has_no_failures() -> None:
    report = run(100, 5)
    assert report.failures == ()
    assert report.seeds == 5
    assert report.events > 100
    assert report.outcomes["finished"] > 0
    assert "seeds 100 to 104" in summary(report)


@pytest.mark.slow
def test_a_failure_is_shrunk_to_what_is_needed_and_fails_again() -> None:
    report = run(0, 50, factory=broken)
    assert report.failures
    failure = min(report.failures, key=lambda each: len(each.log))
    assert "dispatched once" in failure.rule
    # A load is needed, then a request that wants notices and finds its model ready.
    assert 1 <= len(failure.log) <= 12
    with pytest.raises(AssertionError, match="dispatched once"):
        Swarm(failure.seed, broken).replay(failure.log)


@pytest.mark.slow
def test_a_failure_says_how_to_see_it_again() -> None:
    report = run(0, 50, factory=broken)
    failure = report.failures[0]
    text = describe(failure)
    assert f"seed={failure.seed} InvariantViolation" in text
    assert f"llama-router stress --layer simulation --seed {failure.seed} --seeds 1" in text
    assert "RequestArrived" in text
    _, again = walk(failure.seed, factory=broken, max_shrinks_count=0)
    assert again is not None
    assert again.message == failure.message


@pytest.mark.slow
def test_a_campaign_gives_up_after_a_few_failures() -> None:
    report = run(0, 1000, factory=broken)
    assert len(report.failures) == campaign.MAX_FAILURES_COUNT
    assert report.seeds < 1000


def test_a_campaign_ends_when_its_time_is_over() -> None:
    report = run(0, 1000, max_time_s=0.0)
    assert report.seeds == 0


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    run(0, 3, steps_count=20, on_progress=lambda done, failed: told.append((done, failed)))
    assert told == [(1, 0), (2, 0), (3, 0)]


@pytest.mark.slow
def test_another_number_of_steps_is_part_of_the_replay() -> None:
    _, failure = walk(run(0, 50, factory=broken).failures[0].seed, 5000, broken, 0)
    assert failure is not None
    assert failure.replay_command.endswith("--steps 5000")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_thousand_fresh_walks_break_no_rule() -> None:
    report = run(secrets.randbelow(2**31), 1000)
    assert not report.failures, "\n".join(map(describe, report.failures))
    assert report.seeds == 1000
