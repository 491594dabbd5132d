"""The kinds of values that stand in the config, each with its limits and its words of refusal."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
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

CommandCheck = Callable[[Sequence[str]], None]
"""Raises ValueError, saying what is wrong, for a command that could never run."""

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?\.?")
_VISIBLE_ASCII = re.compile(r"[!-~]+")


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


def _check_argument(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _check_path(value: str) -> str:
    if any(ord(char) < ord(" ") for char in value):
        raise ValueError("must not contain control characters")
    return value


def _check_devices(value: object) -> object:
    names = [name for name in value if isinstance(name, str)] if isinstance(value, dict) else []
    twice = {name for name in names if sum(name.lower() == n.lower() for n in names) > 1}
    if twice:
        raise ValueError(f"names one device more than once: {', '.join(sorted(twice))}")
    return value


def _check_command(value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    check: CommandCheck | None = (info.context or {}).get("check_command")
    if check is not None:
        check(value)
    return value


Version = Annotated[Literal["1.0"], BeforeValidator(_check_version)]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS), AfterValidator(check_name)]
Host = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_check_host)]
AllowedHost = Annotated[
    str, Field(min_length=1, max_length=255), AfterValidator(_check_allowed_host)
]
ApiKey = Annotated[str, Field(min_length=1, max_length=KEY_MAX_CHARS), AfterValidator(_check_key)]
Token = Annotated[str, Field(max_length=KEY_MAX_CHARS), AfterValidator(_check_token)]
UrlPath = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_check_url_path)]
FilePath = Annotated[str, Field(max_length=4096), AfterValidator(_check_path)]
Folder = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_check_path)]
Argument = Annotated[str, Field(max_length=ARGUMENT_MAX_CHARS), AfterValidator(_check_argument)]
Command = Annotated[
    tuple[Argument, ...],
    Field(strict=False, min_length=1, max_length=ARGUMENTS_MAX_COUNT),
    AfterValidator(_check_command),
]
Endpoints = Annotated[tuple[UrlPath, ...], Field(strict=False, max_length=LIST_MAX_COUNT)]
OwnerCheckName = Literal["tree", "port"]
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
