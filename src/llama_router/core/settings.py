"""What holds for the whole core and not for one model."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from llama_router.core.events import DeviceBytes


class GroupRule(msgspec.Struct, frozen=True):
    """How the models of one group behave towards each other and towards those of other groups.

    ``name``: as in ``ModelSpec.group``. ``swap``: at most one of them runs at a time.
    ``exclusive``: the load of one sends the models of all other groups away. ``persistent``: other
    groups send none of them away. The defaults are what a group without a rule does.
    """

    name: str
    swap: bool = False
    exclusive: bool = True
    persistent: bool = False


class CoreSettings(msgspec.Struct, frozen=True):
    """Limits and patience. Times in seconds.

    ``budgets``: how much of each device's memory engines may hold; none: memory is not looked at.
    ``max_loaded``: engines at a time, 0 for any number.
    ``max_wait_s``: who has waited this long for a model that is not loaded gets it next, whatever
    that costs the others.
    ``min_residency_s``: a model that became ready less than this ago goes for nobody but them. 0:
    who is idle goes at once, and who is used is protected by what its going would cost.
    ``max_waiting``: requests that may wait for one model.
    ``max_queue_s``: how long a request may wait, load included, until it is refused; 0: no end.
    ``groups``: what makes a group more, or less, than models that exclude those of other groups.
    ``combinations``: sets of models that may run together; those in none run alone. Any of them,
    were it the empty set, take the place of all groups.
    ``eviction_costs``: how dear it is to send a model away, by name, as so many others; 1 unless
    said.
    """

    budgets: tuple[DeviceBytes, ...] = ()
    max_loaded: int = 0
    max_wait_s: float = 20.0
    min_residency_s: float = 0.0
    max_waiting: int = 1000
    max_queue_s: float = 0.0
    groups: tuple[GroupRule, ...] = ()
    combinations: tuple[frozenset[str], ...] = ()
    eviction_costs: Mapping[str, float] = MappingProxyType({})

    def eviction_cost_of(self, model: str) -> float:
        """Return how dear it is to send a model away."""
        return self.eviction_costs.get(model, 1.0)
