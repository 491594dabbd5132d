from llama_router.core.events import ModelSpec
from llama_router.core.line import Line
from llama_router.core.model import Model, Request, RequestKind
from llama_router.core.states import State


def waiter(number: int, model: Model, rank: int = 1) -> None:
    model.waiting.append(Request(number, model, RequestKind.CLIENT, rank=rank))


def line_of(*names: str) -> tuple[Line, dict[str, Model], dict[str, None]]:
    waiting: dict[str, Model] = {}
    claims: dict[str, None] = {}
    line = Line(waiting, claims)
    for number, name in enumerate(names, 1):
        waiting[name] = Model(ModelSpec(name, ""))
        waiter(number, waiting[name])
        line.add(waiting[name])
    return line, waiting, claims


def names(models: list[Model]) -> str:
    return "".join(model.name for model in models)


def test_the_oldest_is_first_among_equals() -> None:
    line, _, _ = line_of("c", "a", "b")
    assert names(line.first(2, by_rank=True)) == "ca"
    assert names(line.first(9, by_rank=True)) == "cab"


def test_a_higher_rank_comes_before_and_age_stays_what_it_is() -> None:
    line, waiting, _ = line_of("c", "a", "b")
    waiter(4, waiting["b"], rank=5)
    line.add(waiting["b"])
    assert names(line.first(3, by_rank=True)) == "bca"
    assert names(line.first(3, by_rank=False)) == "cab"


def test_who_left_or_has_a_claim_or_an_engine_is_not_in_it() -> None:
    line, waiting, claims = line_of("a", "b", "c", "d")
    del waiting["a"]
    claims["b"] = None
    waiting["c"].state = State.READY
    assert names(line.first(9, by_rank=True)) == "d"
    assert line
    del waiting["d"]
    assert not line


def test_a_head_that_leaves_costs_the_place() -> None:
    line, waiting, _ = line_of("a", "b")
    waiter(3, waiting["a"])
    waiting["a"].waiting.remove(waiting["a"].waiting.head)
    assert names(line.first(2, by_rank=False)) == "ba"


def test_it_does_not_grow_with_what_has_happened() -> None:
    line, waiting, _ = line_of("a", "b")
    for _ in range(1000):
        line.add(waiting["a"])
    assert len(line._by_rank) < 200
    assert names(line.first(9, by_rank=True)) == "ab"
