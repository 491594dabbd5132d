"""First come, first served, between models that exclude each other by group."""

from collections.abc import Collection
from operator import attrgetter

from llama_router.core.model import Model
from llama_router.core.policies.base import Serve, Start, Step, Stop
from llama_router.core.states import State

_age = attrgetter("waiting.head.request_id")


class ArrivalOrder:
    """The model of the oldest waiter is next, and what is not of its group has to go.

    From the moment it is next it has a *claim*: whoever is younger and of another group waits
    behind it, even for a model that is loaded, so a stream of newcomers cannot starve it. Models of
    its own group do not delay it and go along. Nothing is ever cut for a claim: what is in the way
    finishes its requests first, and a load that somebody waits for is finished and used once. Each
    turn serves all who wait by then, so requests that alternate between models cost one load for
    each model, not for each request.

    A model that backs off after a crash has no claim until its time is over.
    """

    def plan(self, waiting: Collection[Model], running: Collection[Model]) -> list[Step]:
        """See :class:`~llama_router.core.policies.base.Policy`."""
        steps: list[Step] = []
        claim: Model | None = None
        for model in sorted(waiting, key=_age):
            if model.is_set_back or (claim is not None and self.excludes(model, claim)):
                continue
            # All claims are of one group, so the first stands for all.
            claim = claim or model
            if model.state is State.READY and not model.held:
                steps.append(Serve(model))
            elif model.state is State.UNLOADED:
                steps += self._make_way(model, running)
        return steps

    def excludes(self, one: Model, other: Model) -> bool:
        """Return whether the two are of different groups."""
        return one.spec.group != other.spec.group

    def _make_way(self, model: Model, running: Collection[Model]) -> list[Step]:
        in_the_way = [other for other in running if self.excludes(model, other)]
        if not in_the_way:
            return [Start(model)]
        return [Stop(other, sake_of=model) for other in in_the_way if self._may_go(other)]

    @staticmethod
    def _may_go(model: Model) -> bool:
        if model.state is State.READY:
            return not model.in_flight
        return model.state is State.STARTING and not model.waiting
