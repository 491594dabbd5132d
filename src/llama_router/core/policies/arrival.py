"""First come, first served, between models that may not run together."""

from itertools import takewhile
from operator import attrgetter

from llama_router.core import reasons
from llama_router.core.commands import RejectKind
from llama_router.core.ledger import Ledger
from llama_router.core.memory import add, lacks
from llama_router.core.model import Model
from llama_router.core.policies.base import Refuse, Serve, Start, Step, Stop
from llama_router.core.states import State

_age = attrgetter("waiting.head.request_id")


class ArrivalOrder:
    """The model of the oldest waiter is next, and what may not run beside it has to go.

    From the moment it is next it has a *claim*: whoever is younger and may not run beside it waits
    behind it, even for a model that is loaded, so a stream of newcomers cannot starve it. Models
    that may do not delay it and go along. Nothing is ever cut for a claim: what is in the way
    finishes its requests first, and a load that somebody waits for is finished and used once. Each
    turn serves all who wait by then, so requests that alternate between models cost one load for
    each model, not for each request.

    A model that backs off after a crash has no claim until its time is over.

    Where memory is short, or there are rules for groups or combinations, everybody younger waits
    behind the claim. Of what is in the way for want of memory, that goes which was used least
    recently.
    """

    serves_at_once = False

    def __init__(self, *, is_strict: bool = False) -> None:
        """Create the order; a strict one is for comparison: nobody is served before his elders."""
        self._is_strict = is_strict
        self.serves_load = not is_strict

    def plan(self, ledger: Ledger) -> list[Step]:
        """See :class:`~llama_router.core.policies.base.Policy`."""
        steps: list[Step] = []
        acting: list[Model] = []
        rules = ledger.coexistence
        by_age = sorted(ledger.waiting.values(), key=_age)
        if self._is_strict:
            return self._plan_strictly(by_age, ledger)
        for model in by_age:
            if model.is_set_back or not rules.may_join(model, acting):
                continue
            if model.state is State.READY and not model.held and model.capacity:
                steps.append(Serve(model))
            elif model.state is State.UNLOADED:
                steps += self._make_way(model, ledger, acting)
                if ledger.memory.budgets or ledger.settings.max_loaded or rules.has_rules:
                    # One at a time, for what is free now is not free for two.
                    return steps
            if rules.has_rules or not acting or model.address:
                # Without rules all of them are of one group, so the first stands for all.
                acting.append(model)
        return steps

    def _plan_strictly(self, by_age: list[Model], ledger: Ledger) -> list[Step]:
        able = [model for model in by_age if not model.is_set_back]
        if not able:
            return []
        model = able[0]
        if model.state is State.UNLOADED:
            return self._make_way(model, ledger, [])
        if model.state is not State.READY or model.held or not model.capacity:
            return []
        if len(able) == 1:
            return [Serve(model)]
        next_id = able[1].waiting.head.request_id
        elders = takewhile(lambda each: each.request_id < next_id, model.waiting)
        return [Serve(model, max(1, sum(1 for _ in elders)))]

    def _make_way(self, model: Model, ledger: Ledger, beside: list[Model]) -> list[Step]:
        running, going = ledger.running, ledger.going
        rules = ledger.coexistence
        in_the_way = rules.outlaws(model, running, going, beside, self._readiness)
        if not in_the_way and not rules.may_start(model, running.values()):
            return []  # those who are in the way are going
        if not in_the_way and ledger.has_room_for(model):
            return [Start(model)]
        if not in_the_way:
            in_the_way = self._least_recently_used(model, ledger)
        if not in_the_way or any(other.spec.pinned for other in in_the_way):
            if any(other.state is not State.READY for other in ledger.going.values()):
                return []  # what they hold will be free
            text = reasons.does_not_fit(model, " beside the models that have to stay")
            return [Refuse(model, RejectKind.DOES_NOT_FIT, text)]
        return [Stop(other, sake_of=model) for other in in_the_way if self._may_go(other)]

    @staticmethod
    def _least_recently_used(model: Model, ledger: Ledger) -> list[Model]:
        """Return those who have to go; nobody when that would not be enough."""
        free = ledger.memory.free()
        limit = ledger.settings.max_loaded
        places = limit - len(ledger.running) if limit else 1
        chosen: list[Model] = []
        for other in sorted(ledger.running.values(), key=attrgetter("served", "generation")):
            if places > 0 and not lacks(free, model.memory):
                return chosen
            if other.name in ledger.going or not other.spec.pinned:
                chosen.append(other)
                add(free, other.reserved)
                places += 1
        return chosen if places > 0 and not lacks(free, model.memory) else []

    def _readiness(self, model: Model) -> int:
        return 0 if self._may_go(model) else 1

    @staticmethod
    def _may_go(model: Model) -> bool:
        if model.state is State.READY:
            return not model.in_flight
        return model.state is State.STARTING and not model.waiting
