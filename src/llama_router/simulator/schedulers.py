"""What can be compared, by name: the core with each of its policies, and other routers' ways."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

import msgspec

from llama_router.core.events import DeviceBytes
from llama_router.core.machine import Core
from llama_router.core.policies.arrival import ArrivalOrder
from llama_router.core.policies.base import Policy
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.core.settings import CoreSettings
from llama_router.simulator.baselines import LruRouter
from llama_router.simulator.fleet import Fleet
from llama_router.simulator.world import Scheduler

UNLIMITED_WAITING_COUNT: Final = 100_000_000
"""Simulated clients are not turned away: their waits are what is to be measured."""


def core_settings(fleet: Fleet, settings: CoreSettings | None = None) -> CoreSettings:
    """Return ``settings`` with the budget of the fleet's machine and no limit on queues."""
    return msgspec.structs.replace(
        settings or CoreSettings(),
        budgets=(DeviceBytes(fleet.machine.device, fleet.machine.memory_bytes),),
        max_waiting=UNLIMITED_WAITING_COUNT,
    )


def _core(policy: Callable[[], Policy], fleet: Fleet, settings: CoreSettings | None) -> Scheduler:
    return Core(fleet.specs(), policy(), core_settings(fleet, settings))


def _lru(
    fleet: Fleet, _settings: CoreSettings | None, *, by_count: bool, in_order: bool = False
) -> Scheduler:
    return LruRouter(fleet, by_count=by_count, in_order=in_order)


Factory = Callable[[Fleet, CoreSettings | None], Scheduler]

SCHEDULERS: Final[Mapping[str, Factory]] = MappingProxyType(
    {
        "benefit": partial(_core, BenefitOrder),
        "arrival": partial(_core, partial(ArrivalOrder, is_strict=True)),
        "turns": partial(_core, ArrivalOrder),
        "strict": partial(_lru, by_count=False, in_order=True),
        "lru-count": partial(_lru, by_count=True),
        "lru-bytes": partial(_lru, by_count=False),
    }
)
"""``benefit``, ``arrival`` and ``turns`` are the core's; of the latter two, both in the order of
arrival, ``turns`` serves all who wait for a model when it gets loaded. ``strict`` is ``arrival`` by
a few lines of its own. ``lru-count`` keeps as many models as fit whichever they are; ``lru-bytes``
keeps what fits."""
