from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_router.config import macros
from llama_router.config.macros import (
    EXPANDED_MAX_CHARS,
    VALUE_MAX_CHARS,
    expand,
    has_macro,
    without_macros,
)
from llama_router.config.problems import Keys

ENV = {"HOME": "/home/me", "TOKEN": "a$port$$b", "EMPTY": ""}


def value_of(text: str, **names: Any) -> Any:  # noqa: ANN401 - a macro may be a number
    expanded = expand({"macros": names, "startup_model": text}, ENV)
    assert expanded.issues == ()
    return expanded.content["startup_model"]


def issues_of(content: dict[str, Any]) -> list[tuple[Keys, str]]:
    return [(issue.keys, issue.message) for issue in expand(content, ENV).issues]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("${a}", "A"),
        ("x ${a}-${b} y", "x A-A+7 y"),
        ("${n}", 7),
        ("${n}${n}", "77"),
        ("${f} ${t}", "0.5 true"),
        ("${nn}", 7),
        ("${env.HOME}/x", "/home/me/x"),
        ("${env.EMPTY}", ""),
        ("$${a}", "${a}"),
        ("$$${a}", "$${a}"),
        ("$a $$ {a}", "$a $$ {a}"),
        ("${lit}", "${a}"),
    ],
)
def test_what_a_text_stands_for(text: str, expected: object) -> None:
    values = {"a": "A", "n": 7, "f": 0.5, "t": True, "b": "${a}+${n}", "nn": "${n}", "lit": "$${a}"}
    value = value_of(text, **values)
    assert value == expected
    assert type(value) is type(expected)


def test_a_section_has_macros_of_its_own_before_those_of_the_file() -> None:
    content = {
        "macros": {"ctx": 1, "args": "--ctx ${ctx}"},
        "defaults": {"macros": {"ctx": 2}, "title": "${args}"},
        "templates": {"t": {"macros": {"ctx": 3}, "metadata": {"deep": ["${args}"]}}},
        "models": [{"name": "a", "macros": {"ctx": 4}, "title": "${args}"}, {"title": "${args}"}],
    }
    made = expand(content, {}).content
    assert made["defaults"]["title"] == "--ctx 2"
    assert made["templates"]["t"]["metadata"] == {"deep": ["--ctx 3"]}
    assert [model["title"] for model in made["models"]] == ["--ctx 4", "--ctx 1"]
    # The macros themselves stay as they were written.
    assert made["macros"]["args"] == "--ctx ${ctx}"


def test_in_commands_the_environment_is_no_placeholder() -> None:
    command = ["x", "${env.TOKEN}", "${t}", "$port", "$${p}"]
    content = {
        "macros": {"t": "<${env.TOKEN}>"},
        "default_spawn": {"command": command, "env": {"T": "${env.TOKEN}"}},
    }
    expanded = expand(content, ENV)
    assert expanded.content["default_spawn"] == {
        "command": ["x", "a$$port$$$$b", "<a$$port$$$$b>", "$port", "$${p}"],
        "env": {"T": "a$port$$b"},
    }
    assert expanded.variables == {
        ("default_spawn", "command", 1): "TOKEN",
        ("default_spawn", "command", 2): "TOKEN",
        ("default_spawn", "env", "T"): "TOKEN",
    }


@pytest.mark.parametrize(
    ("content", "keys", "message"),
    [
        ({"a": "${x}"}, ("a",), "uses the macro ${x}, which is not known; known are none"),
        ({"macros": {"context": 1}, "a": "${contex}"}, ("a",), "did you mean ${context}?"),
        ({"a": "${env.NOPE}"}, ("a",), "needs the environment variable NOPE, which is not set"),
        ({"a": "${env.}"}, ("a",), "has no variable's name"),
        ({"a": "x ${"}, ("a",), "has a ${ without a name and }"),
        ({"a": "${a b}"}, ("a",), "without a macro's name"),
        ({"macros": {"x": "${y}"}, "a": "${x}"}, ("macros", "x"), "(used by a)"),
        ({"macros": {"x": "${x}"}}, ("macros", "x"), "stands for itself: x -> x"),
        ({"macros": {"x": "${y}", "y": "${x}"}}, ("macros", "x"), "itself: x -> y -> x"),
        ({"macros": {f"m{n}": f"${{m{n + 1}}}" for n in range(50)}, "a": "${m0}"}, None, "nested"),
    ],
)
def test_what_cannot_be_put_in_is_told_with_its_place(
    content: dict[str, Any], keys: Keys | None, message: str
) -> None:
    found = issues_of(content)
    assert len(found) == 1
    assert keys is None or found[0][0] == keys
    assert message in found[0][1]


def test_what_cannot_be_put_in_is_left_out() -> None:
    expanded = expand({"a": {"b": "${x}", "c": 1}, "l": ["${x}", "y"]}, {})
    assert expanded.content == {"a": {"c": 1}, "l": [None, "y"]}
    assert expanded.left_out == {("a", "b"), ("l", 0)}


def test_a_macro_that_nothing_uses_may_need_what_only_a_section_has() -> None:
    content = {"macros": {"args": "${ctx}"}, "models": [{"macros": {"ctx": 1}, "title": "${args}"}]}
    assert issues_of(content) == []


def test_macros_of_macros_do_not_grow_without_bounds() -> None:
    bomb = {"m0": "x" * 100} | {f"m{n}": f"${{m{n - 1}}}" * 10 for n in range(1, 20)}
    found = issues_of({"macros": bomb, "a": "${m19}"})
    assert found
    assert all(f"more than {VALUE_MAX_CHARS // 1024} KiB" in message for _, message in found)


def test_all_values_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EXPANDED_MAX_CHARS >= 4 * 1024 * 1024
    monkeypatch.setattr(macros, "EXPANDED_MAX_CHARS", 1000)
    content = {"macros": {"m": "x" * 100}, "l": ["${m}"] * 11}
    expanded = expand(content, {})
    assert [issue.keys for issue in expanded.issues] == [("l", 10)]
    assert expanded.left_out == {()}


def test_macros_that_nothing_uses_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macros, "EXPANDED_MAX_CHARS", 1000)
    content = {"macros": {"m": "x" * 100} | {f"m{n}": "y${m}" for n in range(10)}}
    (issue,) = expand(content, {}).issues
    assert issue.keys == ("macros", "m9")


@given(st.recursive(st.text(st.sampled_from("a${}")), lambda inner: st.lists(inner, max_size=3)))
def test_text_can_be_kept_from_being_a_macro(value: object) -> None:
    expanded = expand({"a": without_macros({"b": value}), "macros": {"a": "x"}}, {})
    assert expanded.issues == ()
    assert expanded.content["a"] == {"b": value}


def test_what_would_be_put_in_can_be_told() -> None:
    assert has_macro("a ${b}")
    assert has_macro("${")
    assert not has_macro("$${b} $b {b}")


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.text(st.sampled_from("ab${}env."), max_size=12)),
    st.text(st.sampled_from("abc${}env.X "), max_size=16),
)
def test_any_text_is_expanded_or_an_issue(names: dict[str, str], text: str) -> None:
    expanded = expand({"macros": names, "a": text}, {"X": "${a}"})
    if not expanded.issues:
        assert isinstance(expanded.content["a"], str)
    again = expand({"a": text.replace("${", "$${")}, {})
    assert again.issues == () or "$${" in text
