import time

from llama_router.simulator.experiments import Shape, play, skewed
from llama_router.simulator.speed import Cost, cost_beside, table


def test_the_cost_of_a_request_hardly_depends_on_how_many_models_wait() -> None:
    # Medians; the bounds are several times what they are on one idle core.
    alone, among_many = cost_beside(0, 2000), cost_beside(1000, 2000)
    assert alone.median_us < 60
    assert among_many.median_us < 4 * alone.median_us + 10


def test_the_table_has_a_line_for_each_size() -> None:
    lines = table([Cost(0, 3.0, 5.0), Cost(1000, 6.5, 9.0)]).splitlines()
    assert "median   6.5 us" in lines[2]
    assert len(lines) == 3


def test_a_million_requests_over_a_thousand_models_take_less_than_a_minute() -> None:
    # A hundredth of them.
    case = skewed(
        Shape(models_count=1000, requests_count=10_000, rate_per_s=10.0, room_for=1000), 1
    )
    started = time.process_time()
    result = play(case, "benefit")
    assert time.process_time() - started < 0.6
    assert result.served == 10_000
