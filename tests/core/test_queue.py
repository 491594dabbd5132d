from random import Random

import pytest

from llama_router.core.events import ModelSpec
from llama_router.core.model import Model, Request, RequestKind
from llama_router.core.queue import OVERTAKEN_AT_MOST_COUNT, Queue

MODEL = Model(ModelSpec("a", ""))


def fill(*entries: tuple[int, str, int]) -> Queue:
    queue = Queue()
    for number, key, rank in entries:
        queue.append(
            Request(number, MODEL, RequestKind.CLIENT, arrived_at=float(number), key=key, rank=rank)
        )
    return queue


def ids(requests: list[Request]) -> list[int]:
    return [request.request_id for request in requests]


def test_one_key_of_one_rank_is_first_come_first_served() -> None:
    assert ids(fill((1, "", 1), (2, "", 1), (3, "", 1)).take()) == [1, 2, 3]


def test_keys_take_turns_however_many_wait_of_one() -> None:
    queue = fill((1, "x", 1), (2, "x", 1), (3, "x", 1), (4, "y", 1), (5, "z", 1), (6, "y", 1))
    assert ids(queue.take()) == [1, 4, 5, 2, 6, 3]


def test_turns_go_on_where_they_were_left() -> None:
    queue = fill((1, "x", 1), (2, "x", 1), (3, "y", 1))
    assert ids(queue.take(1)) == [1]
    assert ids(queue.take(1)) == [3]
    assert ids(queue.take(1)) == [2]
    assert len(queue) == 0


def test_higher_ranks_go_first_and_the_head_is_the_oldest_all_the_same() -> None:
    queue = fill((1, "", 0), (2, "", 3), (3, "", 1))
    assert (queue.head.request_id, queue.rank) == (1, 3)
    assert ids(queue.take()) == [2, 3, 1]


def test_the_bounced_go_before_all_others_in_their_order() -> None:
    queue = fill((4, "x", 9))
    for number in (3, 1, 2):
        queue.give_back(Request(number, MODEL, RequestKind.CLIENT, bounced=True))
    assert ids(queue.take(3)) == [1, 2, 3]
    assert ids(queue.take()) == [4]


def test_waiting_time_is_added_up_and_forgets_who_left() -> None:
    queue = fill((1, "", 1), (2, "", 1), (5, "", 1))
    assert queue.waited_s(10.0) == 9 + 8 + 5
    assert queue.remove(queue.head)
    assert queue.waited_s(10.0) == 8 + 5
    queue.take()
    assert (queue.waited_s(99.0), queue.arrived_sum_s) == (0.0, 0.0)


def test_a_lower_rank_gets_on_beside_an_endless_stream_of_a_higher_one() -> None:
    queue = fill((1, "", 0), (2, "", 0), (3, "", 1))
    for number in range(4, 100):
        queue.append(
            Request(number, MODEL, RequestKind.CLIENT, arrived_at=float(number), rank=3, key="x")
        )
    order = ids(queue.take(30))
    assert order.index(1) == OVERTAKEN_AT_MOST_COUNT
    # Of the lower ranks, the one that has waited for longest.
    assert order.index(2) == 2 * OVERTAKEN_AT_MOST_COUNT + 1
    assert order.index(3) == 3 * OVERTAKEN_AT_MOST_COUNT + 2


def test_a_lone_rank_saves_no_overtaking_up() -> None:
    queue = fill(*((number, "", 1) for number in range(20)))
    assert len(queue.take(15)) == 15
    queue.append(Request(99, MODEL, RequestKind.CLIENT, arrived_at=99.0, rank=0))
    assert ids(queue.take()) == [*range(15, 20), 99]


@pytest.mark.parametrize("seed", range(50))
def test_upcoming_is_the_order_in_which_they_are_taken(seed: int) -> None:
    dice = Random(seed)  # noqa: S311 - reproducible, no secret
    queue = fill(
        *((number, dice.choice("xyz"), dice.randrange(4)) for number in range(60)),
    )
    queue.take(dice.randrange(30))
    for number in dice.sample(range(1000, 1010), 3):
        queue.give_back(
            Request(number, MODEL, RequestKind.CLIENT, arrived_at=float(number), bounced=True)
        )
    expected = ids(list(queue.upcoming()))
    assert ids(queue.take()) == expected
