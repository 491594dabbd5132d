"""Edits of what people write in ways of their own: anchors, and comments between brackets."""

import re

import pytest

from llama_router.config.document import Document
from llama_router.config.edit import Edit, edited
from llama_router.config.problems import ConfigError
from tests.support.edits import YAML, changed, remove, set_

ANCHORED = """\
default_spawn:
  command: &command   # shared
    # the program
    - llama-server
    - --port  # of the engine
    - $port
templates:
  big: &big
    # about the time
    ttl_s: 5
  list: &list !!map {ttl_s: 1}
models:
  - &coder
    name: coder  # daily
    aliases: &names [a,  # of a
      b,  # of b
      # about c
      c]  # of all
"""


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (Edit("set", ("templates", "big", "ttl_s"), 6), ["-    ttl_s: 5", "+    ttl_s: 6"]),
        (Edit("set", ("templates", "big", "pinned"), True), ["+    pinned: true"]),
        (Edit("set", ("templates", "list", "ttl_s"), 2), None),
        (Edit("remove", ("templates", "list", "ttl_s")), None),
        (Edit("set", ("default_spawn", "command", 0), "x"), ["-    - llama-server", "+    - x"]),
        (Edit("set", ("default_spawn", "command", 3), "x"), ["+    - x"]),
        (Edit("remove", ("default_spawn", "command", 2)), ["-    - $port"]),
        (Edit("set", ("models", 0, "ttl_s"), 6), ["+    ttl_s: 6"]),
    ],
)
def test_anchors_are_no_hindrance(edit: Edit, expected: list[str] | None) -> None:
    after = edited(ANCHORED, [edit], YAML)
    lines = changed(ANCHORED, after)
    assert lines == expected or (expected is None and len(lines) == 2)
    assert edited(after, [edit], YAML) == after


def test_a_section_with_an_anchor_is_replaced_with_its_anchor() -> None:
    after = set_(ANCHORED, ("default_spawn", "command"), "x")
    assert "  command: x   # shared\n" in after
    after = set_(ANCHORED, ("templates", "big"), {"ttl_s": {"a": [1]}})
    assert "  big:\n    ttl_s:\n" in after or "# about the time\n    ttl_s:\n" in after


@pytest.mark.parametrize(("index", "rest"), [(0, ["b", "c"]), (1, ["a", "c"]), (2, ["a", "b"])])
def test_an_item_in_brackets_takes_no_comment_with_it(index: int, rest: list[str]) -> None:
    after = remove(ANCHORED, ("models", 0, "aliases", index))
    assert Document(after, YAML).plain()[0]["models"][0]["aliases"] == rest
    comments = re.compile(r"#.*")
    assert set(comments.findall(ANCHORED)) <= set(comments.findall(after))


def test_a_comment_that_writing_anew_would_lose_refuses_the_edit() -> None:
    text = "a: &a 1\nb: [*a, 2]\n"
    assert Document(set_(text, ("b", 1), 3), YAML).plain()[0]["b"] == [1, 3]
    with pytest.raises(ConfigError, match=r"c\.yaml:.*without losing comments"):
        set_(text + "c: [1,  # one\n  2]\n", ("b", 1), 3)


def test_a_value_takes_its_own_comments_with_it_even_if_nothing_else_is_left() -> None:
    after = remove("a: [1,  # one\n  2]  # two\n", ("a",))
    assert Document(after, YAML).plain()[0] == {}
    after = remove("# head\na: 1  # one\n", ("a",))
    assert Document(after, YAML).plain()[0] == {}
    assert "# head" in after
