import pytest

from llama_router.proxy.silence import Verdict, judge

WAIT, PROBE, GIVE_UP = Verdict


@pytest.mark.parametrize(
    ("silent_s", "probed_s", "first_byte_timeout_s", "verdict"),
    [
        (600.0, 0.0, 0.0, WAIT),
        (601.0, 0.0, 0.0, PROBE),
        (602.0, 601.0, 0.0, WAIT),
        (1202.0, 601.0, 0.0, PROBE),
        (1e6, 1e6, 0.0, WAIT),
        (30.0, 0.0, 30.0, WAIT),
        (31.0, 0.0, 30.0, GIVE_UP),
        (601.0, 0.0, 700.0, PROBE),
        (701.0, 601.0, 700.0, GIVE_UP),
    ],
)
def test_before_the_first_byte_the_engine_is_looked_after_and_has_its_own_time(
    silent_s: float, probed_s: float, first_byte_timeout_s: float, verdict: Verdict
) -> None:
    found = judge(
        silent_s,
        probed_s,
        has_begun=False,
        read_timeout_s=600.0,
        first_byte_timeout_s=first_byte_timeout_s,
    )
    assert found is verdict


@pytest.mark.parametrize("first_byte_timeout_s", [0.0, 30.0])
def test_between_the_bytes_only_silence_counts(first_byte_timeout_s: float) -> None:
    for silent_s, verdict in ((600.0, WAIT), (601.0, GIVE_UP)):
        found = judge(
            silent_s,
            0.0,
            has_begun=True,
            read_timeout_s=600.0,
            first_byte_timeout_s=first_byte_timeout_s,
        )
        assert found is verdict
