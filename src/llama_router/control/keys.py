"""API keys: who may use the router and what for. A secret is shown once, when it is made."""

from typing import Annotated, Literal

import msgspec
from fastapi import FastAPI, Path
from fastapi.responses import Response
from pydantic import Field

from llama_router.control.errors import declared
from llama_router.control.facades import KeysFacade, NewKey
from llama_router.control.shapes import NAME_MAX_CHARS, Answer, Name, Order, encoded

_LIST_MAX_COUNT = 100
_KEY_NAME_MAX_CHARS = 100
_PATTERN_MAX_CHARS = 256
_PRIORITY_LIMIT = 1000
_PER_MINUTE_MAX_COUNT = 1_000_000
_IN_FLIGHT_MAX_COUNT = 100_000


class KeyShape(Answer):
    """A key without its secret."""

    id: str
    name: str
    scopes: list[Literal["inference", "admin"]]
    models: list[str]
    requests_per_minute: int
    max_in_flight: int
    priority: int
    batch: bool
    created_s: float | None
    last_used_s: float | None
    source: Literal["config", "store"]


class KeyList(Answer):
    """All keys."""

    keys: list[KeyShape]


class NewKeyShape(KeyShape):
    """A key that was just made: ``key`` is the secret, which is not shown again."""

    key: str


class RevokedShape(Answer):
    """A key opens nothing any more."""

    success: bool
    id: str
    name: str


def _usual_scopes() -> list[Literal["inference", "admin"]]:
    return ["inference"]


class NewKeyOrder(Order):
    """What a key is to be. ``models``: names or patterns; none: all models."""

    name: Annotated[str, Field(min_length=1, max_length=_KEY_NAME_MAX_CHARS, pattern=r"^[ -~]+$")]
    scopes: list[Literal["inference", "admin"]] = Field(
        default_factory=_usual_scopes, min_length=1, max_length=2
    )
    models: list[Annotated[str, Field(min_length=1, max_length=_PATTERN_MAX_CHARS)]] = Field(
        default_factory=list, max_length=_LIST_MAX_COUNT
    )
    requests_per_minute: Annotated[int, Field(ge=0, le=_PER_MINUTE_MAX_COUNT)] = 0
    max_in_flight: Annotated[int, Field(ge=0, le=_IN_FLIGHT_MAX_COUNT)] = 0
    priority: Annotated[int, Field(ge=-_PRIORITY_LIMIT, le=_PRIORITY_LIMIT)] = 0
    batch: bool = False

    def wanted(self) -> NewKey:
        """Return it as the runtime takes it."""
        return NewKey(
            name=self.name,
            scopes=tuple(dict.fromkeys(self.scopes)),
            models=tuple(dict.fromkeys(self.models)),
            requests_per_minute=self.requests_per_minute,
            max_in_flight=self.max_in_flight,
            priority=self.priority,
            batch=self.batch,
        )


def add_key_routes(app: FastAPI, facade: KeysFacade) -> None:
    """Add ``/admin/keys``."""

    @app.get("/admin/keys", response_model=KeyList)
    async def keys() -> Response:
        return encoded({"keys": await facade.keys()})

    @app.post("/admin/keys", status_code=201, response_model=NewKeyShape, responses=declared(409))
    async def add(order: NewKeyOrder) -> Response:
        info, secret = await facade.add_key(order.wanted())
        answer = encoded({**msgspec.structs.asdict(info), "key": secret}, 201)
        answer.headers["cache-control"] = "no-store"
        return answer

    @app.delete("/admin/keys/{name:path}", response_model=RevokedShape, responses=declared(409))
    async def revoke(
        name: Annotated[Name, Path(max_length=NAME_MAX_CHARS)],
    ) -> Response:
        revoked = await facade.revoke_key(name)
        return encoded({"success": True, "id": revoked.id, "name": revoked.name})
