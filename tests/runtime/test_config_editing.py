from collections.abc import Sequence
from pathlib import Path

import pytest

from llama_router.config.edit import Edit, etag
from llama_router.config.problems import ConfigError
from llama_router.config.schema import Config
from llama_router.runtime.config_aside import ConfigAside
from llama_router.runtime.config_editing import (
    EditConflictError,
    NotEditableError,
    edits_for,
    says,
    text_of,
    write_edited,
)
from llama_router.runtime.config_file import ConfigFile, ConfigSource, FixedConfig, Reading

TEXT = "# mine\nrouter:\n  port: 81   # a comment\n"
PORT = Edit("set", ("router", "port"), 82)


@pytest.fixture
def source(tmp_path: Path) -> ConfigFile:
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    return ConfigFile(path)


def test_an_edit_is_written_if_the_text_is_the_one_it_was_made_for(source: ConfigFile) -> None:
    reading = source.read()
    assert text_of(source, reading) == (TEXT, etag(TEXT))
    changed = write_edited(ConfigAside(), source, reading, [PORT], etag(TEXT))
    assert changed.text == source.path.read_text() == TEXT.replace("81", "82")
    assert changed.config.router.port == 82
    assert says(source.path, changed.text)
    assert not says(source.path, TEXT)
    with pytest.raises(EditConflictError) as conflict:
        write_edited(ConfigAside(), source, reading, [PORT], etag(TEXT))
    assert conflict.value.etag == changed.etag


class Hurried(ConfigAside):
    """Somebody else writes the file while an edit of it is worked out, so many times."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left_count = count

    def edit(self, source: ConfigSource, path: Path, text: str, edits: Sequence[Edit]) -> Reading:
        if self.left_count:
            self.left_count -= 1
            path.write_text("# theirs\n" + path.read_text())
        return super().edit(source, path, text, edits)


def test_an_edit_that_somebody_else_was_quicker_than_is_not_written(source: ConfigFile) -> None:
    aside = Hurried(1)
    with pytest.raises(EditConflictError) as conflict:
        write_edited(aside, source, source.read(), [PORT], etag(TEXT))
    assert conflict.value.etag == etag(source.path.read_text()) == etag("# theirs\n" + TEXT)


def test_an_edit_of_whatever_the_file_says_is_made_again(source: ConfigFile) -> None:
    changed = write_edited(Hurried(2), source, source.read(), [PORT], None)
    expected = "# theirs\n" * 2 + TEXT.replace("81", "82")
    assert changed.text == source.path.read_text() == expected
    assert changed.config.router.port == 82


def test_a_file_that_is_written_all_the_time_is_given_up(source: ConfigFile) -> None:
    aside = Hurried(100)
    with pytest.raises(EditConflictError) as conflict:
        write_edited(aside, source, source.read(), [PORT], None)
    assert conflict.value.etag == etag(source.path.read_text())
    assert aside.left_count == 97
    assert "port: 81" in source.path.read_text()


def test_a_config_in_no_file_of_ours_is_not_edited(tmp_path: Path) -> None:
    fixed = FixedConfig(Config())
    foreign = ConfigFile(tmp_path / "swap.yaml")
    foreign.path.write_text("models:\n  fox:\n    cmd: engine --port ${PORT}\n")
    for source in (fixed, foreign):
        with pytest.raises(NotEditableError):
            text_of(source, source.read())
        with pytest.raises(NotEditableError):
            write_edited(ConfigAside(), source, source.read(), [PORT], None)


def test_a_file_that_cannot_be_read_is_said(source: ConfigFile) -> None:
    reading = source.read()
    source.path.write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        text_of(source, reading)
    source.path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        text_of(source, reading)
    assert not says(source.path, TEXT)


def test_entries_are_added_whole_and_hold_no_macros(source: ConfigFile) -> None:
    entries = [{"name": "${env.HOME}", "path": "/m/${env.HOME}.gguf", "state": "manual"}]
    changed = write_edited(ConfigAside(), source, source.read(), edits_for(entries), None)
    (entry,) = changed.config.models
    assert (entry.name, entry.path) == ("${env.HOME}", "/m/${env.HOME}.gguf")
