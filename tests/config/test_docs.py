import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from llama_router.config.defaults import TEMPLATE
from llama_router.config.document import Document
from llama_router.config.schema import (
    ApiKeyEntry,
    Config,
    Filters,
    GroupEntry,
    HubSettings,
    MatrixSettings,
    ModelEntry,
    ModelSettings,
    PeerEntry,
    ProfileEntry,
    RouterSettings,
    SelectorEntry,
    SpawnOverride,
    SpawnSettings,
)
from llama_router.config.validate import SECTIONS, validate

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
HEADINGS: dict[type[BaseModel], str] = {
    Config: "The file",
    RouterSettings: "`router`",
    ApiKeyEntry: "`router.api_keys[]`",
    SpawnSettings: "`default_spawn`",
    ModelEntry: "`models[]`",
    ModelSettings: "Settings of a model",
    SpawnOverride: "`spawn`",
    Filters: "`filters`",
    GroupEntry: "`groups.*`",
    MatrixSettings: "`matrix`",
    SelectorEntry: "`selectors.*`",
    ProfileEntry: "`profiles.*`",
    PeerEntry: "`peers.*`",
    HubSettings: "`hub`",
}
KINDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
}
FORMATS = {
    "size": "size",
    "sizes": "sizes by device",
    "size or sizes": "size, or sizes by device",
    "text or list of text": "text, or list of text",
}


def kind_of(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        schema = next(option for option in schema["anyOf"] if option.get("type") != "null")
    if "format" in schema:
        return FORMATS[schema["format"]]
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return "text"
    if schema.get("type") == "object":
        return "sections by name" if "$ref" in str(schema) else "keys and values"
    if schema.get("type") == "array":
        if schema["items"].get("$ref", "").endswith("/ApiKeyEntry"):
            return "list of text or sections"
        return "list of sections" if "$ref" in schema["items"] else "list of text"
    return KINDS.get(schema.get("type", ""), "section")


def default_of(default: object) -> str:
    if default is PydanticUndefined:
        return "required"
    if default is None or isinstance(default, BaseModel):
        return ""
    if default == {}:
        return "`{}`"
    if isinstance(default, float):
        return f"`{default:g}`"
    if isinstance(default, tuple) and default:
        return "see below"
    return f"`{json.dumps(default)}`"


def table_of(section: type[BaseModel]) -> str:
    schema = section.model_json_schema()["properties"]
    rows = ["| key | kind | default | meaning |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        if section is ModelEntry and name in ModelSettings.model_fields:
            continue
        kind = kind_of(schema[name])
        if isinstance(field.json_schema_extra, dict):
            kind += f", {field.json_schema_extra['unit']}"
        rows.append(f"| `{name}` | {kind} | {default_of(field.default)} | {field.description} |")
    return "\n".join(rows)


def test_the_reference_has_a_chapter_for_every_section() -> None:
    assert set(HEADINGS) == set(SECTIONS.values())


@pytest.mark.parametrize("section", HEADINGS, ids=lambda section: str(section.__name__))
def test_the_reference_lists_every_setting_as_the_schema_has_it(section: type[BaseModel]) -> None:
    _, _, chapter = PAGE.partition(f"## {HEADINGS[section]}\n")
    table = re.search(r"\n((?:\|.*\|\n)+)", chapter.partition("\n## ")[0])
    assert table is not None
    assert table[1].rstrip("\n") == table_of(section)


def test_every_example_of_the_page_is_valid() -> None:
    examples = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(examples) >= 6
    for example in examples:
        content, issues = Document(example, Path("example.yaml")).plain()
        assert issues == []
        assert validate(content)[1] == [], example


def test_the_default_command_stands_on_the_page_as_in_the_first_config() -> None:
    command = re.search(r"^default_spawn:\n  command:\n(?:    - .*\n)+", TEMPLATE, re.MULTILINE)
    assert command is not None
    assert command[0] in PAGE
