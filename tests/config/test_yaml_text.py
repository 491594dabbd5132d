import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_router.config.document import Document
from llama_router.config.yaml_text import (
    Style,
    as_block,
    as_flow,
    as_scalar,
    fits_one_line,
    indented,
    is_plain,
    style_of,
)

STYLE = Style()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n  b: 1\n", (2, 2)),
        ("a:\n    b: 1\nc:\n- d\n", (4, 0)),
        ("a:\n   - d\n", (2, 3)),
        ("a: 1\n", (2, 2)),
    ],
)
def test_a_file_is_written_on_as_it_is(text: str, expected: tuple[int, int]) -> None:
    style = style_of(text)
    assert (style.key_indent, style.item_indent, style.newline) == (*expected, "\n")
    assert style_of(text.replace("\n", "\r\n")).newline == "\r\n"


@pytest.mark.parametrize(
    "text", ["a", "user/repo:Q4_K_M", "~/models", "/x/y.gguf", "$port", "http://a.b:80/c"]
)
def test_what_nobody_takes_for_anything_else_needs_no_quotes(text: str) -> None:
    assert is_plain(text)
    assert as_scalar(text, STYLE) == text
    assert as_scalar(text, STYLE, "'") == f"'{text}'"
    assert as_scalar(text, Style(is_json=True)) == json.dumps(text)


@pytest.mark.parametrize("text", ["", "yes", "Null", "1", "1e3", "a b", "a:", "-", "~", "#a", "*"])
def test_what_could_be_something_else_gets_quotes(text: str) -> None:
    assert as_scalar(text, STYLE) == json.dumps(text)


def test_short_values_stand_on_one_line() -> None:
    assert fits_one_line(5, "5")
    assert fits_one_line([1, 2], "[1, 2]")
    assert not fits_one_line([1, 2], "x" * 80)
    assert not fits_one_line({"a": [1]}, "{a: [1]}")
    assert as_block({"a": {"b": [1, {"c": 2}]}}, STYLE) == "a:\n  b:\n    - 1\n    - c: 2"
    assert indented("a\nb", 2, "\r\n") == "  a\r\n  b"


VALUES = st.recursive(
    st.text(max_size=6)
    | st.integers()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(VALUES)
def test_what_is_written_is_read_again(value: object) -> None:
    for text in (f"a: {as_flow(value, STYLE)}\n", as_block({"a": value}, STYLE) + "\n"):
        content, issues = Document(text, Path("c.yaml")).plain()
        assert issues == []
        assert content["a"] == value
