"""The router's own API: lists, health, logs and orders. An ordinary ASGI application.

It is reached through the data plane only, which has already checked host, origin and keys.
"""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from llama_router.control.admin import add_admin_routes
from llama_router.control.facade import ControlError, Facade
from llama_router.control.following import AS_IT_IS, Following, Streams
from llama_router.control.objects import model_object
from llama_router.control.secret import SECRET_HEADER

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

# Where FastAPI says that it found something; who asked knows.
_PLACES = ("body", "query")


def create_app(facade: Facade, *, version: str, streams: Streams | None = None) -> FastAPI:
    """Return the application over ``facade``; ``streams`` ends answers that go on."""
    streams = streams or Streams()
    # The stock pages for these would load scripts from elsewhere: blank on an offline machine.
    app = FastAPI(title="llama-router", version=version, docs_url=None, redoc_url=None)
    _add_error_handlers(app)
    _add_openai_routes(app, facade)
    _add_log_routes(app, facade, streams)
    add_admin_routes(app, facade, streams)

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
        where = ".".join(str(part) for part in first["loc"] if part not in _PLACES)
        message = f"{where}: {first['msg']}" if where else str(first["msg"])
        return _error(400, "invalid_request", message, where or None)

    @app.exception_handler(Exception)
    async def on_fault(_request: Request, _error_raised: Exception) -> Response:
        return _error(500, "internal_error", "the router made a mistake; its log says more")


def _add_openai_routes(app: FastAPI, facade: Facade) -> None:
    @app.get("/v1/models")
    @app.get("/models")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": [model_object(info) for info in await facade.models()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, object]:
        return model_object(await facade.model(name))


def _add_log_routes(app: FastAPI, facade: Facade, streams: Streams) -> None:
    @app.get("/logs")
    async def all_logs(*, follow: bool = False) -> Response:
        return _log_response(facade, streams, None, follow=follow)

    @app.get("/logs/{name:path}")
    async def model_logs(name: str, *, follow: bool = False) -> Response:
        return _log_response(facade, streams, (await facade.model(name)).id, follow=follow)


def _log_response(facade: Facade, streams: Streams, model: str | None, *, follow: bool) -> Response:
    if not follow:
        return PlainTextResponse(facade.log_text(model), headers=AS_IT_IS)
    return Following(
        streams,
        lambda wake: facade.follow_log(model, wake),
        render=lambda lines: "".join(f"{line}\n" for line in lines),
        media_type="text/plain; charset=utf-8",
    )
