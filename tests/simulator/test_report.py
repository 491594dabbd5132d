import json
from array import array

import pytest

from llama_router.simulator.report import as_json, mean, quantile, summarize, table
from llama_router.simulator.world import Result


def result(*waits_s: float) -> Result:
    return Result(
        requests=len(waits_s) + 1,
        served=len(waits_s),
        loads=3,
        load_time_s=6.0,
        waits_s=array("d", waits_s),
        first_token_waits_s=array("d", [wait + 1 for wait in waits_s]),
    )


def test_quantiles_are_values_that_occurred() -> None:
    values = list(range(1, 101))
    assert quantile(values, 0.5) == 50
    assert quantile(values, 0.99) == 99
    assert quantile([7.0], 0.99) == 7.0
    assert quantile([], 0.5) == 0.0


def test_attainment_counts_those_who_were_never_served() -> None:
    summary = summarize("x", result(0, 4, 9.5), slo_s=10)
    assert summary.slo_attainment == 0.5
    assert (summary.wait_p50_s, summary.wait_max_s) == (4, 9.5)


def test_the_mean_of_seeds_keeps_the_worst_wait() -> None:
    both = mean([summarize("x", result(1, 2), 10), summarize("x", result(1, 8, 2, 2), 10)])
    assert both.seeds == 2
    assert both.served == 3
    assert both.wait_max_s == 8
    with pytest.raises(ValueError, match="no summaries"):
        mean([])


def test_the_table_has_a_line_for_each_policy() -> None:
    lines = table(
        [summarize("arrival", result(1.5), 10), summarize("lru-count", result(), 10)]
    ).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("policy")
    assert lines[1].startswith("arrival")
    assert "1.50" in lines[1]
    assert lines[2].endswith("0.0%")


def test_json_has_the_same_figures() -> None:
    summary = summarize("arrival", result(1.5), 10)
    (loaded,) = json.loads(as_json([summary]))
    assert loaded["policy"] == "arrival"
    assert loaded["load_time_s"] == 6.0
