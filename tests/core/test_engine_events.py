import pytest

from llama_router.core import events as ev
from tests.core.playbook import Stage, play, specs


@pytest.mark.parametrize(
    "event",
    [
        ev.EngineSpawned("a", 7),
        ev.EngineProgress("a", 7, 0.5),
        ev.EngineReady("a", 7),
        ev.EngineExited("a", 7, "ended"),
        ev.EngineReaped("a", 7),
        ev.SpawnFailed("a", 7, "no such file"),
        ev.AddressStolen("a", 7),
        ev.EngineReady("nowhere", 1),
    ],
    ids=repr,
)
def test_what_is_not_about_the_present_engine_changes_nothing(event: ev.Event) -> None:
    stage = Stage(specs("a"))
    stage.handle(ev.RequestArrived(1, "a"))
    assert stage.handle(event) == []
    assert stage.core.view("a").state == "loading"


def test_a_spawn_that_fails_while_it_is_stopped_is_its_end() -> None:
    play(
        "a",
        """
        > arrive 1 a
        ...
        > unload 2 a
        ...
        > spawn_failed a#1
        unset stop_grace a#1
        a: stopping -> unloaded
        settled 2
        = a unloaded
        """,
    )
