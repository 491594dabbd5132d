"""The kinds of values that stand in the config, each with its limits and its words of refusal."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
)

from llama_router.config.sizes import parse_device, parse_size

# A week: longer than any load or answer; a longer number is a slip (milliseconds, say).
LONGEST_S = 7 * 24 * 3600.0
# Room for a whole model folder listed by an import, far from what a person would write.
MODELS_MAX_COUNT = 10_000
# Linux allows 128 KiB per argument; templates need a fraction of it.
ARGUMENT_MAX_CHARS = 16 * 1024
ARGUMENTS_MAX_COUNT = 1024
LIST_MAX_COUNT = 1024
NAME_MAX_CHARS = 256
KEY_MAX_CHARS = 512
CONNECTIONS_MAX_COUNT = 1_000_000
WAITING_MAX_COUNT = 1_000_000
# As many graphics cards as no machine has.
DEVICES_MAX_COUNT = 64
# Steps between the least and the most urgent: nobody tells more of them apart.
PRIORITY_LIMIT = 1000
# A thousand a second, from one key: what a limit could still mean.
REQUESTS_PER_MINUTE_MAX_COUNT = 60_000
# More connections to the hub at a time gain nothing and get an address throttled.
PARALLEL_FILES_MAX_COUNT = 32
# A description is a paragraph or two.
TEXT_MAX_CHARS = 4096
URL_MAX_CHARS = 2048
# What Linux allows for one variable, as for one argument.
ENV_VALUE_MAX_CHARS = 128 * 1024
PATTERN_MAX_CHARS = 1024
EXPRESSION_MAX_CHARS = 16 * 1024
EVICT_COST_MAX = 1_000_000
CommandCheck = Callable[[Sequence[str]], None]
"""Raises ValueError, saying what is wrong, for a command that could never run."""

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?\.?")
_VISIBLE_ASCII = re.compile(r"[!-~]+")
DIGEST_PREFIX = "sha256:"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ENGINE_ADDRESS = re.compile(
    r"http://(\$host|[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:(\$port|[0-9]{1,5}))?(/[^\s?#$]*)?"
)


def _check_version(value: object) -> object:
    # `version: 1.0` without quotes is a number in YAML, and what everybody writes.
    return "1.0" if value == 1.0 and not isinstance(value, bool) else value


def check_name(value: str) -> str:
    """Return a name that can be shown and asked for. Raises ValueError."""
    if value != value.strip():
        raise ValueError("must not begin or end with a space")
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    return value


def _check_host(value: str) -> str:
    if value.startswith("["):
        raise ValueError("write an IPv6 address without brackets")
    if "://" in value or "/" in value:
        raise ValueError("must be an address or a name alone, without http:// or a path")
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if ":" in value:
            raise ValueError("must not contain a port; it has a key of its own") from None
        if not _HOST_NAME.fullmatch(value):
            raise ValueError("is neither an IP address nor a host name") from None
    return value


def _check_allowed_host(value: str) -> str:
    return _check_host(value).lower().rstrip(".")


def _check_key(value: str) -> str:
    if not _VISIBLE_ASCII.fullmatch(value):
        raise ValueError("must be visible ASCII characters, as it has to fit an HTTP header")
    return value


def _check_token(value: str) -> str:
    return _check_key(value) if value else value


def _check_url_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must begin with /")
    if not _VISIBLE_ASCII.fullmatch(value):
        raise ValueError("must be visible ASCII characters; percent-encode others")
    return value


def check_argument(value: str) -> str:
    """Return text that a program can be given. Raises ValueError."""
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _check_path(value: str) -> str:
    if any(ord(char) < ord(" ") for char in value):
        raise ValueError("must not contain control characters")
    return value


def _check_key_or_digest(value: str) -> str:
    if value.startswith(DIGEST_PREFIX) and not _DIGEST.fullmatch(value):
        raise ValueError("must have 64 hexadecimal digits, in small letters, after sha256:")
    return _check_key(value)


def _check_health_endpoint(value: str) -> str:
    return value if value == "none" else _check_url_path(value)


def _check_variable(value: str) -> str:
    # POSIX has it so; and it cannot be said otherwise how a name ends.
    if "=" in value or "\0" in value:
        raise ValueError("must not contain = or a NUL character")
    return value


def _check_address(value: str) -> str:
    if not _ENGINE_ADDRESS.fullmatch(value):
        raise ValueError("must be http://HOST:PORT/PATH; $host and $port may stand in it")
    return value


def _check_http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user or a password")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ValueError("must end with its path, without ? or #")
    if not _VISIBLE_ASCII.fullmatch(value):
        raise ValueError("must be visible ASCII characters; percent-encode others")
    return value


def _check_hub_endpoint(value: str) -> str:
    return _check_http_url(value) if value else value


def _check_pattern(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return value


def _as_names(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _check_devices(value: object) -> object:
    names = [name for name in value if isinstance(name, str)] if isinstance(value, dict) else []
    twice = {name for name in names if sum(name.lower() == n.lower() for n in names) > 1}
    if twice:
        raise ValueError(f"names one device more than once: {', '.join(sorted(twice))}")
    return value


Version = Annotated[Literal["1.0"], BeforeValidator(_check_version)]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS), AfterValidator(check_name)]
Host = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_check_host)]
AllowedHost = Annotated[
    str, Field(min_length=1, max_length=255), AfterValidator(_check_allowed_host)
]
ApiKey = Annotated[
    str, Field(min_length=1, max_length=KEY_MAX_CHARS), AfterValidator(_check_key_or_digest)
]
Token = Annotated[str, Field(max_length=KEY_MAX_CHARS), AfterValidator(_check_token)]
UrlPath = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_check_url_path)]
FilePath = Annotated[str, Field(max_length=4096), AfterValidator(_check_path)]
Folder = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_check_path)]
Argument = Annotated[str, Field(max_length=ARGUMENT_MAX_CHARS), AfterValidator(check_argument)]
Command = Annotated[
    tuple[Argument, ...],
    Field(strict=False, min_length=1, max_length=ARGUMENTS_MAX_COUNT),
]
Endpoints = Annotated[tuple[UrlPath, ...], Field(strict=False, max_length=LIST_MAX_COUNT)]
OwnerCheckName = Literal["tree", "port"]
HealthEndpoint = Annotated[
    str, Field(min_length=1, max_length=1024), AfterValidator(_check_health_endpoint)
]
EnvVariable = Annotated[
    str, Field(min_length=1, max_length=NAME_MAX_CHARS), AfterValidator(_check_variable)
]
EnvValue = Annotated[str, Field(max_length=ENV_VALUE_MAX_CHARS), AfterValidator(check_argument)]
EngineAddress = Annotated[
    str, Field(min_length=1, max_length=URL_MAX_CHARS), AfterValidator(_check_address)
]
HttpUrl = Annotated[
    str, Field(min_length=1, max_length=URL_MAX_CHARS), AfterValidator(_check_http_url)
]
HubEndpoint = Annotated[str, Field(max_length=URL_MAX_CHARS), AfterValidator(_check_hub_endpoint)]
PathPattern = Annotated[
    str, Field(min_length=1, max_length=PATTERN_MAX_CHARS), AfterValidator(_check_pattern)
]
ModelNameSent = Annotated[str, Field(max_length=1024), AfterValidator(check_name)]
TemplateNames = Annotated[
    tuple[Name, ...],
    BeforeValidator(_as_names),
    Field(strict=False, max_length=LIST_MAX_COUNT),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": NAME_MAX_CHARS},
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1, "maxLength": NAME_MAX_CHARS},
                    "maxItems": LIST_MAX_COUNT,
                },
            ],
            "format": "text or list of text",
        }
    ),
]
"""Names; one may be written as plain text."""

PinTarget = Annotated[str, Field(max_length=NAME_MAX_CHARS), AfterValidator(check_name)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")]
SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,256}$")]
MatrixExpression = Annotated[str, Field(min_length=1, max_length=EXPRESSION_MAX_CHARS)]
EvictCost = Annotated[int, Field(ge=1, le=EVICT_COST_MAX)]

Priority = Annotated[int, Field(ge=-PRIORITY_LIMIT, le=PRIORITY_LIMIT)]

_SIZE_SCHEMA = {"type": "string", "format": "size"}
_SIZES_SCHEMA = {"type": "object", "format": "sizes"}
Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema(_SIZE_SCHEMA)]
"""Bytes; text with a unit is converted."""

_Device = Annotated[str, AfterValidator(parse_device)]
Sizes = Annotated[
    dict[_Device, Size],
    BeforeValidator(_check_devices),
    Field(max_length=DEVICES_MAX_COUNT),
    WithJsonSchema(_SIZES_SCHEMA),
]
"""Bytes by device, whose name is in lower case."""

# Pydantic puts these tags into the places of faults; ``validate`` takes them out again.
ONE_SIZE_TAG, SIZES_TAG = "[size]", "[sizes]"
SizeOrSizes = Annotated[
    Annotated[Size, Tag(ONE_SIZE_TAG)] | Annotated[Sizes, Tag(SIZES_TAG)],
    Discriminator(lambda value: SIZES_TAG if isinstance(value, dict) else ONE_SIZE_TAG),
    WithJsonSchema({"anyOf": [_SIZE_SCHEMA, _SIZES_SCHEMA], "format": "size or sizes"}),
]


def setting(default: Any, description: str, *, unit: str = "", **limits: Any) -> Any:  # noqa: ANN401 - pydantic types Field so
    """Return a field with its description, and the unit if it counts something."""
    return Field(
        default,
        description=description,
        json_schema_extra={"unit": unit} if unit else None,
        **limits,
    )


def duration(default_s: float | None, description: str, *, can_be_0: bool = False) -> Any:  # noqa: ANN401 - as above
    """Return a field for seconds; ``can_be_0`` where none at all has a meaning."""
    limits = {"ge": 0} if can_be_0 else {"gt": 0}
    default_s = default_s if default_s is None else float(default_s)
    return setting(default_s, description, unit="s", le=LONGEST_S, allow_inf_nan=False, **limits)
