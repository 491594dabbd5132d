import pytest

from llama_router.proxy.caller import Caller
from llama_router.proxy.errors import RateLimitError
from llama_router.proxy.key_limits import KeyLimits, KeyUse


def test_a_minutes_worth_at_once_and_then_one_for_each_share_of_a_minute() -> None:
    use = KeyUse(Caller("ann", requests_per_minute=3))
    for _ in range(3):
        use.enter(100.0)
    with pytest.raises(RateLimitError, match="'ann' may send 3") as refused:
        use.enter(100.0)
    assert refused.value.retry_after_s == pytest.approx(20.0)
    with pytest.raises(RateLimitError) as refused:
        use.enter(105.0)
    assert refused.value.retry_after_s == pytest.approx(15.0)
    use.enter(120.1)
    with pytest.raises(RateLimitError):
        use.enter(120.1)
    assert use.in_flight == 4
    # However long nobody asks, no more than a minute's worth comes together.
    for _ in range(3):
        use.enter(1e6)
    with pytest.raises(RateLimitError):
        use.enter(1e6)


def test_so_many_at_a_time() -> None:
    use = KeyUse(Caller("ann", max_in_flight=2))
    use.enter(0.0)
    use.enter(0.0)
    with pytest.raises(RateLimitError, match="max_in_flight") as refused:
        use.enter(0.0)
    assert refused.value.retry_after_s is not None
    use.leave()
    use.enter(0.0)
    assert use.in_flight == 2


def test_who_is_refused_for_what_is_under_way_keeps_its_share_of_the_minute() -> None:
    use = KeyUse(Caller("ann", requests_per_minute=2, max_in_flight=1))
    use.enter(0.0)
    for _ in range(5):
        with pytest.raises(RateLimitError, match="max_in_flight"):
            use.enter(0.0)
    use.leave()
    use.enter(0.0)


def test_other_limits_do_not_forgive_what_has_been_used() -> None:
    limits = KeyLimits()
    limits.replace((Caller("ann", requests_per_minute=2, max_in_flight=9), Caller("bob")))
    use = limits.use_of(Caller("ann"))
    assert use is not None
    assert limits.use_of(Caller("bob")) is None
    use.enter(0.0)
    use.enter(0.0)
    limits.replace((Caller("ann", requests_per_minute=3, max_in_flight=9),))
    assert limits.use_of(Caller("ann")) is use
    use.enter(0.0)
    with pytest.raises(RateLimitError):
        use.enter(0.0)
    limits.replace(())
    assert limits.use_of(Caller("ann")) is None
