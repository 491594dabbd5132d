import pytest

from llama_router.config.problems import Keys
from llama_router.config.splice import SpliceError, add_values, remove_value, set_value
from llama_router.config.yaml_text import style_of

# What `edit` can do by it is in test_edit.py; here is what takes care.


@pytest.mark.parametrize(
    ("text", "keys", "value", "expected"),
    [
        ("a: |   # c\n  x\n\nb: 1\n", ("a",), 5, "a: 5   # c\n\nb: 1\n"),
        ("a: 1   # c\n", ("a",), {"b": {"c": 1}}, "a:   # c\n  b: {c: 1}\n"),
        ("a:   # c\n  - x\n", ("a",), "z", "a: z   # c\n"),
        ("a:\n-  b: 1\n", ("a", 0), 5, "a:\n-  5\n"),
        ("a:\n- 5\n", ("a", 0), {"b": [{"c": 1}]}, "a:\n- b:\n  - c: 1\n"),
        ("a: [1,]\n", ("a", 1), 2, "a: [1, 2]\n"),
        ("a: [\n  1,  # c\n]\n", ("a", 1), 2, "a: [\n  1,  # c\n  2\n]\n"),
        ("a: {}   # c\n", ("a", "b"), 1, "a: {b: 1}   # c\n"),
        ("a: []\n", ("a", 0), {"b": {"c": 1}}, "a:\n  - b: {c: 1}\n"),
        ("a: {b: [{}]}\n", ("a", "b", 0, "c"), [{"d": 1}], "a: {b: [{c: [{d: 1}]}]}\n"),
        ("a:\n  b: 1", ("a", "c"), 2, "a:\n  b: 1\n  c: 2"),
        ('"a" : 1\n', ("a",), 2, '"a" : 2\n'),
    ],
)
def test_a_value_is_put_in(text: str, keys: Keys, value: object, expected: str) -> None:
    assert set_value(text, keys, value, style_of(text)) == expected


@pytest.mark.parametrize(
    ("text", "keys", "expected"),
    [
        ("a:\n- b: 1   # b\n  # c\n  c: 2\n", ("a", 0, "b"), "a:\n-\n  # c\n  c: 2\n"),
        ("a:\n- b: 1\n  c: 2\n", ("a", 0, "b"), "a:\n- c: 2\n"),
        ("a:\n- b: 1   # b\n", ("a", 0, "b"), "a:\n- {}   # b\n"),
        ("a: {b: 1}\n", ("a", "b"), "a: {}\n"),
        ("a: [1, 2, 3]\n", ("a", 1), "a: [1, 3]\n"),
        ("a: [1, 2, 3]\n", ("a", 0), "a: [2, 3]\n"),
        ("a: 1\nb: |\n  x\n\nc: 2", ("b",), "a: 1\n\nc: 2"),
        ("a: 1\r\nb: 2\r\n", ("b",), "a: 1\r\n"),
        ("a: 1\nb: 2", ("b",), "a: 1\n"),
    ],
)
def test_a_value_is_taken_out(text: str, keys: Keys, expected: str) -> None:
    assert remove_value(text, keys, style_of(text)) == expected


@pytest.mark.parametrize("keys", [("c", "b"), ("d", "b"), ("a", "b", "x"), ("e", 7), ("e", "x")])
def test_what_is_elsewhere_or_makes_no_sense_is_refused(keys: Keys) -> None:
    text = "a: &a {b: 1}\nc: *a\nd:\n  <<: *a\n  f: 1\ne: [1]\n"
    with pytest.raises(SpliceError):
        remove_value(text, keys, style_of(text))
    if keys[0] != "d":
        with pytest.raises(SpliceError):
            set_value(text, keys, 1, style_of(text))


@pytest.mark.parametrize(
    "text",
    [
        "a:\n  - x: 1   # c\n  # d\nb: 1\n",
        "a:\n- x: 1\r\n  y: 2\r\n",
        "a: [1,]\n",
        "a: [\n  1,  # c\n]\n",
        '{\n  "a": [\n    {"x": 1}\n  ]\n}\n',
    ],
)
def test_several_values_at_once_come_out_as_one_by_one(text: str) -> None:
    values: list[object] = [{"x": 2, "y": [1, {"z": "w"}]}, "v", {"x": 3}]
    style = style_of(text, is_json=text.startswith("{"))
    expected = text
    for index, value in enumerate(values):
        expected = set_value(expected, ("a", index + 1), value, style)
    assert add_values(text, ("a",), values, style) == expected


@pytest.mark.parametrize("keys", [("a",), ("b",), ("c",), ("e",)])
def test_several_values_go_behind_others_only(keys: Keys) -> None:
    text = "a: 1\nb: []\nd: &d [1]\ne: *d\n"
    with pytest.raises(SpliceError):
        add_values(text, keys, [1, 2], style_of(text))
