from typing import Any

import pytest

from llama_router.config.validate import validate
from llama_router.config.values import JSON_DEPTH_MAX_LEVELS, check_json


def faults_of(content: dict[str, Any]) -> dict[str, str]:
    return {str(issue.keys[-1]): issue.message for issue in validate(content)[1]}


def model(**settings: object) -> dict[str, Any]:
    return {"models": [{"name": "a", **settings}]}


@pytest.mark.parametrize(
    ("value", "made"),
    [(5, 5), (True, True), ("q8_0", "q8_0"), (0.5, 0.5), (["a", 1], ("a", 1)), ("", "")],
)
def test_a_parameter_is_a_plain_value_or_a_list_of_them(value: object, made: object) -> None:
    config, _ = validate(model(parameters={"ctx-size": value}))
    assert config is not None
    assert config.models[0].parameters == {"ctx-size": made}


@pytest.mark.parametrize(
    "value", [[], {}, [[1]], [True], float("nan"), "a\0", "x" * 20_000, ["\0"]]
)
def test_any_other_parameter_is_a_fault(value: object) -> None:
    assert set(faults_of(model(parameters={"ctx-size": value}))) == {"ctx-size"}


@pytest.mark.parametrize("name", ["--ctx-size", "Ctx", "", "a b", "a=b", "x" * 65])
def test_a_parameter_has_a_long_name(name: str) -> None:
    assert faults_of(model(parameters={name: 1}))


@pytest.mark.parametrize("value", [None, [1], {}, float("inf")])
def test_a_macro_stands_for_a_plain_value(value: object) -> None:
    assert faults_of({"macros": {"a": value}})
    assert faults_of({"macros": {"a.b": 1}})
    assert not faults_of({"macros": {"a": 1, "B-2_c": "x", "d": 0.5, "e": False}})


def test_the_model_of_a_request_is_not_for_filters() -> None:
    for filters in (
        {"strip_params": ["model"]},
        {"set_params": {"model": "x"}},
        {"set_params_by_id": {"b": {"model": "x"}}},
    ):
        assert "use_model_name" in str(faults_of(model(filters=filters)))
    # Of other maps it is a key as any.
    assert not faults_of(model(metadata={"model": "x"}))


def test_json_of_others_has_its_limits() -> None:
    deep: Any = 1
    for _ in range(JSON_DEPTH_MAX_LEVELS):
        deep = [deep]
    with pytest.raises(ValueError, match="nested deeper"):
        check_json(deep)
    for value in ({1: 2}, float("nan"), {"a": {1, 2}}, b"x"):
        with pytest.raises(ValueError, match=r"must|is|key"):
            check_json(value)
    good: dict[str, Any] = {"a": [None, True, 1, 0.5, "x", {"b": []}]}
    assert check_json(good) == good


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (model(spawn={"address": "https://x:1"}), "address"),
        (model(spawn={"address": "http://x?y"}), "address"),
        (model(spawn={"address": "http://$path:1"}), "address"),
        (model(spawn={"env": {"A=B": "x"}}), "A=B"),
        (model(spawn={"env": {"A": "x\0"}}), "A"),
        (model(spawn={"health_endpoint": "health"}), "health_endpoint"),
        ({"peers": {"p": {"url": "ftp://x"}}}, "url"),
        ({"peers": {"p": {"url": "http://u:p@x"}}}, "url"),
        ({"peers": {"p": {"url": "http://x/?a=1"}}}, "url"),
        ({"peers": {"p": {"url": "http://x:99999"}}}, "url"),
        ({"hub": {"endpoint": "huggingface.co"}}, "endpoint"),
        ({"router": {"upstream_ignore_paths": ["("]}}, "0"),
        ({"router": {"api_keys": ["sha256:abc"]}}, "0"),
        ({"router": {"api_keys": [{"key": "a", "scopes": []}]}}, "scopes"),
        ({"router": {"api_keys": [{"key": "a", "scopes": ["root"]}]}}, "0"),
        ({"matrix": {"sets": {"a b": "c"}}}, "a b"),
        ({"matrix": {"sets": {"a": "c"}, "evict_costs": {"c": 0}}}, "c"),
    ],
)
def test_what_cannot_be_meant_is_a_fault_at_its_place(content: dict[str, Any], key: str) -> None:
    assert key in faults_of(content)


@pytest.mark.parametrize(
    "content",
    [
        model(spawn={"address": "http://127.0.0.1:9000", "health_endpoint": "none"}),
        model(spawn={"address": "http://$host:$port/"}),
        model(spawn={"address": "http://[::1]:$port"}),
        model(template="t") | {"templates": {"t": {}}},
        {"peers": {"p": {"url": "https://openrouter.ai/api"}}},
        {"router": {"api_keys": [{"key": "sha256:" + "0" * 64, "scopes": ["admin"]}]}},
        {"hub": {"bandwidth": "10MB", "endpoint": ""}},
    ],
)
def test_what_can_be_meant_is_none(content: dict[str, Any]) -> None:
    assert faults_of(content) == {}
