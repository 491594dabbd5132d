import pytest

from tests.core.playbook import ScriptError, play


def test_departure_from_the_script_is_shown_as_a_diff() -> None:
    with pytest.raises(ScriptError) as error:
        play("a", "> arrive 1 a\na: unloaded -> starting\nspawn a#2\nset ready_timeout a#1 @60")
    lines = str(error.value).splitlines()
    assert "> arrive 1 a" in lines
    assert "-spawn a#2" in lines
    assert "+spawn a#1" in lines
    assert " set ready_timeout a#1 @60" in lines


@pytest.mark.parametrize(
    "script",
    [
        "> arrive 1 a",
        "> arrive 1 a\n...\nspawn b#1",
        "> arrive 1 a\n...\nset ready_timeout a#1 @60\nspawn a#1",
        "> arrive 1 zz\nreject 1 model_not_found\nspawn a#1",
        "> explode 1",
        "> ready a",
        "spawn a#1",
        "= a loaded",
        "> arrive 1 a sideways",
    ],
    ids=repr,
)
def test_scripts_that_are_not_followed_to_their_end_fail(script: str) -> None:
    with pytest.raises(ScriptError):
        play("a", script)
