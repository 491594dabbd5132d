import pytest

from llama_router.core import events as ev
from llama_router.core.commands import Emit
from llama_router.core.policies.benefit import BenefitOrder
from llama_router.core.settings import CoreSettings
from tests.core.playbook import Stage, play, specs

LOADED = """
> arrive 1 a
...
> ready a#1
...
"""
IDLE = LOADED + "> finish 1\n"
STOP = "a: ready -> stopping\nterminate a#1\nset stop_grace a#1 @2\n"


def test_load_tickets_settle_when_the_model_is_ready() -> None:
    play(
        "a",
        "> load 1 a\n...\n> load 2 a\n> ready a#1\n...\nsettled 1\nsettled 2\n"
        "> load 3 a\nsettled 3",
    )


def test_load_of_a_ready_model_settles_even_when_others_wait() -> None:
    play("a b", LOADED + "> arrive 2 b\n> load 3 a\nsettled 3")


@pytest.mark.parametrize("event", ["load", "unload"])
def test_tickets_for_unknown_models_settle_at_once(event: str) -> None:
    play("a", f"> {event} 1 zz\nsettled 1 model_not_found")


@pytest.mark.parametrize("event", ["load", "unload"])
def test_operator_who_leaves_gets_no_answer(event: str) -> None:
    stage = play(
        "a",
        LOADED + f"> exited a#1\n...\n> {event} 2 a\n> {event} 2 a\n> cancel 2\n> reaped a#1\n...",
    )
    assert stage.core.ledger.requests.keys() == {1}


def test_unload_of_what_is_not_loaded_settles_at_once() -> None:
    play("a", "> unload 1 a\nsettled 1")


def test_unload_of_an_idle_model_settles_with_the_reap_for_all_who_asked() -> None:
    play(
        "a",
        IDLE
        + "> unload 2 a\n"
        + STOP
        + """
        > unload 3 a
        > exited a#1
        > reaped a#1
        unset stop_grace a#1
        a: stopping -> unloaded
        settled 2
        settled 3
        """,
    )


def test_unload_drains_a_busy_model_and_newcomers_load_it_again() -> None:
    play(
        "a",
        LOADED
        + """
        > unload 2 a
        a: ready -> draining
        set drain_deadline a#1 @300
        > arrive 3 a
        = a unloading in_flight=1 waiting=1
        > finish 1
        unset drain_deadline a#1
        a: draining -> stopping
        terminate a#1
        set stop_grace a#1 @2
        > arrive 4 a
        > reaped a#1
        unset stop_grace a#1
        a: stopping -> unloaded
        settled 2
        a: unloaded -> starting
        spawn a#2
        set ready_timeout a#2 @60
        > ready a#2
        ...
        dispatch 3 a#2
        dispatch 4 a#2
        """,
    )


def test_drain_deadline_cuts_what_is_still_in_flight() -> None:
    play(
        "a",
        LOADED
        + """
        > unload 2 a
        ...
        @ 300
        > fired drain_deadline a#1
        abort 1
        a: draining -> stopping
        terminate a#1
        set stop_grace a#1 @302
        > bounce 1
        reject 1 model_unloaded
        """,
    )


def test_unload_during_the_load_tells_all_waiters() -> None:
    play(
        "a",
        """
        > arrive 1 a
        ...
        > load 2 a
        > unload 3 a
        unset ready_timeout a#1
        a: starting -> stopping
        terminate a#1
        set stop_grace a#1 @2
        reject 1 model_unloaded
        settled 2 model_unloaded
        > ready a#1
        > reaped a#1
        unset stop_grace a#1
        a: stopping -> unloaded
        settled 3
        """,
    )


def test_unchanged_models_are_not_touched_by_a_new_configuration() -> None:
    play(
        "a b",
        LOADED + "> models a b c\n> arrive 2 c\n= a loaded in_flight=1\n= c unloaded waiting=1",
    )


def test_removed_model_is_drained_and_then_unknown() -> None:
    stage = play(
        "a b",
        LOADED
        + """
        > arrive 2 b
        > arrive 3 a
        > models c
        ...
        > arrive 4 a
        reject 4 model_not_found
        > load 5 b
        settled 5 model_not_found
        > finish 1
        ...
        > reaped a#1
        unset stop_grace a#1
        a: stopping -> unloaded
        """,
    )
    kinds = [(reject.request_id, reject.kind.value) for reject in stage.auditor.rejects]
    assert kinds == [(3, "model_not_found"), (2, "model_not_found"), (4, "model_not_found")]
    assert list(stage.views()) == ["c"]


def test_model_that_comes_back_while_its_process_ends_is_kept() -> None:
    play(
        "a",
        IDLE + "> models\n" + STOP + "> models a\n> arrive 2 a\n> reaped a#1\n...\nspawn a#2\n...",
    )


def test_changed_model_is_restarted_when_idle_and_its_waiters_stay() -> None:
    play(
        "a",
        LOADED
        + """
        > models a:2
        a: ready -> draining
        set drain_deadline a#1 @300
        > arrive 2 a
        > finish 1
        ...
        > reaped a#1
        ...
        spawn a#2
        ...
        > models a:3
        unset ready_timeout a#2
        a: starting -> stopping
        terminate a#2
        set stop_grace a#2 @2
        > reaped a#2
        ...
        spawn a#3
        ...
        """,
    )


def test_changed_idle_model_is_stopped_and_loads_on_demand() -> None:
    play("a", IDLE + "> models a:2\n" + STOP + "> reaped a#1\n...\n= a unloaded")


def test_changed_group_holds_from_now_on_without_a_restart() -> None:
    play(
        "a/g b/g",
        LOADED
        + """
        > arrive 2 b
        ...
        > ready b#2
        ...
        > models a/g b/h
        = a loaded in_flight=1
        = b loaded in_flight=1
        > unload 3 b
        ...
        > finish 2
        ...
        > reaped b#2
        ...
        > arrive 4 b
        = b unloaded waiting=1
        > finish 1
        ...
        a: ready -> stopping
        ...
        """,
    )


def test_regrouped_models_are_told_apart_again_with_their_next_start() -> None:
    stage = play("a/g b/g", IDLE + "> models a/h b/g\n> unload 2 a\n...\n> reaped a#1\n...")
    assert stage.core.ledger.models["a"].regrouped
    play("", "> arrive 3 a\n...", stage=stage)
    assert not stage.core.ledger.models["a"].regrouped


def test_hold_after_a_bounce_ends_with_the_model() -> None:
    play(
        "a",
        LOADED + "> bounce 1\nset bounce a#1 @1\n> models\nreject 1 model_not_found\n"
        "unset bounce a#1\n" + STOP,
    )


def test_change_can_let_go_who_waits() -> None:
    play("a/g b/h", LOADED + "> arrive 2 b\n> models a/g b/g\nb: unloaded -> starting\n...")


def test_shutdown_drains_the_busy_and_stops_the_idle() -> None:
    stage = play(
        "a/g b/g c/g d/h e/g",
        LOADED
        + """
        > load 2 b
        ...
        > ready b#2
        ...
        > arrive 3 c
        ...
        > load 4 c
        > arrive 5 d
        > arrive 6 a visit
        ...
        > shutdown 30
        reject 3 shutting_down
        settled 4 shutting_down
        reject 5 shutting_down
        a: ready -> draining
        b: ready -> stopping
        terminate b#2
        set stop_grace b#2 @2
        unset ready_timeout c#3
        c: starting -> stopping
        terminate c#3
        set stop_grace c#3 @2
        set shutdown_deadline @30
        > shutdown 5
        > arrive 7 a
        reject 7 shutting_down
        > arrive 8 a visit
        reject 8 shutting_down
        > load 9 e
        settled 9 shutting_down
        > models x
        > ready c#3
        > reaped b#2
        unset stop_grace b#2
        b: stopping -> unloaded
        > spawn_failed c#3
        unset stop_grace c#3
        c: stopping -> unloaded
        @ 30
        > fired shutdown_deadline
        abort 1
        abort 6
        a: draining -> stopping
        terminate a#1
        set stop_grace a#1 @32
        > finish 1
        > finish 6
        > reaped a#1
        unset stop_grace a#1
        a: stopping -> unloaded
        shutdown complete
        > reaped a#1
        > force
        """,
    )
    assert "The router is shutting down" in stage.auditor.rejects[0].reason


def test_shutdown_is_over_when_the_last_drain_is() -> None:
    play(
        "a",
        LOADED + "> shutdown 30\n...\n> finish 1\n...\n> reaped a#1\nunset stop_grace a#1\n"
        "a: stopping -> unloaded\nunset shutdown_deadline\nshutdown complete",
    )


def test_shutdown_of_nothing_is_over_at_once() -> None:
    play("a", "> shutdown 30\nshutdown complete\n> shutdown 30\n> force")
    play("a", "> force\nshutdown complete")


def test_shutdown_ends_a_back_off() -> None:
    play(
        "a",
        "> arrive 1 a\n...\n> spawn_failed a#1\n...\n> shutdown 30\nunset backoff a#1\n"
        "a: cooling -> unloaded\nshutdown complete",
    )


def test_crash_during_a_shutdown_is_only_an_end() -> None:
    play(
        "a",
        LOADED + "> shutdown 30\n...\n> exited a#1\n...\n> bounce 1\nreject 1 shutting_down\n"
        "> reaped a#1\n...\na: stopping -> unloaded\n...\nshutdown complete",
    )


def test_forced_shutdown_cuts_and_kills_everything_once() -> None:
    stage = play(
        "a/g b/g c/g",
        LOADED
        + """
        > arrive 2 b
        ...
        > load 3 c
        ...
        > ready c#3
        ...
        > unload 4 c
        ...
        > fired stop_grace c#3
        ...
        > force
        reject 2 shutting_down
        abort 1
        a: ready -> stopping
        kill a#1
        set reap_deadline a#1 @10
        unset ready_timeout b#2
        b: starting -> stopping
        kill b#2
        set reap_deadline b#2 @10
        > force
        > reaped a#1
        ...
        > reaped c#3
        ...
        settled 4
        @ 10
        > fired reap_deadline b#2
        b: stopping -> stuck
        shutdown complete
        """,
    )
    assert [command.reason for command in stage.commands if isinstance(command, Emit)].count(
        "forced"
    ) == 2


def test_a_patch_touches_those_it_names_and_no_others() -> None:
    stage = Stage(specs("a/g b/g c/g"))
    for number, name in enumerate("abc", 1):
        stage.handle(ev.RequestArrived(number, name))
        stage.handle(ev.EngineReady(name, number))
    stage.handle(ev.ModelsPatched(specs("b/g:2 d/g"), ("c", "nowhere")))
    states = {name: view.state for name, view in stage.views().items()}
    assert states == {"a": "loaded", "b": "unloading", "c": "unloading", "d": "unloaded"}
    stage.handle(ev.RequestFinished(3))
    stage.handle(ev.EngineReaped("c", 3))
    assert set(stage.views()) == {"a", "b", "d"}


def test_who_is_in_both_parts_of_a_patch_is_there() -> None:
    stage = Stage(specs("a"))
    stage.handle(ev.RequestArrived(1, "a"))
    stage.handle(ev.EngineReady("a", 1))
    assert stage.handle(ev.ModelsPatched(specs("a"), ("a",))) == []
    assert stage.core.view("a").state == "loaded"


def test_portions_come_to_the_same_as_the_whole() -> None:
    new = specs("b/g:2 c/h d/g e")
    whole, portions = Stage(specs("a/g b/g c/g")), Stage(specs("a/g b/g c/g"))
    whole.handle(ev.ModelsChanged(new))
    for spec in new:
        portions.handle(ev.ModelsPatched((spec,)))
    portions.handle(ev.ModelsPatched(removed=("a",)))
    assert whole.views() == portions.views()


def test_a_lower_limit_stops_nobody_and_holds_for_the_next() -> None:
    stage = Stage(specs("a/g b/g c/g"), BenefitOrder(), CoreSettings())
    for number, name in enumerate("ab", 1):
        stage.handle(ev.RequestArrived(number, name))
        stage.handle(ev.EngineReady(name, number))
    assert stage.handle(ev.SettingsChanged(CoreSettings(max_loaded=1))) == []
    stage.handle(ev.RequestFinished(1))
    stage.handle(ev.RequestArrived(3, "c"))
    assert {view.state for view in stage.views().values()} == {"loaded", "unloaded"}
    stage.handle(ev.RequestFinished(2))
    stage.now += 1.0
    stage.handle(ev.TimerFired(ev.Timer(ev.TimerKind.SWITCH)))
    states = [stage.core.view(name).state for name in "abc"]
    assert states == ["unloading", "unloading", "unloaded"]


def test_a_changed_patience_holds_for_those_who_wait_already() -> None:
    stage = Stage(specs("a"), settings=CoreSettings(max_queue_s=50.0))
    stage.handle(ev.RequestArrived(1, "a"))
    timer = ev.Timer(ev.TimerKind.QUEUE_TIMEOUT, "a")
    assert stage.auditor.timers[timer] == 50.0
    stage.handle(ev.SettingsChanged(CoreSettings(max_queue_s=5.0)))
    assert stage.auditor.timers[timer] == 5.0
    stage.handle(ev.SettingsChanged(CoreSettings()))
    assert timer not in stage.auditor.timers
    stage.handle(ev.SettingsChanged(CoreSettings(max_queue_s=9.0)))
    stage.now = 9.0
    stage.handle(ev.TimerFired(timer))
    assert [reject.kind.value for reject in stage.auditor.rejects] == ["queue_timeout"]


def test_changed_settings_leave_the_budgets_alone() -> None:
    budgets = (ev.DeviceBytes("gpu", 10),)
    stage = Stage(specs("a"), settings=CoreSettings(budgets=budgets))
    stage.handle(ev.SettingsChanged(CoreSettings(max_waiting=1)))
    assert stage.core.ledger.memory.budgets == {"gpu": 10}
    stage.handle(ev.RequestArrived(1, "a"))
    stage.handle(ev.RequestArrived(2, "a"))
    assert [reject.kind.value for reject in stage.auditor.rejects] == ["queue_full"]
