"""From plain data to a Config, or to every fault in it, said in words."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llama_router.config.problems import Issue, Keys, format_keys
from llama_router.config.schema import (
    CommandCheck,
    Config,
    ModelEntry,
    RouterSettings,
    SpawnOverride,
    SpawnSettings,
)

# Where each section stands, indices left out: to name the keys that an unknown one may mean.
SECTIONS: Mapping[tuple[str, ...], type[BaseModel]] = {
    (): Config,
    ("router",): RouterSettings,
    ("default_spawn",): SpawnSettings,
    ("models",): ModelEntry,
    ("models", "spawn"): SpawnOverride,
}

# By pydantic's kinds of errors; braces take what it says about the limit.
_MESSAGES = {
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "model_type": "must hold keys and values",
    "missing": "is missing",
    "literal_error": "must be {expected}",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than_equal": "must be {le:g} or less",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters long",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} items",
}


def validate(
    content: Mapping[str, Any], check_command: CommandCheck | None = None
) -> tuple[Config | None, list[Issue]]:
    """Build the config; None, and every issue, when it has faults.

    ``check_command`` raises ValueError for a command that could never run. Values of secrets do
    not get into the messages.
    """
    issues = list(_name_clashes(content.get("models")))
    config = None
    try:
        config = Config.model_validate(content, context={"check_command": check_command})
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=True)
        issues += [_issue(detail) for detail in details]
    return (None if issues else config), issues


def _issue(detail: ErrorDetails) -> Issue:
    keys: Keys = detail["loc"]
    return Issue(keys, _message(detail, keys))


def _message(detail: ErrorDetails, keys: Keys) -> str:
    kind, limits = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(keys)
    if kind == "value_error":
        return str(limits["error"])
    if kind == "string_type" and isinstance(detail["input"], bool | int | float):
        return "must be text; put it in quotes"
    if kind.endswith("_than_equal") and str(keys[-1]).endswith("port"):
        return "must be a port from 1 to 65535"
    text = _MESSAGES.get(kind)
    return text.format(**limits) if text else detail["msg"]


def _unknown_key(keys: Keys) -> str:
    key = str(keys[-1])
    section = tuple(part for part in keys[:-1] if isinstance(part, str))
    known = list(SECTIONS[section].model_fields)
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"is not a known key; did you mean {near[0]}?"
    for place, model in SECTIONS.items():
        if key in model.model_fields:
            where = format_keys((*place, key)).replace("models.", "models[].")
            return f"is not a known key here; did you mean {where}?"
    return f"is not a known key; known are {', '.join(known)}"


def _name_clashes(models: object) -> Iterable[Issue]:
    """Names and aliases claimed twice; of faulty entries what can be read is looked at."""
    owners: dict[str, str] = {}
    for index, model in enumerate(models if isinstance(models, list) else []):
        if not isinstance(model, dict):
            continue
        aliases = model.get("aliases")
        claims: list[tuple[Keys, object]] = [(("models", index, "name"), model.get("name"))]
        if isinstance(aliases, Sequence) and not isinstance(aliases, str):
            claims += [
                (("models", index, "aliases", number), alias)
                for number, alias in enumerate(aliases)
            ]
        for keys, name in claims:
            if not isinstance(name, str):
                continue
            if name in owners:
                yield Issue(keys, f"{name} is already the name of {owners[name]}")
            else:
                owners[name] = format_keys(keys[:2])
