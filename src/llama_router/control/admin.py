"""What operators ask for and look at: orders, plans, the status, the events and the history."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from enum import Enum
from typing import Annotated

import msgspec
from fastapi import FastAPI, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from llama_router.control.facade import HISTORY_MAX_COUNT, ControlError, Facade, ModelInfo
from llama_router.control.following import Following, Streams
from llama_router.control.objects import status_object
from llama_router.control.when import since_s

_HISTORY_DEFAULT_COUNT = 1000
# Joining them takes well under a millisecond, for which the data plane has no interpreter.
_PORTION_COUNT = 500
_NAME_MAX_CHARS = 1024
_WHEN_MAX_CHARS = 64
# Nobody has to ask for these.
_QUIET_STATES = ("unloaded", "invalid")


class ModelOrder(BaseModel):
    """The body of an order about one model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(min_length=1, max_length=_NAME_MAX_CHARS)


class HistoryFormat(Enum):
    """How the history is written down."""

    JSON = "json"
    JSONL = "jsonl"


def add_admin_routes(app: FastAPI, facade: Facade, streams: Streams) -> None:
    """Add the routes below ``/admin``."""

    @app.post("/admin/load")
    async def load(order: ModelOrder) -> dict[str, object]:
        return _order_done(await facade.load(order.model))

    @app.post("/admin/unload")
    async def unload(order: ModelOrder) -> dict[str, object]:
        return _order_done(await facade.unload(order.model))

    @app.post("/admin/plan")
    async def plan(order: ModelOrder) -> dict[str, object]:
        content: dict[str, object] = msgspec.to_builtins(await facade.plan(order.model))
        return content

    @app.get("/admin/status")
    async def status() -> dict[str, object]:
        content: dict[str, object] = msgspec.to_builtins(await facade.info())
        models = await facade.models()
        shown = [status_object(info) for info in models if _is_worth_showing(info)]
        return {**content, "models": shown}

    @app.get("/admin/events")
    async def events(
        model: Annotated[str | None, Query(min_length=1, max_length=_NAME_MAX_CHARS)] = None,
    ) -> Response:
        chosen = None if model is None else (await facade.model(model)).id
        return Following(
            streams,
            lambda wake: facade.follow_events(chosen, wake),
            render=_as_events,
            media_type="text/event-stream",
            heartbeat=":\n\n",
        )

    @app.get("/admin/history")
    async def history(
        since: Annotated[str, Query(max_length=_WHEN_MAX_CHARS)] = "",
        limit: Annotated[int, Query(ge=1, le=HISTORY_MAX_COUNT)] = _HISTORY_DEFAULT_COUNT,
        format: HistoryFormat = HistoryFormat.JSON,  # noqa: A002 - its name in the URL
    ) -> Response:
        try:
            from_s = since_s(since, time.time())
        except ValueError as error:
            raise ControlError(400, "invalid_request", f"since: {error}") from None
        records = await facade.history(from_s, limit)
        if format is HistoryFormat.JSONL:
            return StreamingResponse(_lines(records), media_type="application/jsonl")
        return StreamingResponse(_array(records), media_type="application/json")


def _order_done(info: ModelInfo) -> dict[str, object]:
    return {"success": True, "model": info.id, "state": info.state}


def _is_worth_showing(info: ModelInfo) -> bool:
    return info.state not in _QUIET_STATES or info.waiting > 0


def _as_events(lines: Sequence[str]) -> str:
    return "".join(f"data: {line}\n\n" for line in lines)


async def _lines(records: Sequence[bytes]) -> AsyncIterator[bytes]:
    for start in range(0, len(records), _PORTION_COUNT):
        yield b"\n".join(records[start : start + _PORTION_COUNT]) + b"\n"
        await asyncio.sleep(0)


async def _array(records: Sequence[bytes]) -> AsyncIterator[bytes]:
    yield b'{"requests":['
    for start in range(0, len(records), _PORTION_COUNT):
        portion = b",\n".join(records[start : start + _PORTION_COUNT])
        yield b",\n" + portion if start else portion
        await asyncio.sleep(0)
    yield b"]}\n"
