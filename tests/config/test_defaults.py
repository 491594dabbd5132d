import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import platformdirs
import pytest

from llama_router.config.defaults import (
    FILE_NAME,
    TEMPLATE,
    create_default,
    default_path,
    refresh_schema,
)
from llama_router.config.document import Document
from llama_router.config.json_schema import json_schema
from llama_router.config.load import load
from llama_router.config.problems import ConfigError
from llama_router.config.schema import Config
from llama_router.config.validate import validate

HOME = Path("/home/me")


@pytest.mark.parametrize(
    ("platform", "env", "expected"),
    [
        ("linux", {}, "/home/me/.config/llama-router/config.yaml"),
        ("linux", {"XDG_CONFIG_HOME": "/x"}, "/x/llama-router/config.yaml"),
        ("linux", {"XDG_CONFIG_HOME": "x"}, "/home/me/.config/llama-router/config.yaml"),
        ("darwin", {}, "/home/me/Library/Application Support/llama-router/config.yaml"),
        ("darwin", {"XDG_CONFIG_HOME": "/x"}, "/x/llama-router/config.yaml"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/llama-router/config.yaml"),
        ("win32", {}, "/home/me/AppData/Local/llama-router/config.yaml"),
    ],
)
def test_the_place_follows_the_platforms_convention(
    platform: str, env: Mapping[str, str], expected: str
) -> None:
    place = default_path(platform, env, HOME)
    assert (place.path.as_posix(), place.note) == (expected, "")


@pytest.mark.parametrize("xdg", [None, "/x", "relative"])
def test_the_place_is_the_one_of_platformdirs(
    xdg: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    env = {} if xdg is None else {"XDG_CONFIG_HOME": xdg}
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    if sys.platform == "win32":
        env["LOCALAPPDATA"] = str(platformdirs.user_config_path())
    folder = platformdirs.user_config_path("llama-router", appauthor=False)
    assert default_path(sys.platform, env, tmp_path).path == folder / FILE_NAME


def test_the_originals_file_is_used_while_there_is_none_of_ours(tmp_path: Path) -> None:
    original = tmp_path / ".config" / "llama.cpp" / "router-config.json"
    original.parent.mkdir(parents=True)
    original.write_text("{}")
    place = default_path("linux", {}, tmp_path)
    assert place.path == original
    assert "config.yaml would come first" in place.note

    ours = tmp_path / ".config" / "llama-router" / "config.yaml"
    create_default(ours)
    assert default_path("linux", {}, tmp_path).path == ours


def test_the_first_config_means_the_defaults_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.yaml"
    create_default(path)
    assert load(path).config == Config()
    assert load(path).warnings == ()
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_settings_in_comments_are_the_defaults_too() -> None:
    text, count = re.subn(r"^( *)# (\w+: [^$\n]*)$", r"\1\2", TEMPLATE, flags=re.MULTILINE)
    assert count >= 5
    content, _ = Document(text, Path("c.yaml")).plain()
    config, issues = validate(content)
    assert issues == []
    assert config == Config()


def test_the_example_model_of_the_template_is_valid() -> None:
    head, example = TEMPLATE.split("#\n# models:\n")
    example = ("models:\n" + example.removesuffix("models: []\n")).replace("\n# ", "\n")
    content, _ = Document(head + example, Path("c.yaml")).plain()
    config, issues = validate(content)
    assert issues == []
    assert config is not None
    assert config.models[0].name == "qwen-long"


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("mine")
    create_default(path)
    assert path.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"config\.yaml: cannot be written"):
        create_default(tmp_path / "file" / "config.yaml")


def test_beside_the_first_config_is_the_schema_that_it_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    create_default(path)
    schema = tmp_path / "mine.schema.json"
    assert json.loads(schema.read_text(encoding="utf-8")) == json_schema()
    head = path.read_text(encoding="utf-8").splitlines()[0]
    assert head == "# yaml-language-server: $schema=mine.schema.json"


def test_the_schema_is_written_again_when_it_is_another(tmp_path: Path) -> None:
    path, schema = tmp_path / "config.yaml", tmp_path / "config.schema.json"
    create_default(path)
    written_at_ns = schema.stat().st_mtime_ns
    assert refresh_schema(path)
    assert schema.stat().st_mtime_ns == written_at_ns
    schema.write_text("{}")
    assert refresh_schema(path)
    assert json.loads(schema.read_text(encoding="utf-8")) == json_schema()


def test_no_schema_is_put_beside_a_config_that_does_not_name_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("version: 1.0\n")
    assert not refresh_schema(path)
    assert not refresh_schema(tmp_path / "none.yaml")
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]
