"""All orders of what may happen at the same time: one outcome for each request in each of them."""

from collections.abc import Iterator
from itertools import permutations

import pytest

from llama_router.core.events import EngineReady, EngineReaped, RequestFinished, TimerFired
from llama_router.core.policies.arrival import ArrivalOrder
from llama_router.core.policies.base import Policy
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.core.settings import CoreSettings
from tests.core.playbook import Stage, parse, play, specs

SETTINGS = {
    "loading": ("a b", "> arrive 1 a notices\n..."),
    "loading, others wait": ("a b", "> arrive 1 a\n...\n> arrive 2 b notices\n...\n> arrive 3 a"),
    "serving, others wait": (
        "a b",
        "> arrive 1 a\n...\n> ready a#1\n...\n> arrive 2 b\n> arrive 3 a",
    ),
    "two of a group": ("a/g b/g", "> arrive 1 a\n...\n> arrive 2 b\n...\n> arrive 3 a"),
}
MEETINGS = {
    "cancel, ready, crash": ("cancel 1", "ready a#1", "exited a#1", "reaped a#1"),
    "cancel, ready, timeout": ("cancel 1", "ready a#1", "fired ready_timeout a#1", "reaped a#1"),
    "finish, bounce, crash": ("finish 1", "bounce 1", "exited a#1", "ready a#1"),
    "unload, ready, cancel": ("unload 9 a", "ready a#1", "cancel 1", "arrive 10 a"),
    "reload, ready, crash": ("models a:2 b", "ready a#1", "exited a#1", "arrive 10 a"),
    "swap, finish, stolen": ("arrive 10 b", "finish 1", "stolen a#1", "ready a#1"),
    "removal, bounce, ready": ("models b", "bounce 1", "ready a#1", "reaped a#1"),
    "shutdown, ready, cancel": ("shutdown 5", "ready a#1", "cancel 1", "spawn_failed a#1"),
    "force, crash, finish": ("force", "exited a#1", "finish 1", "reaped a#1"),
}


def orders(events: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every order of every selection, each also with its first event doubled at the end."""
    for length in range(1, len(events) + 1):
        for order in permutations(events, length):
            yield order
            if not order[0].startswith("arrive"):
                yield (*order, order[0])


def settle_down(stage: Stage) -> None:
    """Let everything work from here on."""
    for _ in range(60):
        for request_id in list(stage.auditor.dispatched):
            stage.handle(RequestFinished(request_id))
        for model in list(stage.core.ledger.running.values()):
            if model.state.value == "starting":
                stage.handle(EngineReady(model.name, model.generation))
            elif model.state.value == "stopping":
                stage.handle(EngineReaped(model.name, model.generation))
        stage.now += 1.0
        for timer in [timer for timer, at in stage.auditor.timers.items() if at <= stage.now]:
            if timer in stage.auditor.timers:
                stage.handle(TimerFired(timer))


@pytest.mark.parametrize("meeting", MEETINGS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_each_request_has_one_outcome_in_any_order(setting: str, meeting: str) -> None:
    models, way = SETTINGS[setting]
    for order in orders(MEETINGS[meeting]):
        stage = play(models, way, stage=Stage(specs(models)))

        for event in order:
            stage.handle(parse(event))
        settle_down(stage)

        assert stage.auditor.models == {}, order
        assert stage.auditor.timers == {}, order
        assert stage.core.ledger.requests == {}, order


INSPECTIONS = {
    "answer, cancel, timer": ("inspected b#1", "cancel 2", "fired inspection b#1", "arrive 10 a"),
    "problem, answer, reload": (
        "inspected b#1 broken",
        "inspected b#1",
        "models a b:2",
        "arrive 10 b",
    ),
    "answer, crash, removal": ("inspected b#1", "exited a#1", "models a", "reaped a#1"),
    "problem, unload, shutdown": ("inspected b#1 broken", "unload 9 a", "shutdown 5", "cancel 2"),
    "problem, load, timer": (
        "inspected b#1 broken",
        "load 9 b",
        "fired inspection b#1",
        "fired backoff b#0",
    ),
}


@pytest.mark.parametrize("policy", [ArrivalOrder, BenefitOrder])
@pytest.mark.parametrize("meeting", INSPECTIONS)
def test_each_request_has_one_outcome_however_an_inspection_ends(
    meeting: str, policy: type[Policy]
) -> None:
    for order in orders(INSPECTIONS[meeting]):
        stage = Stage(specs("a b"), policy(), CoreSettings(min_residency_s=0.0), inspects=False)
        play("", "> arrive 1 a\n...\n> ready a#1\n...\n> finish 1\n> arrive 2 b\n...", stage=stage)

        for event in order:
            stage.handle(parse(event))
        stage.inspects = True
        settle_down(stage)

        assert stage.auditor.models == {}, order
        assert stage.auditor.timers == {}, order
        assert stage.core.ledger.inspections == {}, order
