from pathlib import Path

import pytest

from llama_router.config.document import Document
from llama_router.config.importers.report import Fate
from llama_router.config.importers.source import Native, Source, plain_with_nulls
from llama_router.config.problems import ConfigError

TEXT = "a:\n  b: 1\n  c:\n    - x\n    - y: ~\n"


def document(text: str = TEXT) -> Document:
    return Document(text, Path("f.yaml"))


def test_faults_and_notes_have_their_places() -> None:
    source = Source(document(), "form")
    source.check()
    source.note(("a", "c", 1), Fate.HONOURED, "a.c")
    source.note(("a", "b"), Fate.UNKNOWN, shown="b itself")
    assert [(note.key, note.line) for note in source.report().notes] == [
        ("b itself", 2),
        ("a.c[1]", 5),
    ]
    source.fault(("a", "c", 0), "is wrong")
    with pytest.raises(ConfigError, match=r"f.yaml:4:7: a.c\[0\]: is wrong"):
        source.check()


def test_what_is_put_in_knows_where_it_comes_from() -> None:
    native = Native()
    native.put(("models", 0), {"name": "m"}, ("theirs", "m"))
    native.put(("models", 0, "spawn", "command"), ["x"], ("theirs", "m", "cmd"))
    native.put(("models", 1, "name"), "n", ("theirs", "n"))
    native.put(("router", "api_keys", 0), "k", ("keys", 0))
    assert native.content == {
        "models": [{"name": "m", "spawn": {"command": ["x"]}}, {"name": "n"}],
        "router": {"api_keys": ["k"]},
    }
    assert native.origin_of(("models", 0, "spawn", "command", 0)) == ("theirs", "m", "cmd")
    assert native.origin_of(("models", 0, "spawn")) == ("theirs", "m")
    assert native.origin_of(("router", "host")) == ()


def test_keys_without_a_value_are_there() -> None:
    assert plain_with_nulls(document()) == {"a": {"b": 1, "c": ["x", {"y": None}]}}
    assert plain_with_nulls(document("a: &x {b: ~}\nc:\n  <<: *x\n  d: 1\n")) == {
        "a": {"b": None},
        "c": {"d": 1, "b": None},
    }


def test_what_no_setting_takes_is_a_fault() -> None:
    with pytest.raises(ConfigError, match="is read as a date"):
        plain_with_nulls(document("a: 2026-01-01\n"))
