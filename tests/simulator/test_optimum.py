import pytest

from llama_router.simulator.baselines import LruRouter
from llama_router.simulator.fleet import Fleet, Machine, SimulatedModel, random_fleet
from llama_router.simulator.generate import names, zipf, zipf_shares
from llama_router.simulator.optimum import (
    MAX_MODELS_COUNT,
    TooLargeError,
    fractional,
    in_order,
    with_batching,
    without_foresight,
)
from llama_router.simulator.trace import TraceRequest
from llama_router.simulator.world import World


def fleet(room: int, **loads: tuple[int, float]) -> Fleet:
    models = tuple(SimulatedModel(name, size, load_s) for name, (size, load_s) in loads.items())
    return Fleet(Machine(room), models)


def trace(models: str, gap_s: float = 1.0) -> list[TraceRequest]:
    return [TraceRequest(gap_s * number, model) for number, model in enumerate(models)]


def test_it_keeps_what_is_needed_again_and_dear() -> None:
    equal = fleet(2, a=(1, 1.0), b=(1, 1.0), c=(1, 1.0))
    # Belady: c takes the place of b, which is needed later than a.
    assert in_order(equal, trace("abcab")) == 4.0
    dear_b = fleet(2, a=(1, 1.0), b=(1, 10.0), c=(1, 1.0))
    assert in_order(dear_b, trace("abcab")) == 13.0


def test_one_large_takes_the_place_of_several() -> None:
    mixed = fleet(2, big=(2, 5.0), a=(1, 1.0), b=(1, 1.0))
    sequence = [TraceRequest(n, name) for n, name in enumerate(["a", "b", "big", "a", "b"])]
    assert in_order(mixed, sequence) == 9.0


def test_waiting_lets_requests_share_a_load() -> None:
    two = fleet(1, a=(1, 2.0), b=(1, 2.0))
    assert in_order(two, trace("abababab")) == 16.0
    assert with_batching(two, trace("abababab"), 100.0) == 4.0
    assert with_batching(two, trace("abababab"), 0.5) == 16.0


@pytest.mark.parametrize("seed", range(4))
def test_no_router_beats_it(seed: int) -> None:
    few = random_fleet(names(7), seed, room_for=3)
    requests = list(zipf(names(7), 60, 0.05, seed))
    least_s = in_order(few, requests)
    for by_count in (True, False):
        router = LruRouter(few, by_count=by_count, in_order=True)
        assert World(few, router).run(requests).load_time_s >= least_s - 1e-9
    assert with_batching(few, requests, 20.0) <= least_s


@pytest.mark.parametrize("seed", range(4))
def test_parts_of_models_bound_whole_ones_closely(seed: int) -> None:
    few = random_fleet(names(7), seed, room_for=3)
    requests = list(zipf(names(7), 120, 0.05, seed))
    least_s = in_order(few, requests)
    assert 0.7 * least_s < fractional(few, requests) <= least_s + 1e-6


def test_the_bound_needs_no_small_case() -> None:
    many = random_fleet(names(30), 1)
    requests = list(zipf(names(30), 400, 0.05, 1))
    lru = World(many, LruRouter(many, by_count=False)).run(requests)
    assert 0.4 * lru.load_time_s < fractional(many, requests) < lru.load_time_s


def test_too_large_a_case_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_router.simulator.optimum.MAX_STATES_COUNT", 10)
    many = random_fleet(names(12), 0)
    with pytest.raises(TooLargeError):
        in_order(many, list(zipf(names(12), 100, 1.0, 0)))


def test_too_many_models_are_refused_at_once() -> None:
    count = MAX_MODELS_COUNT + 1
    many = random_fleet(names(count), 0)
    with pytest.raises(TooLargeError):
        in_order(many, [TraceRequest(float(n), name) for n, name in enumerate(names(count))])


def test_without_foresight_the_best_is_to_keep_what_is_likely() -> None:
    models = fleet(2, a=(1, 1.0), b=(1, 1.0), c=(1, 1.0))
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    # After a or b both are there; after c only c and a are, so that 0.3 s is lost and 0.2 s not.
    assert without_foresight(models, shares) == pytest.approx(0.8 * 0.2 + 0.2 * 0.3)


@pytest.mark.parametrize("seed", range(4))
def test_no_router_without_foresight_beats_it_in_the_long_run(seed: int) -> None:
    few = random_fleet(names(7), seed, room_for=3)
    least_s = 2000 * without_foresight(few, zipf_shares(names(7), seed))
    requests = list(zipf(names(7), 2000, 0.01, seed))
    for by_count in (True, False):
        router = LruRouter(few, by_count=by_count, in_order=True)
        assert World(few, router).run(requests).load_time_s > least_s


def test_the_best_set_is_found_where_the_dearest_by_size_does_not_belong_to_it() -> None:
    models = fleet(10, last=(1, 0.0), a=(6, 7.0), b=(5, 5.0), c=(4, 4.0))
    shares = {"last": 1.0, "a": 1.0, "b": 1.0, "c": 1.0}
    # Beside `last` there is room for b and c, worth 9, but not for a and another.
    kept = {"last": 9.0, "a": 7.0 + 4.0, "b": 9.0, "c": 11.0}
    assert without_foresight(models, shares) == pytest.approx(16.0 - sum(kept.values()))
