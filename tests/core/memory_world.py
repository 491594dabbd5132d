"""The random world of the walks, with memory that is short and clients of several kinds."""

import random
from collections.abc import Callable
from typing import Any

from llama_router.core import events as ev
from llama_router.core.policies.arrival import ArrivalOrder
from llama_router.core.policies.base import Policy
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.core.settings import CoreSettings, GroupRule
from tests.core.playbook import Stage
from tests.core.test_random_walk import World

NAMES = "abcdefg"


def devices(**sizes: int) -> tuple[ev.DeviceBytes, ...]:
    return tuple(ev.DeviceBytes(device, size) for device, size in sizes.items() if size)


def random_settings(dice: random.Random) -> CoreSettings:
    return CoreSettings(
        budgets=devices(gpu=10, ram=dice.choice((10, 20))),
        max_loaded=dice.choice((0, 0, 0, 2, 3)),
        max_wait_s=dice.choice((0.0, 3.0, 20.0)),
        min_residency_s=dice.choice((0.0, 1.0, 5.0)),
        max_waiting=dice.choice((2, 1000)),
        max_queue_s=dice.choice((0.0, 0.0, 8.0)),
        **random_rules(dice),
    )


def random_rules(dice: random.Random) -> dict[str, Any]:
    match dice.choice(("", "", "groups", "combinations")):
        case "groups":
            flags = [dice.random() < 0.5 for _ in range(6)]
            return {"groups": (GroupRule("", *flags[:3]), GroupRule("g", *flags[3:]))}
        case "combinations":
            sets = [frozenset(n for n in NAMES if dice.random() < 0.5) for _ in range(4)]
            costs = dict.fromkeys(NAMES[:2], 3.0)
            return {"combinations": tuple(filter(None, sets)), "eviction_costs": costs}
    return {}


def random_specs(dice: random.Random) -> tuple[ev.ModelSpec, ...]:
    return tuple(
        ev.ModelSpec(
            name,
            group=dice.choice(("", "", "", "", "g")),
            fingerprint=dice.choice(("", "", "2")),
            memory=dice.choice(
                (
                    (),
                    devices(gpu=dice.randint(1, 6)),
                    devices(gpu=dice.randint(1, 12), ram=dice.randint(1, 5)),
                )
            ),
            load_cost_s=dice.choice((0.5, 2.0, 8.0)),
            pinned=dice.random() < 0.1,
            ttl_s=dice.choice((None, None, 0.0, 3.0)),
            priority=dice.choice((0, 0, 0, 1)),
            max_in_flight=dice.choice((0, 0, 1, 2)),
            min_residency_s=dice.choice((None, None, 0.5)),
            address=dice.choice(("", "", "", "127.0.0.1:9000")),
        )
        for name in NAMES[: dice.randint(5, 7)]
    )


class MemoryWorld(World):
    """Like its base, with another stage; ``make`` makes the core's policy."""

    def __init__(self, seed: int, make: Callable[[], Policy] = BenefitOrder) -> None:
        dice = random.Random(-seed)  # noqa: S311 - a reproducible walk, no secret
        self.dice = dice
        settings = random_settings(dice)
        if make is ArrivalOrder:
            dice.random()
        super().__init__(seed, Stage(random_specs(dice), make(), settings))

    def arrive(self) -> None:
        roll = self.random.random
        event = ev.RequestArrived(
            self.new_id(),
            self.random.choice(NAMES),
            may_load=roll() > 0.05,
            wants_notices=roll() < 0.2,
            key=self.random.choice(("", "", "x", "y")),
            priority=self.random.choice((0, 0, 0, 1, -1)),
            is_batch=roll() < 0.2,
            keep_alive_s=self.random.choice((None, None, None, 0.0, 2.0, -1.0)),
            takes_slot=roll() > 0.1,
        )
        self.feed(event)

    def operate(self) -> None:
        match self.random.randrange(12):
            case 0:
                self.feed(ev.ModelsChanged(random_specs(self.dice)))
            case 10:
                gone = tuple(name for name in NAMES if self.random.random() < 0.2)
                self.feed(ev.ModelsPatched(random_specs(self.dice)[::2], gone))
            case 11:
                self.feed(ev.SettingsChanged(random_settings(self.dice)))
            case 1:
                sizes = {"gpu": self.random.choice((5, 10, 10, 14)), "ram": 20}
                self.feed(ev.BudgetsChanged(devices(**sizes)))
            case 2 | 3:
                memory = self.random.choice(((), devices(gpu=self.random.randint(1, 9))))
                cost_s = self.random.choice((None, 0.1, 5.0))
                self.feed(ev.FootprintMeasured(self.random.choice(NAMES), memory, cost_s))
            case 4 | 5 | 6:
                self.feed(ev.LoadRequested(self.new_id(), self.random.choice(NAMES)))
            case _:
                self.feed(ev.UnloadRequested(self.new_id(), self.random.choice(NAMES)))


def walk(seed: int, make: Callable[[], Policy] = BenefitOrder, steps: int = 400) -> MemoryWorld:
    world = MemoryWorld(seed, make)
    for _ in range(steps):
        world.step()
    return world
