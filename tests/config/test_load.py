import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from llama_router.config import files
from llama_router.config.load import load, load_text, with_router
from llama_router.config.problems import ConfigError
from llama_router.config.schema import DEFAULT_COMMAND, Config, RouterSettings

EARLY = "# mine\ndefault_spawn: [llama-server, --jinja]\n"


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_originals_own_example_is_read(tmp_path: Path) -> None:
    content = {
        "version": "1.0",
        "startup_model": "",
        "router": {
            "host": "127.0.0.1",
            "port": 8082,
            "base_port": 50000,
            "connection_timeout_s": 5,
            "read_timeout_s": 600,
            "admin_token": "",
            "notify_model_swap": False,
        },
        "default_spawn": {
            "command": ["llama-server", "--jinja", "--model", "$path", "--port", "$port"],
            "proxy_endpoints": ["/v1/", "/health", "/slots", "/props"],
            "health_endpoint": "/health",
        },
        "models": [
            {
                "name": "Qwen3-8B-Q4_K_M.gguf",
                "path": "/home/user/.cache/llama.cpp/Qwen3-8B-Q4_K_M.gguf",
                "state": "auto",
                "group": "",
            }
        ],
    }
    path = write(tmp_path, json.dumps(content, indent="\t"), "router-config.json")
    loaded = load(path)
    assert loaded.warnings == ()
    assert loaded.config.router == RouterSettings()
    assert loaded.config.default_spawn.proxy_endpoints == ("/v1/", "/health", "/slots", "/props")
    assert loaded.config.models[0].state == "auto"


def test_every_fault_of_a_file_is_told_with_file_line_and_key(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "router:\n  prot: 1\n  host: ''\nmodels:\n  - path: /x\n  - name: 2026-11-05\n",
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).splitlines() == [
        f"{path}:2:3: router.prot: is not a known key; did you mean port?",
        f"{path}:3:3: router.host: must not be empty",
        f"{path}:5:5: models[0].name: is missing",
        f"{path}:6:5: models[1].name: is read as a date; put text in quotes",
    ]


def test_faults_within_sizes_and_keys_are_told_with_their_own_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "router:\n  memory:\n    cuda0: 24GiB\n    cdua1: 24GiB\n  memory_reserve: 1,5GiB\n"
        "  api_keys:\n    - canary\n    - key: other\n      prio: 5\n    - canary\n"
        "models:\n  - name: a\n    memory: 24\n  - name: b\n    memory:\n      cpu: 1GiB\n"
        "      cuda0: -1GiB\n",
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    unit = "write a number and a unit, such as 24GiB, 1.5GB or 512MiB"
    comma = "'1,5GiB' is no size; write a point, not a comma: 1.5GiB"
    assert str(caught.value).splitlines() == [
        f"{path}:4:5: router.memory.cdua1: is no device; did you mean cuda1?",
        f"{path}:5:3: router.memory_reserve: {comma}",
        f"{path}:8:7: router.api_keys[1]: holds what is not a known key; did you mean priority?",
        f"{path}:10:7: router.api_keys[2]: is the same key as router.api_keys[0]",
        f"{path}:13:5: models[0].memory: means 24 bytes; {unit}",
        f"{path}:17:7: models[1].memory.cuda0: '-1GiB' is negative",
    ]


def test_what_was_loaded_can_be_loaded_again(tmp_path: Path) -> None:
    text = (
        "router:\n  memory: {CUDA0: 24GiB, cpu: 0}\n  api_keys: [a, {key: b, name: night}]\n"
        "models:\n  - {name: a, memory: {cpu: 1GiB}}\n  - {name: b, memory: 2GiB}\n"
    )
    config = load(write(tmp_path, text)).config
    assert Config.model_validate(config.model_dump()) == config


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read: No such file"):
        load(tmp_path / "nothing.yaml")


def test_paths_are_made_whole(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "router: {models_dirs: [~/models, here, /abs]}\n"
        "models:\n  - {name: a, path: ~/a.gguf, mmproj: p.gguf}\n  - name: b\n",
    )
    home = tmp_path / "home"
    config = load(path, home=home).config
    assert config.router.models_dirs == (
        str(home / "models"),
        str(tmp_path / "here"),
        str(Path("/abs")),
    )
    first, second = config.models
    assert (first.path, first.mmproj) == (str(home / "a.gguf"), str(tmp_path / "p.gguf"))
    assert (second.path, second.mmproj) == ("", "")


def test_a_model_whose_file_is_missing_stays(tmp_path: Path) -> None:
    path = write(tmp_path, "models: [{name: a, path: /does/not/exist.gguf}]\n")
    assert [model.name for model in load(path).config.models] == ["a"]


def test_a_command_that_cannot_run_is_told_with_its_line(tmp_path: Path) -> None:
    def check(command: Sequence[str]) -> None:
        if "$port" not in command:
            raise ValueError("add $port")

    path = write(tmp_path, "models:\n  - name: a\n    spawn:\n      command: [vllm]\n")
    with pytest.raises(ConfigError) as caught:
        load(path, check_command=check)
    assert str(caught.value) == f"{path}:4:7: models[0].spawn.command: add $port"


def test_an_early_form_is_rewritten_in_the_file_with_warnings(tmp_path: Path) -> None:
    path = write(tmp_path, EARLY)
    loaded = load(path)
    assert loaded.config.default_spawn.command == DEFAULT_COMMAND
    assert [warning.line for warning in loaded.warnings] == [2, 2]
    assert "now reads: llama-server --jinja --model $path" in str(loaded.warnings[1])
    assert path.read_text().startswith("# mine\ndefault_spawn:\n  command: [llama-server,")
    again = load(path)
    assert again.warnings == ()
    assert again.config == loaded.config


def test_a_faulty_file_is_not_rewritten(tmp_path: Path) -> None:
    text = EARLY + "router: {port: 0}\n"
    path = write(tmp_path, text)
    with pytest.raises(ConfigError):
        load(path)
    assert path.read_text() == text


def test_a_file_is_only_rewritten_when_it_may_be(tmp_path: Path) -> None:
    path = write(tmp_path, EARLY)
    loaded = load(path, rewrite=False)
    assert loaded.config.default_spawn.command == DEFAULT_COMMAND
    assert loaded.warnings
    assert path.read_text() == EARLY


def test_a_file_that_cannot_be_written_is_used_in_its_new_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise files.FileError("cannot be written: Read-only file system")

    path = write(tmp_path, EARLY)
    monkeypatch.setattr(files, "replace", refuse)
    loaded = load(path)
    assert loaded.config.default_spawn.command == DEFAULT_COMMAND
    assert "was not rewritten" in str(loaded.warnings[-1])
    assert "Read-only" in str(loaded.warnings[-1])


def test_a_change_made_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, EARLY)
    reads = iter([EARLY.encode(), b"# somebody else was here\n" + EARLY.encode()])
    monkeypatch.setattr(files, "read_bytes", lambda _: next(reads))
    assert "changed meanwhile" in str(load(path).warnings[-1])
    assert path.read_text() == EARLY


def test_a_later_fault_can_be_told_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "version: '1.0'\nstartup_model: nobody\n")
    problem = load(path).problem(("startup_model",), "no such model")
    assert str(problem) == f"{path}:2:1: startup_model: no such model"


@pytest.mark.skipif(sys.platform == "win32", reason="needs modes and links")
def test_rewriting_follows_links_and_keeps_the_mode(tmp_path: Path) -> None:
    target = write(tmp_path, EARLY, "real.yaml")
    target.chmod(0o640)
    link = tmp_path / "config.yaml"
    link.symlink_to(target)
    load(link)
    assert link.is_symlink()
    assert "$port" in target.read_text()
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "real.yaml"]


def test_settings_of_the_command_line_are_checked_like_those_of_a_file() -> None:
    config = with_router(Config(), {"port": 9000, "models_dirs": ("/m",)}, "command line")
    assert (config.router.port, config.router.models_dirs) == (9000, ("/m",))
    with pytest.raises(ConfigError, match="command line: port: must be a port from 1 to 65535"):
        with_router(Config(), {"port": 99999}, "command line")


def test_a_change_by_the_command_line_keeps_keys_and_is_judged_by_what_is_written() -> None:
    router = RouterSettings.model_validate({"max_wait_s": 1, "api_keys": ["a", "b"]})
    config = with_router(Config(router=router), {"port": 9000}, "command line")
    assert config.router == router.model_copy(update={"port": 9000})
    assert [entry.name for entry in config.router.api_keys] == ["key 1", "key 2"]


def test_macros_and_variables_are_put_in_and_their_faults_have_a_place(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "macros:\n  ctx: 4096\nrouter:\n  port: ${env.PORT}\n  watch_config: ${env.WATCH}\n"
        "models:\n  - name: a\n    path: ${env.DIR}/a.gguf\n"
        "    macros: {ctx: 8192}\n    parameters:\n      ctx-size: ${ctx}\n",
    )
    env = {"PORT": "9000", "WATCH": "true", "DIR": "/models"}
    config = load(path, env=env).config
    assert config.router.port == 9000
    assert config.router.watch_config is True
    assert config.models[0].path == "/models/a.gguf"
    assert config.models[0].parameters == {"ctx-size": 8192}
    with pytest.raises(ConfigError) as caught:
        load(path, env=env | {"PORT": "canary"})
    assert str(caught.value) == f"{path}:4:3: router.port: must be a whole number"
    with pytest.raises(ConfigError) as caught:
        load(path, env={"PORT": "9000", "WATCH": "true"})
    assert str(caught.value) == (
        f"{path}:8:5: models[0].path: needs the environment variable DIR, which is not set"
    )


def test_what_the_environment_says_is_in_no_message(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "router:\n  api_keys: ['${env.X}', '${env.X}']\n  memory_reserve: ${env.X}\n"
        "  host: 'http://${env.X}'\n  upstream_ignore_paths: ['(${env.X}']\n"
        "  memory: {cpu: '${env.X}'}\nmodels:\n  - name: ${env.X}\n  - name: ${env.X}\n"
        "    template: ${env.X}\n    spawn: {command: ['${env.X}']}\n"
        "selectors: {a: {strategy: '${env.X}', targets: ['a', '${env.X}']}}\n"
        "matrix: {sets: {s: '${env.X} &'}}\nhub: {endpoint: '${env.X}'}\n",
    )

    def check(command: Sequence[str]) -> None:
        raise ValueError(f"{command} is odd")

    with pytest.raises(ConfigError) as caught:
        load(path, env={"X": "canary"}, check_command=check)
    assert "canary" not in str(caught.value)
    assert len(caught.value.problems) >= 9


def test_a_text_is_checked_as_the_file_would_be(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    loaded = load_text("models:\n  - {name: a, path: ./a.gguf}\n", path, env={})
    assert loaded.config.models[0].path == str(tmp_path / "a.gguf")
    assert not path.exists()
    with pytest.raises(ConfigError, match=r"c\.yaml:1:1: prot"):
        load_text("prot: 1\n", path, env={})
    with pytest.raises(ConfigError, match="longer than"):
        load_text("#" * (files.FILE_MAX_BYTES + 1), path, env={})
    early = load_text("default_spawn: [llama-server]\n", path, env={})
    assert [problem.line for problem in early.warnings] == [1, 1]


def test_what_is_likely_not_meant_is_a_warning(tmp_path: Path) -> None:
    loaded = load_text("groups:\n  big: {}\n", tmp_path / "c.yaml", env={})
    assert [str(problem) for problem in loaded.warnings] == [
        f"{tmp_path / 'c.yaml'}:2:3: groups.big: is the group of no model"
    ]
