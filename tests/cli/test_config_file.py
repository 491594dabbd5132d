import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llama_router.cli.main import app
from tests.support.canned_router import CannedRouter, canned_router
from tests.support.ports import free_port

RELOADED = {
    "status": "reloaded",
    "changed": ["qwen"],
    "added": [],
    "removed": [],
    "restart_needed": ["router.port"],
    "warnings": [],
}


@pytest.fixture
def router() -> Iterator[CannedRouter]:
    with canned_router() as server:
        yield server


@pytest.fixture
def file(tmp_path: Path, router: CannedRouter) -> Path:
    """Make a config whose router answers."""
    path = tmp_path / "config.yaml"
    path.write_text(f"""\
# mine
version: "1.0"
router:
  port: {router.server_port}   # the port
models:
  - name: qwen.3  # fast
    path: /x.gguf
    ttl_s: 60
templates:
  small:
    parameters: {{ctx-size: 4096}}
""")
    return path


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Make a config of llama-swap."""
    path = tmp_path / "llama-swap.yaml"
    path.write_text("models:\n  m:\n    cmd: x ${PORT}\n    ttl: 60\nlogRequests: true\n")
    return path


def test_another_programs_config_is_checked_and_shown_as_it_is_run(foreign: Path) -> None:
    checked = run("config", "check", foreign)
    assert checked.exit_code == 0, checked.output
    assert "1 setting has no effect here (logRequests)" in checked.stderr
    # It says no port: the usual one may be that of a router which this person runs.
    shown = run("--port", str(free_port()), "config", "show", "m", "--config", foreign, "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["settings"]["ttl_s"] == 60
    assert json.loads(shown.stdout)["origins"]["ttl_s"].endswith(f"{foreign.name}:4)")
    assert run("config", "get", "models[m].ttl_s", "--config", foreign).stdout == "60\n"


def test_another_programs_config_is_not_edited(foreign: Path) -> None:
    before = foreign.read_text()
    for words in (("set", "router.port", "1"), ("unset", "router.port")):
        result = run("config", *words, "--config", foreign)
        assert result.exit_code == 2
        assert "another program's; `llama-router import`" in result.stderr
    assert foreign.read_text() == before


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


def test_one_value_is_set_and_everything_else_stays(file: Path, router: CannedRouter) -> None:
    router.answers["POST", "/admin/reload"] = 200, RELOADED
    before = file.read_text()
    router.answers["GET", "/admin/models/qwen.3"] = 200, {}
    result = run("config", "set", "models[qwen.3].ttl_s", "90", "--config", file)
    assert result.exit_code == 0, result.output
    assert file.read_text() == before.replace("ttl_s: 60", "ttl_s: 90")
    assert result.output == (
        f"{file} is changed\n1 model changed: qwen\n"
        "router.port holds after the router's next start\n"
    )


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("templates.small.parameters[ctx-size]", "8192", "parameters: {ctx-size: 8192}"),
        ("models[0].aliases", "[a, b]", "aliases"),
        ("models[qwen.3].description", "on 2026-11-23", "on 2026-11-23"),
        ("models[name=qwen.3].description", "fast: 7B", 'description: "fast: 7B"'),
        ("models[qwen.3].priority", "-5", "priority: -5"),
    ],
)
def test_places_are_written_as_people_do(
    file: Path, router: CannedRouter, key: str, value: str, line: str
) -> None:
    router.answers["POST", "/admin/reload"] = 200, RELOADED
    assert run("config", "set", key, value, "--config", file).exit_code == 0
    assert line in file.read_text()
    assert "# fast" in file.read_text()


def test_a_value_that_makes_no_config_is_not_written(file: Path) -> None:
    before = file.read_text()
    result = run("config", "set", "router.port", "70000", "--config", file)
    assert result.exit_code == 2
    assert f"{file}:4" in result.output
    assert "must be a port" in result.output
    assert file.read_text() == before


def test_null_is_refused_as_text_would_be_meant_by_nobody(file: Path) -> None:
    before = file.read_text()
    result = run("config", "set", "router.host", "null", "--config", file)
    assert (result.exit_code, file.read_text()) == (2, before)
    assert "config unset" in result.output


def test_what_the_file_says_already_is_told_as_such(file: Path, router: CannedRouter) -> None:
    router.answers["POST", "/admin/reload"] = 200, RELOADED
    before = file.read_text()
    for words in (("set", "models[qwen.3].ttl_s", "60"), ("unset", "router.ttl_s")):
        result = run("config", *words, "--config", file)
        assert result.output.startswith(f"{file} says so already\n")
    assert file.read_text() == before


def test_a_model_that_has_no_entry_gets_one_that_does_not_replace_it(
    file: Path, router: CannedRouter
) -> None:
    router.answers["POST", "/admin/reload"] = 200, RELOADED
    assert run("config", "set", "models[found].ttl_s", "5", "--config", file).exit_code == 0
    assert "  - name: found\n    state: auto\n    ttl_s: 5\n" in file.read_text()


def test_unsetting_leaves_the_default(file: Path, router: CannedRouter) -> None:
    router.answers["POST", "/admin/reload"] = 200, RELOADED
    assert run("config", "unset", "models[qwen.3].ttl_s", "--config", file).exit_code == 0
    assert "ttl_s" not in file.read_text()
    assert run("config", "get", "models[qwen.3].ttl_s", "--config", file).exit_code == 1


def test_settings_of_a_model_that_is_not_there_may_be_a_wrong_name(
    file: Path, router: CannedRouter
) -> None:
    router.answers["POST", "/admin/reload"] = 200, RELOADED
    missing = run("config", "set", "models[a/b].ttl_s", "5", "--config", file)
    assert (missing.exit_code, router.asked[-1].path) == (0, "/admin/models/a/b")
    assert "there is no model 'a/b' now" in missing.stderr
    router.answers["GET", "/admin/models/a/b"] = 200, {}
    assert run("config", "set", "models[a/b].ttl_s", "6", "--config", file).stderr == ""
    unset = run("config", "unset", "models[qwen.3].ttl_s", "--config", file)
    assert (unset.exit_code, unset.stderr) == (0, "")


@pytest.mark.parametrize(
    ("key", "value"), [("router.port", "1"), ("router.admin_token", "new"), ("router.host", "::1")]
)
def test_a_change_of_the_address_or_the_token_is_told_to_the_router_as_it_is_still(
    file: Path, router: CannedRouter, key: str, value: str
) -> None:
    file.write_text(file.read_text().replace("models:", "  admin_token: old\nmodels:"))
    router.answers["POST", "/admin/reload"] = 200, RELOADED
    assert "1 model changed" in run("config", "set", key, value, "--config", file).output
    assert [asked.token for asked in router.asked] == ["Bearer old"]


def test_who_has_a_key_of_their_own_shows_it(
    file: Path, router: CannedRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.answers["POST", "/admin/reload"] = 200, RELOADED
    monkeypatch.setenv("LLAMA_ROUTER_TOKEN", "mine")
    assert run("config", "set", "router.ttl_s", "5", "--config", file).exit_code == 0
    assert run("config", "unset", "router.ttl_s", "--config", file, "--token", "t").exit_code == 0
    assert [asked.token for asked in router.asked] == ["Bearer mine", "Bearer t"]


def test_a_fault_in_the_file_does_not_keep_it_from_being_mended(
    file: Path, router: CannedRouter
) -> None:
    router.answers["POST", "/admin/reload"] = 200, RELOADED
    file.write_text(file.read_text().replace("ttl_s: 60", "ttl_s: never"))
    result = run("config", "set", "models[qwen.3].ttl_s", "0", "--config", file)
    assert (result.exit_code, len(router.asked) > 0) == (0, True), result.output


def test_many_models_are_counted_and_not_all_named(file: Path, router: CannedRouter) -> None:
    changed = [f"m{number}" for number in range(7)]
    router.answers["POST", "/admin/reload"] = 200, RELOADED | {"changed": changed}
    shown = run("config", "reload", "--config", file).output.splitlines()[0]
    assert shown == "7 models changed: m0, m1, m2, m3, m4, …"


def test_an_alias_or_a_bare_name_gets_the_way_to_write_it(file: Path) -> None:
    file.write_text(file.read_text().replace("    ttl_s: 60", "    aliases: [gpt-4o]"))
    alias = run("config", "set", "models[gpt-4o].ttl_s", "5", "--config", file)
    assert (alias.exit_code, "alias of qwen.3: write models[qwen.3]" in alias.stderr) == (2, True)
    bare = run("config", "set", "models.gpt-4o.ttl_s", "5", "--config", file)
    assert (bare.exit_code, "has no item gpt-4o; it has 1; write [gpt-4o]" in bare.stderr) == (
        2,
        True,
    )


def test_what_is_not_set_and_what_is_no_setting_are_told_apart(file: Path) -> None:
    unset = run("config", "get", "router.ttl_s", "--config", file)
    assert (unset.exit_code, unset.stdout) == (1, "")
    assert "router.ttl_s is not set, so its default holds" in unset.stderr
    for key in ("router.tll_s", "models[qwen.3].tll_s", "models[0].tll_s"):
        wrong = run("config", "get", key, "--config", file)
        assert (wrong.exit_code, "did you mean ttl_s?" in wrong.stderr) == (2, True)
    assert run("config", "get", "models[qwen.3].path", "--config", file).stdout == '"/x.gguf"\n'


def test_before_the_first_start_defaults_hold_and_a_change_writes_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    # Not the router that this person may run.
    elsewhere = ("--port", str(free_port()))
    file = tmp_path / "llama-router" / "config.yaml"
    checked = run("config", "check")
    assert (checked.exit_code, "defaults hold" in checked.stdout) == (0, True)
    got = run("config", "get", "router.port")
    assert (got.exit_code, "defaults hold" in got.stderr) == (1, True)
    shown = run(*elsewhere, "config", "show", "any")
    assert (shown.exit_code, f"there is no {file} yet" in shown.stderr) == (2, True)
    changed = run(*elsewhere, "config", "set", "router.ttl_s", "5")
    assert changed.output == f"created {file}\n{file} is changed; no router runs\n"
    assert run("config", "get", "router.ttl_s").stdout == "5\n"
    assert run("config", "check", tmp_path / "none.yaml").exit_code == 2


def test_values_are_read_as_json(file: Path) -> None:
    result = run("config", "get", "templates.small", "--config", file)
    assert json.loads(result.output) == {"parameters": {"ctx-size": 4096}}


def test_without_a_router_the_change_is_made_all_the_same(file: Path, router: CannedRouter) -> None:
    router.server_close()
    router.shutdown()
    result = run("config", "set", "router.log_level", "debug", "--config", file)
    assert (result.exit_code, result.output) == (0, f"{file} is changed; no router runs\n")


def test_a_router_that_refuses_is_told(file: Path, router: CannedRouter) -> None:
    router.answers["POST", "/admin/reload"] = 409, {"error": {"message": "not now"}}
    result = run("config", "set", "router.log_level", "debug", "--config", file)
    assert result.exit_code == 1
    assert "the router did not follow: not now" in result.output


@pytest.mark.parametrize("key", ["", "a..b", "models[", "[]"])
def test_what_is_no_place_is_refused(file: Path, key: str) -> None:
    before = file.read_text()
    assert run("config", "set", key, "1", "--config", file).exit_code == 2
    assert file.read_text() == before


def test_checking_lists_every_fault(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text('version: "1.0"\nrouter:\n  port: 0\n  prot: 1\n')
    result = run("config", "check", file)
    assert result.exit_code == 2
    assert [f":{line}" in result.output for line in (3, 4)] == [True, True]
    file.write_text('version: "1.0"\n')
    assert run("config", "check", file).output == f"{file} is in order\n"


def test_the_path_is_the_platforms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert run("config", "path").output.strip() == str(tmp_path / "llama-router" / "config.yaml")


def test_the_schema_is_one_for_editors() -> None:
    schema = json.loads(run("config", "schema").output)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "router" in schema["properties"]


def test_what_holds_for_a_model_is_shown_with_its_source(file: Path, router: CannedRouter) -> None:
    router.answers["GET", "/admin/config"] = (
        200,
        {
            "model": "qwen.3",
            "settings": {"ttl_s": 60.0, "parameters": {"ctx-size": 4096}, "group": ""},
            "origins": {"ttl_s": "entry (c.yaml:8)", "parameters.ctx-size": "template small"},
        },
    )
    result = run("config", "show", "qwen.3", "--config", file)
    assert [line.split() for line in result.output.splitlines()[1:]] == [
        ["ttl_s", "entry", "(c.yaml:8)", "60.0"],
        ["parameters.ctx-size", "template", "small", "4096"],
    ]
    assert router.asked[0].path == "/admin/config?resolved=qwen.3"


def test_without_a_router_the_file_alone_tells(file: Path, router: CannedRouter) -> None:
    router.server_close()
    router.shutdown()
    result = run("config", "show", "qwen.3", "--config", file)
    assert result.exit_code == 0
    row = next(line for line in result.output.splitlines() if line.startswith("ttl_s"))
    assert row.split()[-1] == "60.0"
    assert f"{file}:8" in row
    assert run("config", "show", "none", "--config", file).exit_code == 2


def test_reloading_says_what_it_did(file: Path, router: CannedRouter) -> None:
    router.answers["POST", "/admin/reload"] = 200, RELOADED | {"changed": []}
    result = run("config", "reload", "--config", file)
    assert result.output.splitlines()[0] == "reloaded: no model is affected"


@pytest.mark.skipif(sys.platform == "win32", reason="shells of POSIX")
def test_shells_can_complete() -> None:
    result = CliRunner().invoke(app, ["--show-completion", "bash"])
    assert result.exit_code == 0
    assert "complete" in result.output
