from llama_router.core.crashes import CrashHistory


def test_back_off_doubles_up_to_half_a_minute() -> None:
    history, now, delays = CrashHistory(), 0.0, []
    for _ in range(8):
        assert not history.record(now, 0.0)
        delays.append(history.retry_at - now)
        now += 200.0
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]


def test_back_off_stays_finite_for_ever() -> None:
    history = CrashHistory(streak=10_000)
    history.record(0.0, 0.0)
    assert history.retry_at == 30


def test_minute_of_readiness_starts_the_back_off_anew() -> None:
    history = CrashHistory()
    for now in (0.0, 200.0, 400.0):
        history.record(now, 59.9)
    assert history.retry_at == 404
    history.record(1000.0, 60.0)
    assert history.retry_at == 1001


def test_fifth_crash_counts_only_within_the_window() -> None:
    history = CrashHistory()
    assert [history.record(now, 0.0) for now in (0.0, 75.0, 150.0, 225.0, 300.0)][-1]
    history = CrashHistory()
    assert not any(history.record(now, 0.0) for now in (0.0, 75.1, 150.2, 225.3, 300.4))


def test_stable_engines_that_crash_too_often_are_given_up_as_well() -> None:
    history = CrashHistory()
    assert [history.record(now, 60.0) for now in (0.0, 61.0, 122.0, 183.0, 244.0)][-1]
    assert history.retry_at == 844


def test_failed_trial_is_a_new_ban_and_a_passed_one_clears_the_history() -> None:
    history = CrashHistory()
    history.begin_trial()
    assert history.record(1000.0, 0.0)
    assert history.retry_at == 1600
    history.begin_trial()
    history.became_ready()
    assert not history.record(1700.0, 5.0)
    assert history.retry_at == 1701
