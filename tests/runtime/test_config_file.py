import io
import pickle
import sys
from pathlib import Path

import pytest

from llama_router.config.edit import etag
from llama_router.config.problems import ConfigError
from llama_router.config.schema import Config
from llama_router.runtime import config_file
from llama_router.runtime.config_file import ConfigFile, FixedConfig, overlaid, read_aside
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
    assert source.problem(("models",), "x").file == str(path)


def test_a_config_in_no_file_stays_what_it_is() -> None:
    source = FixedConfig(Config(startup_model="fox"))
    assert source.path is None
    assert source.read().config is source.config
    assert (source.read().text, source.read().etag) == (None, "")
    assert source.read_text("startup_model: owl\n").config.startup_model == "owl"


def test_a_long_file_is_read_by_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_file, "_READ_HERE_MAX_BYTES", 1)
    path = written(tmp_path, "startup_model: fox\n")
    assert read_aside(ConfigFile(path, {"port": 82})).config.router.port == 82
    assert read_aside(ConfigFile(path), "startup_model: owl\n").config.startup_model == "owl"
    path.write_text("what: is this\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:1:1: what"):
        read_aside(ConfigFile(path))
    monkeypatch.setattr(config_file, "_CHILD", "raise SystemExit(1)")
    with pytest.raises(config_file.ReadError):
        read_aside(ConfigFile(path))


def test_the_process_answers_with_what_it_read_or_with_every_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "startup_model: fox\n")

    def answer(text: str | None) -> object:
        asked, told = io.BytesIO(pickle.dumps((ConfigFile(path), text))), io.BytesIO()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(asked))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(told))
        monkeypatch.setattr(config_file, "_NICE", 0)
        config_file.main()
        return pickle.loads(told.getvalue())  # noqa: S301 - our own

    reading = answer(None)
    assert isinstance(reading, config_file.Reading)
    assert reading.config.startup_model == "fox"
    problems = answer("a: 1\nb: 2\n")
    assert isinstance(problems, tuple)
    assert [problem.line for problem in problems] == [1, 2]


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
