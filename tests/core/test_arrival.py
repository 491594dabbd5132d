from llama_router.core.commands import Dispatch, Emit
from llama_router.core.events import (
    EngineReady,
    EngineReaped,
    RequestArrived,
    RequestCancelled,
    RequestFinished,
)
from tests.core.playbook import Stage, play, specs

A_BUSY = """
> arrive 1 a
...
> ready a#1
...
"""


def test_swap_waits_for_the_last_request_and_says_why() -> None:
    stage = play(
        "a b",
        A_BUSY
        + """
        > arrive 2 a
        dispatch 2 a#1
        > arrive 3 b
        > finish 1
        = a loaded in_flight=1
        > finish 2
        a: ready -> stopping
        terminate a#1
        set stop_grace a#1 @2
        > exited a#1
        = b unloaded waiting=1     # the memory is free with the reap, not before
        > reaped a#1
        unset stop_grace a#1
        a: stopping -> unloaded
        b: unloaded -> starting
        spawn b#2
        set ready_timeout b#2 @60
        """,
    )
    reasons = [command.reason for command in stage.commands if isinstance(command, Emit)]
    assert "swap for b: its request is the oldest" in reasons


def test_newcomers_for_the_loaded_model_wait_behind_an_older_claim() -> None:
    play(
        "a b",
        A_BUSY
        + """
        > arrive 2 b
        > arrive 3 a
        > finish 1
        ...
        > reaped a#1
        ...
        > ready b#2
        unset ready_timeout b#2
        b: starting -> ready
        dispatch 2 b#2
        > arrive 4 b               # behind 3
        > finish 2
        b: ready -> stopping
        terminate b#2
        set stop_grace b#2 @2
        > reaped b#2
        ...
        > ready a#3
        unset ready_timeout a#3
        a: starting -> ready
        dispatch 3 a#3
        = b unloaded waiting=1
        """,
    )


def test_newcomers_for_the_group_of_the_loaded_model_wait_behind_an_older_claim() -> None:
    play(
        "a/g b/g c/h",
        A_BUSY + "> arrive 2 c\n> arrive 3 b\n= b unloaded waiting=1\n> finish 1\n"
        "a: ready -> stopping\nterminate a#1\nset stop_grace a#1 @2",
    )


def test_models_of_one_group_run_together() -> None:
    play(
        "a/g b/g",
        A_BUSY
        + """
        > arrive 2 b
        b: unloaded -> starting
        spawn b#2
        set ready_timeout b#2 @60
        > arrive 3 a               # delays nobody
        dispatch 3 a#1
        """,
    )


def test_all_of_another_group_have_to_go_and_then_its_models_load_side_by_side() -> None:
    play(
        "a/g b/g c/h d/h",
        """
        > load 1 a
        ...
        > load 2 b
        ...
        > ready a#1
        ...
        > ready b#2
        ...
        > arrive 3 c
        a: ready -> stopping
        terminate a#1
        set stop_grace a#1 @2
        b: ready -> stopping
        terminate b#2
        set stop_grace b#2 @2
        > arrive 4 d
        > reaped a#1
        unset stop_grace a#1
        a: stopping -> unloaded
        > reaped b#2
        unset stop_grace b#2
        b: stopping -> unloaded
        c: unloaded -> starting
        spawn c#3
        set ready_timeout c#3 @60
        d: unloaded -> starting
        spawn d#4
        set ready_timeout d#4 @60
        """,
    )


def test_load_with_waiters_is_finished_and_used_before_it_is_swapped_out() -> None:
    play(
        "a b",
        """
        > arrive 1 a
        ...
        > arrive 2 b
        > arrive 3 a
        > ready a#1
        unset ready_timeout a#1
        a: starting -> ready
        dispatch 1 a#1
        dispatch 3 a#1
        > finish 1
        > finish 3
        a: ready -> stopping
        terminate a#1
        set stop_grace a#1 @2
        """,
    )


def test_load_whose_first_client_left_is_still_used_by_the_next() -> None:
    play(
        "a b",
        """
        > arrive 1 a
        ...
        > arrive 2 b
        > arrive 3 a
        > cancel 1                 # 2 is the oldest now
        = a loading waiting=1
        > ready a#1
        unset ready_timeout a#1
        a: starting -> ready
        dispatch 3 a#1
        """,
    )


def test_claim_is_as_old_as_the_oldest_who_is_still_there() -> None:
    play(
        "a b c",
        A_BUSY
        + """
        > arrive 2 b
        > arrive 3 c
        > arrive 4 b
        > cancel 2
        > finish 1
        ...
        > reaped a#1
        ...
        spawn c#2
        ...
        = b unloaded waiting=1
        """,
    )


def test_load_whose_clients_left_is_cancelled_for_another_model() -> None:
    play(
        "a b",
        """
        > arrive 1 a
        ...
        > arrive 2 b notices
        notify 2 queued b 1
        > cancel 1
        unset ready_timeout a#1
        a: starting -> stopping
        terminate a#1
        set stop_grace a#1 @2
        notify 2 unloading a
        > ready a#1                # too late
        > reaped a#1
        ...
        spawn b#2
        ...
        """,
    )


def test_model_that_backs_off_holds_nobody_up() -> None:
    play(
        "a b",
        A_BUSY
        + """
        > exited a#1
        ...
        > bounce 1
        > arrive 2 b               # younger than 1
        > reaped a#1
        unset reap_deadline a#1
        a: stopping -> cooling
        set backoff a#1 @1
        b: unloaded -> starting
        spawn b#2
        set ready_timeout b#2 @60
        """,
    )


def test_load_tickets_alone_do_not_keep_a_model_from_being_swapped_out() -> None:
    play(
        "a b",
        """
        > load 1 a
        ...
        > arrive 2 b
        > ready a#1
        unset ready_timeout a#1
        a: starting -> ready
        settled 1
        a: ready -> stopping
        terminate a#1
        set stop_grace a#1 @2
        """,
    )


class Machine:
    """Engines that do at once what they are told; requests that end when told to."""

    def __init__(self, models: str) -> None:
        self.stage = Stage(specs(models))

    def run(self) -> None:
        """Let engines start and stop, and all requests end, until nothing is left to do."""
        for _ in range(10_000):
            dispatched = list(self.stage.auditor.dispatched)
            if dispatched:
                self.stage.handle(RequestFinished(dispatched[0]))
                continue
            for model in list(self.stage.core.ledger.running.values()):
                if model.state.value == "starting":
                    self.stage.handle(EngineReady(model.name, model.generation))
                elif model.state.value == "stopping":
                    self.stage.handle(EngineReaped(model.name, model.generation))
            if not self.stage.auditor.dispatched and not self.stage.core.ledger.waiting:
                return
        raise AssertionError("does not come to rest")


def test_fifty_interleaved_requests_over_three_models_cause_three_loads() -> None:
    machine = Machine("a b c")
    for request_id in range(1, 51):
        machine.stage.handle(RequestArrived(request_id, "abc"[request_id % 3]))

    machine.run()

    assert machine.stage.auditor.spawns == ["b", "c", "a"]
    assert sum(isinstance(command, Dispatch) for command in machine.stage.commands) == 50


def test_two_hundred_waiters_of_which_half_leave_cause_one_load() -> None:
    machine = Machine("a b")
    machine.stage.handle(RequestArrived(1, "a"))
    machine.stage.handle(EngineReady("a", 1))
    for request_id in range(2, 202):
        machine.stage.handle(RequestArrived(request_id, "b"))
    for request_id in range(2, 202, 2):
        machine.stage.handle(RequestCancelled(request_id))

    machine.run()

    assert machine.stage.auditor.spawns == ["a", "b"]
    served = [
        command.request_id for command in machine.stage.commands if isinstance(command, Dispatch)
    ]
    assert served == [1, *range(3, 202, 2)]
    assert machine.stage.core.ledger.requests == {}


def test_steady_stream_for_one_model_does_not_starve_another() -> None:
    machine = Machine("a b")
    machine.stage.handle(RequestArrived(1, "a"))
    machine.stage.handle(EngineReady("a", 1))
    machine.stage.handle(RequestArrived(2, "b"))
    for request_id in range(3, 30):
        machine.stage.handle(RequestArrived(request_id, "a"))
    assert machine.stage.auditor.dispatched == {1: 1}

    machine.run()

    assert machine.stage.auditor.spawns == ["a", "b", "a"]
