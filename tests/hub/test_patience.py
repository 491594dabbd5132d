from datetime import UTC, datetime

import pytest

from llama_router.hub.patience import Patience, delay_s, retry_after_s


def test_delays_grow_to_a_limit_and_are_spread() -> None:
    patience = Patience(delay_s=1, delay_max_s=8)
    for attempt, most in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (1000, 8)):
        delays = [delay_s(patience, attempt, None) for _ in range(50)]
        assert most / 2 <= min(delays)
        assert max(delays) <= most
        assert len(set(delays)) > 1


def test_what_the_hub_asks_for_is_not_undercut_up_to_a_limit() -> None:
    patience = Patience(delay_s=1, delay_max_s=8, retry_after_max_s=100)
    assert delay_s(patience, 1, 30) == 30
    assert delay_s(patience, 1, 3600) == 100


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("7", 7.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
    ],
)
def test_retry_after(said: str, expected: float | None) -> None:
    now = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
    assert retry_after_s({"Retry-After": said}, now) == expected
