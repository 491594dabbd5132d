"""The config's schema for editors: JSON Schema, draft 2020-12, of what may be written in the file.

It says what the file may look like before macros are put in: in place of a number there may be text
with one, and a key may have no value at all, which means its default. What spans several entries,
and what a text must look like inside, is told when the file is read.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from llama_router.config.fields import NAME_MAX_CHARS
from llama_router.config.schema import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_SIZE: dict[str, Any] = {"type": ["string", "integer"], "minLength": 1}
_SIZES: dict[str, Any] = {"type": "object", "additionalProperties": _SIZE}
# By the formats that `fields` gives to kinds that are read from text.
_FORMATS: dict[str, Callable[[], dict[str, Any]]] = {
    "size": lambda: dict(_SIZE),
    "sizes": lambda: dict(_SIZES),
    "size or sizes": lambda: {"anyOf": [_SIZE, _SIZES]},
    "text or list of text": lambda: {
        "anyOf": [
            {"type": "string", "minLength": 1, "maxLength": NAME_MAX_CHARS},
            {"type": "array", "items": {"type": "string", "minLength": 1}},
        ]
    },
}
_MACRO: dict[str, Any] = {"type": "string", "pattern": r"^\$\{[^{}]+\}$"}
_UNITS = {"s": "seconds", "bytes/s": "bytes per second"}


@cache
def json_schema() -> dict[str, Any]:
    """Return the schema of the whole file. It is shared: not to be changed."""
    schema = Config.model_json_schema()
    definitions = schema.pop("$defs")
    for section in (schema, *definitions.values()):
        required = section.get("required", ())
        for name, field in section.get("properties", {}).items():
            section["properties"][name] = _field(field, is_required=name in required)
        section["description"] = section.get("description", "").splitlines()[0].replace("``", "`")
        section.pop("title", None)
    # Plain text in place of a section is a key without settings.
    keys = definitions["RouterSettings"]["properties"]["api_keys"]
    _replace(keys, {"$ref": "#/$defs/ApiKeyEntry"}, {"type": "string", "minLength": 1})
    # `version: 1.0` without quotes is a number.
    schema["properties"]["version"]["anyOf"].append({"const": 1.0})
    return {
        "$schema": DIALECT,
        "title": "llama-router's configuration",
        **schema,
        "$defs": definitions,
    }


def _field(field: dict[str, Any], *, is_required: bool) -> dict[str, Any]:
    """Say what may stand at a key: what is meant, a macro for it, or nothing."""
    description = field.pop("description", "")
    unit = field.pop("unit", "")
    default = {"default": field.pop("default")} if "default" in field else {}
    field.pop("title", None)
    choices = field.pop("anyOf", None) if "format" not in field else None
    kinds = [_kind(choice) for choice in choices or [field]]
    if not is_required and {"type": "null"} not in kinds:
        kinds.append({"type": "null"})
    if any(_is_scalar(kind) for kind in kinds):
        kinds.append(dict(_MACRO))
    if unit:
        description = f"{description} Unit: {_UNITS.get(unit, unit)}."
    return {"description": description, **default, "anyOf": kinds}


def _kind(kind: dict[str, Any]) -> dict[str, Any]:
    """Put what is written in place of what is made of it, in all of a kind."""
    made: dict[str, Any] = {}
    if "format" in kind:
        return _FORMATS[kind["format"]]()
    for key, value in kind.items():
        if key == "title":
            continue
        if isinstance(value, dict) and key in {"items", "additionalProperties"}:
            inner = _kind(value)
            made[key] = {"anyOf": [inner, dict(_MACRO)]} if _is_scalar(inner) else inner
        else:
            made[key] = value
    return made


def _is_scalar(kind: dict[str, Any]) -> bool:
    """Whether it is a number, true or false, or one of several words."""
    return kind.get("type") in ("integer", "number", "boolean") or "enum" in kind


def _replace(node: Any, old: dict[str, Any], also: dict[str, Any]) -> None:  # noqa: ANN401 - any part of a schema
    for choice in node["anyOf"]:
        if choice.get("items") == old:
            choice["items"] = {"anyOf": [old, also]}
