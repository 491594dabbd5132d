import re

import msgspec
import pytest
from typer.testing import CliRunner

from llama_router.cli.main import app
from llama_router.core.settings import CoreSettings
from llama_router.simulator.experiments import (
    GENERATORS,
    Case,
    Shape,
    bounds,
    compare,
    play,
    rate_for_attainment,
    skewed,
    two_alternating,
)
from llama_router.simulator.fleet import GB, Fleet, Machine, SimulatedModel
from llama_router.simulator.generate import alternating
from llama_router.simulator.optimum import in_order
from llama_router.simulator.world import FaultRates

SMALL = Shape(models_count=8, requests_count=150, room_for=3)


def test_alternating_requests_are_done_much_sooner_than_one_by_one() -> None:
    case = two_alternating()
    settings = CoreSettings(max_wait_s=20.0)
    strict = play(case, "strict", settings)
    batched = play(case, "benefit", settings)
    assert strict.makespan_s == pytest.approx(132.0)
    assert strict.makespan_s >= 2.7 * batched.makespan_s
    # The bound: patience, one drain, one load.
    assert max(batched.waits_s) <= 20.0 + 0.2 + 2.0


@pytest.mark.parametrize("load_s", [2.0, 8.0])
def test_however_many_models_are_wanted_at_once_loading_does_not_take_all_the_time(
    load_s: float,
) -> None:
    models = tuple(SimulatedModel(name, 10 * GB, load_s=load_s) for name in "abc")
    fleet = Fleet(Machine(16 * GB, stop_s=0.0), models)
    result = play(Case(fleet, list(alternating("abc", 200, 0.1))), "benefit")
    # The patience, and for each of the three a load, a turn as long, and the last of its requests.
    assert max(result.waits_s) <= 20.0 + 3 * (2 * load_s + 0.2)
    assert result.loads <= 10


def test_a_lone_client_who_alternates_never_waits_for_more_than_a_load() -> None:
    models = tuple(SimulatedModel(name, 10 * GB, load_s=2.0) for name in "ab")
    fleet = Fleet(Machine(16 * GB, stop_s=0.0), models)
    # One client, one request at a time, each when the one before it has been answered.
    result = play(Case(fleet, list(alternating("ab", 40, 3.0))), "benefit")
    assert max(result.waits_s) == pytest.approx(2.0)


def test_on_a_skewed_trace_little_is_lost_against_knowing_what_is_popular() -> None:
    cases = [skewed(Shape(requests_count=1000, rate_per_s=0.05), seed) for seed in range(40, 46)]
    benefit, count, by_bytes = compare(cases, ["benefit", "lru-count", "lru-bytes"])
    least = bounds(cases)
    assert least.without_foresight_s is not None
    # Half of what LRU by count loads is out of reach for whoever does not know the future.
    assert count.load_time_s < 2.0 * least.without_foresight_s
    assert count.load_time_s > 2.0 * least.in_order_s
    assert benefit.load_time_s < 1.25 * least.without_foresight_s
    assert count.load_time_s > 1.5 * benefit.load_time_s
    assert by_bytes.load_time_s > 1.15 * benefit.load_time_s


def test_on_a_small_case_not_even_who_knows_the_future_loads_half_of_what_lru_by_count_does() -> (
    None
):
    # As in the large case there is room for a fifth of the models, but all schedules can be tried.
    command = (
        "simulate --model-count 15 --room-for 3 --requests 300 --rate 0.05 --seeds 4"
        " --policy lru-count --policy benefit --optimum"
    )
    printed = CliRunner().invoke(app, command.split()).output
    load_s = {
        found[1]: float(found[2])
        for found in re.finditer(
            r"^(lru-count|benefit) +\d+ +\d+ +\d+ +([\d.]+) ", printed, re.MULTILINE
        )
    }
    best = re.search(r"knowing the future, loads for ([\d.]+) s", printed)
    assert best is not None, printed
    best_s = float(best[1])
    assert load_s["lru-count"] / best_s == pytest.approx(1.58, abs=0.01), printed
    assert 1.0 < load_s["benefit"] / best_s < 1.15, printed

    cases = [
        skewed(Shape(15, requests_count=300, rate_per_s=0.05, room_for=3.0), seed)
        for seed in range(4)
    ]
    exact_s = [in_order(case.fleet, case.trace) for case in cases]
    assert sum(exact_s) / len(cases) == pytest.approx(best_s, abs=0.05)


def test_more_answers_are_in_time_where_half_are_in_the_order_of_arrival() -> None:
    shape = Shape(requests_count=400)
    rate = rate_for_attainment(skewed, shape, 7, "arrival")
    case = skewed(msgspec.structs.replace(shape, rate_per_s=rate), 7)
    attained = {name: play(case, name).slo_attainment(10.0) for name in ("arrival", "benefit")}
    assert 0.4 < attained["arrival"] < 0.6
    assert attained["benefit"] > 1.4 * attained["arrival"]


@pytest.mark.parametrize("generator", GENERATORS)
def test_every_generator_makes_a_case_that_can_be_played(generator: str) -> None:
    case = GENERATORS[generator](SMALL, 0)
    assert play(case, "benefit").served == len(case.trace)


def test_sizes_have_their_bounds_and_popularity_is_independent_of_them() -> None:
    case = skewed(Shape(), 4)
    sizes = [model.size_bytes for model in case.fleet.models]
    assert len(sizes) == 30
    assert 1e9 <= min(sizes) <= max(sizes) <= 40e9


def test_policies_are_compared_on_the_same_cases() -> None:
    calm = msgspec.structs.replace(SMALL, rate_per_s=0.05)
    cases = [skewed(calm, seed) for seed in range(2)]
    summaries = compare(cases, ["lru-count", "lru-bytes"])
    assert [summary.policy for summary in summaries] == ["lru-count", "lru-bytes"]
    assert all(summary.seeds == 2 and summary.requests == 150 for summary in summaries)
    assert summaries[1].load_time_s < summaries[0].load_time_s


def test_the_rate_is_where_the_objective_is_half_attained() -> None:
    rate = rate_for_attainment(skewed, SMALL, 1, "lru-bytes")
    fitting = msgspec.structs.replace(SMALL, rate_per_s=rate)
    attained = play(skewed(fitting, 1), "lru-bytes").slo_attainment(10.0)
    assert 0.4 < attained < 0.65


def test_modelled_faults_end_in_outcomes_of_their_own() -> None:
    case = skewed(SMALL, 2)
    result = play(case, "benefit", faults=FaultRates(load_failure=0.1, crash=0.05, seed=3))
    refused = sum(result.rejected.values())
    assert result.failed > 0
    assert refused > 0
    assert result.served + result.failed + refused == result.requests
