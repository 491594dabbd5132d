"""The router's own API: lists, health, logs and orders. An ordinary ASGI application.

It is reached through the data plane only, which has already checked host, origin and keys.
"""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from llama_router.control.admin import add_admin_routes
from llama_router.control.configuration import add_config_routes
from llama_router.control.docs_page import add_docs_page
from llama_router.control.downloads import add_download_routes
from llama_router.control.errors import COMMON, add_error_handlers, error_response
from llama_router.control.events import add_event_routes
from llama_router.control.facade import Facade
from llama_router.control.facades import (
    ConfigFacade,
    DownloadsFacade,
    KeysFacade,
    ProfilesFacade,
    SettingsFacade,
)
from llama_router.control.following import Streams
from llama_router.control.keys import add_key_routes
from llama_router.control.logs import add_log_routes
from llama_router.control.models import add_model_routes
from llama_router.control.openai import add_openai_routes
from llama_router.control.profiles import add_profile_routes
from llama_router.control.secret import SECRET_HEADER

_ERROR_SCHEMA = {"$ref": "#/components/schemas/ErrorBody"}

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


def create_app(
    facade: Facade,
    *,
    version: str,
    streams: Streams | None = None,
    configuration: ConfigFacade | None = None,
    settings: SettingsFacade | None = None,
    profiles: ProfilesFacade | None = None,
    keys: KeysFacade | None = None,
    downloads: DownloadsFacade | None = None,
) -> FastAPI:
    """Return the application over ``facade``; ``streams`` ends answers that go on.

    The routes over a facade that is None are not there.
    """
    streams = streams or Streams()
    # The stock pages for these would load scripts from elsewhere: blank on an offline machine. Nor
    # is it known here by which host and port a client has come, so nobody is sent elsewhere.
    app = FastAPI(
        title="llama-router",
        version=version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=COMMON,
    )
    add_error_handlers(app)
    add_openai_routes(app, facade, version)
    add_log_routes(app, facade, streams)
    add_admin_routes(app, facade)
    add_event_routes(app, facade, streams, downloads)
    add_model_routes(app, facade, settings)
    if configuration is not None:
        add_config_routes(app, configuration)
    if profiles is not None:
        add_profile_routes(app, profiles)
    if keys is not None:
        add_key_routes(app, keys)
    if downloads is not None:
        add_download_routes(app, downloads)
    add_docs_page(app)
    _describe_exactly(app)
    return app


def with_secret(app: _App, secret: str) -> _App:
    """Return ``app`` behind a check that a request comes through the data plane.

    What goes wrong inside is said in an answer and in one line of the log; the server above would
    log a traceback.
    """
    expected = secret.encode()

    async def guarded(scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "http":
            presented = b""
            for name, value in scope["headers"]:
                if name == SECRET_HEADER:
                    presented = value
            if not hmac.compare_digest(presented, expected):
                refusal = error_response(403, "forbidden", "this is the router's inner door")
                await refusal(scope, receive, send)
                return
            if scope["method"] == "HEAD":
                # Answered like GET (RFC 9110, section 9.3.2); the server leaves the body out.
                scope = {**scope, "method": "GET"}
        await app(scope, receive, send)

    return guarded


def _describe_exactly(app: FastAPI) -> None:
    """Let the OpenAPI description say what happens, where FastAPI says what usually does."""
    described = app.openapi

    def exact() -> dict[str, Any]:
        if app.openapi_schema is None:
            content = described()
            for operations in content["paths"].values():
                for operation in operations.values():
                    _correct(operation["responses"])
            for name in ("HTTPValidationError", "ValidationError"):
                content["components"]["schemas"].pop(name, None)
            app.openapi_schema = content
        return app.openapi_schema

    app.openapi = exact  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _correct(responses: dict[str, dict[str, Any]]) -> None:
    if "HTTPValidationError" in str(responses.get("422")):
        # Said by 400 here.
        del responses["422"]
    for status, answer in responses.items():
        if int(status) >= HTTPStatus.BAD_REQUEST:
            # Whatever the route's good answers are.
            answer["content"] = {"application/json": {"schema": _ERROR_SCHEMA}}
