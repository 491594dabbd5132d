import pytest

from llama_router.core.states import (
    PUBLIC_NAMES,
    TRANSITIONS,
    WITH_PROCESS,
    State,
    Trigger,
    diagram,
)
from tests.core.playbook import Stage, parse, play, specs

_UP = """
> arrive 1 a
...
> ready a#1
...
"""
_FOUR_FAILURES = """
> arrive 1 a
...
> spawn_failed a#1
...
@ 1
> fired backoff a#1
...
> arrive 2 a
...
> spawn_failed a#2
...
@ 3
> fired backoff a#2
...
> arrive 3 a
...
> spawn_failed a#3
...
@ 7
> fired backoff a#3
...
> arrive 4 a
...
> spawn_failed a#4
...
@ 15
> fired backoff a#4
...
"""
_FIVE_FAILURES = _FOUR_FAILURES + "> arrive 5 a\n..."
_IN_PLACE_OF_AN_IDLE_ONE = """
> arrive 5 b
...
> ready b#{generation}
...
> finish 5
> arrive 6 a
...
"""
_STUCK = """
> arrive 1 a
...
> fired ready_timeout a#1
...
> fired stop_grace a#1
...
> fired reap_deadline a#1
...
"""

# For each entry: what leads there, and the one event that makes the transition.
SCRIPTS = {
    (State.UNLOADED, Trigger.SPAWN): ("", "arrive 1 a"),
    (State.UNLOADED, Trigger.BACK_OFF): (
        _IN_PLACE_OF_AN_IDLE_ONE.format(generation=1),
        "inspected a#1 'no such file'",
    ),
    (State.UNLOADED, Trigger.GIVE_UP): (
        _FOUR_FAILURES + _IN_PLACE_OF_AN_IDLE_ONE.format(generation=5),
        "inspected a#1 'no such file'",
    ),
    (State.STARTING, Trigger.ANSWERS): ("> arrive 1 a\n...", "ready a#1"),
    (State.STARTING, Trigger.STOP): ("> arrive 1 a\n...", "unload 2 a"),
    (State.STARTING, Trigger.EXIT): ("> arrive 1 a\n...", "exited a#1"),
    (State.STARTING, Trigger.BACK_OFF): ("> arrive 1 a\n...", "spawn_failed a#1"),
    (State.STARTING, Trigger.GIVE_UP): (_FIVE_FAILURES, "spawn_failed a#5"),
    (State.READY, Trigger.DRAIN): (_UP, "unload 2 a"),
    (State.READY, Trigger.STOP): (_UP + "> finish 1", "unload 2 a"),
    (State.READY, Trigger.EXIT): (_UP, "exited a#1"),
    (State.DRAINING, Trigger.STOP): (_UP + "> unload 2 a\n...", "finish 1"),
    (State.DRAINING, Trigger.EXIT): (_UP + "> unload 2 a\n...", "exited a#1"),
    (State.STOPPING, Trigger.REAPED): (_UP + "> finish 1\n> unload 2 a\n...", "reaped a#1"),
    (State.STOPPING, Trigger.BACK_OFF): (_UP + "> exited a#1\n...", "reaped a#1"),
    (State.STOPPING, Trigger.GIVE_UP): (_FIVE_FAILURES + "\n> exited a#5\n...", "reaped a#5"),
    (State.STOPPING, Trigger.OVERDUE): (
        "> arrive 1 a\n...\n> fired ready_timeout a#1\n...\n> fired stop_grace a#1\n...",
        "fired reap_deadline a#1",
    ),
    (State.COOLING, Trigger.COOLED): (
        "> arrive 1 a\n...\n> spawn_failed a#1\n...",
        "fired backoff a#1",
    ),
    (State.COOLING, Trigger.CLEAR): ("> arrive 1 a\n...\n> spawn_failed a#1\n...", "unload 2 a"),
    (State.FAILED, Trigger.CLEAR): (_FIVE_FAILURES + "\n> spawn_failed a#5\n...", "unload 6 a"),
    # Another group is busy, so that the model stays where the trial put it.
    (State.FAILED, Trigger.TRIAL): (
        _FIVE_FAILURES + "\n> spawn_failed a#5\n...\n> arrive 6 b\n...\n> ready b#6\n...\n@ 615",
        "arrive 7 a",
    ),
    (State.STUCK, Trigger.REAPED): (_STUCK + "@ 1", "reaped a#1"),
    (State.STUCK, Trigger.BACK_OFF): (_STUCK, "reaped a#1"),
    (State.STUCK, Trigger.GIVE_UP): (
        _FIVE_FAILURES + "\n> exited a#5\n...\n> fired reap_deadline a#5\n...",
        "reaped a#5",
    ),
}


@pytest.mark.parametrize("entry", TRANSITIONS, ids=lambda entry: f"{entry[0].name}-{entry[1].name}")
def test_every_transition_happens_in_the_real_core(entry: tuple[State, Trigger]) -> None:
    assert entry in SCRIPTS, "a transition without a transcript"
    way, event = SCRIPTS[entry]
    stage = play("a b", way, stage=Stage(specs("a b"), inspects=False))
    model = stage.core.ledger.models["a"]
    assert model.state is entry[0]

    stage.handle(parse(event))

    assert model.state is TRANSITIONS[entry]


def test_there_is_no_transcript_for_what_is_not_in_the_table() -> None:
    assert set(SCRIPTS) == set(TRANSITIONS)


def test_every_state_can_be_reached_and_left() -> None:
    assert set(TRANSITIONS.values()) == set(State)
    assert {old for old, _ in TRANSITIONS} == set(State)
    assert {trigger for _, trigger in TRANSITIONS} == set(Trigger)


def test_a_process_is_only_gone_by_being_reaped_or_never_having_been() -> None:
    for (old, trigger), new in TRANSITIONS.items():
        if old in WITH_PROCESS and new not in WITH_PROCESS:
            never_was = old is State.STARTING and trigger in (Trigger.BACK_OFF, Trigger.GIVE_UP)
            assert old is State.STOPPING or never_was


def test_every_state_has_a_public_name() -> None:
    assert set(PUBLIC_NAMES) == set(State)
    assert Stage(specs("a")).core.view("a").state == "unloaded"


def test_the_diagram_has_every_transition_once() -> None:
    lines = diagram().splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> UNLOADED"]
    assert len(set(lines[2:])) == len(lines) - 2 == len(TRANSITIONS)
    assert "    STARTING --> READY: answers" in lines
