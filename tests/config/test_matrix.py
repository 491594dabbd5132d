import re

import pytest

from llama_router.config import matrix as module
from llama_router.config.matrix import COMBINATIONS_MAX_COUNT, MatrixError, expand, faults, words_of
from llama_router.config.schema import MatrixSettings


def combinations(expression: str, known: set[str] | None = None, **sets: str) -> list[str]:
    matrix = MatrixSettings(vars={"g": "gemma"}, sets={"s": expression, **sets})
    return [" ".join(sorted(one)) for one in expand(matrix, known)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("L", ["L"]),
        ("a & b", ["a b"]),
        ("a | b", ["a", "b"]),
        ("(a | b) & c", ["a c", "b c"]),
        ("(a | b) & (c | d)", ["a c", "a d", "b c", "b d"]),
        ("a & b | c", ["a b", "c"]),
        ("a|b&c", ["a", "b c"]),
        ("((a))", ["a"]),
        ("g & g", ["gemma"]),
        ("a | a", ["a"]),
        ("Qwen3-8B_v1.0 & g", ["Qwen3-8B_v1.0 gemma"]),
    ],
)
def test_an_expression_stands_for_combinations(expression: str, expected: list[str]) -> None:
    assert combinations(expression) == expected


def test_sets_refer_to_each_other_in_any_order() -> None:
    made = combinations("+more & v", more="(a | b)", last="+s")
    assert made == ["a v", "b v", "a", "b"]


def test_what_is_no_model_is_left_out_of_the_combinations() -> None:
    assert combinations("(a | b) & g | x", {"a", "gemma"}) == ["a gemma", "gemma"]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("a &", "lacks a name at its end"),
        ("& a", "lacks a name before '&'"),
        ("a b", "goes on after its end, with 'b'"),
        ("(a", "has a ( without its )"),
        ("a)", "goes on after its end, with ')'"),
        ("()", "lacks a name before ')'"),
        ("a , b", "has ','"),
        ("a & +", "has '+'"),
        ("+nope", "refers to nope, which is no set"),
        ("+s", "refers to itself: s -> s"),
        (" ", "lacks a name at its end"),
        ("(" * 60 + "a" + ")" * 60, "brackets in more than"),
        (" & ".join(f"(a{n} | b{n})" for n in range(14)), "more than 10000 combinations"),
    ],
)
def test_what_cannot_be_read_is_told(expression: str, message: str) -> None:
    with pytest.raises(MatrixError, match=re.escape(message)):
        combinations(expression)
    matrix = MatrixSettings(sets={"s": expression, "other": "+s | a", "fine": "a"})
    told = list(faults(matrix))
    assert [fault.set_name for fault in told] == ["s"]


def test_a_circle_is_told_once() -> None:
    told = list(faults(MatrixSettings(sets={"a": "+b", "b": "+c", "c": "+a | x"})))
    assert [str(fault) for fault in told] == ["refers to itself: a -> b -> c -> a"]


def test_references_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEPTH_MAX_LEVELS", 5)
    sets = {f"s{n}": f"+s{n + 1}" for n in range(9)} | {"s9": "a"}
    assert "sets that refer to sets" in str(next(faults(MatrixSettings(sets=sets))))


def test_words_are_what_stands_for_a_model() -> None:
    matrix = MatrixSettings(sets={"s": "(a | +t) & b", "t": "c"})
    assert list(words_of(matrix)) == [("s", "a"), ("s", "b"), ("t", "c")]


def test_all_sets_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert COMBINATIONS_MAX_COUNT == 10_000
    monkeypatch.setattr(module, "COMBINATIONS_MAX_COUNT", 4)
    matrix = MatrixSettings(sets={"s": "a | b | c", "t": "d | e", "u": "f"})
    assert [fault.set_name for fault in faults(matrix)] == ["t"]
    with pytest.raises(MatrixError, match="more than 4"):
        expand(matrix)
