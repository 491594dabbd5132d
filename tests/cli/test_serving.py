import sys
import tempfile
from pathlib import Path
from typing import cast

import pytest

from llama_router.catalog.model import CatalogModel, ModelSource
from llama_router.cli import serving
from llama_router.cli.serving import Overrides
from llama_router.config.problems import ConfigError
from llama_router.config.schema import Config
from llama_router.runtime.app import Router
from llama_router.runtime.config_file import ConfigFile
from llama_router.runtime.roster import build_roster


class UpRouter:
    """What the banner wants to know of a router that is up."""

    def __init__(self, *ids: str, address: tuple[str, int] = ("127.0.0.1", 8082)) -> None:
        found = [CatalogModel(id=each, path=None, source=ModelSource.MODELS_DIR) for each in ids]
        self.roster = build_roster(Config(), found)
        self.addresses = [address]
        self.found_llama_server: Path | None = Path("/opt/llama-server")

    def banner(self, *, is_demo: bool = False, config: Config | None = None) -> str:
        return serving._banner(cast("Router", self), config or Config(), is_demo=is_demo)


def test_what_is_said_later_counts_for_more_and_folders_add_up() -> None:
    given = Overrides(Path("a.yaml"), "::1", 1, (Path("a"),), "debug")
    own = Overrides(None, None, 2, (Path("b"),), None)
    assert own.over(given) == Overrides(Path("a.yaml"), "::1", 2, (Path("a"), Path("b")), "debug")


def test_only_what_the_command_line_says_takes_the_place_of_the_config(tmp_path: Path) -> None:
    assert (Overrides().settings(), Overrides().folders()) == ({}, ())
    said = Overrides(port=82, log_level="debug", models_dirs=(tmp_path,))
    assert said.settings() == {"port": 82, "log_level": "debug"}
    assert said.folders() == (str(tmp_path),)


def test_the_config_is_the_one_that_is_named_last_and_without_a_usual_one_all_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "XDG_CONFIG_HOME", "APPDATA", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text("router: {port: 1111}\n")
    given = Overrides(one)
    assert (given.config_file(), given.config_file(other)) == (one, other)
    assert given.read_config().router.port == 1111
    with pytest.raises(ConfigError, match=r"other\.yaml"):
        given.read_config(other)
    assert (tmp_path / "home") in Overrides().config_file().parents
    assert Overrides().read_config() == Config()


def test_the_usual_config_is_made_and_where_that_cannot_be_the_defaults_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    path, text = serving._have_config(None)
    assert (path.read_text()[:1], text) == ("#", "")
    assert capsys.readouterr().err == f"llama-router: created {path}\n"
    assert serving._have_config(None) == (path, "")

    # Where a file is there can be no folder.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(path))
    monkeypatch.setenv("LOCALAPPDATA", str(path))
    path, text = serving._have_config(None)
    said = capsys.readouterr().err
    assert f"{path}: cannot be written: " in said
    assert said.endswith("; until there is one, the defaults hold\n")
    assert ConfigFile(path, text_until_there=text).read().config == Config()


def test_a_config_that_was_named_is_made_or_told_as_missing(tmp_path: Path) -> None:
    named = tmp_path / "mine.yaml"
    assert serving._have_config(named) == (named, "")
    assert named.exists()
    other = tmp_path / "none" / "mine.yaml"
    assert serving._have_config(other) == (other, "")
    with pytest.raises(ConfigError, match="cannot be read"):
        ConfigFile(other).read()


def test_the_banner_names_address_engine_and_models() -> None:
    text = UpRouter("alpha", "beta").banner()
    assert "listens on http://127.0.0.1:8082\n" in text
    assert "engine: /opt/llama-server\nmodels: 2\n  alpha\n  beta" in text


@pytest.mark.parametrize("program", ["/own/llama-server", "vllm"])
def test_the_banner_names_the_engine_that_the_config_names(program: str) -> None:
    spawn = {"command": [program, "--port", "$port"]}
    config = Config.model_validate({"default_spawn": spawn})
    assert f"engine: {program}\n" in UpRouter("alpha").banner(config=config)


@pytest.mark.parametrize(
    ("host", "shown"), [("::1", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("10.0.0.1", "10.0.0.1")]
)
def test_the_banners_address_can_be_opened(host: str, shown: str) -> None:
    assert f"http://{shown}:81\n" in UpRouter("a", address=(host, 81)).banner()


def test_a_long_list_is_cut_and_says_where_the_rest_is() -> None:
    text = UpRouter(*(f"model-{number:02}" for number in range(20))).banner()
    assert "  model-11\n" in text
    assert "model-12" not in text
    assert "8 more: http://127.0.0.1:8082/v1/models" in text


def test_without_an_engine_the_banner_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_router.engines.kinds import embedded

    router = UpRouter()
    router.found_llama_server = None
    monkeypatch.setattr(embedded, "embedded_available", lambda: False)
    assert "engine: none: install llama.cpp's llama-server" in router.banner()


def test_the_demo_shows_two_different_models_to_try() -> None:
    text = UpRouter("alpha", "beta").banner(is_demo=True)
    assert '"model": "alpha"' in text
    assert 'model="beta"' in text
    assert "curl -N http://127.0.0.1:8082/v1/chat/completions" in text


def test_a_folder_that_takes_no_file_is_no_place_for_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving._check_state_dir(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []

    def refuse(**_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Permissions mean nothing to root, so that they cannot be used here.
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError):
        serving._check_state_dir(tmp_path)


def test_what_a_terminal_cannot_show_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "out"
    with file.open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        serving._say("models: 你好")
    assert file.read_text("ascii") == "models: ??\n"


def test_names_that_cannot_be_printed_do_not_break_the_banner() -> None:
    assert "\n  one\\ntwo\\x1b[31m\n" in UpRouter("one\ntwo\x1b[31m", "x").banner()
