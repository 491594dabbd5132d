"""Broken variants of the core: each must be noticed by the invariants or the auditor."""

import sys
from collections.abc import Callable
from itertools import combinations

import pytest

from llama_router.core import coexistence
from llama_router.core.coexistence import Combinations, Groups
from llama_router.core.commands import Dispatch
from llama_router.core.engine_events import EngineEvents
from llama_router.core.events import ModelInspected
from llama_router.core.inspections import Inspections
from llama_router.core.ledger import Ledger
from llama_router.core.lifecycle import Lifecycle
from llama_router.core.machine import Core
from llama_router.core.memory import Memory
from llama_router.core.model import Model, Request
from llama_router.core.operators import Operators
from llama_router.core.policies import benefit
from llama_router.core.policies.base import Claim
from llama_router.core.queue import Queue
from llama_router.core.states import State
from llama_router.core.swaps import Swaps
from tests.core.memory_world import walk

MAX_SEEDS = 400
Patch = Callable[[pytest.MonkeyPatch], None]


def skipped_reserve(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Memory, "reserve", lambda _self, _model: None)


def released_with_the_signal(patch: pytest.MonkeyPatch) -> None:
    stop = Lifecycle.stop

    def early(self: Lifecycle, model: Model, reason: str) -> None:
        stop(self, model, reason)
        self._ledger.memory.release(model)

    patch.setattr(Lifecycle, "stop", early)


def reservation_never_released(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Memory, "release", lambda _self, _model: None)


def started_without_room(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("llama_router.core.swaps.lacks", lambda _free, _need: False)


def double_dispatch(patch: pytest.MonkeyPatch) -> None:
    dispatch = Ledger.dispatch

    def twice(self: Ledger, request: Request) -> None:
        dispatch(self, request)
        if request.request_id % 10 == 0:
            self.out.append(self.out[-1])

    patch.setattr(Ledger, "dispatch", twice)


def lost_cancel(patch: pytest.MonkeyPatch) -> None:
    def forget(self: Ledger, request: Request) -> bool:
        del self.requests[request.request_id]
        return False

    patch.setattr(Ledger, "leave", forget)


def lost_request(patch: pytest.MonkeyPatch) -> None:
    serve = Ledger.serve

    def lose(self: Ledger, model: Model, at_most: int | None = None) -> None:
        if len(model.waiting) > 2:
            lost = model.waiting.head
            model.waiting.remove(lost)
        serve(self, model, at_most)

    patch.setattr(Ledger, "serve", lose)


def old_generation(patch: pytest.MonkeyPatch) -> None:
    def any_generation(self: EngineEvents, name: str, _generation: int) -> Model | None:
        return self._ledger.models.get(name)

    patch.setattr(EngineEvents, "_current", any_generation)


def victim_still_in_use(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Swaps, "_may_go", lambda _self, victim: victim.state is State.READY)
    stop = Lifecycle.stop

    def check(self: Lifecycle, model: Model, reason: str) -> None:
        assert not (model.in_flight and reason.startswith("swap")), "cut for a swap"
        stop(self, model, reason)

    patch.setattr(Lifecycle, "stop", check)


def pinned_victim(patch: pytest.MonkeyPatch) -> None:
    weighing = benefit._Weighing

    def all_of_them(self: benefit._Weighing, _readiness: int) -> list[Model]:
        return [
            model
            for model in self._ledger.running.values()
            if model.name not in self._going and model.state is State.READY
        ]

    patch.setattr(weighing, "_candidates", all_of_them)
    patch.setattr(weighing, "_may_be_worth", lambda *_: True)


def last_come_first_served(patch: pytest.MonkeyPatch) -> None:
    take = Queue.take

    def backwards(self: Queue, limit: int | None = None) -> list[Request]:
        return take(self, limit)[::-1]

    patch.setattr(Queue, "take", backwards)


def timer_left_behind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "cancel_timer", lambda *_: None)


def closed_but_served(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Swaps, "advance", lambda _self: False)


def nobody_asks_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "set_switch_timer", lambda *_: None)


def dispatched_while_loading(patch: pytest.MonkeyPatch) -> None:
    start = Lifecycle.start

    def eager(self: Lifecycle, model: Model) -> None:
        start(self, model)
        request_id = model.waiting.head.request_id
        self._ledger.out.append(Dispatch(request_id, model.name, model.generation))

    patch.setattr(Lifecycle, "start", eager)


def outlived_ttl(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lifecycle, "watch_idle", lambda *_: None)


def nobody_inspected(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Inspections, "have_passed", lambda *_: True)


def problem_overlooked(patch: pytest.MonkeyPatch) -> None:
    def overlook(self: Core, event: ModelInspected) -> None:
        if (model := self._swaps.inspections.answered(event)) is not None:
            self._swaps.inspected(model)
            self._schedule()

    patch.setattr(Core, "_model_inspected", overlook)


def stale_inspection(patch: pytest.MonkeyPatch) -> None:
    answered = Inspections.answered

    def any_answer(self: Inspections, event: ModelInspected) -> Model | None:
        inspection = self._ledger.inspections.get(event.model)
        number = inspection.number if inspection else 0
        return answered(self, ModelInspected(event.model, number, event.problem))

    patch.setattr(Inspections, "answered", any_answer)


def inspected_once_and_for_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Inspections, "end_look", lambda _self: None)


def closed_before_the_answer(patch: pytest.MonkeyPatch) -> None:
    claim = Swaps.claim

    def hasty(self: Swaps, step: Claim) -> None:
        claim(self, step)
        self._close_for(step.model)

    patch.setattr(Swaps, "claim", hasty)


def answer_never_acted_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Swaps, "_close_for", lambda *_: None)


def started_whoever_runs(patch: pytest.MonkeyPatch) -> None:
    for rules in (Groups, Combinations):
        patch.setattr(rules, "may_start", lambda *_: True)


def swap_groups_run_together(patch: pytest.MonkeyPatch) -> None:
    evicts = Groups._evicts
    patch.setattr(
        Groups,
        "_evicts",
        lambda self, one, two: one.spec.group != two.spec.group and evicts(self, one, two),
    )


def persistence_ignored(patch: pytest.MonkeyPatch) -> None:
    evicts = Groups._evicts
    patch.setattr(
        Groups,
        "_evicts",
        lambda self, one, two: evicts(self, one, two) and two.spec.group not in self._open,
    )


def two_by_two_is_enough(patch: pytest.MonkeyPatch) -> None:
    admits = Combinations._admits
    patch.setattr(
        Combinations,
        "_admits",
        lambda self, model, others: all(
            admits(self, one, [other]) for one, other in combinations([model, *others], 2)
        ),
    )


def addresses_shared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(coexistence, "_share_address", lambda *_: False)


def address_of_the_config(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Model, "address", property(lambda model: model.spec.address, lambda *_: None))


def rules_never_change(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Operators, "settings_changed", lambda *_: None)


def removed_but_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Operators, "models_patched", lambda *_: None)


def slots_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Model, "capacity", property(lambda _model: sys.maxsize))


def rider_left_behind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "_take_riders", staticmethod(lambda *_, **__: []))


MUTATIONS: list[Patch] = [
    skipped_reserve,
    released_with_the_signal,
    reservation_never_released,
    started_without_room,
    double_dispatch,
    lost_cancel,
    lost_request,
    old_generation,
    victim_still_in_use,
    pinned_victim,
    last_come_first_served,
    timer_left_behind,
    closed_but_served,
    nobody_asks_again,
    dispatched_while_loading,
    outlived_ttl,
    nobody_inspected,
    problem_overlooked,
    stale_inspection,
    inspected_once_and_for_all,
    closed_before_the_answer,
    answer_never_acted_on,
    slots_not_counted,
    rider_left_behind,
    started_whoever_runs,
    swap_groups_run_together,
    persistence_ignored,
    two_by_two_is_enough,
    addresses_shared,
    address_of_the_config,
    rules_never_change,
    removed_but_kept,
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.__name__)
def test_broken_cores_are_caught(mutation: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)
    for seed in range(MAX_SEEDS):
        try:
            walk(seed).settle_down()
        except (AssertionError, KeyError):
            return
    pytest.fail(f"survived {MAX_SEEDS} walks")
