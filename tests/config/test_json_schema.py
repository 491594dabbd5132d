import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from llama_router.config.defaults import TEMPLATE
from llama_router.config.document import Document
from llama_router.config.json_schema import DIALECT, json_schema
from llama_router.config.schema import Config
from llama_router.config.validate import SECTIONS, validate

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
VALIDATOR = jsonschema_rs.Draft202012Validator(json_schema())


def test_it_is_a_schema_of_the_draft_that_it_names() -> None:
    assert json_schema()["$schema"] == DIALECT
    jsonschema_rs.meta.validate(json_schema())
    assert json.loads(json.dumps(json_schema())) == json_schema()


@pytest.mark.parametrize(
    "text",
    [TEMPLATE, *re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)],
)
def test_the_first_config_and_every_example_of_the_page_are_valid(text: str) -> None:
    VALIDATOR.validate(Document(text, Path("c.yaml")).plain()[0])


def test_every_key_is_described_with_its_unit() -> None:
    definitions = {"Config": json_schema(), **json_schema()["$defs"]}
    for section in set(SECTIONS.values()):
        properties = definitions[section.__name__]["properties"]
        assert list(properties) == list(section.model_fields)
        assert all(one["description"] for one in properties.values())
    assert (
        "Unit: seconds."
        in json_schema()["$defs"]["ModelEntry"]["properties"]["ttl_s"]["description"]
    )


@pytest.mark.parametrize(
    "content",
    [
        {"prot": 1},
        {"router": {"port": "8082"}},
        {"router": {"port": 0}},
        {"router": {"half_close": "maybe"}},
        {"models": [{"path": "/x"}]},
        {"models": [{"name": "a", "ttl_s": -1}]},
        {"models": [{"name": "a", "spawn": {"cmd": []}}]},
        {"selectors": {"a": {"strategy": "warm"}}},
        {"selectors": {"a": {"strategy": "best", "targets": ["b"]}}},
    ],
)
def test_what_no_config_has_is_refused(content: dict[str, Any]) -> None:
    assert validate(content)[1]
    assert not VALIDATOR.is_valid(content)


@pytest.mark.parametrize(
    "content",
    [
        {"version": 1.0},
        {"router": None, "models": None, "matrix": None},
        {"router": {"port": "${env.PORT}", "api_keys": ["a", {"key": "b"}], "memory_reserve": 0}},
        {"models": [{"name": "a", "memory": "4GiB", "template": "x", "ttl_s": "${ttl}"}]},
        {"models": [{"name": "a", "memory": {"cuda0": 2**30}, "template": ["x", "y"]}]},
    ],
)
def test_what_a_file_may_look_like_before_it_is_read_is_valid(content: dict[str, Any]) -> None:
    VALIDATOR.validate(content)


WORDS = st.text(st.sampled_from("abcxyz-./"), min_size=1, max_size=8)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "integer": st.integers(1, 9),
    "number": st.integers(1, 9) | st.floats(1, 9),
    "string": WORDS,
    "null": st.none(),
}


def values(kind: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a kind of the schema allows."""
    if "anyOf" in kind:
        return st.one_of([values(one) for one in kind["anyOf"]])
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        return st.deferred(lambda: sections(json_schema()["$defs"][name]))
    if "enum" in kind:
        return st.sampled_from(kind["enum"])
    if "const" in kind:
        return st.just(kind["const"])
    if "pattern" in kind:
        return st.just("${a}")
    if isinstance(kind.get("type"), list):
        return st.one_of([VALUES[one] for one in kind["type"]])
    if kind.get("type") == "array":
        return st.lists(values(kind["items"]), min_size=kind.get("minItems", 0), max_size=2)
    if kind.get("type") == "object":
        inner = kind.get("additionalProperties", {"type": "string"})
        inner = inner if isinstance(inner, dict) else {"type": "string"}
        return st.dictionaries(WORDS, values(inner), max_size=2)
    return VALUES[kind["type"]] if "type" in kind else st.integers()


def sections(section: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    properties = {name: values(field) for name, field in section["properties"].items()}
    required = {name: properties.pop(name) for name in section.get("required", ())}
    return st.fixed_dictionaries(required, optional=properties)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(Config.model_fields)), st.data())
def test_what_the_config_takes_the_schema_takes(name: str, data: st.DataObject) -> None:
    # Drawn from the schema's kinds, and not from its limits: what the config refuses is passed by.
    content = {name: data.draw(values(json_schema()["properties"][name]))}
    config, _ = validate(content, env={})
    if config is not None:
        VALIDATOR.validate(content)
        VALIDATOR.validate(_written(config))


def _written(section: BaseModel) -> dict[str, Any]:
    written = section.model_dump(exclude_unset=True)
    assert isinstance(written, dict)
    return json.loads(json.dumps(written))  # type: ignore[no-any-return]  # a dict as it was
