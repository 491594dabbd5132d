import random

import pytest

from llama_router.simulator.baselines import LruRouter
from llama_router.simulator.fleet import Fleet, Machine, SimulatedModel, random_fleet
from llama_router.simulator.generate import alternating, names, zipf
from llama_router.simulator.trace import TraceRequest
from llama_router.simulator.world import World

MACHINE = Machine(2, stop_s=0.0, decode_tokens_s=50.0)


def fleet(sizes: str, memory_bytes: int = 2, load_s: float = 2.0) -> Fleet:
    models = tuple(
        SimulatedModel(name, int(size), load_s)
        for name, _, size in (word.partition(":") for word in sizes.split())
    )
    return Fleet(Machine(memory_bytes, stop_s=0.0), models)


def ask(*wanted: tuple[float, str]) -> list[TraceRequest]:
    return [TraceRequest(at, model, tokens_in=0, tokens_out=10) for at, model in wanted]


def test_strict_order_swaps_for_each_request() -> None:
    two = fleet("a:2 b:2")
    result = World(two, LruRouter(two, by_count=False, in_order=True)).run(
        alternating(["a", "b"], 60, 0.1)
    )
    assert result.loads == 60
    # Each one costs a load and its service; nothing overlaps.
    assert result.makespan_s == pytest.approx(60 * 2.2)


def test_the_least_recently_used_idle_model_goes() -> None:
    three = fleet("a:1 b:1 c:1")
    trace = ask((0, "a"), (5, "b"), (10, "a"), (15, "c"), (20, "a"), (25, "b"))
    result = World(three, LruRouter(three, by_count=False)).run(trace)
    # c takes b's place, so a is still there and b is loaded again.
    assert result.loads == 4
    assert list(result.waits_s) == [2, 2, 0, 2, 0, 2]


def test_a_count_leaves_room_unused_and_bytes_do_not() -> None:
    mixed = fleet("big:3 a:1 b:1 c:1", memory_bytes=4)
    trace = ask(*[(5.0 * number, "abc"[number % 3]) for number in range(9)])
    by_count = World(mixed, LruRouter(mixed, by_count=True)).run(trace)
    by_bytes = World(mixed, LruRouter(mixed, by_count=False)).run(trace)
    assert mixed.safe_count() == 2
    assert by_count.loads == 9
    assert by_bytes.loads == 3


def test_who_has_been_chosen_to_leave_is_drained_and_gets_no_more() -> None:
    two = fleet("a:2 b:2")
    trace = [
        TraceRequest(0, "a", tokens_in=0, tokens_out=500),
        *ask((3, "b"), (4, "a")),
    ]
    result = World(two, LruRouter(two, by_count=False)).run(trace)
    # a answers until 12, b is ready at 14 and done at 14.2, a again at 16.2.
    assert list(result.waits_s) == pytest.approx([2, 11, 12.2])


@pytest.mark.parametrize("limit", ["count", "bytes"])
@pytest.mark.parametrize("order", ["strict", "free"])
@pytest.mark.parametrize("seed", range(3))
def test_memory_is_never_exceeded_and_everybody_is_served(
    limit: str, order: str, seed: int
) -> None:
    print(f"seed={seed}")  # noqa: T201 - to run it again
    many = random_fleet(names(12), seed, room_for=3)
    count = random.Random(seed).randint(200, 300)  # noqa: S311 - reproducible
    result = World(
        many, LruRouter(many, by_count=limit == "count", in_order=order == "strict")
    ).run(zipf(names(12), count, 1.0, seed))
    assert result.served == result.requests == count
    assert result.peak_memory_bytes <= many.machine.memory_bytes
