"""What the books of engines find, and whom they excuse."""

import math
import os
import subprocess
import time
from contextlib import ExitStack

import pytest

from llama_router.stress.books import Books, Rules

PID = os.getpid()
RULES = Rules(
    sizes_bytes={"a": 6, "b": 6, "c": 2, "d": 2},
    groups={"a": "", "b": "", "c": "", "d": "duo"},
    budget_bytes=10,
    max_loaded=2,
)


def violations(*lives: tuple[str, int]) -> list[str]:
    """Return what is found when engines of these models on these ports live at once."""
    found: list[str] = []
    books = Books(RULES, found.append)
    with ExitStack() as stack:
        for model, port in lives:
            stack.enter_context(books.engine(model, PID, port, ("well",)))
    # They are all gone.
    with books.engine("a", PID, 1, ("well",)):
        pass
    return found


def test_engines_that_fit_may_live_at_once() -> None:
    assert violations(("a", 1), ("c", 2)) == []


@pytest.mark.parametrize(
    ("lives", "why"),
    [
        ((("a", 1), ("b", 2)), "beyond the memory"),
        ((("a", 1), ("a", 2)), "beside an engine of its own"),
        ((("a", 1), ("c", 1)), "same port 1"),
        ((("c", 1), ("d", 2)), "another group"),
    ],
)
def test_what_must_not_live_at_once_is_found(lives: tuple[tuple[str, int], ...], why: str) -> None:
    (found,) = violations(*lives)
    assert why in found


def test_too_many_at_once_are_found() -> None:
    found: list[str] = []
    books = Books(Rules({}, {}, 10, max_loaded=1), found.append)
    with books.engine("a", PID, 1, ()), books.engine("b", PID, 2, ()):
        assert found == ["more than 1 at a time: a, b"]


def test_memory_is_free_when_the_last_child_is_gone() -> None:
    found: list[str] = []
    books = Books(RULES, found.append)
    with books.child("a", PID):
        with books.engine("b", PID, 1, ()):
            pass
        with books.engine("a", PID, 2, ()):
            pass
    assert len(found) == 2
    assert "beyond the memory" in found[0]
    assert "beside a child" in found[1]


def test_who_is_gone_is_not_in_the_way_before_that_is_heard() -> None:
    found: list[str] = []
    books = Books(RULES, found.append)
    with subprocess.Popen(["/bin/true"]) as gone:
        pass
    with books.engine("a", gone.pid, 1, ()), books.engine("b", PID, 1, ()):
        assert found == []


def test_an_error_has_its_cause_in_a_fault_of_its_own_model() -> None:
    books = Books(RULES, pytest.fail)
    now = time.monotonic()
    assert not books.excuses("engine_crashed", "a", now)
    with books.engine("a", PID, 1, ("well", "kill")), books.engine("c", PID, 2, ("well", "flood")):
        assert books.excuses("engine_crashed", "a", now)
        assert books.excuses("cut", "a", now)
        assert not books.excuses("engine_crashed", "c", now)
    assert books.excuses("engine_crashed", "a", now)
    assert not books.excuses("engine_crashed", "a", now + 60.0)
    assert books.excuses("model_backing_off", "a", now + 30.0)
    assert books.excuses("model_failed", "a", math.inf)
    for code in ("queue_full", "model_stuck", "internal_error"):
        assert not books.excuses(code, "a", now)


def test_only_a_want_of_memory_makes_a_model_too_large() -> None:
    books = Books(RULES, pytest.fail)
    with books.engine("a", PID, 1, ("crash",)):
        pass
    assert not books.excuses("does_not_fit", "a", time.monotonic())
    with books.engine("a", PID, 1, ("memory",)):
        pass
    assert books.excuses("does_not_fit", "a", time.monotonic())


def test_a_request_that_asks_for_a_fault_excuses_those_beside_it() -> None:
    books = Books(RULES, pytest.fail)
    with books.fault("a"):
        assert books.excuses("engine_crashed", "a", time.monotonic())
    assert not books.excuses("engine_crashed", "a", time.monotonic() + 60.0)


def test_a_slow_load_excuses_a_timeout_and_nothing_else() -> None:
    books = Books(RULES, pytest.fail)
    with books.engine("a", PID, 1, ("slow",)):
        assert books.excuses("load_timeout", "a", time.monotonic())
        assert not books.excuses("engine_crashed", "a", time.monotonic())
