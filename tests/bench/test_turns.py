import pytest

from bench.turns import is_good, main
from llama_router.stress.turns import Case, Outcome


def outcome(policy: str, makespan_s: float, worst_wait_s: float, *problems: str) -> Outcome:
    return Outcome(policy, makespan_s, worst_wait_s, 1.0, 2, problems)


STRICT = outcome("arrival", 132.0, 125.0)


def test_the_goal_is_a_ratio_and_a_bound() -> None:
    case = Case()
    assert is_good(case, [STRICT, outcome("benefit", 10.0, 9.0)])
    assert not is_good(case, [STRICT, outcome("benefit", 60.0, 9.0)])
    assert not is_good(case, [STRICT, outcome("benefit", 10.0, 24.0)])
    assert not is_good(case, [STRICT, outcome("benefit", 10.0, 9.0, "not alpha's words")])


def test_a_scale_out_of_bounds_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--scale", "1000"])
    assert "want 0.01 to 10" in capsys.readouterr().err
