import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_router.proxy.errors import BadRequestError
from llama_router.proxy.keep_alive import FOREVER_S, bounded, read_keep_alive

# What Ollama's api.Duration makes of them (Go's time.ParseDuration), and a plain number as text.
MEANINGS = [
    ("300", 300.0),
    ("0.5", 0.5),
    ("0", 0.0),
    ("-1", FOREVER_S),
    ("-0.1", FOREVER_S),
    ("1e300", FOREVER_S),
    ('"5m"', 300.0),
    ('"1h30m"', 5400.0),
    ('"1.5h"', 5400.0),
    ('"90s"', 90.0),
    ('"250ms"', 0.25),
    ('"24h"', 86400.0),
    ('"+5m"', 300.0),
    ('"-1m"', FOREVER_S),
    ('"-1"', FOREVER_S),
    ('"0"', 0.0),
    ('"0s"', 0.0),
    ('"3600"', 3600.0),
]
NONSENSE = ["true", "{}", "[5]", '""', '"x"', '"5 m"', '"5m5"', '"m"', '"5d"', '"nan"', '"inf"']
NONSENSE += ["1e400", '"' + "1" * 70 + '"']


def raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


@pytest.mark.parametrize(("text", "seconds"), MEANINGS)
def test_a_time_is_understood_in_either_place(text: str, seconds: float) -> None:
    assert read_keep_alive(raw(text), None) == pytest.approx(seconds)
    assert read_keep_alive(None, raw(text)) == pytest.approx(seconds)
    assert read_keep_alive(raw("7"), raw(text)) == 7.0


@pytest.mark.parametrize("text", NONSENSE)
def test_a_keep_alive_that_means_nothing_is_refused_and_a_ttl_is_the_engines(text: str) -> None:
    with pytest.raises(BadRequestError, match="'5m'") as error:
        read_keep_alive(raw(text), None)
    assert error.value.param == "keep_alive"
    assert read_keep_alive(None, raw(text)) is None


def test_null_is_as_good_as_nothing() -> None:
    assert read_keep_alive(raw("null"), None) is None
    assert read_keep_alive(raw("null"), raw("5")) == 5.0
    assert read_keep_alive(None, raw("null")) is None
    assert read_keep_alive(msgspec.UNSET, msgspec.UNSET) is None


PLAIN = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20)


@given(PLAIN | st.lists(PLAIN, max_size=2))
def test_whatever_is_understood_is_a_time_that_clocks_can_bear(value: object) -> None:
    found = read_keep_alive(None, msgspec.Raw(json.dumps(value).encode()))
    assert found is None or found == FOREVER_S or 0 <= found < 1e9


@pytest.mark.parametrize(
    ("seconds", "limit_s", "expected"),
    [
        (None, None, None),
        (None, 60.0, None),
        (300.0, None, 300.0),
        (FOREVER_S, None, FOREVER_S),
        (300.0, 60.0, 60.0),
        (30.0, 60.0, 30.0),
        (0.0, 60.0, 0.0),
        (FOREVER_S, 60.0, 60.0),
        (300.0, 0.0, None),
        (0.0, 0.0, None),
    ],
)
def test_a_request_gets_no_more_than_the_operator_allows(
    seconds: float | None, limit_s: float | None, expected: float | None
) -> None:
    assert bounded(seconds, limit_s) == expected
