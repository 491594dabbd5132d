import pytest

from llama_router.cli import stress_simulation
from llama_router.simulator.campaign import Report


def test_it_ends_after_so_many_walks() -> None:
    report = stress_simulation.run_simulation(5, seeds=3, steps=20)
    assert (report.first_seed, report.seeds) == (5, 3)
    assert "3 walks (seeds 5 to 7)" in stress_simulation.as_text(report)
    assert stress_simulation.as_figures(report)["failures"] == []


@pytest.mark.parametrize(
    ("minutes", "count", "time_s"), [(None, 1000, None), (0.5, 2**31, 30.0)], ids=["count", "time"]
)
def test_it_ends_by_itself(
    minutes: float | None, count: int, time_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def run(first: int, seeds: int, **more: object) -> Report:
        asked.extend([first, seeds, more["max_time_s"]])
        return Report(first, seeds, 0, 0.0, {}, ())

    monkeypatch.setattr("llama_router.simulator.campaign.run", run)
    stress_simulation.run_simulation(7, minutes=minutes)
    assert asked == [7, count, time_s]


def test_a_violation_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_always(_core: object) -> None:
        raise AssertionError("made up")

    monkeypatch.setattr("llama_router.simulator.swarm.check", raise_always)
    report = stress_simulation.run_simulation(5, seeds=1)
    again = "llama-router stress --layer simulation --seed 5 --seeds 1"
    assert f"again: {again}" in stress_simulation.as_text(report)
    (failure,) = stress_simulation.as_figures(report)["failures"]
    assert (failure["seed"], failure["message"], failure["again"]) == (5, "made up", again)
