from collections import Counter
from itertools import pairwise

from llama_router.simulator.generate import alternating, bursty, names, zipf


def test_names_sort_as_they_count() -> None:
    assert names(11)[::10] == ["m00", "m10"]
    assert names(1) == ["m0"]


def test_alternating_takes_turns() -> None:
    trace = list(alternating(["a", "b"], 5, 0.5))
    assert [request.model for request in trace] == ["a", "b", "a", "b", "a"]
    assert trace[-1].time_s == 2.0


def test_the_same_seed_is_the_same_trace() -> None:
    models = names(30)
    for make in (zipf, bursty):
        assert list(make(models, 500, 3.0, 1)) == list(make(models, 500, 3.0, 1))
        assert list(make(models, 500, 3.0, 1)) != list(make(models, 500, 3.0, 2))


def test_zipf_is_skewed_and_has_its_rate() -> None:
    trace = list(zipf(names(30), 20_000, 4.0, 7))
    shares = [count / len(trace) for _, count in Counter(r.model for r in trace).most_common()]
    # The harmonic weights of exponent 1.1 over 30 models give the first a share of 0.293.
    assert abs(shares[0] - 0.293) < 0.02
    assert abs(shares[0] / shares[9] - 10**1.1) < 3
    assert abs(len(trace) / trace[-1].time_s - 4.0) < 0.2


def test_bursts_come_one_after_the_other_at_the_mean_rate() -> None:
    trace = list(bursty(names(5), 5000, 2.0, 3))
    times = [request.time_s for request in trace]
    assert len(trace) == 5000
    assert times == sorted(times)
    assert 1.5 < len(trace) / times[-1] < 2.2
    assert {request.is_batch for request in trace} == {True, False}
    repeats = sum(one.model == two.model for one, two in pairwise(trace))
    assert repeats > 0.9 * len(trace)
