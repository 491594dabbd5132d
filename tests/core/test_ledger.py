import random
from itertools import islice

from llama_router.core import events as ev
from llama_router.core.commands import Dispatch, NoticeKind, Notify
from llama_router.core.ledger import TOLD_AT_ONCE
from llama_router.core.policies.arrival import ArrivalOrder
from llama_router.core.policies.base import Policy
from llama_router.core.policies.benefit import BenefitOrder
from tests.core.memory_world import MemoryWorld
from tests.core.playbook import Stage, play, specs

BUSY = """
> arrive 1 a
...
> ready a#1
...
"""


def one_slot(policy: Policy | None = None) -> Stage:
    """``a`` is loaded and its one slot is taken by request 1."""
    stage = Stage([ev.ModelSpec("a", "", max_in_flight=1)], policy or BenefitOrder())
    return play("", BUSY, stage=stage)


def places(stage: Stage) -> dict[int, int | None]:
    """The place that each request was told last."""
    return {
        each.request_id: each.position
        for each in stage.commands
        if isinstance(each, Notify) and each.kind is NoticeKind.QUEUED
    }


# Places


def test_who_has_to_wait_is_told_its_place_and_every_other_one_it_comes_to() -> None:
    play(
        "",
        """
        > arrive 2 a notices
        notify 2 queued a 1
        > arrive 3 a
        > arrive 4 a notices
        notify 4 queued a 3
        > finish 1
        notify 2 ready a
        dispatch 2 a#1
        notify 4 queued a 2
        > cancel 3
        notify 4 queued a 1
        > arrive 5 a
        """,
        stage=one_slot(),
    )


def test_nobody_is_told_a_place_while_the_load_is_what_all_wait_for() -> None:
    play(
        "a",
        """
        > arrive 1 a notices
        a: unloaded -> starting
        spawn a#1
        set ready_timeout a#1 @60
        notify 1 loading a
        > arrive 2 a notices
        notify 2 loading a
        > cancel 1
        """,
    )


def test_those_who_are_left_over_by_a_load_are_told_their_places() -> None:
    stage = Stage([ev.ModelSpec("a", "", max_in_flight=1)], BenefitOrder())
    play(
        "",
        "> arrive 1 a notices\n...\n> arrive 2 a notices\n...\n> arrive 3 a notices\n...",
        stage=stage,
    )
    assert places(stage) == {}
    play("", "> ready a#1\n...", stage=stage)
    assert places(stage) == {2: 1, 3: 2}


def test_a_place_follows_the_order_of_service_and_not_of_arrival() -> None:
    stage = one_slot()
    for number in range(2, 5):
        stage.handle(ev.RequestArrived(number, "a", wants_notices=True, key="x"))
    assert places(stage) == {2: 1, 3: 2, 4: 3}
    stage.handle(ev.RequestArrived(5, "a", wants_notices=True, key="y"))
    assert places(stage) == {2: 1, 5: 2, 3: 3, 4: 4}
    stage.handle(ev.RequestArrived(6, "a", priority=1))
    assert places(stage) == {2: 2, 5: 3, 3: 4, 4: 5}


def test_few_are_told_at_a_time_and_those_behind_when_they_get_there() -> None:
    stage = one_slot()
    last = 2 * TOLD_AT_ONCE
    for number in range(2, last + 2):
        stage.handle(ev.RequestArrived(number, "a", wants_notices=True))
    assert places(stage)[last + 1] == last
    for number in range(1, last):
        commands = stage.handle(ev.RequestFinished(number))
        assert sum(isinstance(each, Notify) for each in commands) <= TOLD_AT_ONCE + 1
    assert places(stage)[last + 1] == 1


def test_the_queue_foretells_the_order_in_which_it_serves() -> None:
    for seed in range(20):
        print(f"seed={seed}")  # noqa: T201 - to run it again
        dice = random.Random(seed)  # noqa: S311 - reproducible, no secret
        stage = one_slot()
        for number in range(2, 30):
            stage.handle(
                ev.RequestArrived(
                    number, "a", key=dice.choice("xyz"), priority=dice.choice((0, 0, 1))
                )
            )
        queue = stage.core.ledger.models["a"].waiting
        foretold = [request.request_id for request in islice(queue.upcoming(), 10)]
        served: list[int] = [1]
        for _ in range(10):
            commands = stage.handle(ev.RequestFinished(served[-1]))
            served += [each.request_id for each in commands if isinstance(each, Dispatch)]
        assert served[1:] == foretold


# Those who take no slot


def test_what_takes_no_slot_waits_for_none() -> None:
    play(
        "",
        """
        > arrive 2 a
        > arrive 3 a beside
        dispatch 3 a#1
        = a loaded in_flight=2 waiting=1
        > finish 1
        dispatch 2 a#1
        > finish 3
        > arrive 4 a beside
        dispatch 4 a#1
        > finish 2
        > arrive 5 a
        dispatch 5 a#1
        """,
        stage=one_slot(),
    )


def test_what_takes_no_slot_still_loads_its_model_and_goes_first_when_it_is_ready() -> None:
    stage = Stage([ev.ModelSpec("a", "", max_in_flight=1)], BenefitOrder())
    play(
        "",
        """
        > arrive 1 a beside
        ...
        spawn a#1
        ...
        > arrive 2 a
        > arrive 3 a
        > arrive 4 a beside
        > ready a#1
        ...
        dispatch 1 a#1
        dispatch 4 a#1
        dispatch 2 a#1
        = a loaded in_flight=3 waiting=1
        """,
        stage=stage,
    )


def test_what_takes_no_slot_is_drained_like_any_other() -> None:
    play(
        "",
        """
        > arrive 2 a beside
        dispatch 2 a#1
        > finish 1
        > unload 9 a
        a: ready -> draining
        set drain_deadline a#1 @300
        > arrive 3 a beside
        = a unloading waiting=1
        > finish 2
        ...
        a: draining -> stopping
        ...
        """,
        stage=one_slot(),
    )


def test_what_takes_no_slot_does_not_jump_the_queue_for_another_model() -> None:
    stage = Stage(specs("a b"), ArrivalOrder())
    play("", BUSY + "> arrive 2 b\n> arrive 3 a beside\n= a loaded waiting=1", stage=stage)
    play("", "> arrive 2 a\n> arrive 3 a beside\ndispatch 3 a#1", stage=one_slot(ArrivalOrder()))


def test_a_crash_forgets_what_was_in_flight_beside() -> None:
    stage = one_slot()
    play(
        "",
        "> arrive 2 a beside\n...\n> exited a#1\n...\n> finish 2\n> reaped a#1\n...",
        stage=stage,
    )
    assert stage.core.ledger.models["a"].extras == 0


def test_walks_see_places_and_what_takes_no_slot() -> None:
    seen: set[str] = set()
    for seed in range(60):
        world = MemoryWorld(seed)
        for _ in range(300):
            world.step()
        beside = world.stage.auditor.beside
        for command in world.stage.commands:
            if isinstance(command, Notify):
                seen.add(command.kind.value)
            if isinstance(command, Dispatch) and command.request_id in beside:
                seen.add("beside")
    assert seen == {"beside", *(kind.value for kind in NoticeKind)}
