from collections.abc import Callable

import pytest

from llama_router.core.events import Timer, TimerKind
from llama_router.core.invariants import InvariantViolation, check
from llama_router.core.machine import Core
from llama_router.core.model import Model, Request, RequestKind
from llama_router.core.states import State
from tests.core.playbook import play

SCRIPT = """
> arrive 1 a
...
> ready a#1
...
> arrive 2 b
> arrive 3 a
"""


def model(core: Core, name: str) -> Model:
    return core.ledger.models[name]


def lose_a_model(core: Core) -> None:
    core.ledger.running.clear()


def lose_a_queue(core: Core) -> None:
    del core.ledger.waiting["b"]


def lose_a_request(core: Core) -> None:
    del core.ledger.requests[2]


def lose_a_place(core: Core) -> None:
    model(core, "a").in_flight.clear()


def run_two_groups(core: Core) -> None:
    model(core, "b").state = State.READY
    model(core, "b").generation = core.ledger.generation = 2
    core.ledger.running["b"] = model(core, "b")


def leave_a_timer(core: Core) -> None:
    core.ledger.timers[Timer(TimerKind.BACKOFF, "a", 1)] = 1.0


def miss_a_timer(core: Core) -> None:
    model(core, "a").state = State.DRAINING


def miss_a_turn(core: Core) -> None:
    del core.ledger.requests[1]
    model(core, "a").in_flight.clear()


def mix_up_the_bounced(core: Core) -> None:
    request = Request(4, model(core, "a"), RequestKind.CLIENT, bounced=True)
    core.ledger.requests[4] = request
    model(core, "a").waiting.append(request)


def run_backwards(core: Core) -> None:
    core.ledger.generation = 0


@pytest.mark.parametrize(
    "damage",
    [
        lose_a_model,
        lose_a_queue,
        lose_a_request,
        lose_a_place,
        run_two_groups,
        leave_a_timer,
        miss_a_timer,
        miss_a_turn,
        mix_up_the_bounced,
        run_backwards,
    ],
)
def test_damage_is_found(damage: Callable[[Core], None]) -> None:
    core = play("a b", SCRIPT).core
    check(core)
    damage(core)
    with pytest.raises(InvariantViolation):
        check(core)
