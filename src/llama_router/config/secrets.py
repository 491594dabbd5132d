"""What of a config nobody is shown: keys and tokens, wherever they may stand.

Secret are the places that are meant for secrets, the environment of engines, macros that are used
in these places, and arguments that follow a name such as ``--api-key``. ``${env.NAME}`` alone is
none: it says where the secret is.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_router.config.document import Document
from llama_router.config.places import Place, PlaceError, compose
from llama_router.config.plain import COMMAND_KEYS, texts_of
from llama_router.config.problems import Keys

BLACKED_OUT = "********"

# `*` is any name or index.
_SECRET_PLACES: tuple[tuple[str, ...], ...] = (
    ("router", "admin_token"),
    ("router", "api_keys"),
    ("peers", "*", "api_key"),
    ("hub", "token"),
    ("default_spawn", "env"),
    ("defaults", "spawn", "env"),
    ("templates", "*", "spawn", "env"),
    ("models", "*", "spawn", "env"),
)
# Settings of a key that say nothing of the key itself.
_HARMLESS = frozenset(
    {"name", "priority", "batch", "scopes", "models", "requests_per_minute", "max_in_flight"}
)
# What is shorter is no key, and part of many words.
_MIN_CHARS = 4
# A variable with a shorter value is more likely to be a switch.
_VARIABLE_MIN_CHARS = 8
_NAMES_OF_SECRETS = r"(?:api[-_]?keys?|keys?|tokens?|secrets?|passwords?|passwd|credentials?|auth)"
_SECRET_NAME = re.compile(rf"(?:.*[-_])?{_NAMES_OF_SECRETS}", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"(?P<name>-{0,2}[A-Za-z0-9_-]+)=(?P<value>.+)", re.DOTALL)
_REFERENCE = re.compile(r"\$\{([A-Za-z0-9_-]{1,63})\}")
_ONLY_A_REFERENCE = re.compile(r"(?:\$\{[A-Za-z0-9_.-]+\})+")
# In a script, a header or a URL that is one argument.
_IN_ARGUMENT = re.compile(
    rf"(?P<head>(?<![\w-])--?(?:[\w-]{{0,60}}-)?{_NAMES_OF_SECRETS}(?:=|[ \t]+)[\"']?"
    rf"|\b(?:\w{{0,60}}_)?{_NAMES_OF_SECRETS}=[\"']?"
    r"|\b(?:Bearer|Basic)[ \t]+|\bx-api-key:[ \t]*"
    r"|://[^\s/:@]{0,256}:(?=[^\s/@]+@))"
    r"(?P<value>[^\s\"'@;&]+)",
    re.IGNORECASE,
)
_IN_COMMENT = re.compile(
    rf"(?P<head>#.{{0,200}}?\b[\w-]{{0,60}}{_NAMES_OF_SECRETS}[\"']?[ \t]*[:=][ \t]*)"
    r"(?P<value>\S.*)",
    re.IGNORECASE,
)
# Keys that are switched off, below `api_keys:`, itself switched off or not.
_KEY_LIST = re.compile(
    r"""^(?P<indent>[ \t#]*)["']?api_keys["']?[ \t]*:[^\n]*\n"""
    r"""(?:(?P=indent)[ \t#-][^\n]*(?:\n|\Z)|[ \t]*(?:\r?\n)|[ \t]*#[^\n]*(?:\n|\Z))*""",
    re.MULTILINE,
)
_KEY_IN_COMMENT = re.compile(r"(?P<head>#[ \t#]*-[ \t]+)(?P<value>[^\s:]+)(?![\w\"']*:)[^\n\r]*")


def redacted(
    content: Mapping[str, Any], *, place: Keys = (), env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return plain content of a config, without its secrets.

    ``place``: where in the file it belongs, such as ``("models", 0)`` for the settings of a model.
    Of ``env`` (this process's own if absent), from which macros may have put something anywhere,
    what is called a key, a token or the like is taken out wherever it is.
    """
    macros = _secret_macros(content, place)
    variables = (os.environ if env is None else env).items()
    values = [
        form
        for name, value in variables
        if len(value) >= _VARIABLE_MIN_CHARS and _SECRET_NAME.fullmatch(name)
        # In commands dollar signs are doubled.
        for form in dict.fromkeys((value.replace("$", "$$"), value))
    ]
    return {
        key: _without(_redacted(value, (*place, key), macros), values)
        for key, value in content.items()
    }


def _without(value: Any, secrets: Sequence[str]) -> Any:  # noqa: ANN401 - any value of a config
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, BLACKED_OUT)
        return value
    if isinstance(value, dict):
        return {key: _without(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_without(item, secrets) for item in value]
    return value


def redacted_text(text: str, path: Path | None = None) -> str:
    """Return the text of a config file, comments and all, without its secrets.

    Raises ConfigError for a text that cannot be parsed: it cannot be told what in it is secret.
    """
    document = Document(text, path or Path("config.yaml"))
    content = document.plain()[0]
    macros = _secret_macros(content)
    try:
        root = compose(text, is_json=document.is_json)
        spans = sorted(_spans(root, (), macros), reverse=True)
    except PlaceError:
        # Written in a way that places cannot be told: all of it anew, which loses nothing but form.
        return _anew(document, macros)
    for start, end, shown in spans:
        text = text[:start] + json.dumps(shown) + text[end:]
    for key in _misplaced(content):
        text = text.replace(key, BLACKED_OUT)
    return text if document.is_json else _without_comments(text)


def _misplaced(content: Mapping[str, Any]) -> Iterator[str]:
    """Give what stands where the name of a setting of a key belongs, and may be the key itself."""
    router = content.get("router")
    entries = router.get("api_keys") if isinstance(router, Mapping) else None
    for entry in entries if isinstance(entries, list) else [entries]:
        if isinstance(entry, Mapping):
            known = _HARMLESS | {"key"}
            yield from (
                str(key) for key in entry if key not in known and len(str(key)) > _MIN_CHARS
            )


def _without_comments(text: str) -> str:
    text = _KEY_LIST.sub(lambda found: _KEY_IN_COMMENT.sub(_comment_without, found[0]), text)
    return _IN_COMMENT.sub(_comment_without, text)


def _comment_without(match: re.Match[str]) -> str:
    return match["head"] + BLACKED_OUT


def _anew(document: Document, macros: frozenset[str]) -> str:
    return json.dumps(_redacted(document.plain()[0], (), macros), indent=2, ensure_ascii=False)


def _spans(place: Place, keys: Keys, macros: frozenset[str]) -> Iterator[tuple[int, int, str]]:
    """Yield where the texts stand that are not to be shown, and what is shown in their place."""
    if place.is_alias or place.is_empty:
        return
    if place.is_mapping or place.is_list:
        if place.is_list and keys and keys[-1] in COMMAND_KEYS:
            arguments = [_scalar(part.value) for part in place.parts]
            for part, kept in zip(place.parts, _arguments(arguments), strict=True):
                if kept != _scalar(part.value):
                    yield part.value.start, part.value.end, kept
            return
        for part in place.parts:
            yield from _spans(part.value, (*keys, part.key), macros)
    elif _is_secret(keys, macros) and not _says_only_where(_scalar(place)):
        yield place.start, place.end, BLACKED_OUT


def _scalar(place: Place) -> str:
    value = getattr(place.node, "value", "")
    return value if isinstance(value, str) else ""


def _redacted(value: Any, keys: Keys, macros: frozenset[str]) -> Any:  # noqa: ANN401 - any value of a config
    if isinstance(value, dict):
        return {key: _redacted(item, (*keys, key), macros) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if keys and keys[-1] in COMMAND_KEYS and all(isinstance(item, str) for item in value):
            return list(_arguments(list(value)))
        return [_redacted(item, (*keys, index), macros) for index, item in enumerate(value)]
    if value in ("", None) or not _is_secret(keys, macros) or _says_only_where(value):
        return value
    return BLACKED_OUT


def _says_only_where(value: object) -> bool:
    return value == "" or (isinstance(value, str) and bool(_ONLY_A_REFERENCE.fullmatch(value)))


def _is_secret(keys: Keys, macros: frozenset[str]) -> bool:
    if "macros" in keys[:-1]:
        name = str(keys[-1])
        return name in macros or bool(_SECRET_NAME.fullmatch(name))
    if len(keys) > 1 and keys[-2] == "parameters" and _SECRET_NAME.fullmatch(str(keys[-1])):
        return True
    if keys[:2] == ("router", "api_keys") and any(key in _HARMLESS for key in keys[2:]):
        return False
    return any(_is_below(keys, place) for place in _SECRET_PLACES)


def _is_below(keys: Keys, place: tuple[str, ...]) -> bool:
    return len(keys) >= len(place) and all(
        part in ("*", key) for key, part in zip(keys, place, strict=False)
    )


def _arguments(arguments: list[str]) -> Iterator[str]:
    """Give the arguments of a command without those that are secrets."""
    for argument, secret in zip(arguments, _secret_parts(arguments), strict=True):
        if secret and not _says_only_where(secret):
            yield argument[: len(argument) - len(secret)] + BLACKED_OUT
        else:
            yield argument if secret else _IN_ARGUMENT.sub(_argument_without, argument)


def _argument_without(match: re.Match[str]) -> str:
    return match[0] if _says_only_where(match["value"]) else match["head"] + BLACKED_OUT


def _secret_parts(arguments: list[str]) -> Iterator[str]:
    """Give, for each argument, what of it is a secret: its end, or nothing."""
    is_next = False
    for argument in arguments:
        assignment = _ASSIGNMENT.fullmatch(argument)
        if is_next and not argument.startswith("-"):
            yield argument
        elif assignment and _SECRET_NAME.fullmatch(assignment["name"].lstrip("-")):
            yield assignment["value"]
        else:
            yield ""
        is_next = argument.startswith("-") and bool(_SECRET_NAME.fullmatch(argument.lstrip("-")))


def _secret_macros(content: Mapping[str, Any], place: Keys = ()) -> frozenset[str]:
    """Name the macros that are part of a secret, and those that are part of these."""
    macros: dict[str, list[str]] = {}
    secrets: list[str] = []
    for keys, text in texts_of(content, place):
        if "macros" in keys[:-1]:
            macros.setdefault(str(keys[-1]), []).append(text)
        elif _is_secret(keys, frozenset()):
            secrets.append(text)
    for command in _commands(content):
        secrets += [part for part in _secret_parts(command) if part]
        secrets += [found["value"] for part in command for found in _IN_ARGUMENT.finditer(part)]
    # Where macros are put in already, what they stand for is part of what is there.
    used = {
        name
        for name, texts in macros.items()
        if any(text in secret for text in texts if text for secret in secrets)
    }
    used.update(name for text in secrets for name in _REFERENCE.findall(text))
    secret: set[str] = set()
    while used - secret:
        name = (used - secret).pop()
        secret.add(name)
        for text in macros.get(name, ()):
            used.update(_REFERENCE.findall(text))
    return frozenset(secret)


def _commands(value: Any, key: str = "") -> Iterator[list[str]]:  # noqa: ANN401 - as above
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _commands(item, str(name))
    elif isinstance(value, list | tuple):
        if key in COMMAND_KEYS and all(isinstance(item, str) for item in value):
            yield list(value)
        else:
            for item in value:
                yield from _commands(item)
