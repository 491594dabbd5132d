from typing import Any

import pytest

from llama_router.config.clashes import claims, contradictions
from llama_router.config.problems import Keys
from llama_router.config.schema import Config


def claimed(content: dict[str, Any]) -> dict[Keys, str]:
    return {issue.keys: issue.message for issue in claims(content)}


def contradicting(content: dict[str, Any]) -> dict[Keys, str]:
    config = Config.model_validate(content)
    return {issue.keys: issue.message for issue in contradictions(config)}


def test_a_name_or_alias_belongs_to_one_model() -> None:
    models = [{"name": "a", "aliases": ["b"]}, {"name": "b", "aliases": ["c", "a"]}]
    assert claimed({"models": models}) == {
        ("models", 1, "name"): "b is already the name of models[0]",
        ("models", 1, "aliases", 1): "a is already the name of models[0]",
    }


def test_a_key_stands_in_the_list_once_and_is_not_told() -> None:
    issues = claimed({"router": {"api_keys": ["canary", "other", {"key": "canary"}]}})
    assert issues == {("router", "api_keys", 2): "is the same key as router.api_keys[0]"}


@pytest.mark.parametrize(
    "keys",
    [
        [{"key": "a", "name": "canary"}, {"key": "b", "name": "canary"}],
        [{"key": "a", "name": "key 2"}, "b"],
        ["a", {"key": "b", "name": "key 1"}],
    ],
)
def test_two_keys_have_two_names_those_by_their_place_too(keys: list[object]) -> None:
    assert claimed({"router": {"api_keys": keys}}) == {
        ("router", "api_keys", 1, "name"): "is the name of router.api_keys[0] already"
    }


def test_a_key_is_not_its_own_name() -> None:
    (message,) = claimed({"router": {"api_keys": [{"key": "canary", "name": "canary"}]}}).values()
    assert "must differ from the key" in message
    assert "canary" not in message


def test_a_model_is_preloaded_once() -> None:
    assert claimed({"router": {"preload": ["a", "b", "a"]}}) == {
        ("router", "preload", 2): "is named twice"
    }


@pytest.mark.parametrize("odd", [None, 5, "a", [5], [[]], [{}], [{"key": [], "name": {}}], {}])
def test_any_content_is_survived(odd: object) -> None:
    assert claimed({"models": odd, "router": {"api_keys": odd, "preload": odd}}) == {}
    assert claimed({"models": [{"name": odd, "aliases": odd}], "router": odd}) == {}


def test_the_defaults_do_not_contradict_each_other() -> None:
    assert contradicting({}) == {}


def test_requests_are_not_refused_before_their_turn() -> None:
    (message,) = contradicting({"router": {"max_queue_s": 10}}).values()
    assert "must be max_wait_s (20) or more" in message
    assert contradicting({"router": {"max_queue_s": 10, "max_wait_s": 10}}) == {}
    assert contradicting({"router": {"max_queue_s": 10, "policy": "arrival"}}) == {}


def test_a_residency_that_cannot_be_kept_is_told_if_somebody_asked_for_it() -> None:
    short = {"max_wait_s": 1}
    assert contradicting({"router": short}) == {}
    issues = contradicting({"router": {**short, "min_residency_s": 2}})
    assert list(issues) == [("router", "min_residency_s")]


def test_no_more_is_preloaded_than_may_be_loaded() -> None:
    issues = contradicting({"router": {"max_loaded": 1, "preload": ["a", "b"]}})
    assert issues == {("router", "preload"): "names 2 models, of which max_loaded allows 1"}
    assert contradicting({"router": {"max_loaded": 2, "preload": ["a", "b"]}}) == {}


def test_a_pinned_model_has_no_time_to_live() -> None:
    models = [
        {"name": "a", "pinned": True, "ttl_s": 5},
        {"name": "b", "pinned": True, "ttl_s": 0},
        {"name": "c", "ttl_s": 5},
    ]
    assert list(contradicting({"models": models, "router": {"ttl_s": 9}})) == [
        ("models", 0, "ttl_s")
    ]
