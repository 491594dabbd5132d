import json
from pathlib import Path

import pytest

from llama_router.config.document import Document
from llama_router.config.problems import ConfigError
from llama_router.config.secrets import BLACKED_OUT, redacted, redacted_text
from llama_router.config.validate import validate

FILE = """\
# api_key: canary0
macros:
  mine: canary1
  outer: "${mine}x"
  harmless: plain
  hf_token: canary2
router:
  admin_token: "${outer}"
  api_keys:
    - canary3   # the first
    - key: canary4
      name: nightly
      models: ["qwen*"]
    - ${env.KEY}
default_spawn:
  env: {A: canary5}
peers:
  far:
    url: http://10.0.0.1
    api_key: 'canary6'
hub:
  token: >-
    canary7
models:
  - name: a
    parameters: {api-key: canary8, ctx-size: 5}
    spawn:
      command: [docker, run, -e, HF_TOKEN=canary9, --api-key, canary10, --port, $port, --jinja]
      stop_command: ["x", "--api-key=canary11", "--cache-type-k", "q8_0"]
      env:
        B: canary12
        C: ${env.C}
  - name: b   # token: canary13
    spawn: {env: {D: "canary14"}}
"""


def test_no_secret_is_left_in_a_text_and_all_else_is() -> None:
    assert validate(Document(FILE, Path("c.yaml")).plain()[0], env={"KEY": "k", "C": "c"})[1] == []
    shown = redacted_text(FILE)
    assert "canary" not in shown
    assert shown.count(BLACKED_OUT) == 16
    for kept in (
        "# api_key:",
        "harmless: plain",
        "name: nightly",
        '["qwen*"]',
        "- ${env.KEY}",
        "C: ${env.C}",
        'admin_token: "${outer}"',
        "# the first",
        f'"HF_TOKEN={BLACKED_OUT}"',
        f'"--api-key={BLACKED_OUT}"',
        "--port, $port, --jinja",
        '"--cache-type-k", "q8_0"',
        "ctx-size: 5",
    ):
        assert kept in shown
    assert len(shown.splitlines()) in {len(FILE.splitlines()), len(FILE.splitlines()) - 1}
    assert Document(shown, Path("c.yaml")).plain()[1] == []


def test_no_secret_is_left_in_content_as_written_or_as_used() -> None:
    content = Document(FILE, Path("c.yaml")).plain()[0]
    assert "canary" not in json.dumps(redacted(content))
    assert "canary" in json.dumps(content)
    config, _ = validate(content, env={"KEY": "canary15", "C": "canary16"})
    assert config is not None
    used = config.model_dump(mode="json")
    assert "canary16" in json.dumps(used)
    assert "canary" not in json.dumps(redacted(used))
    model = redacted(used["models"][0], place=("models", 0))
    assert model["spawn"]["env"] == {"B": BLACKED_OUT, "C": BLACKED_OUT}
    settings = {"macros": {"t": "canary", "u": "x"}, "spawn": {"env": {"T": "a-canary"}}}
    assert redacted(settings, place=("models", 0))["macros"] == {"t": BLACKED_OUT, "u": "x"}
    assert model["parameters"] == {"api-key": BLACKED_OUT, "ctx-size": 5}


def test_a_macro_that_is_a_secret_argument_is_one() -> None:
    text = (
        "macros: {t: canary, u: plain}\ndefault_spawn:\n  command: [x, --api-key, '${t}', '${u}']\n"
    )
    shown = redacted_text(text)
    assert "canary" not in shown
    assert "u: plain" in shown
    assert "--api-key, '${t}', '${u}'" in shown


def test_keys_that_are_switched_off_are_not_shown() -> None:
    text = (
        "router:\n  api_keys:   # all of them\n    # - canary1\n    - x\n#    - canary2\n\n"
        "    - key: y\n      name: n   # a note\n      # - canary3  # old\n    # - key: canary4\n"
        "  # - kept\n  port: 1\n# models_dirs:\n#   - /kept\n# api_keys:\n#   - canary5\n#\n"
    )
    shown = redacted_text(text)
    assert "canary" not in shown
    for kept in (
        "# all of them",
        "# a note",
        "name: n",
        "port: 1",
        "# models_dirs:",
        "#   - /kept",
    ):
        assert kept in shown


def test_json_is_redacted_in_place() -> None:
    text = '{"router": {"api_keys": ["canary", {"key": "canary", "batch": true}]}}\n'
    assert json.loads(redacted_text(text, Path("c.json"))) == {
        "router": {"api_keys": [BLACKED_OUT, {"key": BLACKED_OUT, "batch": True}]}
    }


def test_what_is_written_in_a_rare_way_is_redacted_too() -> None:
    text = (
        "router:\n  api_keys: [&a canary, *a]\nhub: {token: &b canary}\npeers: {x: {api_key: *b}}\n"
    )
    assert "canary" not in redacted_text(text)
    text = "? router\n: {admin_token: canary}\n"
    assert "canary" not in redacted_text(text)


def test_a_secret_of_any_kind_is_none_to_show() -> None:
    assert "7" not in redacted_text(
        "router:\n  admin_token: 7\n  api_keys: [77, [7], {key: {a: 7}}]\n"
    )


def test_a_text_that_cannot_be_parsed_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        redacted_text("router:\n  admin_token: [canary\n")
    assert "canary" not in str(caught.value)


def test_sections_do_not_show_their_secrets_when_printed() -> None:
    # Of commands and parameters nobody but `redacted` knows which are secret.
    text = FILE.replace("canary8", "x").replace("canary9", "x")
    text = text.replace("canary10", "x").replace("canary11", "x")
    config, _ = validate(Document(text, Path("c.yaml")).plain()[0], env={"KEY": "canary", "C": "c"})
    assert config is not None
    assert "canary" not in repr(config)


def test_a_key_that_stands_where_the_name_of_a_setting_belongs_is_blacked_out() -> None:
    for entries in ({"the-misplaced-key": 1}, [{"name": "x", "the-misplaced-key": 1}]):
        shown = redacted_text(json.dumps({"router": {"api_keys": entries}}))
        assert "the-misplaced-key" not in shown
    assert '"name": "x"' in redacted_text('{"router": {"api_keys": [{"name": "x", "kei": 1}]}}')


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("exec server --api-key sk-123456 --port 1", "exec server --api-key ******** --port 1"),
        ("exec server --api-key='sk-123456'", "exec server --api-key='********'"),
        ("export A_TOKEN=sk-123456; run", "export A_TOKEN=********; run"),
        ("Authorization: Bearer sk-123456", "Authorization: Bearer ********"),
        ("X-API-Key: sk-123456", "X-API-Key: ********"),
        ("--proxy http://me:sk-123456@host:80/x", "--proxy http://me:********@host:80/x"),
        ("server --api-key ${env.X} --port $port", "server --api-key ${env.X} --port $port"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("--keyboard us --monkey 5", "--keyboard us --monkey 5"),
    ],
)
def test_secrets_within_an_argument_are_not_shown(argument: str, shown: str) -> None:
    content = {"default_spawn": {"command": ["sh", "-c", argument]}}
    assert redacted(content, env={})["default_spawn"]["command"][2] == shown
    text = redacted_text(json.dumps(content), Path("c.json"))
    assert json.loads(text)["default_spawn"]["command"][2] == shown


def test_a_secret_of_the_environment_is_shown_nowhere() -> None:
    env = {"SOME_API_KEY": "sk$-123456", "HOME": "/home/long-name", "A_TOKEN": "on"}
    settings = {
        "spawn": {"command": ["x", "-H", "a sk$$-123456 b"]},
        "description": "sk$-123456 /home/long-name on",
        "metadata": {"a": ["sk$-123456"]},
    }
    assert redacted(settings, place=("models", 0), env=env) == {
        "spawn": {"command": ["x", "-H", "a ******** b"]},
        "description": "******** /home/long-name on",
        "metadata": {"a": ["********"]},
    }
