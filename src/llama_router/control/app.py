"""The router's own API: lists, health, logs and orders. An ordinary ASGI application.

It is reached through the data plane only, which has already checked host, origin and keys.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from llama_router.control.facade import ControlError, Facade, ModelInfo
from llama_router.control.secret import SECRET_HEADER

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

# llama-server's router mode knows these words for a model's status; ours map onto them.
_LLAMA_SERVER_STATUS = {
    "loading": "loading",
    "loaded": "loaded",
    # llama-server calls a model loaded until it is gone.
    "unloading": "loaded",
}
_FAILURES = ("backing_off", "failed", "stuck")


class ModelOrder(BaseModel):
    """The body of an order about one model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(min_length=1, max_length=1024)


def create_app(facade: Facade, *, version: str) -> FastAPI:
    """Return the application over ``facade``."""
    # The stock pages for these would load scripts from elsewhere: blank on an offline machine.
    app = FastAPI(title="llama-router", version=version, docs_url=None, redoc_url=None)
    _add_error_handlers(app)
    _add_openai_routes(app, facade)
    _add_log_routes(app, facade)
    _add_admin_routes(app, facade)

    @app.get("/")
    async def root() -> dict[str, str]:
        return {"name": "llama-router", "version": version, "models": "/v1/models"}

    @app.get("/v1/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/props")
    async def props() -> dict[str, object]:
        # llama.cpp, tools/server: what its web UI asks a router first.
        return {
            "role": "router",
            "max_instances": 0,
            "models_autoload": True,
            "model_alias": "llama-router",
            "model_path": "none",
            "default_generation_settings": {"params": None, "n_ctx": 0},
            "ui_settings": {},
            "build_info": f"llama-router {version}",
            "cors_proxy_enabled": False,
        }

    return app


def with_secret(app: _App, secret: str) -> _App:
    """Return ``app`` behind a check that a request comes through the data plane."""
    expected = secret.encode()

    async def guarded(scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "http":
            presented = b""
            for name, value in scope["headers"]:
                if name == SECRET_HEADER:
                    presented = value
            if not hmac.compare_digest(presented, expected):
                refusal = _error(403, "forbidden", "this is the router's inner door")
                await refusal(scope, receive, send)
                return
            if scope["method"] == "HEAD":
                # Answered like GET (RFC 9110, section 9.3.2); the server leaves the body out.
                scope = {**scope, "method": "GET"}
        await app(scope, receive, send)

    return guarded


def _error(status: int, code: str, message: str, param: str | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"  # noqa: PLR2004
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": param, "code": code}}, status
    )


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ControlError)
    async def on_control_error(_request: Request, error: ControlError) -> Response:
        return _error(error.status, error.code, error.message)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:  # noqa: PLR2004
            message = f"there is no {request.method} {request.url.path} here"
            return _error(404, "not_found", message)
        if error.status_code == 405:  # noqa: PLR2004
            message = f"{request.url.path} does not take {request.method}"
            refusal = _error(405, "method_not_allowed", message)
            refusal.headers.update(error.headers or {})
            return refusal
        return _error(error.status_code, "invalid_request", str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return _error(400, "invalid_request", "the body is not valid JSON")
        if first["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):
            message = "send the body as JSON, with 'Content-Type: application/json'"
            return _error(400, "invalid_request", message)
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        message = f"{where}: {first['msg']}" if where else str(first["msg"])
        return _error(400, "invalid_request", message, where or None)

    @app.exception_handler(Exception)
    async def on_fault(_request: Request, _error_raised: Exception) -> Response:
        return _error(500, "internal_error", "the router made a mistake; its log says more")


def model_object(info: ModelInfo) -> dict[str, object]:
    """Return a model as OpenAI's list has it, with llama-server's additions."""
    status: dict[str, object] = {"value": _LLAMA_SERVER_STATUS.get(info.state, "unloaded")}
    if info.state not in ("unloaded", "loaded", "loading"):
        status["state"] = info.state
    if info.state in _FAILURES:
        status["failed"] = True
    if info.error:
        status["error"] = info.error
    if info.fraction is not None:
        status["progress"] = round(info.fraction, 3)
    modalities = ["text", "image"] if info.mmproj else ["text"]
    return {
        "id": info.id,
        "object": "model",
        "created": info.created_s,
        "owned_by": "llama-router",
        "aliases": list(info.names),
        "tags": [],
        "status": status,
        "architecture": {"input_modalities": modalities, "output_modalities": ["text"]},
        "source": info.source,
        "meta": {"size": info.size_bytes},
    }


def _add_openai_routes(app: FastAPI, facade: Facade) -> None:
    @app.get("/v1/models")
    @app.get("/models")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": [model_object(info) for info in await facade.models()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, object]:
        return model_object(await facade.model(name))


def _add_log_routes(app: FastAPI, facade: Facade) -> None:
    @app.get("/logs")
    async def all_logs(*, follow: bool = False) -> Response:
        return _log_response(facade, None, follow=follow)

    @app.get("/logs/{name:path}")
    async def model_logs(name: str, *, follow: bool = False) -> Response:
        return _log_response(facade, (await facade.model(name)).id, follow=follow)


def _log_response(facade: Facade, model: str | None, *, follow: bool) -> Response:
    # Engines write what they like: it must be shown as the text that it is.
    headers = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
    if not follow:
        return PlainTextResponse(facade.log_text(model), headers=headers)
    return StreamingResponse(
        _follow(facade, model), media_type="text/plain; charset=utf-8", headers=headers
    )


async def _follow(facade: Facade, model: str | None) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    waiting = asyncio.Event()
    follower = facade.follow_log(model, lambda: loop.call_soon_threadsafe(waiting.set))
    try:
        while True:
            await waiting.wait()
            waiting.clear()
            yield "".join(f"{line}\n" for line in follower.take())
    finally:
        follower.close()


def _add_admin_routes(app: FastAPI, facade: Facade) -> None:
    @app.post("/admin/load")
    async def load(order: ModelOrder) -> dict[str, object]:
        return _order_done(await facade.load(order.model))

    @app.post("/admin/unload")
    async def unload(order: ModelOrder) -> dict[str, object]:
        return _order_done(await facade.unload(order.model))

    @app.get("/admin/status")
    async def status() -> dict[str, object]:
        info = await facade.info()
        return {name: getattr(info, name) for name in info.__struct_fields__}


def _order_done(info: ModelInfo) -> dict[str, object]:
    return {"success": True, "model": info.id, "state": info.state}
