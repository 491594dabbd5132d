"""From plain data to a Config, or to every fault in it, said in words."""

import copy
import difflib
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llama_router.config import clashes
from llama_router.config.commands import command_issues
from llama_router.config.fields import ONE_SIZE_TAG, SIZES_TAG, CommandCheck
from llama_router.config.macros import expand
from llama_router.config.problems import Issue, Keys, format_keys
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

# Where each section stands, indices left out and `*` for names that the file chooses: to name the
# keys that an unknown one may mean.
SECTIONS: Mapping[tuple[str, ...], type[BaseModel]] = {
    (): Config,
    ("router",): RouterSettings,
    ("router", "api_keys"): ApiKeyEntry,
    ("default_spawn",): SpawnSettings,
    ("defaults",): ModelSettings,
    ("defaults", "spawn"): SpawnOverride,
    ("defaults", "filters"): Filters,
    ("templates", "*"): ModelSettings,
    ("templates", "*", "spawn"): SpawnOverride,
    ("templates", "*", "filters"): Filters,
    ("models",): ModelEntry,
    ("models", "spawn"): SpawnOverride,
    ("models", "filters"): Filters,
    ("groups", "*"): GroupEntry,
    ("matrix",): MatrixSettings,
    ("selectors", "*"): SelectorEntry,
    ("profiles", "*"): ProfileEntry,
    ("peers", "*"): PeerEntry,
    ("peers", "*", "filters"): Filters,
    ("hub",): HubSettings,
}

# What settings are called by Ollama, llama-swap, llama-server and LM Studio, in small letters and
# without what is between words.
NAMES_ELSEWHERE: Mapping[str, str] = {
    "apikey": "api_keys",
    "args": "parameters",
    "checkendpoint": "health_endpoint",
    "cmd": "command",
    "cmdstop": "stop_command",
    "concurrencylimit": "max_in_flight",
    "contextlength": "parameters",
    "ctxsize": "parameters",
    "debug": "log_level",
    "draftmodel": "parameters",
    "globalttl": "ttl_s",
    "gpulayers": "parameters",
    "gpuoverhead": "memory_reserve",
    "healthchecktimeout": "ready_timeout_s",
    "hfendpoint": "endpoint",
    "hftoken": "token",
    "ignorepaths": "upstream_ignore_paths",
    "includealiasesinlist": "include_aliases_in_list",
    "keepalive": "ttl_s",
    "loadonstartup": "preload",
    "loadtimeout": "ready_timeout_s",
    "maxloadedmodels": "max_loaded",
    "maxqueue": "max_waiting",
    "members": "group",
    "modelsmax": "max_loaded",
    "ngl": "parameters",
    "ngpulayers": "parameters",
    "numctx": "parameters",
    "numgpu": "parameters",
    "numparallel": "max_in_flight",
    "options": "parameters",
    "origins": "allowed_hosts",
    "persistent": "pinned",
    "proxy": "address",
    "responseheader": "first_byte_timeout_s",
    "routing": "groups",
    "sendloadingstate": "notify_model_swap",
    "setparams": "set_params",
    "setparamsbyid": "set_params_by_id",
    "sleepidleseconds": "ttl_s",
    "startport": "base_port",
    "stoptimeout": "stop_grace_s",
    "stripparams": "strip_params",
    "ttl": "ttl_s",
    "unloadtimeout": "stop_grace_s",
    "usemodelname": "use_model_name",
}
_SECRETS = ("router", "api_keys")
# More digits than any number of the config has.
_NUMBER_MAX_CHARS = 32
# Pydantic's, and ours: parts of a fault's place that are not in the file.
_NO_KEYS = frozenset({"[key]", ONE_SIZE_TAG, SIZES_TAG})

# By pydantic's kinds of errors; braces take what it says about the limit.
_MESSAGES = {
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list: its items in brackets, or each in a line that begins with `- `",
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
    "string_pattern_mismatch": "must match {pattern}",
    "too_long": "must have at most {max_length} items",
}


def validate(
    content: Mapping[str, Any],
    check_command: CommandCheck | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[Config | None, list[Issue]]:
    """Build the config; None, and every issue, when it has faults.

    ``check_command`` raises ValueError for a command that could never run. Macros are put in when
    there is an ``env`` for them, else ``${`` is text as any other. Values of secrets, and of the
    environment, do not get into the messages.
    """
    if env is None:
        return _validate(content, check_command, {})
    expanded = expand(content, env)
    config, issues = _validate(expanded.content, check_command, expanded.variables)
    # What could not be put in is left out: what the schema then says of its absence would be a
    # second message about one fault.
    more = [issue for issue in issues if not _is_part(issue.keys, expanded.left_out)]
    issues = [*expanded.issues, *more]
    return (None if issues else config), issues


def _is_part(keys: Keys, places: Collection[Keys]) -> bool:
    return any(keys[:length] in places for length in range(len(keys) + 1)) if places else False


def _validate(
    content: Mapping[str, Any], check_command: CommandCheck | None, variables: Mapping[Keys, str]
) -> tuple[Config | None, list[Issue]]:
    content, config, details = _build(content, variables)
    issues = [*clashes.claims(content), *(_issue(detail, content) for detail in details)]
    if check_command is not None:
        issues += command_issues(content, check_command)
    if config is not None:
        issues += clashes.contradictions(config)
    issues = [_without_secret(issue, variables) for issue in issues]
    return (None if issues else config), issues


def _build(
    content: Mapping[str, Any], variables: Mapping[Keys, str]
) -> tuple[Mapping[str, Any], Config | None, list[ErrorDetails]]:
    """Build the config; variables are text, and numbers where only a number is allowed."""
    details: list[ErrorDetails] = []
    for _ in range(2):
        try:
            return content, Config.model_validate(content), []
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=True)
        numbers = {
            keys: number
            for detail in details
            if (keys := _place(detail["loc"], content)) in variables
            and (number := _number(detail)) is not None
        }
        if not numbers:
            break
        content = _with(content, numbers)
    return content, None, details


def _number(detail: ErrorDetails) -> object:
    """Read the text of a variable as what the schema wants; None if it is no such thing."""
    kind, text = detail["type"], detail["input"]
    with suppress(ValueError, TypeError):
        if kind == "bool_type":
            return {"true": True, "false": False}.get(text.lower())
        if kind in {"int_type", "float_type"} and len(text) <= _NUMBER_MAX_CHARS:
            return int(text) if kind == "int_type" else float(text)
    return None


def _with(content: Mapping[str, Any], values: Mapping[Keys, object]) -> dict[str, Any]:
    made = copy.deepcopy(dict(content))
    for keys, value in values.items():
        node: Any = made
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value
    return made


def _without_secret(issue: Issue, variables: Mapping[Keys, str]) -> Issue:
    """Leave out of a message what it may quote of the environment."""
    if not variables or issue.message in _MESSAGES.values():
        return issue
    names = {
        name
        for keys, name in variables.items()
        if keys[: len(issue.keys)] == issue.keys or issue.keys[: len(keys)] == keys
    }
    if not names:
        return issue
    named = ", ".join(f"${{env.{name}}}" for name in sorted(names))
    return Issue(issue.keys, f"does not take what {named} stands for (not shown)")


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
    section = _section(keys[:-1])
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


def _section(keys: Keys) -> tuple[str, ...]:
    """Say which of SECTIONS is at this place."""
    section: tuple[str, ...] = ()
    for key in keys:
        if isinstance(key, str):
            named = any(place[: len(section) + 1] == (*section, "*") for place in SECTIONS)
            section = (*section, "*" if named else key)
    return section


def _format_place(place: tuple[str, ...]) -> str:
    text = format_keys(place)
    for listed in ("models", "api_keys"):
        text = text.replace(f"{listed}.", f"{listed}[].")
    return text
