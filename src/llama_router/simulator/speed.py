"""What the core's decisions cost in processor time, measured by the wall clock."""

import statistics
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from llama_router.core.events import (
    DeviceBytes,
    EngineReady,
    ModelInspected,
    ModelSpec,
    RequestArrived,
    RequestFinished,
)
from llama_router.core.machine import Core
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.core.settings import CoreSettings
from llama_router.simulator.schedulers import UNLIMITED_WAITING_COUNT

SIZES: Final = (0, 10, 100, 1000, 10_000)
"""So many other models are there, each with one request that waits for it."""
REQUESTS_COUNT: Final = 10_000


class Cost(msgspec.Struct, frozen=True):
    """Arrival and finish of one request for a ready model, together, in microseconds."""

    others: int
    median_us: float
    p99_us: float


def cost_beside(others: int, requests_count: int = REQUESTS_COUNT) -> Cost:
    """Measure with ``others`` models that wait for the room that the ready one has.

    The ready one has the higher priority, so that they do wait, however long that takes.
    """
    core = _core_with_waiters(others)
    request_id = others + 2
    costs_s: list[float] = []
    clock = time.perf_counter
    for number in range(requests_count):
        request_id += 1
        arrival, finish = RequestArrived(request_id, "ready"), RequestFinished(request_id)
        now = 1.0 + 0.001 * number
        started = clock()
        core.handle(arrival, now)
        core.handle(finish, now)
        costs_s.append(clock() - started)
    costs_s.sort()
    p99_s = costs_s[int(0.99 * len(costs_s))]
    return Cost(others, statistics.median(costs_s) * 1e6, p99_s * 1e6)


def _core_with_waiters(others: int) -> Core:
    room = (DeviceBytes("gpu0", 10),)
    ready = ModelSpec("ready", "", memory=room, priority=1)
    rest = [ModelSpec(f"other{number}", "", memory=room) for number in range(others)]
    settings = CoreSettings(
        budgets=room,
        max_wait_s=1e9,
        min_residency_s=1e9,
        max_waiting=UNLIMITED_WAITING_COUNT,
    )
    core = Core([ready, *rest], BenefitOrder(), settings)
    core.handle(RequestArrived(1, "ready"), 0.0)
    core.handle(ModelInspected("ready", 1), 0.0)
    core.handle(EngineReady("ready", core.view("ready").generation), 0.0)
    core.handle(RequestFinished(1), 0.0)
    for number, spec in enumerate(rest):
        core.handle(RequestArrived(2 + number, spec.name), 0.0)
    return core


def table(costs: Sequence[Cost]) -> str:
    """Return the costs as a plain table."""
    lines = ["arrival and finish of a request for a ready model, in the core"]
    lines += [
        f"{cost.others:6d} other models with waiters: median {cost.median_us:5.1f} us, "
        f"p99 {cost.p99_us:5.1f} us"
        for cost in costs
    ]
    return "\n".join(lines)
