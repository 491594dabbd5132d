from pathlib import Path

import pytest

from llama_router.config.edit import etag
from llama_router.config.problems import ConfigError, Issue
from llama_router.config.schema import Config
from llama_router.runtime.config_file import ConfigFile, FixedConfig, located, overlaid
from llama_router.store.keys import KeyFile, KeyRecord


def written(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_command_line_stands_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "router:\n  port: 81\n  models_dirs: [/models]\n  ttl_s: 5\n")
    reading = ConfigFile(path, {"port": 82}, ("/more",)).read()
    router = reading.config.router
    assert (router.port, router.ttl_s) == (82, 5.0)
    assert router.models_dirs == ("/models", "/more")
    assert reading.etag == etag(path.read_text())
    assert not reading.is_foreign


def test_a_text_is_read_as_what_the_file_could_hold(tmp_path: Path) -> None:
    source = ConfigFile(tmp_path / "config.yaml", {"port": 82})
    reading = source.read_text("startup_model: fox\n")
    assert (reading.config.startup_model, reading.config.router.port) == ("fox", 82)
    with pytest.raises(ConfigError, match=r"config\.yaml:1:1: what"):
        source.read_text("what: is this\n")


def test_a_public_address_without_keys_is_the_fault_of_who_says_it(tmp_path: Path) -> None:
    path = written(tmp_path, "router:\n  host: 0.0.0.0\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:2:\d+: router\.host: .* no key"):
        ConfigFile(path).read()
    with pytest.raises(ConfigError, match=r"command line: router\.host"):
        ConfigFile(written(tmp_path, "models: []\n"), {"host": "0.0.0.0"}).read()
    with pytest.raises(ConfigError, match="command line: port"):
        overlaid(Config(), {"port": 0})


def test_another_programs_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = written(tmp_path, "models:\n  fox:\n    cmd: engine --port ${PORT}\n")
    source = ConfigFile(path)
    reading = source.read()
    assert reading.is_foreign
    assert [entry.name for entry in reading.config.models] == ["fox"]
    assert located(path, reading, [Issue(("models", 0, "spawn", "command"), "x")])[0].line == 3


def test_places_are_those_in_the_text_that_was_read(tmp_path: Path) -> None:
    path = written(tmp_path, "# mine\nrouter:\n  ttl_s: 5\n")
    reading = ConfigFile(path).read()
    path.write_text("router: {}\n")
    (problem,) = located(path, reading, [Issue(("router", "ttl_s"), "hm")])
    assert str(problem) == f"{path}:3:3: router.ttl_s: hm"


def test_a_config_in_no_file_stays_what_it_is() -> None:
    source = FixedConfig(Config(startup_model="fox"))
    assert source.path is None
    assert source.read().config is source.config
    assert (source.read().text, source.read().etag) == (None, "")
    assert source.read_text("startup_model: owl\n").config.startup_model == "owl"


def test_keys_that_are_not_in_the_config_protect_a_public_router_too(tmp_path: Path) -> None:
    keys, config = tmp_path / "keys.json", written(tmp_path, "models: []\n")
    source = ConfigFile(config, {"host": "0.0.0.0"}, key_file=keys)
    with pytest.raises(ConfigError, match="no key protects"):
        source.read()
    record = KeyRecord(id="a", name="a", digest="0" * 64, scopes=("admin",), created_s=1.0)
    KeyFile(keys).add(record)
    assert source.read().config.router.host == "0.0.0.0"
    KeyFile(keys).revoke("a")
    with pytest.raises(ConfigError, match="no key protects"):
        source.read()
    # What is wrong with it is said when the router opens it.
    keys.write_text("{")
    assert source.read().config.router.host == "0.0.0.0"


def test_a_file_that_is_not_there_yet_is_followed_once_it_is(tmp_path: Path) -> None:
    source = ConfigFile(tmp_path / "config.yaml", {"port": 1}, text_until_there="router: {}\n")
    assert source.read().config.router.port == 1
    assert source.read().text == "router: {}\n"
    source.path.write_text("router: {ttl_s: 5}\n")
    assert source.read().config.router.ttl_s == 5
