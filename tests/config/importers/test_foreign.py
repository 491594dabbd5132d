from pathlib import Path

import pytest

from llama_router.config.defaults import TEMPLATE
from llama_router.config.importers import load_any, load_foreign, read_foreign
from llama_router.config.importers.llama_swap import FORM
from llama_router.config.problems import ConfigError

MODELS = "models:\n  m:\n    cmd: server --port ${PORT}\n"


@pytest.mark.parametrize(
    "text",
    [
        MODELS,
        f"# a comment\n\n{MODELS}",
        "models: # all\n\n  # the first\n  'm':\n    cmd: x ${PORT}\n",
        "models: {m: {cmd: 'x ${PORT}'}}\n",
        "startPort: 5800\n",
        "healthCheckTimeout: 60\nmodels:\n",
        "peers: {p: {proxy: 'http://x', models: [m]}}\nlogLevel: info\n",
        f"defaults: &flags {{ttl: 60}}\n{MODELS}",
    ],
)
def test_a_config_of_llama_swap_is_told_by_its_keys(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    loaded = load_foreign(path, env={})
    assert loaded is not None
    assert loaded.document.text == text


@pytest.mark.parametrize(
    "text",
    [
        TEMPLATE,
        'version: "1.0"\nmodels:\n  - name: m\n    path: /m.gguf\n',
        "models:\n- name: m\n",
        "peers: {p: {url: 'http://x'}}\n",
        "router: {port: 1}\nunloadTimeout: 3\n",
        "nothing of this: {\n",
        "",
        "models:\n  name: a\n  path: a.gguf\n",
        "router: {port: 1}\nmodels:\n  a: {path: a.gguf}\n",
        'version: "1.0"\nmodels: {}\n',
    ],
)
def test_configs_of_ours_and_what_is_neither_are_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert load_foreign(path, env={}) is None


@pytest.mark.parametrize(
    "text", ["models:\n  name: a\n  path: a.gguf\n", "router: {port: 1}\nmodels: {a: {path: x}}\n"]
)
def test_models_without_dashes_are_told_in_our_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"models: must be a list: .* begins with `- `"):
        load_any(path)


def test_json_is_told_apart_as_well(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"models": {"m": {"cmd": "x ${PORT}"}}}')
    assert load_foreign(path, env={}) is not None
    path.write_text('{"models": [{"name": "m"}]}')
    assert load_foreign(path, env={}) is None


def test_what_the_command_says_of_the_form_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model:\n  m: {}\n")
    foreign = read_foreign(path, form=FORM, env={})
    assert foreign is not None
    assert [note.key for note in foreign.report.lost] == ["model"]


def test_what_has_no_effect_is_one_warning_that_says_where_to_read_on(tmp_path: Path) -> None:
    path = tmp_path / "my config.yaml"
    path.write_text(
        "logToStdout: both\nlogRequests: true\ncaptureBuffer: 1\nmodels:\n"
        "  a: {cmd: 'x ${PORT}', timeouts: {idleConn: 1}}\n"
        "  b: {cmd: 'x ${PORT}', timeouts: {idleConn: 1}}\n"
    )
    loaded = load_foreign(path, env={})
    assert loaded is not None
    (warning,) = loaded.warnings
    assert str(warning) == (
        f"{path}: 5 settings have no effect here (logToStdout, logRequests, captureBuffer, ...);"
        f" llama-router import llama-swap '{path}' says why"
    )
    path.write_text(f"logToStdout: both\n{MODELS}")
    loaded = load_foreign(path, env={})
    assert loaded is not None
    assert "1 setting has no effect here (logToStdout);" in str(loaded.warnings[0])
    path.write_text(MODELS)
    loaded = load_foreign(path, env={})
    assert loaded is not None
    assert loaded.warnings == ()


def test_what_may_be_misspelt_is_told_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("".join(f"logLevl{n}: debug\n" for n in range(9)) + f"{MODELS}    tttl: 60\n")
    loaded = load_foreign(path, env={})
    assert loaded is not None
    shown = [str(warning).removeprefix(f"{path}:") for warning in loaded.warnings]
    assert shown[0] == (
        "1: logLevl0: has no effect here: llama-swap has no such key; did you mean logLevel?"
    )
    assert len(shown) == 6
    assert shown[-1].startswith(" 10 settings have no effect here (logLevl0, logLevl1, ")

    preset = tmp_path / "models.ini"
    preset.write_text("[m]\nport = 1\n")
    loaded = load_foreign(preset, env={})
    assert loaded is not None
    assert str(loaded.warnings[0]).endswith(
        f"1 setting has no effect here (m.port); llama-router import llama-server {preset} says why"
    )


def test_faults_of_our_own_schema_are_told_at_the_place_they_come_from(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"{MODELS}    name: {'n' * 300}\n")
    with pytest.raises(ConfigError) as caught:
        load_foreign(path, env={})
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.key) == (4, 5, "models.m.name")
    path.write_text(MODELS)
    loaded = load_foreign(path, env={})
    assert loaded is not None
    # What only the router's start finds out, too.
    assert loaded.problem(("models", 0, "spawn", "command", 0), "x").line == 3
    assert loaded.problem(("router", "host"), "x").line == 1


def test_a_command_that_could_never_run_is_a_fault_of_its_cmd(tmp_path: Path) -> None:
    def refuse(_command: object) -> None:
        raise ValueError("could never run")

    path = tmp_path / "config.yaml"
    path.write_text(MODELS)
    with pytest.raises(ConfigError, match=r"config.yaml:3:5: models.m.cmd: could never run"):
        load_foreign(path, env={}, check_command=refuse)


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_foreign(tmp_path / "none.yaml", env={})
