import pytest

from llama_router.core.commands import Reject
from tests.core.playbook import Stage, play, specs

LOADING = """
> arrive 1 a
...
"""
LOADED = (
    LOADING
    + """
> ready a#1
...
"""
)


def test_exit_during_the_load_fails_all_waiters_at_once_and_cools_after_the_reap() -> None:
    stage = play(
        "a",
        LOADING
        + """
        > arrive 2 a
        > load 3 a
        > exited a#1
        unset ready_timeout a#1
        a: starting -> stopping
        kill a#1
        set reap_deadline a#1 @10
        reject 1 model_load_failed retry=1
        reject 2 model_load_failed retry=1
        settled 3 model_load_failed
        > arrive 4 a
        reject 4 model_backing_off retry=1
        @ 0.4
        > reaped a#1
        unset reap_deadline a#1
        a: stopping -> cooling
        set backoff a#1 @1
        > arrive 5 a
        reject 5 model_backing_off retry=1
        = a backing_off retry_at=1.0 last_error='exited with status 1'
        @ 1
        > fired backoff a#1
        a: cooling -> unloaded
        > arrive 6 a
        ...
        spawn a#2
        ...
        > ready a#2
        ...
        = a loaded last_error=None retry_at=None
        """,
    )
    assert "exited with status 1" in stage.auditor.rejects[0].reason


def test_back_off_that_is_over_before_the_reap_is_not_begun() -> None:
    play(
        "a",
        LOADING + "> exited a#1\n...\n@ 5\n> arrive 2 a\nreject 2 model_backing_off retry=1\n"
        "> reaped a#1\nunset reap_deadline a#1\na: stopping -> unloaded",
    )


def test_failed_spawn_is_a_failed_load_without_anything_to_reap() -> None:
    play(
        "a",
        LOADING
        + """
        > spawn_failed a#1
        unset ready_timeout a#1
        reject 1 model_load_failed retry=1
        a: starting -> cooling
        set backoff a#1 @1
        > spawn_failed a#1
        > reaped a#1
        > exited a#1
        """,
    )


def test_failed_spawn_of_a_load_that_was_cancelled_is_its_reap() -> None:
    play("a", LOADING + "> unload 2 a\n...\n> spawn_failed a#1\n...\nsettled 2\n= a unloaded")


def test_exit_before_the_spawn_was_reported_and_a_late_report_of_it() -> None:
    play("a", LOADING + "> exited a#1\n...\n> spawned a#1\n> reaped a#1\n...\n> spawned a#1")


def test_reap_whose_exit_was_not_reported_counts_as_both() -> None:
    play("a", LOADED + "> reaped a#1\n...\n= a backing_off in_flight=0\n> finish 1")


def test_load_that_takes_too_long_is_stopped_killed_and_given_up_as_stuck() -> None:
    play(
        "a b",
        LOADING
        + """
        @ 60
        > fired ready_timeout a#1
        a: starting -> stopping
        terminate a#1
        set stop_grace a#1 @62
        reject 1 load_timeout retry=1
        > arrive 2 b
        @ 62
        > fired stop_grace a#1
        kill a#1
        set reap_deadline a#1 @72
        = b unloaded waiting=1
        @ 72
        > unload 3 a
        > load 4 a
        > fired reap_deadline a#1
        a: stopping -> stuck
        settled 4 model_stuck
        settled 3 model_stuck
        b: unloaded -> starting
        spawn b#2
        set ready_timeout b#2 @132
        > arrive 5 a
        reject 5 model_stuck
        > load 6 a
        settled 6 model_stuck
        > unload 7 a
        settled 7 model_stuck
        = a stuck
        > reaped a#1
        a: stuck -> unloaded
        > reaped a#1
        > arrive 8 a
        = a unloaded waiting=1
        """,
    )


@pytest.mark.parametrize("event", ["exited a#1 address_in_use", "stolen a#1"])
def test_lost_address_is_no_crash_and_the_waiters_stay(event: str) -> None:
    stage = play(
        "a b",
        LOADING
        + f"""
        > arrive 2 b
        > {event}
        unset ready_timeout a#1
        a: starting -> stopping
        kill a#1
        set reap_deadline a#1 @10
        > arrive 3 a
        > reaped a#1
        unset reap_deadline a#1
        a: stopping -> unloaded
        a: unloaded -> starting
        spawn a#2
        set ready_timeout a#2 @60
        """,
    )
    assert stage.core.ledger.models["a"].crashes.times == []


def test_third_lost_address_in_a_row_is_a_failed_load() -> None:
    play(
        "a",
        LOADING
        + """
        > exited a#1 address_in_use
        ...
        > reaped a#1
        ...
        > stolen a#2
        ...
        > reaped a#2
        ...
        spawn a#3
        ...
        > exited a#3 address_in_use
        ...
        reject 1 model_load_failed retry=1
        > reaped a#3
        ...
        = a backing_off generation=3
        """,
    )


def test_lost_addresses_of_an_earlier_load_do_not_count() -> None:
    play(
        "a b",
        LOADING
        + """
        > stolen a#1
        ...
        > reaped a#1
        ...
        > stolen a#2
        ...
        > reaped a#2
        ...
        > ready a#3
        ...
        > finish 1
        > arrive 2 b
        ...
        > reaped a#3
        ...
        > ready b#4
        ...
        > finish 2
        > arrive 3 a
        ...
        > reaped b#4
        ...
        > stolen a#5
        ...
        > reaped a#5
        ...
        spawn a#6
        ...
        """,
    )


def test_progress_begins_anew_with_each_start() -> None:
    play(
        "a",
        """
        > arrive 1 a notices
        ...
        > progress a#1 0.9
        notify 1 loading a 0.9
        > stolen a#1
        ...
        > reaped a#1
        ...
        spawn a#2
        ...
        notify 1 loading a
        > progress a#1 0.95
        > arrive 2 a notices
        notify 2 loading a
        > progress a#2 0.1
        notify 1 loading a 0.1
        notify 2 loading a 0.1
        """,
    )


def test_engine_that_was_ready_for_a_minute_crashes_for_the_first_time_again() -> None:
    stage = Stage(specs("a b"))
    for number in range(1, 4):
        crash_while_loading(stage, number, number)
        wait_out(stage, number)
    play(
        "",
        """
        @ 10
        > arrive 4 a
        ...
        > ready a#4
        ...
        @ 70
        > exited a#4
        ...
        = a unloading retry_at=71.0
        """,
        stage=stage,
    )


def test_lost_address_of_a_load_without_waiters_is_not_tried_again() -> None:
    play(
        "a", LOADING + "> cancel 1\n> stolen a#1\n...\n> reaped a#1\n...\n= a unloaded generation=1"
    )


def test_crash_leaves_the_ends_of_requests_to_the_proxy() -> None:
    play(
        "a",
        LOADED
        + """
        > arrive 2 a
        ...
        > exited a#1
        a: ready -> stopping
        kill a#1
        set reap_deadline a#1 @10
        > finish 1
        > cancel 2
        > exited a#1
        """,
    )


def test_exit_while_stopping_is_expected() -> None:
    play(
        "a", LOADED + "> finish 1\n> unload 2 a\n...\n> exited a#1\n> reaped a#1\n...\n= a unloaded"
    )


def crash_while_loading(stage: Stage, request_id: int, generation: int) -> None:
    play(
        "",
        f"""
        > arrive {request_id} a
        ...
        spawn a#{generation}
        > spawn_failed a#{generation}
        ...
        """,
        stage=stage,
    )


def wait_out(stage: Stage, generation: int) -> None:
    stage.now = stage.core.view("a").retry_at or stage.now
    play("", f"> fired backoff a#{generation}\na: cooling -> unloaded", stage=stage)


def failed_stage() -> Stage:
    stage = Stage(specs("a b"))
    for number in range(1, 6):
        crash_while_loading(stage, number, number)
        if number < 5:
            wait_out(stage, number)
    return stage


def test_five_crashes_in_five_minutes_are_the_end_until_the_trial() -> None:
    stage = failed_stage()
    assert stage.now == 15  # 1 + 2 + 4 + 8 s of back-off
    play(
        "",
        """
        = a failed retry_at=615.0 last_error='no such file'
        > arrive 10 a
        reject 10 model_failed retry=600
        @ 614
        > arrive 11 a
        reject 11 model_failed retry=1
        @ 615
        > arrive 12 a
        a: failed -> unloaded
        a: unloaded -> starting
        spawn a#6
        set ready_timeout a#6 @675
        > arrive 13 a
        > spawn_failed a#6
        unset ready_timeout a#6
        reject 12 model_load_failed retry=600
        reject 13 model_load_failed retry=600
        a: starting -> failed
        @ 1215
        > arrive 14 a
        ...
        > ready a#7
        ...
        > exited a#7
        ...
        > reaped a#7
        ...
        = a backing_off retry_at=1216.0
        """,
        stage=stage,
    )
    rejects = [command for command in stage.commands if isinstance(command, Reject)]
    assert "no such file" in rejects[-3].reason


def test_waiters_of_a_ready_model_that_crashed_once_too_often_are_told() -> None:
    stage = Stage(specs("a b"))
    for number in range(1, 5):
        crash_while_loading(stage, number, number)
        wait_out(stage, number)
    play(
        "",
        """
        > arrive 5 a
        ...
        > ready a#5
        ...
        > arrive 6 b
        > arrive 7 a              # behind 6
        > exited a#5
        a: ready -> stopping
        kill a#5
        set reap_deadline a#5 @25
        reject 7 model_failed retry=600
        > arrive 8 a
        reject 8 model_failed retry=600
        > bounce 5
        reject 5 model_failed retry=600
        """,
        stage=stage,
    )


def test_trial_waits_for_the_reap_even_when_the_timers_are_late() -> None:
    stage = Stage(specs("a b"))
    for number in range(1, 5):
        crash_while_loading(stage, number, number)
        wait_out(stage, number)
    play(
        "",
        """
        > arrive 5 a
        ...
        > exited a#5
        ...
        @ 1000
        > arrive 6 a
        reject 6 model_failed retry=1
        > reaped a#5
        unset reap_deadline a#5
        a: stopping -> failed
        """,
        stage=stage,
    )


@pytest.mark.parametrize("event", ["load 20 a", "unload 20 a", "models a:2 b"])
def test_operators_end_a_ban(event: str) -> None:
    stage = failed_stage()
    play("", f"> {event}\na: failed -> unloaded\n...\n> arrive 21 a\n...", stage=stage)
    assert stage.auditor.spawns.count("a") == 6


@pytest.mark.parametrize("event", ["load 20 a", "unload 20 a", "models a:2"])
def test_operators_end_a_back_off(event: str) -> None:
    play(
        "a",
        LOADING + f"> spawn_failed a#1\n...\n> {event}\nunset backoff a#1\n...\n> arrive 3 a\n...\n"
        "= a loading generation=2",
    )


def test_operator_ends_a_back_off_that_has_not_begun() -> None:
    play("a", LOADED + "> exited a#1\n...\n> load 2 a\n> reaped a#1\n...\nspawn a#2\n...")
