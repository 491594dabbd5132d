import random
from collections.abc import Sequence
from typing import Any

import pytest

from llama_router.config.fields import ONE_SIZE_TAG, SIZES_TAG
from llama_router.config.validate import NAMES_ELSEWHERE, SECTIONS, validate


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
        ({"router": {"api_keys": [""]}}, ("router", "api_keys", 0), "must not be empty"),
        ({"router": {"api_keys": [7]}}, ("router", "api_keys", 0), "as text in quotes"),
        (
            {"router": {"api_keys": [{"key": "k", "batch": "yes"}]}},
            ("router", "api_keys", 0, "batch"),
            "must be true or false",
        ),
        ({"router": {"policy": "lru"}}, ("router", "policy"), "must be 'benefit' or 'arrival'"),
        ({"router": {"ttl_s": "5m"}}, ("router", "ttl_s"), "must be a number of seconds"),
        ({"router": {"ttl_s": -1}}, ("router", "ttl_s"), "0 means never"),
        ({"router": {"max_loaded": -1}}, ("router", "max_loaded"), "must be 0 or more"),
        ({"router": {"memory": "24GiB"}}, ("router", "memory"), "must hold keys and values"),
        ({"router": {"memory": {"cdua0": 0}}}, ("router", "memory", "cdua0"), "mean cuda0?"),
        ({"router": {"memory": {"cpu": "1,5GiB"}}}, ("router", "memory", "cpu"), "1.5GiB"),
        ({"router": {"memory_reserve": -1}}, ("router", "memory_reserve"), "is negative"),
        (
            {"router": {"memory": {"cpu": 0, "CPU": 0}}},
            ("router", "memory"),
            "one device more than once: CPU, cpu",
        ),
        ({"models": [{"name": "a", "memory": 24}]}, ("models", 0, "memory"), "means 24 bytes"),
        (
            {"models": [{"name": "a", "memory": {"cuda0": "much"}}]},
            ("models", 0, "memory", "cuda0"),
            "'much' is no size",
        ),
        (
            {"models": [{"name": "a", "memory": {"gpu": "1GB"}}]},
            ("models", 0, "memory", "gpu"),
            "is no device",
        ),
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
        ({"router": {"batch": True}}, "did you mean router.api_keys[].batch?"),
        ({"router": {"globalTTL": 300}}, "did you mean ttl_s?"),
        ({"models": [{"name": "a", "ttl": 300}]}, "did you mean ttl_s?"),
        ({"models": [{"name": "a", "cmd": ["x"]}]}, "did you mean models[].spawn.command?"),
        ({"models": [{"name": "a", "concurrencyLimit": 2}]}, "did you mean max_in_flight?"),
        ({"OLLAMA_MAX_LOADED_MODELS": 2}, "did you mean router.max_loaded?"),
        ({"router": {"models-max": 2}}, "did you mean max_loaded?"),
        ({"keep_alive": 300}, "did you mean router.ttl_s?"),
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


def test_a_secret_in_the_place_of_a_key_is_not_told() -> None:
    _, issues = validate({"router": {"api_keys": [{"canary": "n", "key": "k"}, {"canary": []}]}})
    assert issues[0].keys == ("router", "api_keys", 0)
    assert "known are key, name, priority, batch" in issues[0].message
    assert "canary" not in str(issues)


def test_what_excludes_each_other_is_told_of_settings_that_are_in_order() -> None:
    messages = messages_of({"router": {"max_queue_s": 1, "max_loaded": 1, "preload": ["a", "b"]}})
    assert set(messages) == {("router", "max_queue_s"), ("router", "preload")}


@pytest.mark.parametrize("name", sorted(NAMES_ELSEWHERE))
def test_names_from_elsewhere_lead_to_keys_that_exist(name: str) -> None:
    meant = NAMES_ELSEWHERE[name]
    assert any(meant in section.model_fields for section in SECTIONS.values())


@pytest.mark.parametrize("key", ["[key]", ONE_SIZE_TAG, SIZES_TAG])
def test_keys_that_look_like_marks_of_the_checker_are_keys(key: str) -> None:
    models = [{"name": "a", "memory": {key: 0}, key: 0}]
    assert set(messages_of({key: 0, "models": models})) == {
        (key,),
        ("models", 0, key),
        ("models", 0, "memory", key),
    }


ODD_VALUES: tuple[Any, ...] = (
    *(None, True, 5, -1, 1.5, float("nan"), 10**400, "", "x", "24GiB", "-1GiB", "\ud800"),
    *([], {}, ["a", "a"], [[]], {"a": 1}, {5: 6}, {"cpu": "1GiB"}, {"CUDA0": 1, "cuda0": 2}),
)


def random_section(rng: random.Random, place: tuple[str, ...]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name in SECTIONS[place].model_fields:
        below = (*place, name)
        if rng.random() < 0.7:
            continue
        if (*below, "*") in SECTIONS and rng.random() > 0.2:
            content[name] = {"x": random_section(rng, (*below, "*")), "y": rng.choice(ODD_VALUES)}
        elif below not in SECTIONS or rng.random() < 0.2:
            content[name] = rng.choice(ODD_VALUES)
        elif name in {"models", "api_keys"}:
            content[name] = [random_section(rng, below), rng.choice(ODD_VALUES)]
        else:
            content[name] = random_section(rng, below)
    if rng.random() < 0.1:
        content[rng.choice(["ttl", "zzz", "[key]"])] = rng.choice(ODD_VALUES)
    return content


def test_any_content_is_answered_by_issues_in_words() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed={seed}")  # noqa: T201 - to run it again
    rng = random.Random(seed)  # noqa: S311 - no secret
    faulty = 0
    for _ in range(500):
        config, issues = validate(random_section(rng, ()))
        assert (config is None) == bool(issues)
        faulty += bool(issues)
        for issue in issues:
            # A name that is claimed twice is said as it is.
            first = issue.message.removeprefix("CUDA0 ")[0]
            assert first.islower() or first in "'-0123456789", issue
            assert "Input should" not in issue.message, issue
    assert faulty > 100


def test_a_template_that_is_not_there_is_one_fault_among_others() -> None:
    content = {"models": [{"name": "a", "template": ["x", "x"]}], "router": {"max_queue_s": 1.0}}
    assert [issue.keys for issue in validate(content)[1]] == [
        ("models", 0, "template", 0),
        ("models", 0, "template", 1),
        ("router", "max_queue_s"),
    ]
