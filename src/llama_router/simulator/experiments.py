"""Cases worth simulating, and policies side by side on them."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from llama_router.core.settings import CoreSettings
from llama_router.simulator import optimum
from llama_router.simulator.fleet import GB, Fleet, Machine, SimulatedModel, random_fleet
from llama_router.simulator.generate import alternating, bursty, names, zipf, zipf_shares
from llama_router.simulator.report import Summary, mean, summarize
from llama_router.simulator.schedulers import SCHEDULERS
from llama_router.simulator.trace import TraceRequest
from llama_router.simulator.world import DEFAULT_SLO_S, FaultRates, Result, World

CALIBRATION_TRIES_COUNT: Final = 12
"""Each halves the range: the rate is then known to a part in 400 of the first bracket."""
MAX_RATE_PER_S: Final = 1e4


class Case(msgspec.Struct, frozen=True):
    """What is asked of which machine.

    ``shares`` is how likely each request is for each model, where each is drawn for itself.
    """

    fleet: Fleet
    trace: Sequence[TraceRequest]
    shares: Mapping[str, float] | None = None


class Shape(msgspec.Struct, frozen=True):
    """Sizes of a generated case. ``room_for`` counts models of average size."""

    models_count: int = 30
    requests_count: int = 2000
    rate_per_s: float = 0.5
    room_for: float = 6.0
    smallest_bytes: int = 1 * GB
    largest_bytes: int = 40 * GB


def two_alternating() -> Case:
    """Two models that cannot coexist, 60 requests in turn, 2 s loads, 0.2 s of service each."""
    models = tuple(SimulatedModel(name, 10 * GB, load_s=2.0) for name in ("a", "b"))
    fleet = Fleet(Machine(16 * GB, stop_s=0.0, decode_tokens_s=50.0), models)
    return Case(fleet, list(alternating(("a", "b"), 60, 0.1, tokens_out=10)))


def _fleet(shape: Shape, seed: int) -> Fleet:
    return random_fleet(
        names(shape.models_count),
        seed,
        smallest_bytes=shape.smallest_bytes,
        largest_bytes=shape.largest_bytes,
        room_for=shape.room_for,
    )


def skewed(shape: Shape, seed: int) -> Case:
    """Popularity after Zipf with exponent 1.1, sizes independent of it, Poisson arrivals."""
    models = names(shape.models_count)
    trace = zipf(models, shape.requests_count, shape.rate_per_s, seed)
    return Case(_fleet(shape, seed), list(trace), zipf_shares(models, seed))


def in_bursts(shape: Shape, seed: int) -> Case:
    """Keys that ask one model many times in a row, a part of it batch work."""
    trace = bursty(names(shape.models_count), shape.requests_count, shape.rate_per_s, seed)
    return Case(_fleet(shape, seed), list(trace))


def taking_turns(shape: Shape, seed: int) -> Case:
    """All models in turn, at an even pace: nothing is ever worth keeping."""
    models = names(shape.models_count)
    trace = alternating(models, shape.requests_count, 1.0 / shape.rate_per_s)
    return Case(_fleet(shape, seed), list(trace))


Generator = Callable[[Shape, int], Case]

GENERATORS: Final[Mapping[str, Generator]] = MappingProxyType(
    {
        "zipf": skewed,
        "bursty": in_bursts,
        "alternating": taking_turns,
        "two": lambda _shape, _seed: two_alternating(),
    }
)


def play(
    case: Case,
    policy: str,
    settings: CoreSettings | None = None,
    faults: FaultRates | None = None,
) -> Result:
    """Play one case with one policy of SCHEDULERS. Raises SimulationError."""
    scheduler = SCHEDULERS[policy](case.fleet, settings)
    return World(case.fleet, scheduler, faults).run(case.trace)


def compare(
    cases: Sequence[Case],
    policies: Sequence[str],
    settings: CoreSettings | None = None,
    slo_s: float = DEFAULT_SLO_S,
) -> list[Summary]:
    """Play all cases with each policy; return one summary for each. Raises SimulationError."""
    return [
        mean([summarize(policy, play(case, policy, settings), slo_s) for case in cases])
        for policy in policies
    ]


class Bounds(msgspec.Struct, frozen=True):
    """The least load time there can be, in seconds; the mean over the cases.

    ``in_order_s``: knowing the future, with requests in their order (a bound of it for large
    cases). ``without_foresight_s``: the same without knowing the future, in the mean over traces
    like these; None where requests are not drawn each for itself.
    """

    in_order_s: float
    without_foresight_s: float | None


def bounds(cases: Sequence[Case]) -> Bounds:
    """Return what no router can do better on ``cases``."""
    blind_s = [
        len(case.trace) * optimum.without_foresight(case.fleet, case.shares)
        for case in cases
        if case.shares is not None
    ]
    return Bounds(
        sum(optimum.fractional(case.fleet, case.trace) for case in cases) / len(cases),
        sum(blind_s) / len(cases) if len(blind_s) == len(cases) else None,
    )


def rate_for_attainment(
    generator: Generator,
    shape: Shape,
    seed: int,
    policy: str,
    target: float = 0.5,
    *,
    settings: CoreSettings | None = None,
    slo_s: float = DEFAULT_SLO_S,
) -> float:
    """Return the rate, in requests a second, at which ``policy`` attains the objective so often.

    Attainment falls as the rate grows; it is bracketed and then bisected. Returns an end of the
    bracket when the target is out of reach.
    """

    def attained(rate_per_s: float) -> float:
        case = generator(msgspec.structs.replace(shape, rate_per_s=rate_per_s), seed)
        return play(case, policy, settings).slo_attainment(slo_s)

    low, high = shape.rate_per_s, shape.rate_per_s
    while attained(low) < target and low > 1.0 / MAX_RATE_PER_S:
        low /= 4
    while attained(high) >= target and high < MAX_RATE_PER_S:
        high *= 4
    for _ in range(CALIBRATION_TRIES_COUNT):
        middle = (low * high) ** 0.5
        if attained(middle) >= target:
            low = middle
        else:
            high = middle
    return low
