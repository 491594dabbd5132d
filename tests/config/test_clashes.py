from typing import Any

import pytest

from llama_router.config.clashes import claims, contradictions, doubts, unknown_targets
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


def test_a_template_that_is_not_there_is_told_with_its_place() -> None:
    content = {
        "templates": {"small": {}},
        "models": [{"template": "smal"}, {"template": ["small", "big"]}, {"template": 5}],
    }
    assert claimed(content) == {
        ("models", 0, "template"): "there is no template smal; did you mean small?",
        ("models", 1, "template", 1): "there is no template big",
    }


def test_a_layer_of_several_models_gives_no_aliases() -> None:
    filters = {"set_params_by_id": {"x": {"a": 1}}}
    content: dict[str, Any] = {
        "defaults": {"filters": filters},
        "templates": {"shared": {"filters": filters}, "own": {"filters": filters}},
        "models": [
            {"name": "a", "template": ["shared", "own"]},
            {"name": "b", "template": ["shared"]},
        ],
    }
    assert set(contradicting(content)) == {
        ("defaults", "filters", "set_params_by_id"),
        ("templates", "shared", "filters", "set_params_by_id"),
    }


def test_groups_and_a_matrix_exclude_each_other() -> None:
    content: dict[str, Any] = {
        "matrix": {"sets": {"s": "a", "t": "a &"}},
        "groups": {"g": {}},
        "models": [{"name": "a", "group": "g"}],
        "defaults": {"group": "g"},
    }
    messages = contradicting(content)
    assert messages.pop(("matrix", "sets", "t")) == "lacks a name at its end"
    assert set(messages) == {("groups",), ("models", 0, "group"), ("defaults", "group")}
    assert set(messages.values()) == {"has no meaning beside matrix; leave one of them out"}
    assert set(contradicting({"matrix": {}})) == {("matrix",)}


def test_what_is_likely_not_meant_is_doubted() -> None:
    content: dict[str, Any] = {
        "router": {"history": False, "history_prompts": True},
        "groups": {"big": {}, "none": {}},
        "models": [{"name": "a", "group": "big"}, {"name": "b", "group": "bog"}],
        "selectors": {"s": {"strategy": "warm", "targets": ["a"], "spillover": 2}},
        "profiles": {"p": {"pins": {"a": "a", "b": "a", "c": ""}}},
    }
    found = {issue.keys: issue.message for issue in doubts(Config.model_validate(content))}
    assert found == {
        ("models", 1, "group"): "is none of groups, whose defaults it has; did you mean big?",
        ("groups", "none"): "is the group of no model",
        ("selectors", "s", "spillover"): "has no effect with the strategy warm",
        ("profiles", "p", "pins", "a"): "leads to itself: it has no effect",
        ("router", "history_prompts"): "has no effect without router.history",
    }
    content = {
        "matrix": {
            "vars": {"x": "a", "y": "b"},
            "sets": {"s": "x & c"},
            "evict_costs": {"c": 2, "d": 3},
        }
    }
    found = {issue.keys: issue.message for issue in doubts(Config.model_validate(content))}
    assert set(found) == {("matrix", "evict_costs", "d"), ("matrix", "vars", "y")}


def test_names_that_lead_nowhere_are_told_once_all_models_are_known() -> None:
    content = {
        "router": {"preload": ["coder", "codr"]},
        "selectors": {"s": {"strategy": "warm", "targets": ["coder", "nope"]}},
        "profiles": {"p": {"pins": {"x": "s", "y": "", "z": "nothing"}}},
        "matrix": {"vars": {"c": "coder", "v": "gone"}, "sets": {"s": "c & coder & w"}},
    }
    found = unknown_targets(Config.model_validate(content), ["coder"])
    assert {issue.keys: issue.message for issue in found} == {
        ("router", "preload", 1): "there is no model codr; did you mean coder?",
        ("selectors", "s", "targets", 1): "there is no model nope",
        ("profiles", "p", "pins", "z"): "there is no model nothing",
        ("matrix", "vars", "v"): "there is no model gone",
        ("matrix", "sets", "s"): "there is no model w",
    }
