import random
from itertools import combinations

import pytest

from llama_router.core.events import ModelSpec
from llama_router.core.eviction import cheapest, loss_of
from llama_router.core.memory import Memory
from llama_router.core.model import Model
from tests.core.memory_world import devices


def candidate(name: str, loss: float, **sizes: int) -> Model:
    model = Model(ModelSpec(name, "", memory=devices(**sizes)))
    Memory().reserve(model)
    model.uses = loss
    return model


def names(chosen: list[Model] | None) -> str | None:
    return None if chosen is None else "".join(sorted(each.name for each in chosen))


def test_one_dear_model_may_stay_when_two_cheap_ones_free_enough() -> None:
    candidates = [candidate("a", 1, gpu=3), candidate("b", 2, gpu=3), candidate("c", 4, gpu=9)]
    assert names(cheapest(candidates, {"gpu": 6})) == "ab"
    assert names(cheapest(candidates, {"gpu": 7})) == "c"


def test_models_that_free_nothing_where_it_is_short_stay() -> None:
    candidates = [candidate("a", 0, ram=50), candidate("b", 9, gpu=5)]
    assert names(cheapest(candidates, {"gpu": 5})) == "b"


def test_nobody_goes_when_all_of_them_would_not_be_enough() -> None:
    assert cheapest([candidate("a", 0, gpu=5)], {"gpu": 6}) is None
    assert cheapest([], {"gpu": 1}) is None


def test_places_are_counted() -> None:
    candidates = [candidate("a", 1), candidate("b", 2), candidate("c", 3, gpu=1)]
    assert names(cheapest(candidates, {}, places=2)) == "ab"
    assert names(cheapest(candidates, {"gpu": 1}, places=2)) == "ac"


@pytest.mark.parametrize("seed", range(40))
def test_small_cases_are_as_good_as_trying_everything(seed: int) -> None:
    print(f"seed={seed}")  # noqa: T201 - to run it again
    dice = random.Random(seed)  # noqa: S311 - reproducible, no secret
    candidates = [
        candidate(name, dice.uniform(0, 9), gpu=dice.randint(0, 6), ram=dice.randint(0, 6))
        for name in "abcdefgh"[: dice.randint(1, 8)]
    ]
    shortfall = {"gpu": dice.randint(1, 12), "ram": dice.randint(1, 9)}
    enough = [
        sum(map(loss_of, some))
        for count in range(len(candidates) + 1)
        for some in combinations(candidates, count)
        if all(
            sum(each.holds_on(device) for each in some) >= want
            for device, want in shortfall.items()
        )
    ]
    chosen = cheapest(candidates, shortfall)
    assert (chosen is None) == (not enough)
    if chosen is not None:
        assert sum(map(loss_of, chosen)) == pytest.approx(min(enough))


def test_of_many_the_large_and_seldom_used_one_goes_rather_than_all_the_small() -> None:
    small = [candidate(f"s{number}", 1.0, gpu=1) for number in range(40)]
    assert names(cheapest([*small, candidate("big", 5.0, gpu=40)], {"gpu": 20})) == "big"


def test_enough_is_found_among_many_that_free_nothing_where_it_is_short() -> None:
    elsewhere = [candidate(f"e{number}", 0.1, ram=9) for number in range(40)]
    some = [candidate("a", 3.0, gpu=2), candidate("b", 1.0, gpu=2)]
    assert names(cheapest([*elsewhere, *some], {"gpu": 2})) == "b"
    assert names(cheapest([*elsewhere, *some], {"gpu": 4})) == "ab"
    assert cheapest([*elsewhere, *some], {"gpu": 5}) is None


def test_the_loss_is_load_time_times_uses() -> None:
    model = Model(ModelSpec("a", "", load_cost_s=4.0))
    model.uses = 3.0
    assert loss_of(model) == 12.0
