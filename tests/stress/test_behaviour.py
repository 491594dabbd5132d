import sys
from pathlib import Path

import pytest

from llama_router.stress import behaviour
from llama_router.stress.fake_engine.__main__ import _options


def test_a_start_goes_the_same_way_for_the_same_seed_model_and_number() -> None:
    starts = [behaviour.draw(3, "alpha", number) for number in range(50)]
    assert starts == [behaviour.draw(3, "alpha", number) for number in range(50)]
    assert starts != [behaviour.draw(4, "alpha", number) for number in range(50)]
    assert starts != [behaviour.draw(3, "bravo", number) for number in range(50)]


def test_every_kind_is_drawn_and_most_starts_load() -> None:
    starts = [behaviour.draw(1, "alpha", number) for number in range(1000)]
    kinds = {kind for start in starts for kind in start.kinds}
    assert kinds >= {"well", "slow", "theft", "exit", "memory", "hang", "flood", "stray", "crash"}
    assert 550 < sum(start.kinds[0] == "well" for start in starts) < 800


def test_a_theft_waits_for_the_thief_and_a_slow_load_for_its_end() -> None:
    for number in range(300):
        start = behaviour.draw(2, "alpha", number)
        assert ("--gate-bind" in start.switches) == (start.kinds[0] == "theft")
        assert ("--gate-load" in start.switches) == (start.kinds[0] in ("slow", "hang"))
        assert (start.ready_after_s is not None) == (start.kinds[0] == "slow")


@pytest.mark.skipif(sys.platform == "win32", reason="the fake engine is POSIX")
def test_the_engine_knows_every_switch_that_is_drawn() -> None:
    source = Path(sys.modules[_options.__module__].__file__ or "").read_text()
    for number in range(300):
        for word in behaviour.draw(5, "alpha", number).switches:
            if word.startswith("--"):
                assert f'"{word}"' in source


def test_healthy_engines_have_enough_tokens_for_slow_readers() -> None:
    assert behaviour.HEALTHY.switches == ("--tokens", "20000")
    assert not behaviour.HEALTHY.end
