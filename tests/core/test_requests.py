import pytest

from llama_router.core.commands import Reject, RejectKind
from llama_router.core.events import (
    EngineReady,
    ModelSpec,
    RequestArrived,
    RequestCancelled,
    RequestFinished,
)
from llama_router.core.machine import Core
from llama_router.core.settings import CoreSettings
from tests.core.playbook import Stage, play, specs

LOADED = """
> arrive 1 a
a: unloaded -> starting
spawn a#1
set ready_timeout a#1 @60
> spawned a#1
> ready a#1
unset ready_timeout a#1
a: starting -> ready
dispatch 1 a#1
> finish 1
"""


def test_first_request_loads_the_model_and_later_ones_go_straight_through() -> None:
    play("a", LOADED + "> arrive 2 a\ndispatch 2 a#1\n> arrive 3 a\ndispatch 3 a#1\n> finish 2")


def test_unknown_model_is_rejected_at_once_even_during_a_load() -> None:
    play("a", "> arrive 1 a\n...\n> arrive 2 zz\nreject 2 model_not_found")


def test_waiters_of_a_load_are_dispatched_in_order_and_cause_one_load() -> None:
    play(
        "a",
        """
        > arrive 1 a
        ...
        > arrive 2 a
        > arrive 3 a
        > cancel 2
        = a loading waiting=2 generation=1
        > ready a#1
        unset ready_timeout a#1
        a: starting -> ready
        dispatch 1 a#1
        dispatch 3 a#1
        = a loaded waiting=0 in_flight=2
        """,
    )


def test_doubled_and_late_events_of_requests_are_ignored() -> None:
    play(
        "a",
        LOADED
        + """
        > finish 1
        > cancel 1
        > bounce 1
        > finish 99
        > arrive 2 a
        dispatch 2 a#1
        > arrive 2 a
        > cancel 2
        > finish 2
        """,
    )


def test_doubled_and_late_events_of_engines_are_ignored() -> None:
    play(
        "a",
        LOADED
        + """
        > ready a#1
        > spawned a#1
        > progress a#1 0.5
        > spawn_failed a#7
        > exited a#7
        > reaped a#7
        > stolen a#1
        > ready zz#1
        > fired ready_timeout a#1
        """,
    )


def test_last_waiter_of_a_model_that_is_not_started_yet_takes_its_load_along() -> None:
    play(
        "a b",
        LOADED
        + """
        > arrive 2 a
        dispatch 2 a#1
        > arrive 3 b
        > cancel 3
        > finish 2
        = b unloaded waiting=0
        """,
    )


def test_leaving_waiter_frees_those_who_were_behind_its_claim() -> None:
    play(
        "a b",
        LOADED
        + """
        > arrive 2 a
        dispatch 2 a#1
        > arrive 3 b
        > arrive 4 a
        > arrive 5 a
        > cancel 3
        dispatch 4 a#1
        dispatch 5 a#1
        """,
    )


def test_load_that_nobody_waits_for_is_finished_when_nobody_needs_the_room() -> None:
    stage = play(
        "a",
        "> arrive 1 a\n...\n> cancel 1\n> ready a#1\nunset ready_timeout a#1\na: starting -> ready",
    )
    assert stage.core.root_target() == "a"


def test_request_that_may_not_load_is_served_or_rejected_at_once() -> None:
    play(
        "a b",
        """
        > arrive 1 a visit
        reject 1 model_not_loaded
        > arrive 2 a
        ...
        > arrive 3 a visit
        reject 3 model_not_loaded
        > ready a#1
        ...
        > arrive 4 b          # waits for a
        > arrive 5 a visit    # goes ahead of it
        dispatch 5 a#1
        = a loaded in_flight=1
        > finish 2            # 5 holds up no swap
        a: ready -> stopping
        terminate a#1
        set stop_grace a#1 @2
        > finish 5
        > finish 5
        """,
    )


def test_visitor_of_a_draining_model_is_served() -> None:
    play("a", LOADED + "> arrive 2 a\n...\n> unload 3 a\n...\n> arrive 4 a visit\ndispatch 4 a#1")


def test_notices_tell_of_unloading_loading_progress_and_ready() -> None:
    play(
        "a b",
        LOADED
        + """
        > arrive 2 b notices
        notify 2 queued b 1
        a: ready -> stopping
        terminate a#1
        set stop_grace a#1 @2
        notify 2 unloading a
        > reaped a#1
        unset stop_grace a#1
        a: stopping -> unloaded
        b: unloaded -> starting
        spawn b#2
        set ready_timeout b#2 @60
        notify 2 loading b
        > progress b#2 0.43
        notify 2 loading b 0.43
        > progress b#2 0.435
        > progress b#2 0.2
        > progress b#2 nan
        > progress b#2 7
        notify 2 loading b 1
        > arrive 3 b notices
        notify 3 loading b 1
        > arrive 4 b
        = b loading fraction=1.0
        > ready b#2
        unset ready_timeout b#2
        b: starting -> ready
        notify 2 ready b
        dispatch 2 b#2
        notify 3 ready b
        dispatch 3 b#2
        dispatch 4 b#2
        """,
    )


def test_whole_percents_are_passed_on_in_spite_of_floating_point() -> None:
    stage = play("a", "> arrive 1 a notices\n...")
    for percent in range(101):
        play(
            "a",
            f"> progress a#1 {percent / 100}\nnotify 1 loading a {percent / 100:g}",
            stage=stage,
        )


def test_request_that_goes_straight_through_gets_no_notice() -> None:
    play("a", LOADED + "> arrive 2 a notices\ndispatch 2 a#1")


def test_bounced_request_waits_for_the_exit_and_goes_first_after_the_back_off() -> None:
    play(
        "a",
        LOADED
        + """
        > arrive 2 a
        ...
        > arrive 3 a
        ...
        > bounce 3
        set bounce a#1 @1
        > bounce 2
        > arrive 4 a          # an engine that is suspected dead gets nothing more
        > exited a#1
        unset bounce a#1
        a: ready -> stopping
        kill a#1
        set reap_deadline a#1 @10
        > arrive 5 a
        reject 5 model_backing_off retry=1
        > reaped a#1
        unset reap_deadline a#1
        a: stopping -> cooling
        set backoff a#1 @1
        @ 1
        > fired backoff a#1
        a: cooling -> unloaded
        a: unloaded -> starting
        spawn a#2
        set ready_timeout a#2 @61
        > ready a#2
        unset ready_timeout a#2
        a: starting -> ready
        dispatch 2 a#2
        dispatch 3 a#2
        dispatch 4 a#2
        > bounce 2
        reject 2 engine_crashed
        """,
    )


def test_bounced_request_is_sent_again_when_the_engine_turns_out_to_live() -> None:
    play(
        "a",
        LOADED + "> arrive 2 a\n...\n> bounce 2\nset bounce a#1 @1\n> bounce 2\n@ 1\n"
        "> fired bounce a#1\ndispatch 2 a#1\n> finish 2",
    )


def test_client_of_a_held_request_leaves_and_the_hold_ends() -> None:
    play(
        "a",
        LOADED + "> arrive 2 a\n...\n> bounce 2\nset bounce a#1 @1\n> arrive 3 a\n"
        "> cancel 2\nunset bounce a#1\ndispatch 3 a#1",
    )


def test_bounce_after_the_exit_was_seen_needs_no_hold() -> None:
    play(
        "a",
        LOADED + "> arrive 2 a\n...\n> exited a#1\n...\n> bounce 2\n> reaped a#1\n...\n"
        "= a backing_off waiting=1 retry_at=1.0",
    )


def test_bounced_visitor_is_not_tried_again() -> None:
    play("a", LOADED + "> arrive 2 a visit\ndispatch 2 a#1\n> bounce 2\nreject 2 engine_crashed")


def test_root_target_is_the_last_used_then_the_last_started() -> None:
    stage = Stage(specs("a/g b/g"))
    assert stage.core.root_target() is None
    play("", "> load 1 a\n...\n> ready a#1\n...\n> load 2 b\n...\n> ready b#2\n...", stage=stage)
    assert stage.core.root_target() == "b"
    play("", "> arrive 3 a\n...\n> arrive 4 b visit\n...", stage=stage)
    assert stage.core.root_target() == "a"
    play("", "> exited a#1\n...", stage=stage)
    assert stage.core.root_target() == "b"


def test_rejections_say_which_model_and_why() -> None:
    stage = play("a", "> arrive 1 a\n...\n> spawn_failed a#1\n...\n> arrive 2 zz\n...")
    assert [command.reason for command in stage.commands if isinstance(command, Reject)] == [
        "Model 'a' could not be loaded: no such file",
        "There is no model 'zz'",
    ]


def test_repr_counts_what_is_there() -> None:
    stage = play("a b", LOADED + "> arrive 2 a\n...\n> arrive 3 b")
    assert repr(stage.core) == (
        "<Core models=2 running=1 waiting=1 requests=2 timers=0 generation=1 shutting_down=False>"
    )


def test_view_of_an_unknown_model_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Core().view("a")


def test_served_requests_leave_nothing_behind() -> None:
    core = Core([ModelSpec("a", "a")])
    core.handle(RequestArrived(1, "a"), 0.0)
    core.handle(EngineReady("a", 1), 0.0)
    core.handle(RequestFinished(1), 0.0)
    for request_id in range(2, 1000):
        core.handle(RequestArrived(request_id, "a"), 1.0)
        core.handle(RequestFinished(request_id), 1.0)
    assert (core.ledger.requests, core.ledger.timers, core.ledger.waiting) == ({}, {}, {})
    assert core.view("a").in_flight == 0


def test_beyond_the_queues_limit_newcomers_are_told_when_to_come_again() -> None:
    core = Core(specs("a b"), settings=CoreSettings(max_waiting=2))
    core.handle(RequestArrived(1, "a"), 0.0)
    assert core.handle(RequestArrived(2, "a"), 0.0) == []
    (refusal,) = core.handle(RequestArrived(3, "a"), 0.0)
    assert isinstance(refusal, Reject)
    assert (refusal.kind, refusal.retry_after_s) == (RejectKind.QUEUE_FULL, 1.0)
    assert core.view("a").waiting == 2
    # The limit is each model's own, and who has left makes room.
    assert core.handle(RequestArrived(4, "b"), 0.0) == []
    core.handle(RequestCancelled(2), 0.0)
    assert core.handle(RequestArrived(5, "a"), 0.0) == []
