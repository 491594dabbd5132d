import pytest

from llama_router.config.schema import SelectorEntry
from llama_router.core.events import ModelSpec
from llama_router.core.model import Model, Request, RequestKind
from llama_router.core.states import State
from llama_router.runtime.selectors import Standing, choose, standing_of

LOADED, LOADING, COLD = Standing(is_loaded=True), Standing(is_loading=True), Standing()
AWAY, FAILING = Standing(is_away=True), Standing(is_failing=True)


def selector(strategy: str, *targets: str, spillover: int = 1) -> SelectorEntry:
    content = {"strategy": strategy, "targets": targets, "spillover": spillover}
    return SelectorEntry.model_validate(content)


def busy(count: int) -> Standing:
    return Standing(is_loaded=True, request_count=count)


@pytest.mark.parametrize(
    ("standings", "chosen"),
    [
        ((COLD, COLD, COLD), "a"),
        ((COLD, LOADING, LOADING), "b"),
        ((LOADING, COLD, LOADED), "c"),
        ((None, COLD, LOADED), "c"),
        ((None, COLD, COLD), "b"),
        ((None, None, None), "a"),
        ((AWAY, COLD, COLD), "a"),
        ((FAILING, COLD, COLD), "b"),
        ((FAILING, COLD, LOADING), "c"),
        ((FAILING, FAILING, AWAY), "c"),
        ((FAILING, None, FAILING), "a"),
        ((None, FAILING, FAILING), "b"),
    ],
)
def test_warm_takes_what_is_loaded_else_what_soon_will_be(
    standings: tuple[Standing | None, ...], chosen: str
) -> None:
    look = dict(zip("abc", standings, strict=True))
    assert choose(selector("warm", *"abc"), look.__getitem__) == chosen


@pytest.mark.parametrize(
    ("standings", "chosen"),
    [
        ((COLD, COLD, COLD), "a"),
        ((busy(1), COLD, COLD), "a"),
        ((busy(2), COLD, COLD), "b"),
        # Nothing is loaded while somebody who is loaded has time.
        ((COLD, busy(1), COLD), "b"),
        ((busy(2), busy(2), COLD), "c"),
        ((busy(4), busy(3), busy(5)), "b"),
        ((AWAY, COLD, COLD), "b"),
        ((AWAY, AWAY, AWAY), "a"),
        ((FAILING, COLD, COLD), "b"),
        ((FAILING, busy(2), FAILING), "b"),
        ((FAILING, Standing(is_away=True, request_count=5), FAILING), "b"),
        ((FAILING, FAILING, FAILING), "a"),
        # Who waits for it has reserved it already.
        ((Standing(request_count=2), COLD, COLD), "b"),
    ],
)
def test_spillover_fills_one_target_after_the_other(
    standings: tuple[Standing | None, ...], chosen: str
) -> None:
    look = dict(zip("abc", standings, strict=True))
    assert choose(selector("spillover", *"abc", spillover=2), look.__getitem__) == chosen


def test_pin_takes_the_first_whatever_the_others_do() -> None:
    for first in (COLD, FAILING, AWAY):
        look = {"a": first, "b": LOADED}
        assert choose(selector("pin", "a", "b"), look.__getitem__) == "a"


def test_the_standing_of_a_model_counts_who_waits_and_who_is_answered() -> None:
    model = Model(ModelSpec("a", ""))
    assert standing_of(model, 0.0) == COLD
    model.state = State.READY
    model.in_flight[1] = Request(1, model, RequestKind.CLIENT)
    assert standing_of(model, 0.0) == busy(1)
    assert standing_of(model, 0.0, 2) == busy(3)


def test_a_model_fails_as_long_as_the_core_would_refuse_a_request_for_it() -> None:
    model = Model(ModelSpec("a", ""))
    model.crashes.retry_at = 100.0
    for state in (State.DRAINING, State.STOPPING):
        model.state = state
        assert standing_of(model, 50.0) == AWAY
    model.after_reap = State.COOLING
    assert standing_of(model, 50.0).is_failing
    for state in (State.STUCK, State.COOLING, State.FAILED):
        model.state = state
        assert standing_of(model, 50.0) == FAILING
    # The ban is over: a request may try it again.
    assert standing_of(model, 100.0) == COLD
