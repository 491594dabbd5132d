"""From plain data to a Config, or to every fault in it, said in words."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llama_router.config import clashes
from llama_router.config.fields import ONE_SIZE_TAG, SIZES_TAG, CommandCheck
from llama_router.config.problems import Issue, Keys, format_keys
from llama_router.config.schema import (
    ApiKeyEntry,
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
    ("router", "api_keys"): ApiKeyEntry,
}

# What settings are called by Ollama, llama-swap, llama-server and LM Studio, in small letters and
# without what is between words.
NAMES_ELSEWHERE: Mapping[str, str] = {
    "apikey": "api_keys",
    "cmd": "command",
    "concurrencylimit": "max_in_flight",
    "globalttl": "ttl_s",
    "gpuoverhead": "memory_reserve",
    "healthchecktimeout": "ready_timeout_s",
    "keepalive": "ttl_s",
    "loadonstartup": "preload",
    "loadtimeout": "ready_timeout_s",
    "maxloadedmodels": "max_loaded",
    "maxqueue": "max_waiting",
    "modelsmax": "max_loaded",
    "persistent": "pinned",
    "sleepidleseconds": "ttl_s",
    "ttl": "ttl_s",
}
_SECRETS = ("router", "api_keys")
# Pydantic's, and ours: parts of a fault's place that are not in the file.
_NO_KEYS = frozenset({"[key]", ONE_SIZE_TAG, SIZES_TAG})

# By pydantic's kinds of errors; braces take what it says about the limit.
_MESSAGES = {
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must hold keys and values",
    "model_type": "must hold keys and values",
    "invalid_key": "is a key that is not text; put it in quotes",
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
    issues = list(clashes.claims(content))
    config = None
    try:
        config = Config.model_validate(content, context={"check_command": check_command})
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=True)
        issues += [_issue(detail, content) for detail in details]
    else:
        issues += clashes.contradictions(config)
    return (None if issues else config), issues


def _issue(detail: ErrorDetails, content: Mapping[str, Any]) -> Issue:
    keys = _place(detail["loc"], content)
    message = _message(detail, keys)
    if keys[:2] == _SECRETS and detail["type"] == "extra_forbidden":
        # Somebody may have put the secret where its name belongs.
        return Issue(keys[:-1], f"holds what {message}")
    return Issue(keys, message)


def _place(loc: Keys, content: Mapping[str, Any]) -> Keys:
    """Say where in the file the place of a fault is.

    It ends at plain values that stand for a whole section.
    """
    keys: list[str | int] = []
    node: Any = content
    for key in loc:
        if key in _NO_KEYS and not (isinstance(node, dict) and key in node):
            continue
        if not isinstance(node, dict | list | tuple):
            break
        keys.append(key)
        node = node.get(key) if isinstance(node, dict) else node[int(key)]
    return tuple(keys)


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
    if kind == "float_type" and str(keys[-1]).endswith("_s"):
        return "must be a number of seconds"
    if kind == "greater_than_equal" and keys[-1] == "ttl_s":
        return "must be 0 or more; 0 means never"
    text = _MESSAGES.get(kind)
    return text.format(**limits) if text else detail["msg"]


def _unknown_key(keys: Keys) -> str:
    key = str(keys[-1])
    section = tuple(part for part in keys[:-1] if isinstance(part, str))
    known = list(SECTIONS[section].model_fields)
    plain = key.lower().removeprefix("ollama").replace("_", "").replace("-", "")
    meant = NAMES_ELSEWHERE.get(plain, key.replace("-", "_"))
    near = [meant] if meant in known else difflib.get_close_matches(key, known, n=1)
    if near:
        return f"is not a known key; did you mean {near[0]}?"
    # What is below this section is nearer than the others.
    for place in sorted(SECTIONS, key=lambda place: place[: len(section)] != section):
        if meant in SECTIONS[place].model_fields:
            return f"is not a known key here; did you mean {_format_place((*place, meant))}?"
    return f"is not a known key; known are {', '.join(known)}"


def _format_place(place: tuple[str, ...]) -> str:
    text = format_keys(place)
    for listed in ("models", "api_keys"):
        text = text.replace(f"{listed}.", f"{listed}[].")
    return text
