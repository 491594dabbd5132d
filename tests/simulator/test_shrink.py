from collections.abc import Sequence

from llama_router.simulator.shrink import shrink


def test_only_what_is_needed_stays_in_its_order() -> None:
    def fails(items: Sequence[int]) -> bool:
        return {3, 57, 81} <= set(items)

    assert shrink(range(100), fails) == [3, 57, 81]


def test_nothing_at_all_may_be_enough() -> None:
    assert shrink([1, 2, 3], lambda _: True) == []


def test_a_single_item_that_is_needed_stays() -> None:
    assert shrink([1], lambda items: len(items) == 1) == [1]


def test_pairs_that_depend_on_each_other_are_found() -> None:
    def fails(items: Sequence[int]) -> bool:
        return 10 in items and all((each in items) == (each + 1 in items) for each in (20, 40))

    assert shrink(range(60), fails) == [10]


def test_tries_are_counted() -> None:
    tries = 0

    def fails(_items: Sequence[int]) -> bool:
        nonlocal tries
        tries += 1
        return False

    assert shrink(range(1000), fails, max_tries_count=25) == list(range(1000))
    assert tries == 25
