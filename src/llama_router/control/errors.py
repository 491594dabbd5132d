"""How the router's own API says no: one object for every error, declared in its OpenAPI too."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import Match

from llama_router.control.facade import ControlError

_log = logging.getLogger(__name__)

# Where FastAPI says that it found something; who asked knows.
_PLACES = ("body", "query", "path", "header")
# By pydantic's kinds of faults; the others it words well enough.
_WORDS = {"missing": "is missing", "extra_forbidden": "is not known here"}
# Of what somebody sent, in an answer.
_SHOWN_MAX_CHARS = 300
_SERVER_ERRORS_FROM = 500


class ErrorDetail(BaseModel):
    """What is wrong; ``param`` is the field at fault, if it is one."""

    model_config = ConfigDict(extra="forbid")

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Every answer with a status from 400 on."""

    model_config = ConfigDict(extra="forbid")

    error: ErrorDetail


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route's ``responses`` say about these errors."""
    return {
        status: {"model": ErrorBody, "description": HTTPStatus(status).phrase}
        for status in statuses
    }


# What any route may answer: the checks of the data plane come before all of them.
COMMON = declared(400, 401, 403, 404, 405, 413, 414, 415, 429, 431, 500, 503)


def error_response(status: int, code: str, message: str, param: str | None = None) -> JSONResponse:
    """Return an error answer."""
    kind = "invalid_request_error" if status < _SERVER_ERRORS_FROM else "server_error"
    detail = {"message": _sendable(message), "type": kind, "param": param, "code": code}
    return JSONResponse({"error": detail}, status)


def add_error_handlers(app: FastAPI) -> None:
    """Let every error of ``app`` be said in the common form."""

    @app.exception_handler(ControlError)
    async def on_control_error(_request: Request, error: ControlError) -> Response:
        refusal = error_response(error.status, error.code, error.message, error.param)
        if error.retry_after_s is not None:
            refusal.headers["retry-after"] = str(max(1, round(error.retry_after_s)))
        return refusal

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        path = _shown(request.url.path)
        if error.status_code == HTTPStatus.NOT_FOUND:
            return error_response(404, "not_found", f"there is no {request.method} {path} here")
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            message = f"{path} does not take {request.method}"
            refusal = error_response(405, "method_not_allowed", message)
            refusal.headers["allow"] = ", ".join(_methods(app, request))
            return refusal
        return error_response(error.status_code, "invalid_request", str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return error_response(400, "invalid_request", "the body is not valid JSON")
        if first["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):
            message = "send the body as JSON, with 'Content-Type: application/json'"
            return error_response(400, "invalid_request", message)
        place = (
            first["loc"][1:] if first["loc"][:1] and first["loc"][0] in _PLACES else first["loc"]
        )
        where = _shown(".".join(str(part) for part in place))
        said = _WORDS.get(first["type"], first["msg"])
        message = f"{where}: {said}" if where else str(said)
        return error_response(400, "invalid_request", message, where or None)

    @app.exception_handler(Exception)
    async def on_fault(request: Request, error: Exception) -> Response:
        # Where it happened, and never what was in it: values may be secrets.
        _log.error("fault in %s %s: %s", request.method, _shown(request.url.path), _place(error))
        return error_response(500, "internal_error", "the router made a mistake; its log says more")


def _methods(app: FastAPI, request: Request) -> list[str]:
    """Return the methods that the path of a request takes, of all routes that match it."""
    methods: set[str] = set()
    for route in app.router.routes:
        match, _scope = route.matches(request.scope)
        if match is not Match.NONE:
            methods |= set(getattr(route, "methods", None) or ())
    if "GET" in methods:
        methods.add("HEAD")
    return sorted(methods)


def _place(error: BaseException) -> str:
    """Return the kind of an error and where in our code it came up."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "llama_router" in code.co_filename:
            place = f" at {code.co_filename.rpartition('llama_router')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{place}"


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX_CHARS else f"{text[:_SHOWN_MAX_CHARS]}…"


def _sendable(text: str) -> str:
    # JSON may name lone surrogates, which UTF-8 does not.
    return text.encode("utf-8", "replace").decode()
