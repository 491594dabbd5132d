import pytest

from llama_router.control.when import since_s

NOW_S = 1_900_000_000.0


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("", 0.0),
        ("90m", NOW_S - 5400),
        ("1.5 h", NOW_S - 5400),
        ("7d", NOW_S - 604800),
        ("1700000000", 1_700_000_000.0),
        ("1700000000.25", 1_700_000_000.25),
    ],
)
def test_times_ago_and_unix_times(text: str, expected_s: float) -> None:
    assert since_s(text, NOW_S) == expected_s


def test_dates_without_an_offset_are_local() -> None:
    assert since_s("2026-11-23T08:00+01:00", NOW_S) == 1795417200.0
    assert abs(since_s("2026-11-23", NOW_S) - 1795392000.0) <= 14 * 3600


@pytest.mark.parametrize("text", ["12", "yesterday", "-5m", "1e9", "9" * 40 + "d", "nan"])
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="neither a time ago"):
        since_s(text, NOW_S)
