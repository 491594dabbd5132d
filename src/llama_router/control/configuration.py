"""The config file: read, edit, check, read again; and looking for models anew."""

import re
from typing import Annotated, Literal

import msgspec
from fastapi import FastAPI, Header, Query, Request
from fastapi.responses import Response
from pydantic import Field, JsonValue

from llama_router.control.errors import declared
from llama_router.control.facade import ControlError
from llama_router.control.facades import ConfigEdit, ConfigFacade, ReloadInfo
from llama_router.control.models import SettingsShape
from llama_router.control.shapes import NAME_MAX_CHARS, Answer, Json, Name, Order, encoded

_EDITS_MAX_COUNT = 256
_PATH_MAX_COUNT = 32
_ETAG_MAX_CHARS = 256
# That of the longest file that is read.
_TEXT_MAX_CHARS = 4 * 1024 * 1024
_FOLDER_MAX_CHARS = 4096
# RFC 9110, section 8.8.3; without its quotes it is as clear.
_ETAG = re.compile(r'\s*(?:W/)?(?:"([^"]*)"|([^\s",*]+))\s*')


class ConfigShape(Answer):
    """The config file; secrets in it are blacked out, so it is for reading."""

    path: str
    text: str
    etag: str


class EditShape(Order):
    """One change of the file. ``path``: keys, and numbers from 0 for items of lists."""

    op: Literal["set", "remove"]
    path: Annotated[
        list[Annotated[str, Field(max_length=NAME_MAX_CHARS)] | Annotated[int, Field(ge=0)]],
        Field(min_length=1, max_length=_PATH_MAX_COUNT),
    ]
    value: JsonValue = None


class EditsOrder(Order):
    """Changes of the file, all or none."""

    edits: Annotated[list[EditShape], Field(min_length=1, max_length=_EDITS_MAX_COUNT)]


class ReloadShape(Answer):
    """What has changed in the running router."""

    status: Literal["reloaded"]
    changed: list[str]
    added: list[str]
    removed: list[str]
    restart_needed: list[str]
    warnings: list[str]


class EditedShape(ReloadShape):
    """The file is changed and read; ``etag`` is its version now."""

    etag: str


class ValidateOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A config to be checked, YAML or JSON."""

    text: Annotated[str, msgspec.Meta(max_length=_TEXT_MAX_CHARS)]


_TEXT_SCHEMA = {"type": "string", "maxLength": _TEXT_MAX_CHARS, "title": "Text"}
_VALIDATE_SCHEMA = {
    "type": "object",
    "properties": {"text": _TEXT_SCHEMA},
    "required": ["text"],
    "additionalProperties": False,
    "description": "A config to be checked, YAML or JSON.",
}
_VALIDATE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _VALIDATE_SCHEMA}},
    }
}


class ProblemShape(Answer):
    """What is wrong, and where."""

    message: str
    key: str
    file: str
    line: int
    column: int


class VerdictShape(Answer):
    """Whether a config can be used."""

    valid: bool
    problems: list[ProblemShape]


class RescanShape(Answer):
    """What has come and gone on disk."""

    status: Literal["rescanned"]
    new_models: int
    removed: int
    changed: int
    warnings: list[str]


class ImportOrder(Order):
    """A folder of the router's machine, searched with all below it."""

    path: Annotated[str, Field(min_length=1, max_length=_FOLDER_MAX_CHARS)]
    state: Literal["manual", "auto"] = "manual"


class ImportShape(Answer):
    """What the folder has brought."""

    status: Literal["imported"]
    added: list[str]
    skipped: list[str]
    warnings: list[str]


def add_config_routes(app: FastAPI, facade: ConfigFacade) -> None:
    """Add ``/admin/config`` and what belongs to it."""
    _add_file(app, facade)
    _add_orders(app, facade)


def _add_file(app: FastAPI, facade: ConfigFacade) -> None:
    @app.get("/admin/config", response_model=ConfigShape | SettingsShape)
    async def config(
        resolved: Annotated[Name | None, Query(description="a model's name")] = None,
    ) -> Response:
        if resolved is not None:
            return encoded(await facade.resolved(resolved))
        content = await facade.text()
        answer = encoded(content)
        answer.headers["etag"] = _quoted(content.etag)
        return answer

    @app.patch("/admin/config", response_model=EditedShape, responses=declared(409, 412, 422, 428))
    async def edit(
        order: EditsOrder,
        if_match: Annotated[str | None, Header(max_length=_ETAG_MAX_CHARS)] = None,
    ) -> Response:
        known = _etags(if_match)
        if known == ():
            message = "send If-Match with the ETag of GET /admin/config, so that no edit is lost"
            raise ControlError(428, "precondition_required", message, param="if-match")
        edits = [ConfigEdit(one.op, tuple(one.path), one.value) for one in order.edits]
        etag, report = await facade.edit(edits, await _meant(known, facade))
        answer = encoded({**_reload_content(report), "etag": etag})
        answer.headers["etag"] = _quoted(etag)
        return answer

    @app.post("/admin/config/validate", response_model=VerdictShape, openapi_extra=_VALIDATE_BODY)
    async def validate(request: Request) -> Response:
        # Read here: of a long text, the standard library's reader would hold the interpreter for
        # tens of milliseconds.
        try:
            order = msgspec.json.decode(await request.body(), type=ValidateOrder)
        except msgspec.DecodeError as error:
            raise ControlError(400, "invalid_request", f"the body: {error}") from None
        problems = await facade.validate(order.text)
        return encoded({"valid": not problems, "problems": problems})

    @app.get("/admin/config/schema", response_model=Json)
    async def schema() -> Response:
        return Response(await facade.schema(), media_type="application/json")


def _add_orders(app: FastAPI, facade: ConfigFacade) -> None:
    @app.post("/admin/reload", response_model=ReloadShape, responses=declared(409))
    async def reload() -> Response:
        return encoded(_reload_content(await facade.reload()))

    @app.post("/admin/rescan", response_model=RescanShape, responses=declared(409))
    async def rescan() -> Response:
        return encoded({"status": "rescanned", **msgspec.structs.asdict(await facade.rescan())})

    @app.post("/admin/import", response_model=ImportShape, responses=declared(409, 412))
    async def import_folder(order: ImportOrder) -> Response:
        found = await facade.import_folder(order.path, order.state)
        return encoded({"status": "imported", **msgspec.structs.asdict(found)})


def _reload_content(report: ReloadInfo) -> dict[str, object]:
    return {"status": "reloaded", **msgspec.structs.asdict(report)}


def _quoted(etag: str) -> str:
    # RFC 9110, section 8.8.3.
    return f'"{etag}"'


def _etags(header: str | None) -> tuple[str, ...] | None:
    """Return the versions that an If-Match names, none without it; None for any, ``*``.

    Weak ones count: proxies that compress make them of ours, which are the text's own hash.
    """
    text = (header or "").strip()
    if text == "*":
        return None
    etags = []
    for item in text.split(",") if text else ():
        match = _ETAG.fullmatch(item)
        if match is None:
            message = "If-Match: is neither * nor a list of ETags"
            raise ControlError(400, "invalid_request", message, param="if-match")
        etags.append(match[1] if match[2] is None else match[2])
    return tuple(etags)


async def _meant(known: tuple[str, ...] | None, facade: ConfigFacade) -> str | None:
    """Return the one of several versions that the file is of now, if it is any of them."""
    if known is None:
        return None
    if len(known) > 1 and (now := (await facade.text()).etag) in known:
        return now
    return known[0]
