import pytest

from llama_router.core import usage
from llama_router.core.events import ModelSpec
from llama_router.core.model import Model
from llama_router.core.usage import HALF_LIFE_COUNT, Usage


def models(*names: str) -> dict[str, Model]:
    return {name: Model(ModelSpec(name, "", load_cost_s=2.0)) for name in names}


def test_requests_that_would_have_shared_a_load_are_one_use() -> None:
    known = models("a")
    books = Usage(known)
    for now in (0.0, 0.5, 1.9, 2.0, 3.9):
        books.count(known["a"], now)
    assert books.of(known["a"]) == pytest.approx(2.0, rel=0.01)


def test_the_uses_of_others_make_old_ones_count_for_less() -> None:
    known = models("a", "b")
    books = Usage(known)
    books.count(known["a"], 0.0)
    for number in range(HALF_LIFE_COUNT):
        books.count(known["b"], 10.0 * number)
    assert books.of(known["a"]) == pytest.approx(0.5)
    # Who is used all the time has what a half-life adds up to, no more.
    for number in range(10 * HALF_LIFE_COUNT):
        books.count(known["b"], 1e5 + 10.0 * number)
    assert books.of(known["b"]) == pytest.approx(HALF_LIFE_COUNT / 0.693, rel=0.01)


def test_no_number_of_uses_is_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_RESCALED_AT", 2.0)
    short, plain = models("a", "b"), models("a", "b")
    often = Usage(short)
    for number in range(5 * HALF_LIFE_COUNT):
        often.count(short["ab"[number % 3 == 0]], 10.0 * number)
    monkeypatch.undo()
    never = Usage(plain)
    for number in range(5 * HALF_LIFE_COUNT):
        never.count(plain["ab"[number % 3 == 0]], 10.0 * number)
    for name in "ab":
        assert often.of(short[name]) == pytest.approx(never.of(plain[name]))
        assert short[name].uses < 1000 < plain[name].uses
