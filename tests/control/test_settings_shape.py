import json
from typing import Any

import pytest
from pydantic import ValidationError

from llama_router.config.schema import ModelSettings
from llama_router.control.settings_shape import FiltersPatch, SettingsPatch, set_values

LOCAL_ONLY = {"spawn", "macros"}


def test_exactly_what_starts_no_program_can_be_set() -> None:
    assert set(SettingsPatch.model_fields) == set(ModelSettings.model_fields) - LOCAL_ONLY
    filters = ModelSettings.model_fields["filters"].default
    assert set(FiltersPatch.model_fields) == set(type(filters).model_fields)


@pytest.mark.parametrize(
    "settings",
    [
        {"ttl_s": 0, "min_residency_s": 1.5, "first_byte_timeout_s": 0, "memory": "4GiB"},
        {"memory": {"cuda0": "5GiB", "cpu": "1GB"}, "group": "g", "priority": -5},
        {"filters": {"strip_params": ["top_p"], "set_params_by_id": {"a": {"b": [1]}}}},
        {"parameters": {"ctx-size": 8, "jinja": True, "temp": 0.5, "lora": ["a", "b"]}},
        {"title": "t", "metadata": {"a": {"b": None}}, "capabilities": {"in": ["text"]}},
    ],
)
def test_what_can_be_set_is_good_for_the_config_too(settings: dict[str, Any]) -> None:
    values = set_values(SettingsPatch.model_validate(settings))
    assert set(values) == set(settings)
    ModelSettings.model_validate(values)


@pytest.mark.parametrize(
    "settings",
    [
        {"ready_timeout_s": 0},
        {"ttl_s": float("inf")},
        {"parameters": {"Ctx": 1}},
        {"parameters": {"a": []}},
        {"parameters": {"a": {"b": 1}}},
        {"metadata": {"a": [[[[[[[[[[[1]]]]]]]]]]]}},
        {"description": "x" * 20_000},
        {"pinned": 1},
    ],
)
def test_what_cannot_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SettingsPatch.model_validate(settings)


def test_whole_seconds_stay_whole_for_the_config_that_keeps_them() -> None:
    said = '{"ttl_s": 44, "min_residency_s": 1.5, "ready_timeout_s": 9.0, "parameters": {"a": 1}}'
    values = set_values(SettingsPatch.model_validate_json(said))
    assert json.dumps(values) == (
        '{"parameters": {"a": 1}, "ttl_s": 44, "min_residency_s": 1.5, "ready_timeout_s": 9}'
    )


def test_null_is_told_from_what_is_not_said() -> None:
    assert set_values(SettingsPatch.model_validate({"ttl_s": None})) == {"ttl_s": None}
    assert set_values(SettingsPatch()) == {}
