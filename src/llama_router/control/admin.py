"""What operators ask for and look at: orders, plans, the status and the history."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from enum import Enum
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query
from fastapi.responses import Response, StreamingResponse

from llama_router.control.errors import declared
from llama_router.control.facade import HISTORY_MAX_COUNT, ControlError, Facade, ModelInfo
from llama_router.control.objects import StatusShape, status_object
from llama_router.control.shapes import Answer, Name, Order, drained, encoded
from llama_router.control.when import since_s

_HISTORY_DEFAULT_COUNT = 1000
# Joining them takes well under a millisecond, for which the data plane has no interpreter.
_PORTION_COUNT = 500
_WHEN_MAX_CHARS = 64
# Nobody has to ask for these.
_QUIET_STATES = ("unloaded", "invalid")


class ModelOrder(Order):
    """The body of an order about one model."""

    model: Name


class OrderDone(Answer):
    """An order was carried out: the model's state since."""

    success: bool
    model: str
    state: str


class VictimShape(Answer):
    """A model that would have to go."""

    model: str
    reason: str
    in_flight: int


class PlanShape(Answer):
    """What a request for the model would cause now."""

    model: str
    state: str
    fits: bool
    reason: str
    wait_s: float | None
    load_cost_s: float
    needs: dict[str, int]
    free: dict[str, int]
    victims: list[VictimShape]


class DeviceShape(Answer):
    """Memory that engines are given of, in bytes."""

    name: str
    total_bytes: int | None
    budget_bytes: int
    reserved_bytes: int
    free_bytes: int


class RouterShape(Answer):
    """The router, its devices, and the models that run or are waited for."""

    version: str
    model_count: int
    connection_count: int
    requests_under_way: int
    uptime_s: float
    max_loop_lag_s: float
    unrecorded_count: int
    devices: list[DeviceShape]
    models: list[StatusShape]


class RecordShape(Answer):
    """One request that has ended."""

    time_s: float
    model: str
    total_s: float
    end: str
    key: str
    tokens_in: int | None
    tokens_out: int | None
    queue_s: float | None
    first_byte_s: float | None
    path: str
    status: int
    prompt: str


class HistoryShape(Answer):
    """Requests, oldest first."""

    requests: list[RecordShape]


class HistoryFormat(Enum):
    """How the history is written down."""

    JSON = "json"
    JSONL = "jsonl"


_HISTORY: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}}
}
# A load may fail in all the ways in which a request's can.
_LOAD_ERRORS = declared(409, 502, 504)


def add_admin_routes(app: FastAPI, facade: Facade) -> None:
    """Add orders, the plan, the status and the history."""
    _add_orders(app, facade)

    @app.get("/admin/status", response_model=RouterShape)
    async def status() -> Response:
        content: dict[str, object] = msgspec.to_builtins(await facade.info())
        models = await facade.models()
        shown = [status_object(info) for info in drained(models) if _is_worth_showing(info)]
        return encoded({**content, "models": shown})

    @app.get("/admin/history", response_model=HistoryShape, responses=_HISTORY)
    async def history(
        since: Annotated[str, Query(max_length=_WHEN_MAX_CHARS)] = "",
        limit: Annotated[int, Query(ge=1, le=HISTORY_MAX_COUNT)] = _HISTORY_DEFAULT_COUNT,
        format: HistoryFormat = HistoryFormat.JSON,  # noqa: A002 - its name in the URL
    ) -> Response:
        try:
            from_s = since_s(since, time.time())
        except ValueError as error:
            raise ControlError(400, "invalid_request", f"since: {error}", param="since") from None
        records = await facade.history(from_s, limit)
        if format is HistoryFormat.JSONL:
            return StreamingResponse(_lines(records), media_type="application/jsonl")
        return StreamingResponse(_array(records), media_type="application/json")


def _add_orders(app: FastAPI, facade: Facade) -> None:
    @app.post("/admin/load", responses=_LOAD_ERRORS)
    async def load(order: ModelOrder) -> OrderDone:
        return _order_done(await facade.load(order.model))

    @app.post("/admin/unload", responses=_LOAD_ERRORS)
    async def unload(order: ModelOrder) -> OrderDone:
        return _order_done(await facade.unload(order.model))

    @app.post("/admin/plan", response_model=PlanShape)
    async def plan(order: ModelOrder) -> Response:
        return encoded(await facade.plan(order.model))


def _order_done(info: ModelInfo) -> OrderDone:
    return OrderDone(success=True, model=info.id, state=info.state)


def _is_worth_showing(info: ModelInfo) -> bool:
    return info.state not in _QUIET_STATES or info.waiting > 0


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
