import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_router.config import places, splice
from llama_router.config.defaults import TEMPLATE
from llama_router.config.document import Document
from llama_router.config.edit import EDITS_MAX_COUNT, ChangedError, Edit, edited, etag, write
from llama_router.config.places import Place
from llama_router.config.problems import ConfigError, Keys
from llama_router.config.yaml_text import Style, as_block
from tests.support.edits import YAML, changed, remove, set_

COMMENT = re.compile(r"# (?:at|above) \d+")
JSON = Path("c.json")
WINDOWS = sys.platform == "win32"

FILE = """\
# about the file
version: "1.0"
router:   # the router
  port:   8082   # its port
  # about the host

  host: '127.0.0.1'   # a comment
  memory: {cuda0: 22GiB, cpu: 4GiB}
  preload:
    # the first
    - coder   # often
    - embedder
    # nothing more

# about models
models:
  - name: coder # used daily
    path: ~/models/coder.gguf
    # about aliases
    aliases: [gpt-4o, "gpt: 4"]
    description: |
      Two
      lines
    spawn:
      command:
        - llama-server
        - --port
        - $port
  # about the embedder
  - {name: embedder, path: ~/e.gguf}

hub:
  # token: x
startup_model: ""   # none
# the end
"""


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        (
            ("router", "port"),
            9000,
            ["-  port:   8082   # its port", "+  port:   9000   # its port"],
        ),
        (
            ("router", "host"),
            "::1",
            ["-  host: '127.0.0.1'   # a comment", "+  host: '::1'   # a comment"],
        ),
        (
            ("startup_model",),
            "coder",
            ['-startup_model: ""   # none', '+startup_model: "coder"   # none'],
        ),
        (("router", "ttl_s"), 60, ["+  ttl_s: 60"]),
        (("router", "watch_models"), False, ["+  watch_models: false"]),
        (
            ("router", "memory", "cuda0"),
            "8GiB",
            [
                "-  memory: {cuda0: 22GiB, cpu: 4GiB}",
                '+  memory: {cuda0: "8GiB", cpu: 4GiB}',
            ],
        ),
        (
            ("router", "memory", "cuda1"),
            1024,
            [
                "-  memory: {cuda0: 22GiB, cpu: 4GiB}",
                "+  memory: {cuda0: 22GiB, cpu: 4GiB, cuda1: 1024}",
            ],
        ),
        (("router", "preload", 1), "b", ["-    - embedder", "+    - b"]),
        (("router", "preload", 2), "b", ["+    - b"]),
        (("router", "preload"), ["coder"], ["-    - embedder"]),
        (("hub", "token"), "x y", ['+  token: "x y"']),
        (
            ("hub", "allowed_hosts"),
            ["a.example", "b.example"],
            ["+  allowed_hosts: [a.example, b.example]"],
        ),
        (("models", "name=coder", "ttl_s"), 5, ["+    ttl_s: 5"]),
        (
            ("models", "name=embedder", "ttl_s"),
            5,
            [
                "-  - {name: embedder, path: ~/e.gguf}",
                "+  - {name: embedder, path: ~/e.gguf, ttl_s: 5}",
            ],
        ),
        (
            ("models", "name=new", "parameters", "ctx-size"),
            4096,
            ["+  - name: new", "+    state: auto", "+    parameters: {ctx-size: 4096}"],
        ),
        (("models", "name=new", "path"), "/x", ["+  - name: new", "+    path: /x"]),
        (
            ("models", "name=new", "spawn", "command", 0),
            "x",
            ["+  - name: new", "+    spawn:", "+      command: [x]"],
        ),
        (("models", 2), {"name": "x", "pinned": True}, ["+  - name: x", "+    pinned: true"]),
        (
            ("models", 0, "name"),
            "c",
            ["-  - name: coder # used daily", "+  - name: c # used daily"],
        ),
        (
            ("models", 0, "description"),
            "one",
            ["-    description: |", "+    description: one", "-      Two", "-      lines"],
        ),
        (
            ("models", 0, "spawn", "command"),
            ["x", "--port", "$port"],
            ["-        - llama-server", "+        - x"],
        ),
        (
            ("models", 0, "filters", "set_params", "n"),
            1,
            ["+    filters:", '+      set_params: {"n": 1}'],
        ),
        (
            ("templates", "small"),
            {"ttl_s": 5, "spawn": {"env": {"A": "1"}}},
            ["+templates:", "+  small:", "+    ttl_s: 5", "+    spawn:", '+      env: {A: "1"}'],
        ),
    ],
)
def test_only_what_is_set_changes(keys: Keys, value: object, expected: list[str]) -> None:
    after = set_(FILE, keys, value)
    assert changed(FILE, after) == expected
    assert set_(after, keys, value) == after


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("router", "port"), ["-  port:   8082   # its port"]),
        (
            ("router", "memory", "cuda0"),
            ["-  memory: {cuda0: 22GiB, cpu: 4GiB}", "+  memory: {cpu: 4GiB}"],
        ),
        (("router", "preload", 0), ["-    - coder   # often"]),
        (
            ("models", 0, "name"),
            [
                "-  - name: coder # used daily",
                "-    path: ~/models/coder.gguf",
                "+  - path: ~/models/coder.gguf",
            ],
        ),
        (("models", 0, "aliases"), ['-    aliases: [gpt-4o, "gpt: 4"]']),
        (("models", "name=embedder"), ["-  - {name: embedder, path: ~/e.gguf}"]),
        (("startup_model",), ['-startup_model: ""   # none']),
        (("router", "ttl_s"), []),
    ],
)
def test_only_what_is_removed_goes(keys: Keys, expected: list[str]) -> None:
    after = remove(FILE, keys)
    assert changed(FILE, after) == expected
    assert remove(after, keys) == after or keys[-1] == 0


def test_a_file_that_is_created_can_be_edited() -> None:
    text = set_(TEMPLATE, ("models", "name=user/repo:Q4_K_M"), {"ttl_s": 60, "state": "auto"})
    assert changed(TEMPLATE, text) == [
        "-models: []",
        "+models:",
        "+  - name: user/repo:Q4_K_M",
        "+    ttl_s: 60",
        "+    state: auto",
    ]
    text = remove(text, ("models", "name=user/repo:Q4_K_M"))
    assert Document(text, YAML).plain()[0].get("models") is None


def test_a_section_with_nothing_left_means_its_default() -> None:
    text = "router:\n  # a hint\n  port: 1\n"
    assert remove(text, ("router", "port")) == "router:\n  # a hint\n"
    assert set_("router:\n  # a hint\n", ("router", "port"), 1) == (
        "router:\n  port: 1\n  # a hint\n"
    )


def test_several_edits_are_made_in_their_order() -> None:
    edits = [
        Edit("set", ("models", 2), {"name": "x"}),
        Edit("set", ("models", "name=x", "ttl_s"), 5),
        Edit("remove", ("models", 0)),
        Edit("set", ("models", "name=x", "ttl_s"), 6),
    ]
    content = Document(edited(FILE, edits, YAML), YAML).plain()[0]
    assert [model["name"] for model in content["models"]] == ["embedder", "x"]
    assert content["models"][1]["ttl_s"] == 6


def test_json_is_edited_in_place() -> None:
    text = '{\n\t"router": {"port": 1},\n\t"models": [\n\t\t{"name": "a"}\n\t]\n}\n'
    edits = [
        Edit("set", ("router", "host"), "::1"),
        Edit("set", ("models", "name=b", "ttl_s"), 5),
        Edit("set", ("startup_model",), "a"),
        Edit("remove", ("router", "port")),
    ]
    after = edited(text, edits, JSON)
    assert after == (
        '{\n\t"router": {"host": "::1"},\n\t"models": [\n\t\t{"name": "a"},\n'
        '\t\t{"name": "b", "state": "auto", "ttl_s": 5}\n\t],\n\t"startup_model": "a"\n}\n'
    )
    assert json.loads(after)["models"][1] == {"name": "b", "state": "auto", "ttl_s": 5}


def test_line_breaks_stay_what_they_are() -> None:
    text = FILE.replace("\n", "\r\n")
    for keys in (("router", "port"), ("router", "ttl_s"), ("templates", "a", "spawn", "env", "B")):
        after = set_(text, keys, "9")
        assert "\n" not in after.replace("\r\n", "")
        assert remove(after, keys).count("\n") <= after.count("\n")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("models:\n  - &a {name: x}\n  - *a\n", ("models", 1, "ttl_s")),
        ("a: &a {b: 1}\nc: *a\n", ("c", "b")),
        ("a: &a {b: 1}\nc:\n  <<: *a\n  d: 1\n", ("c", "d", "e")),
    ],
)
def test_what_is_shared_is_not_changed_behind_ones_back(text: str, keys: Keys) -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        set_(text, keys, 5)


def test_what_is_shared_can_be_replaced_or_added_to() -> None:
    text = "a: &a {b: 1}\nc: *a   # c\nd:\n  <<: *a\n"
    assert set_(text, ("c",), 5) == text.replace("*a   # c", "5   # c")
    assert set_(text, ("d", "b"), 2) == text + "  b: 2\n"
    with pytest.raises(ConfigError):
        remove(text, ("d", "b"))


def test_text_that_would_be_something_else_gets_quotes() -> None:
    for value in (
        "yes",
        "1",
        "1e3",
        "2026-11-05",
        "~",
        "",
        " a",
        "a: b",
        "# x",
        "*a",
        "\u2028é",
        "null",
    ):
        after = set_(FILE, ("router", "host"), value)
        assert Document(after, YAML).plain()[0]["router"]["host"] == value
        after = set_(FILE, ("hub", "endpoint"), value)
        assert Document(after, YAML).plain()[0]["hub"]["endpoint"] == value


@pytest.mark.parametrize(
    "edit",
    [
        Edit("set", (), 1),
        Edit("set", ("models", 5), {}),
        Edit("set", ("models", -1), {}),
        Edit("set", ("models", "coder"), {}),
        Edit("set", ("router", 0), 1),
        Edit("set", ("version", "x"), 1),
        Edit("set", ("router", "ttl_s"), float("nan")),
        Edit("remove", ("models", "name=coder", "name", "x")),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused(edit: Edit) -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        edited(FILE, [edit], YAML)


def test_there_is_a_limit_to_edits() -> None:
    with pytest.raises(ConfigError, match="at a time"):
        edited(FILE, [Edit("remove", ("router", "port"))] * (EDITS_MAX_COUNT + 1), YAML)


def test_hundreds_of_new_models_are_put_in_without_looking_for_the_place_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[int] = []

    def compose(text: str, *, is_json: bool) -> Place:
        looked.append(len(text))
        return places.compose(text, is_json=is_json)

    monkeypatch.setattr(splice, "compose", compose)
    new = [{"name": f"new-{number}", "path": f"/m/{number}.gguf"} for number in range(300)]
    edits = [Edit("set", ("models", f"name={one['name']}"), one) for one in new]
    made = edited(FILE, edits, YAML, max_count=len(edits))
    assert Document(made, YAML).plain()[0]["models"][-300:] == new
    assert made.startswith(FILE[: FILE.index("models:")])
    assert len(looked) == 1


def test_an_etag_names_the_text() -> None:
    assert etag(FILE) == etag(FILE)
    assert etag(FILE) != etag(FILE + "\n")


def test_a_file_is_written_unless_somebody_else_has(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + FILE.encode())
    path.chmod(0o640)
    write(path, FILE, "a: 1\n")
    assert path.read_text(encoding="utf-8") == "a: 1\n"
    assert path.stat().st_mode & 0o777 == (path.stat().st_mode & 0o777 if WINDOWS else 0o640)
    with pytest.raises(ChangedError, match="meanwhile"):
        write(path, FILE, "b: 1\n")
    assert path.read_text(encoding="utf-8") == "a: 1\n"
    assert [file.name for file in tmp_path.iterdir()] == ["c.yaml"]
    with pytest.raises(ConfigError, match="cannot be read"):
        write(tmp_path / "none.yaml", "", "")


WORDS = st.sampled_from(["a", "b b", "c: d", "yes", "7", "#e", "ttl_s", "ü", "-", "x" * 30])
SCALARS = st.one_of(WORDS, st.integers(0, 99), st.booleans(), st.floats(0, 9, width=16))
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(WORDS, inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)
CONTENTS = st.dictionaries(WORDS, VALUES, min_size=1, max_size=4)


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A file with comments at random places, and what it means."""
    content = draw(CONTENTS)
    style = Style(draw(st.integers(1, 4)), draw(st.integers(0, 4)))
    lines = []
    for number, line in enumerate(as_block(content, style).split("\n")):
        if draw(st.booleans()):
            lines.append(" " * draw(st.integers(0, 4)) + f"# above {number}")
        tail = f"  # at {number}" if draw(st.booleans()) else ""
        lines.append(line + tail)
        lines += [""] * draw(st.integers(0, 1))
    return "\n".join(lines) + draw(st.sampled_from(["", "\n"])), content


def leaves(value: object, keys: Keys = ()) -> list[Keys]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*keys, key))]
    if isinstance(value, list):
        return [leaf for key, item in enumerate(value) for leaf in leaves(item, (*keys, key))]
    return [keys]


def get(content: Any, keys: Keys) -> Any:  # noqa: ANN401 - any value of a config
    for key in keys:
        content = content[key]
    return content


@settings(max_examples=40, deadline=None)
@given(texts(), st.data())
def test_setting_a_value_touches_its_line_alone(
    file: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    text, content = file
    keys = data.draw(st.sampled_from(leaves(content)))
    value = data.draw(SCALARS)
    after = set_(text, keys, value)
    assert get(Document(after, YAML).plain()[0], keys) == value
    assert len(after.split("\n")) == len(text.split("\n"))
    differing = [
        number
        for number, (old, new) in enumerate(zip(text.split("\n"), after.split("\n"), strict=True))
        if old != new
    ]
    assert len(differing) <= 1
    assert COMMENT.findall(after) == COMMENT.findall(text)
    assert set_(after, keys, value) == after


@settings(max_examples=40, deadline=None)
@given(texts(), st.data())
def test_adding_a_key_leaves_every_line_as_it_is(
    file: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    text, content = file
    parents = {keys[:length] for keys in leaves(content) for length in range(len(keys))}
    parents = {keys for keys in parents if isinstance(get(content, keys), dict)}
    keys = (*data.draw(st.sampled_from(sorted(parents, key=str))), "new")
    value = data.draw(VALUES)
    after = set_(text, keys, value)
    assert get(Document(after, YAML).plain()[0], keys) == value
    # The line of a section in brackets gets longer.
    gone = [line for line in changed(text, after) if line[0] == "-"]
    assert len(gone) <= 1
    assert COMMENT.findall(after) == COMMENT.findall(text)
    assert remove(after, keys) == text or not text.endswith("\n")


@settings(max_examples=40, deadline=None)
@given(texts(), st.data())
def test_removing_a_value_keeps_all_comments_but_its_own(
    file: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    text, content = file
    keys = data.draw(st.sampled_from(leaves(content)))
    after = remove(text, keys)
    gone = [comment for comment in COMMENT.findall(text) if comment not in COMMENT.findall(after)]
    assert len(gone) <= 1
    assert all(comment.startswith("# at") for comment in gone)


@settings(max_examples=30, deadline=None)
@given(CONTENTS, CONTENTS)
def test_any_content_can_become_any_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    for path in (YAML, JSON):
        text = json.dumps(before, indent=2) if path is JSON else as_block(before, Style()) + "\n"
        edits = [Edit("remove", (key,)) for key in before if key not in after]
        edits += [Edit("set", (key,), value) for key, value in after.items()]
        made = edited(text, edits, path)
        assert Document(made, path).plain()[0] == after
        assert edited(made, edits, path) == made


def test_an_alias_in_place_of_a_name_is_told_whose_it_is() -> None:
    text = "models:\n  - name: coder\n    aliases: [gpt-4o]\n"
    with pytest.raises(ConfigError, match=r"gpt-4o is an alias of coder: write models\[coder\]"):
        edited(text, [Edit("set", ("models", "name=gpt-4o", "ttl_s"), 5)], Path("c.yaml"))
