"""What goes wrong in a walk of the swarm, and with which models: all drawn from one seed."""

import random
from typing import Final

import msgspec

from llama_router.core.events import DeviceBytes, ModelSpec
from llama_router.core.settings import CoreSettings, GroupRule

FAULTS: Final = (
    "crash_loading",
    "crash_ready",
    "crash_stopping",
    "spawn_failure",
    "address_stolen",
    "out_of_memory",
    "broken_model",
    "silent_inspection",
    "hang_load",
    "slow_load",
    "hang_request",
    "ignore_terminate",
    "unkillable",
    "duplicate_event",
    "late_event",
    "disconnect",
    "bounce",
    "reload",
    "load",
    "unload",
    "budget",
    "measurement",
    "clock_stop",
    "patch",
    "settings",
)
"""Each is absent, rare or common in a whole walk: all of them at once never let anything come far,
and some bugs need one to be absent (after Groce et al., "Swarm Testing", 2012)."""

DEVICES: Final = ("gpu0", "cpu")
NAMES: Final = "abcdef"
GROUPS: Final = ("", "g", "h")
_RARE: Final = 0.05
_COMMON: Final = 0.5
_MAX_SIZE_BYTES: Final = 10
"""Sizes are small numbers: only their sums and comparisons matter."""


class Plan(msgspec.Struct, frozen=True):
    """One walk: which models, which settings, which faults at which rates (0: absent)."""

    models: tuple[ModelSpec, ...]
    settings: CoreSettings
    rates: dict[str, float]
    arrival_rate: float
    step_s: float
    uses_arrival_order: bool
    is_strict: bool


def chance(rng: random.Random, share: float) -> bool:
    """Draw something that is so in this share of all cases."""
    return rng.random() < share


def draw_plan(rng: random.Random) -> Plan:
    """Draw a walk's plan."""
    settings = draw_settings(rng)
    rates = {name: rng.choice((0.0, 0.0, _RARE, _COMMON)) * rng.random() for name in FAULTS}
    return Plan(
        models=draw_models(rng),
        settings=settings,
        rates=rates,
        arrival_rate=rng.choice((0.3, 1.0, 3.0)),
        step_s=rng.choice((0.01, 0.1, 1.0)),
        uses_arrival_order=(uses_arrival_order := chance(rng, 0.25)),
        is_strict=uses_arrival_order and chance(rng, 0.4),
    )


def draw_settings(rng: random.Random) -> CoreSettings:
    """Draw limits and rules; half of the time there are no rules."""
    settings = CoreSettings(
        budgets=draw_budgets(rng) if chance(rng, 0.8) else (),
        max_loaded=rng.choice((0, 0, 1, 2)),
        max_wait_s=rng.choice((0.5, 5.0, 20.0)),
        min_residency_s=rng.choice((0.0, 1.0, 5.0)),
        max_waiting=rng.choice((3, 20, 1000)),
        max_queue_s=rng.choice((0.0, 0.0, 10.0)),
    )
    match rng.choice(("", "", "groups", "combinations")):
        case "groups":
            rules = tuple(_draw_rule(rng, name) for name in GROUPS if chance(rng, 0.7))
            return msgspec.structs.replace(settings, groups=rules)
        case "combinations":
            drawn = [_draw_combination(rng) for _ in range(rng.randint(1, 6))]
            costs = {name: rng.choice((0.0, 1.0, 5.0)) for name in NAMES if chance(rng, 0.3)}
            sets = tuple(each for each in drawn if each)
            return msgspec.structs.replace(settings, combinations=sets, eviction_costs=costs)
    return settings


def _draw_rule(rng: random.Random, name: str) -> GroupRule:
    return GroupRule(
        name, swap=chance(rng, 0.5), exclusive=chance(rng, 0.5), persistent=chance(rng, 0.3)
    )


def _draw_combination(rng: random.Random) -> frozenset[str]:
    return frozenset(name for name in NAMES if chance(rng, 0.4))


def draw_budgets(rng: random.Random) -> tuple[DeviceBytes, ...]:
    """Draw how much each device has."""
    return tuple(DeviceBytes(device, rng.randint(8, 24)) for device in DEVICES)


def draw_memory(rng: random.Random) -> tuple[DeviceBytes, ...]:
    """Draw what a model needs; sometimes nothing is known."""
    devices = rng.choice(((), DEVICES[:1], DEVICES[:1], DEVICES[1:], DEVICES))
    return tuple(DeviceBytes(device, rng.randint(1, _MAX_SIZE_BYTES)) for device in devices)


def draw_models(rng: random.Random) -> tuple[ModelSpec, ...]:
    """Draw a configuration of models; two draws have some names in common."""
    names = [name for name in NAMES if chance(rng, 0.7)] or ["a"]
    return tuple(_draw_model(rng, name) for name in names)


def _draw_model(rng: random.Random, name: str) -> ModelSpec:
    return ModelSpec(
        name=name,
        group=rng.choice(("", "", *GROUPS)),
        fingerprint=rng.choice(("1", "1", "1", "2")),
        ready_timeout_s=rng.choice((10.0, 60.0)),
        stop_grace_s=2.0,
        drain_deadline_s=rng.choice((5.0, 300.0)),
        memory=draw_memory(rng),
        load_cost_s=rng.choice((0.1, 1.0, 10.0)),
        pinned=chance(rng, 0.1),
        ttl_s=rng.choice((None, None, 0.0, 5.0)),
        priority=rng.choice((0, 0, 1)),
        max_in_flight=rng.choice((0, 1, 2)),
        max_waiting=rng.choice((0, 0, 2)),
        min_residency_s=rng.choice((None, 0.0, 3.0)),
        max_requests=rng.choice((0, 0, 0, 3)),
        address=rng.choice(("", "", "", "127.0.0.1:9000")),
    )
