"""The kinds of values of which not the router but engines and clients know what they mean."""

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from llama_router.config.fields import (
    ARGUMENT_MAX_CHARS,
    LIST_MAX_COUNT,
    NAME_MAX_CHARS,
    check_argument,
)

_PARAMETER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# Values of metadata and filters are shown and sent with every list and request.
JSON_DEPTH_MAX_LEVELS = 12
# The limits of llama-swap, whose macros these are.
MACRO_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")

Scalar = bool | int | float | str
"""What a macro stands for."""
ParameterValue = bool | int | float | str | tuple[int | float | str, ...]
"""What an engine's option is set to."""

PROTECTED_BODY_KEYS = frozenset({"model"})


def _check_body_key(value: str) -> str:
    # Another model than the one that was asked for, and paid for by the queue, would answer.
    if value in PROTECTED_BODY_KEYS:
        raise ValueError(f"{value} cannot be changed by filters; see use_model_name")
    return value


def _check_macro_name(value: str) -> str:
    if not MACRO_NAME.fullmatch(value):
        raise ValueError("must be 1 to 63 letters, digits, _ or -")
    return value


def _check_scalar(value: object) -> Scalar:
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError("must be text, a number, or true or false")


def _check_parameter(value: object) -> ParameterValue:
    if isinstance(value, list | tuple):
        if not value or len(value) > LIST_MAX_COUNT:
            raise ValueError(f"must have 1 to {LIST_MAX_COUNT} items")
        return tuple(_check_parameter_item(item) for item in value)
    if isinstance(value, bool):
        return value
    return _check_parameter_item(value)


def _check_parameter_item(value: object) -> int | float | str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be text, a number, true, false, or a list of text or numbers")  # noqa: TRY004 - pydantic makes an issue of it
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if isinstance(value, str):
        if len(value) > ARGUMENT_MAX_CHARS:
            raise ValueError(f"must be at most {ARGUMENT_MAX_CHARS} characters long")
        return check_argument(value)
    return value


def _check_parameter_name(value: str) -> str:
    if not _PARAMETER_NAME.fullmatch(value):
        raise ValueError(
            "is no option's long name; write it in small letters, without dashes before it"
        )
    return value


def check_json(value: object, depth_levels: int = JSON_DEPTH_MAX_LEVELS) -> object:
    """Return a value that JSON can carry. Raises ValueError."""
    if depth_levels <= 0:
        raise ValueError(f"is nested deeper than {JSON_DEPTH_MAX_LEVELS} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is not text; put it in quotes")  # noqa: TRY004 - pydantic makes an issue of it
            check_json(item, depth_levels - 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_json(item, depth_levels - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError("is of a kind that JSON does not have")
    return value


_SCALAR_SCHEMA: dict[str, Any] = {"type": ["string", "number", "boolean"]}
_PARAMETER_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": ["string", "number", "boolean"]},
        {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 1},
    ]
}
Json = Annotated[Any, AfterValidator(check_json), WithJsonSchema({})]
BodyKey = Annotated[
    str, Field(min_length=1, max_length=NAME_MAX_CHARS), AfterValidator(_check_body_key)
]
JsonMap = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS)], Json],
    Field(max_length=LIST_MAX_COUNT),
]
BodyValues = Annotated[dict[BodyKey, Json], Field(max_length=LIST_MAX_COUNT)]
MacroName = Annotated[str, AfterValidator(_check_macro_name)]
Macros = Annotated[
    dict[MacroName, Annotated[Any, AfterValidator(_check_scalar), WithJsonSchema(_SCALAR_SCHEMA)]],
    Field(max_length=LIST_MAX_COUNT),
]
Parameters = Annotated[
    dict[
        Annotated[str, AfterValidator(_check_parameter_name)],
        Annotated[Any, AfterValidator(_check_parameter), WithJsonSchema(_PARAMETER_SCHEMA)],
    ],
    Field(max_length=LIST_MAX_COUNT),
]
