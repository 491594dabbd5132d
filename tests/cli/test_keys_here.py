import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llama_router.cli.keys_here import HereError, KeysHere
from llama_router.cli.main import app
from llama_router.config.schema import RouterSettings
from llama_router.store import STORE_FILE_NAME
from llama_router.store.keys import KEYS_FILE_NAME
from llama_router.store.lock import FileLock


@pytest.fixture
def port() -> Iterator[int]:
    """Give a port on which nobody listens, and on which nobody else can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def config(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("platformdirs.user_state_path", lambda _name: tmp_path / "state")
    monkeypatch.delenv("LLAMA_ROUTER_TOKEN", raising=False)
    path = tmp_path / "config.json"
    settings = {"port": port, "host": "127.0.0.1"}
    path.write_text(json.dumps({"version": "1.0", "router": settings}))
    return path


def keys(config: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["keys", *words, "--config", str(config)])


def listed(config: Path) -> list[tuple[str, str]]:
    found = json.loads(keys(config, "list", "--json").stdout)["keys"]
    return [(one["name"], one["source"]) for one in found]


def test_a_key_is_made_listed_and_revoked_before_the_first_start(config: Path) -> None:
    file = config.parent / "state" / KEYS_FILE_NAME
    made = keys(config, "add", "boss", "--scope", "admin", "--scope", "inference")
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    assert secret.startswith("lr-")
    assert "no router answers" in made.stderr
    assert str(file) in made.stderr.replace("\n", "")
    assert secret not in file.read_text()
    narrow = keys(config, "add", "laptop", "--model", "qwen*", "--json")
    assert json.loads(narrow.stdout)["models"] == ["qwen*"]
    assert listed(config) == [("boss", "store"), ("laptop", "store")]
    assert keys(config, "revoke", "laptop").exit_code == 0
    assert listed(config) == [("boss", "store")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "laptop"), "nobody could use the admin API"),
        (("add", "laptop", "--scope", "root"), "scopes.0: Input should be 'inference' or 'admin'"),
        (("add", "J\u00f6rg", "--scope", "admin"), "name: "),
        (("revoke", "nobody"), "there is no key 'nobody'"),
    ],
)
def test_what_a_router_would_refuse_is_refused(
    config: Path, words: tuple[str, ...], said: str
) -> None:
    result = keys(config, *words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert not (config.parent / "state" / KEYS_FILE_NAME).exists()


def test_a_router_that_runs_elsewhere_by_the_same_keys_is_not_passed_over(config: Path) -> None:
    state = config.parent / "state"
    state.mkdir()
    lock = FileLock(state / f"{STORE_FILE_NAME}.lock")
    try:
        result = keys(config, "add", "boss", "--scope", "admin")
    finally:
        lock.release()
    assert result.exit_code == 1
    assert "--url" in result.stderr
    assert not (state / KEYS_FILE_NAME).exists()
    # The look at the lock does not keep it.
    assert keys(config, "add", "boss", "--scope", "admin").exit_code == 0
    FileLock(state / f"{STORE_FILE_NAME}.lock").release()


def test_who_names_a_router_means_that_one(config: Path, port: int) -> None:
    result = keys(config, "add", "boss", "--scope", "admin", "--url", f"http://127.0.0.1:{port}")
    assert result.exit_code == 1
    assert "no router answers" in result.stderr
    assert not (config.parent / "state").exists()


def test_a_key_file_that_makes_no_sense_is_said_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / KEYS_FILE_NAME
    file.write_text("{")
    here = KeysHere(tmp_path, RouterSettings())
    with pytest.raises(HereError, match="make no sense"):
        here.add({"name": "boss", "scopes": ["admin"]})
    assert file.read_text() == "{"
