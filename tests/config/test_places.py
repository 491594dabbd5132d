import pytest

from llama_router.config.places import Place, PlaceError, compose, line_end
from llama_router.config.problems import Keys

TEXT = """\
a:   1   # one
b:
  # nothing

c: |
  text
  more

# behind
d:
- x: *no   # is text
  y: "q: z"
-
- [1, {e: 2}]
# end
"""


def place(text: str, keys: Keys) -> Place:
    found = compose(text, is_json=False)
    for key in keys:
        part = found.part(key)
        assert part is not None
        found = part.value
    return found


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("a",), "1"),
        (("b",), ""),
        (("c",), "|\n  text\n  more"),
        (("d", 0, "y"), '"q: z"'),
        (("d", 1), ""),
        (("d", 2), "[1, {e: 2}]"),
        (("d", 2, 1), "{e: 2}"),
        (("d", 2, 1, "e"), "2"),
        (("d",), '- x: &no t   # is text\n  y: "q: z"\n-\n- [1, {e: 2}]'),
    ],
)
def test_a_value_is_what_one_would_mark(keys: Keys, expected: str) -> None:
    text = TEXT.replace("*no", "&no t")
    found = place(text, keys)
    assert text[found.start : found.end] == expected


def test_an_alias_is_where_it_is_written() -> None:
    text = "a: &x {b: 1}\nc: *x   # c\n"
    found = place(text, ("c",))
    assert found.is_alias
    assert text[found.start : found.end] == "*x"
    assert not found.is_mapping


@pytest.mark.parametrize(
    "text", ["a: [&x 1, *x]\n", "? a\n\n: 1\n&x b: *x\n*x : 3\n", "# nothing\n"]
)
def test_what_cannot_be_told_is_an_error(text: str) -> None:
    def walk(found: Place) -> None:
        for part in found.parts:
            walk(part.value)

    with pytest.raises(PlaceError):
        walk(compose(text, is_json=False))


def test_json_may_have_tabs() -> None:
    text = '{\t"a":\t[1,\t2]}'
    found = compose(text, is_json=True).parts[0].value
    assert text[found.start : found.end] == "[1,\t2]"
    assert found.in_flow


def test_a_line_ends_before_its_break() -> None:
    assert line_end("ab\r\nc", 0) == 2
    assert line_end("ab\nc", 1) == 2
    assert line_end("ab\nc", 3) == 4
