"""What every body that comes in, and every one that goes out, has in common."""

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote

import msgspec
from fastapi import Header, Path
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

_T = TypeVar("_T")
NAME_MAX_CHARS = 1024
LIST_MAX_COUNT = 1000


class Order(BaseModel):
    """Something asked for. What it does not know is refused, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Answer(BaseModel):
    """Something told; it has exactly these fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS)]
ModelName = Annotated[str, Path(min_length=1, max_length=NAME_MAX_CHARS)]
"""In a path, where it may hold slashes."""
KeyOwner = Annotated[
    str, Header(alias="x-router-key", include_in_schema=False), AfterValidator(unquote)
]
"""The name of the key that a request came with, as the data plane says; "" for none.

What a client says of it is not passed on. It is percent-encoded on the way.
"""
KeyScopes = Annotated[str, Header(alias="x-router-scopes", include_in_schema=False)]
"""What the keys of a request open, with commas between; told by the data plane alone, too."""
Json = dict[str, JsonValue]


def encoded(content: object, status: int = 200) -> Response:
    """Return an answer that is encoded as it is.

    For what is long: pydantic would hold the interpreter for some tenths of a second.
    """
    return Response(json_of(content), status, media_type="application/json")


def json_of(content: object) -> bytes:
    """Return ``content`` as JSON, its long lists item by item.

    In one piece, a list of thousands would keep the interpreter from the data plane's thread for
    ten milliseconds.
    """
    encode = msgspec.json.Encoder().encode
    if not isinstance(content, dict):
        return encode(content)
    parts = []
    for key, value in content.items():
        if isinstance(value, list):
            parts.append(encode(key) + b":[" + b",".join([encode(item) for item in value]) + b"]")
        else:
            parts.append(encode(key) + b":" + encode(value))
    return b"{" + b",".join(parts) + b"}"


def drained(items: list[_T]) -> Iterator[_T]:
    """Give a list's items, and let each go before the next.

    Thousands that are freed in one go would keep the interpreter from the data plane's thread for
    ten milliseconds.
    """
    items.reverse()
    while items:
        yield items.pop()


def event_stream(description: str) -> dict[int | str, dict[str, Any]]:
    """Declare an answer of server-sent events."""
    data = {"type": "string", "contentMediaType": "application/json"}
    event = {"type": "object", "properties": {"id": {"type": "string"}, "data": data}}
    content = {"text/event-stream": {"schema": event}}
    return {200: {"description": description, "content": content}}


def plain_text(description: str) -> dict[int | str, dict[str, Any]]:
    """Declare an answer of plain text."""
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {200: {"description": description, "content": content}}
