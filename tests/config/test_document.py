import json
from pathlib import Path

import pytest

from llama_router.config.document import Document
from llama_router.config.problems import ConfigError

YAML = Path("c.yaml")
JSON = Path("c.json")


def fault_of(content: str | bytes, path: Path = YAML) -> str:
    content = content.encode() if isinstance(content, str) else content
    try:
        Document.from_bytes(content, path).plain()
    except ConfigError as error:
        return str(error)
    pytest.fail("no fault was found")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("router:\n  port: 1\n host: x\n", "c.yaml:3:2: is not indented as"),
        ("a: [1\nb: 2\n", "c.yaml:2:2: the bracket"),
        ("router:\n\tport: 1\n", "c.yaml:2:1: a tab"),
        ("a: *nothing\n", "c.yaml:1:4: what begins with * is an alias"),
        ("a: 1\n---\nb: 2\n", "c.yaml:2:1: a second document"),
        ("a: 1\nb: \0\n", "c.yaml:2:4: holds a character"),
        ("a: 1\nb: 2026-13-01\n", "c.yaml:2:4: cannot be understood: month"),
        ("a: 1\nb: " + "9" * 5000, "c.yaml:2:4: cannot be understood: Exceeds"),
        ("", "c.yaml:1: is empty"),
        ("# only a comment\n", "c.yaml:1: is empty"),
        ("- a\n", "c.yaml:1: must consist of keys and values"),
    ],
)
def test_broken_text_is_told_with_its_line(text: str, expected: str) -> None:
    assert fault_of(text).startswith(expected)


def test_other_encodings_are_told_with_the_line() -> None:
    assert fault_of(b"a: 1\nb: \xff\n") == "c.yaml:2:4: is not UTF-8 text"


def test_a_byte_order_mark_is_passed_over() -> None:
    document = Document.from_bytes(b"\xef\xbb\xbfa: 1\n", YAML)
    assert document.plain() == ({"a": 1}, [])


def test_every_key_that_is_set_twice_is_told_without_its_value() -> None:
    fault = fault_of("a: secret1\nb:\n  c: 1\n  c: 2\na: secret2\n")
    assert fault == "c.yaml:4:3: c: is set twice\nc.yaml:5:1: a: is set twice"


def test_a_deep_document_is_refused() -> None:
    assert "nested deeper" in fault_of("a: " + "[" * 17 + "]" * 17)
    assert "nested deeper" in fault_of("".join(" " * level + "a:\n" for level in range(700)))


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [" + "x," * 10 + "]"]
    lines += [f"a{n + 1}: &a{n + 1} [{f'*a{n},' * 10}]" for n in range(8)]
    assert "more than 500000 values" in fault_of("\n".join(lines))


def test_aliases_and_merge_keys_mean_what_they_stand_for() -> None:
    document = Document("a: &a {x: 1, y: 2}\nb: *a\nc:\n  <<: *a\n  y: 3\n", YAML)
    content, issues = document.plain()
    assert issues == []
    assert content["b"] == {"x": 1, "y": 2}
    assert content["c"] == {"x": 1, "y": 3}


def test_plain_values_are_of_pythons_own_types() -> None:
    text = "s: 'x'\ni: 0x10\nf: 1.50\nb: &anchor true\nl: [a, 1]\nt: |\n  text\n"
    content, _ = Document(text, YAML).plain()
    assert content == {"s": "x", "i": 16, "f": 1.5, "b": True, "l": ["a", 1], "t": "text\n"}
    kinds = [type(value) for value in content.values()]
    assert kinds == [str, int, float, bool, list, str]


def test_keys_without_a_value_are_left_out() -> None:
    assert Document("models:\nrouter:\n  # port: 1\n", YAML).plain() == ({}, [])


@pytest.mark.parametrize(
    ("value", "expected"),
    [("2026-11-05", "date"), ("!x y", "tag"), ("!!set {a}", "kind that no setting takes")],
)
def test_values_that_no_setting_takes_are_told(value: str, expected: str) -> None:
    content, issues = Document(f"a: {value}\n", YAML).plain()
    assert content == {}
    assert [issue.keys for issue in issues] == [("a",)]
    assert expected in issues[0].message


def test_keys_that_are_not_text_are_told() -> None:
    _, issues = Document("router:\n  1: a\n  [x]: b\n", YAML).plain()
    assert [issue.keys for issue in issues] == [("router",), ("router",)]


def test_lines_are_found_for_keys_items_and_what_is_missing() -> None:
    document = Document("# top\nrouter:\n  port: 1\nmodels:\n  - name: a\n  - name: b\n", YAML)
    assert document.line_of(("router", "port")) == 3
    assert document.line_of(("models", 1)) == 6
    assert document.line_of(("models", 1, "name")) == 6
    assert document.line_of(("models", 1, "path")) == 6
    assert document.line_of(("models", 9, "name")) == 4
    assert document.line_of(()) == 1


def test_json_may_be_indented_by_tabs_and_escape_beyond_the_basic_plane() -> None:
    text = '{\n\t"a":\t[1,\t2],\n\t"b": "\\ud83d\\ude00"\n}\n'
    document = Document(text, JSON)
    assert document.plain() == ({"a": [1, 2], "b": "\U0001f600"}, [])
    assert document.line_of(("b",)) == 3


def test_json_stays_json() -> None:
    document = Document('{"a": ["x", {"b": null}], "c": {}, "d": "ü"}', JSON)
    document.data["e"] = True
    written = document.dump()
    assert json.loads(written) == {"a": ["x", {}], "c": {}, "d": "ü", "e": True}
    assert "ü" in written


@pytest.mark.parametrize(
    "text",
    [
        "# top\na: 1   # one\n\nlist:\n- x\n- \"y\"\nmap:\n    deep:\n        er: 'q'\n# end\n",
        "list:\n  - a: 1\n    b: [x,   y]\n  # between\n  - a: 2\n",
        "a: &x {b: 1}\nc: *x\n",
        "long: [" + ", ".join(["--some-argument"] * 40) + "]\n",
        "a: 1\r\nb:\r\n  - c\r\n",
    ],
)
def test_an_unchanged_document_is_written_as_it_was(text: str) -> None:
    written = Document(text, YAML).dump()
    assert written == text.replace("x,   y", "x, y")


def test_errors_carry_no_quotation_of_the_file() -> None:
    with pytest.raises(ConfigError) as caught:
        Document("router:\n  api_keys: [canary\n", YAML)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_place_has_a_column() -> None:
    document = Document("a:\n  b: [x,  y]\nc: 1\n", YAML)
    assert document.place_of(("a", "b")) == (2, 3)
    assert document.place_of(("a", "b", 1)) == (2, 11)
    assert document.place_of(("a", "nothing", "more")) == (1, 1)
    assert document.place_of(("c",)) == (3, 1)


def test_null_is_a_value_where_values_are_of_others() -> None:
    text = "ttl_s:\nset_params:\n  stop:\n  a: [null]\nmetadata:\n  x: {y: ~}\n"
    content, issues = Document(text, YAML).plain()
    assert issues == []
    assert content == {"set_params": {"stop": None, "a": [None]}, "metadata": {"x": {"y": None}}}
