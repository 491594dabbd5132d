from collections.abc import Sequence
from typing import Any

import pytest

from llama_router.config.validate import validate


def messages_of(content: dict[str, Any]) -> dict[tuple[str | int, ...], str]:
    config, issues = validate(content)
    assert (config is None) == bool(issues)
    return {issue.keys: issue.message for issue in issues}


def test_content_without_faults_becomes_a_config() -> None:
    config, issues = validate({"models": [{"name": "a", "aliases": ["b"]}]})
    assert issues == []
    assert config is not None
    assert config.models[0].aliases == ("b",)


@pytest.mark.parametrize("version", ["1.0", 1.0, 1])
def test_the_version_may_be_written_without_quotes(version: object) -> None:
    assert messages_of({"version": version}) == {}


@pytest.mark.parametrize(
    ("content", "keys", "expected"),
    [
        ({"version": "2.0"}, ("version",), "must be '1.0'"),
        ({"startup_model": 7}, ("startup_model",), "must be text; put it in quotes"),
        ({"startup_model": []}, ("startup_model",), "must be text"),
        ({"router": []}, ("router",), "must hold keys and values"),
        ({"router": {"port": "1"}}, ("router", "port"), "must be a whole number"),
        ({"router": {"port": 0}}, ("router", "port"), "must be a port from 1 to 65535"),
        ({"router": {"base_port": 70000}}, ("router", "base_port"), "port from 1 to 65535"),
        ({"router": {"stop_grace_s": 0}}, ("router", "stop_grace_s"), "greater than 0"),
        ({"router": {"stop_grace_s": True}}, ("router", "stop_grace_s"), "must be a number"),
        ({"router": {"stop_grace_s": 1e9}}, ("router", "stop_grace_s"), "must be 604800 or less"),
        ({"router": {"max_connections": -1}}, ("router", "max_connections"), "must be 0 or more"),
        ({"router": {"half_close": "x"}}, ("router", "half_close"), "'abort' or 'serve'"),
        ({"router": {"notify_model_swap": "no"}}, ("router", "notify_model_swap"), "true or false"),
        ({"router": {"api_keys": "k"}}, ("router", "api_keys"), "must be a list"),
        ({"models": {"a": {}}}, ("models",), "must be a list"),
        ({"models": [{}]}, ("models", 0, "name"), "is missing"),
        ({"models": [{"name": ""}]}, ("models", 0, "name"), "must not be empty"),
        ({"models": [{"name": "x" * 300}]}, ("models", 0, "name"), "at most 256 characters"),
        ({"default_spawn": {"command": []}}, ("default_spawn", "command"), "must not be empty"),
    ],
)
def test_messages_say_what_is_wanted(
    content: dict[str, Any], keys: tuple[str | int, ...], expected: str
) -> None:
    messages = messages_of(content)
    assert list(messages) == [keys]
    assert expected in messages[keys]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"router": {"prot": 1}}, "did you mean port?"),
        ({"startup-model": "a"}, "did you mean startup_model?"),
        ({"port": 1}, "did you mean router.port?"),
        ({"router": {"owner_check": "tree"}}, "did you mean default_spawn.owner_check?"),
        ({"router": {"aliases": []}}, "did you mean models[].aliases?"),
        ({"models": [{"name": "a", "spawn": {"zzz": 1}}]}, "known are command,"),
    ],
)
def test_an_unknown_key_is_answered_by_the_nearest_known_one(
    content: dict[str, Any], expected: str
) -> None:
    (message,) = messages_of(content).values()
    assert expected in message


def test_all_faults_are_told_at_once() -> None:
    messages = messages_of(
        {"router": {"port": 0, "host": ""}, "models": [{"name": "a"}, {"name": "a"}, {"x": 1}]}
    )
    assert set(messages) == {
        ("router", "port"),
        ("router", "host"),
        ("models", 1, "name"),
        ("models", 2, "name"),
        ("models", 2, "x"),
    }


def test_a_name_or_alias_belongs_to_one_model() -> None:
    messages = messages_of(
        {"models": [{"name": "a", "aliases": ["b"]}, {"name": "b", "aliases": ["c", "a"]}]}
    )
    assert messages == {
        ("models", 1, "name"): "b is already the name of models[0]",
        ("models", 1, "aliases", 1): "a is already the name of models[0]",
    }


@pytest.mark.parametrize("models", [None, 5, "a", [5], [{"name": 5, "aliases": "x"}], [[]]])
def test_looking_for_clashes_survives_any_content(models: object) -> None:
    assert messages_of({"models": models})


def test_every_command_is_shown_to_the_check_and_its_words_are_the_message() -> None:
    seen = []

    def check(command: Sequence[str]) -> None:
        seen.append(tuple(command))
        if command[0] == "bad":
            raise ValueError("needs $port")

    _, issues = validate(
        {
            "default_spawn": {"command": ["good"]},
            "models": [{"name": "a", "spawn": {"command": ["bad"]}}],
        },
        check,
    )
    assert seen == [("good",), ("bad",)]
    assert [(issue.keys, issue.message) for issue in issues] == [
        (("models", 0, "spawn", "command"), "needs $port")
    ]


@pytest.mark.parametrize("key", ["canary key", "canary\n", "canary" * 200, 'canary"ü'])
def test_secrets_do_not_get_into_messages(key: str) -> None:
    _, issues = validate({"router": {"api_keys": [key], "admin_token": key}})
    assert len(issues) == 2
    assert "canary" not in str(issues)
