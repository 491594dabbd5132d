import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llama_router.cli.main import app
from llama_router.config.load import load_text

SWAP = """\
logToStdout: both
apiKeys: [sk-canary, "${env.SWAP_KEY}"]
models:
  small:
    cmd: server --port ${PORT} -m /m.gguf
    ttl: 30
    aliases: [tiny]
"""


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SWAP_KEY", "sk-from-the-environment")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, arguments)])


def swap_file(tmp_path: Path, text: str = SWAP) -> Path:
    path = tmp_path / "llama-swap.yaml"
    path.write_text(text)
    return path


def test_what_comes_of_it_is_printed_and_the_report_stands_apart(tmp_path: Path) -> None:
    result = run("llama-swap", swap_file(tmp_path))
    assert result.exit_code == 0, result.output
    config = load_text(result.stdout, Path("c.yaml"), env={"SWAP_KEY": "x"}).config
    assert config.models[0].name == "small"
    assert "not carried: logToStdout (line 1)" in result.stderr
    assert "secrets are shown as ********, so this is no config to use" in result.stderr
    assert "nothing is written" in result.stderr
    assert "llama-swap config, " in result.stderr
    assert list(tmp_path.glob("*.yaml")) == [tmp_path / "llama-swap.yaml"]


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    for flags in ((), ("--json",), ("--write", "--config", tmp_path / "c.yaml", "--json")):
        result = run("llama-swap", swap_file(tmp_path), *flags)
        assert result.exit_code == 0, result.output
        assert "canary" not in result.output
        assert "from-the-environment" not in result.output


def test_it_is_written_once_and_the_same_again_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "c.yaml"
    arguments = ("llama-swap", swap_file(tmp_path), "--write", "--config", target)
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    assert f"written to {target}" in first.stderr
    assert first.stdout == ""
    text = target.read_text()
    assert "api_keys: [sk-canary, '${env.SWAP_KEY}']" in text
    again = run(*arguments)
    assert f"all of it is already in {target}" in again.stderr
    assert target.read_text() == text


def test_a_file_keeps_its_comments_and_what_it_says(tmp_path: Path) -> None:
    target = tmp_path / "c.yaml"
    before = "# mine\nrouter:\n  stop_grace_s: 3  # short\nmodels: []\n"
    target.write_text(before)
    result = run("llama-swap", swap_file(tmp_path), "--write", "--config", target)
    assert result.exit_code == 0, result.output
    assert f"router.stop_grace_s stays as {target} has it" in result.stderr
    text = target.read_text()
    assert text.startswith("# mine\n")
    assert "stop_grace_s: 3  # short" in text
    assert load_text(text, target, env={"SWAP_KEY": "x"}).config.models[0].ttl_s == 30


def test_json_says_what_became_of_each_key_and_of_the_file(tmp_path: Path) -> None:
    target = tmp_path / "c.json"
    result = run("llama-swap", swap_file(tmp_path), "--write", "--config", target, "--json")
    outcome = json.loads(result.stdout)
    assert outcome["file"] == str(target)
    assert outcome["changed"] is True
    fates = {note["key"]: note["fate"] for note in outcome["reports"][0]["notes"]}
    assert fates["models.small.ttl"] == "honoured"
    assert fates["logToStdout"] == "not carried"
    assert json.loads(target.read_text())["models"][0]["name"] == "small"


def test_faults_end_it_with_their_place_and_nothing_is_written(tmp_path: Path) -> None:
    target = tmp_path / "c.yaml"
    path = swap_file(tmp_path, "models:\n  m:\n    cmd: x\n")
    result = run("llama-swap", path, "--write", "--config", target)
    assert result.exit_code == 2
    assert f"{path}:3:5: models.m.cmd: needs ${{PORT}} in it" in result.stderr
    assert not target.exists()


def test_a_file_that_would_not_be_in_order_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "c.yaml"
    before = "models:\n  - name: other\n    aliases: [tiny]\n"
    target.write_text(before)
    result = run("llama-swap", swap_file(tmp_path), "--write", "--config", target)
    assert result.exit_code == 2
    assert "nothing is written to" in result.stderr
    assert "tiny is already the name of" in result.stderr
    assert target.read_text() == before


def test_a_preset_of_llama_server_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "models.ini"
    path.write_text("[small]\nmodel = /m.gguf\nc = 4096\nmlock = on\nnonsense = 1\n")
    result = run("llama-server", path)
    assert result.exit_code == 0, result.output
    entry = load_text(result.stdout, Path("c.yaml"), env={}).config.models[0]
    assert entry.parameters == {"ctx-size": 4096, "load-mode": "mmap+mlock"}
    assert "unknown: small.nonsense (line 5)" in result.stderr


def test_modelfiles_of_a_folder_are_imported_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = tmp_path / "files" / name
        folder.mkdir(parents=True)
        (folder / "m.gguf").touch()
        (folder / "Modelfile").write_text("FROM m.gguf\nPARAMETER num_ctx 2048\n")
    target = tmp_path / "c.yaml"
    result = run("modelfile", tmp_path / "files", "--write", "--config", target)
    assert result.exit_code == 0, result.output
    models = load_text(target.read_text(), target, env={}).config.models
    assert [model.name for model in models] == ["a", "b"]
    one = tmp_path / "files" / "a" / "Modelfile"
    named = run("modelfile", one, "--name", "mine")
    assert "name: mine" in named.stdout
    assert run("modelfile", tmp_path / "files", "--name", "mine").exit_code == 2
    assert run("modelfile", tmp_path / "files" / "a" / "m.gguf").exit_code == 2


def test_lm_studios_folder_is_found_and_imported(tmp_path: Path) -> None:
    assert run("lm-studio").exit_code == 2
    file = tmp_path / "home" / ".lmstudio" / "models" / "org" / "repo" / "model-Q4_0.gguf"
    file.parent.mkdir(parents=True)
    file.touch()
    result = run("lm-studio")
    assert result.exit_code == 0, result.output
    (entry,) = load_text(result.stdout, Path("c.yaml"), env={}).config.models
    assert (entry.name, entry.path) == ("org/repo:Q4_0", str(file))
