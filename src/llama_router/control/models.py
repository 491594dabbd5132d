"""The models one by one: what they are, how they are run, and what is changed about that."""

from collections.abc import Callable, Sequence
from enum import Enum
from heapq import merge
from typing import Annotated, Any, Literal

import msgspec
from fastapi import FastAPI, Query
from fastapi.responses import Response
from pydantic import Field

from llama_router.control.errors import declared
from llama_router.control.facade import ControlError, Facade, ListedModel, ModelInfo
from llama_router.control.facades import SettingsFacade
from llama_router.control.objects import ResidencyShape, residency
from llama_router.control.settings_shape import SettingsPatch, set_values
from llama_router.control.shapes import (
    Answer,
    Json,
    ModelName,
    Name,
    Order,
    drained,
    encoded,
)

PAGE_MAX_COUNT = 1000
_PAGE_DEFAULT_COUNT = 100
_SEARCH_MAX_CHARS = 200
# Sorted in one go; it takes less than half a millisecond.
_PORTION_COUNT = 500
# Those in which an engine holds the model's files.
_RUNNING_STATES = ("loading", "loaded", "unloading", "stuck")


class ModelShape(Answer):
    """A model in the list."""

    id: str
    names: list[str]
    title: str
    description: str
    source: str
    state: str
    group: str
    path: str
    mmproj: str
    draft: str
    size_bytes: int
    created_s: int
    unlisted: bool
    error: str
    progress: float | None
    retry_in_s: float | None
    metadata: Json
    capabilities: Json
    residency: ResidencyShape


class OtherShape(Answer):
    """A name that requests may have and that is none of this machine's models."""

    id: str
    kind: Literal["selector", "peer"]
    title: str
    description: str


class ModelPage(Answer):
    """A part of the list: ``total`` models fit the search.

    ``others`` that fit are all in each part, but none where a state is asked for: they have none.
    """

    models: list[ModelShape]
    others: list[OtherShape]
    total: int
    offset: int
    limit: int


class SettingsShape(Answer):
    """How a model is run, and where each setting comes from."""

    model: str
    settings: Json
    origins: dict[str, str]
    override: Json


class ModelDetail(Answer):
    """A model with its settings; those are null where it cannot be run."""

    model: ModelShape
    settings: SettingsShape | None


class ParameterShape(Answer):
    """An option of the engine."""

    name: str
    kind: Literal["flag", "integer", "number", "choice", "text"]
    aliases: list[str]
    opposites: list[str]
    choices: list[str]
    is_list: bool
    minimum: float | None
    maximum: float | None
    default: str
    help: str


class ParameterList(Answer):
    """What ``parameters`` may hold; null if the engine does not say which options it has."""

    parameters: list[ParameterShape] | None


class DeletedShape(Answer):
    """A model's files are gone."""

    success: bool
    model: str
    files: list[str]
    freed_bytes: int


class Configure(Order):
    """Settings over those of the config; null takes one back."""

    settings: SettingsPatch
    keep: Annotated[bool, Field(description="write them into the config file too")] = False


class Sorting(Enum):
    """What models can be sorted by."""

    ID = "id"
    SIZE = "size"
    CREATED = "created"
    STATE = "state"


class Direction(Enum):
    """Which comes first."""

    ASCENDING = "asc"
    DESCENDING = "desc"


def add_model_routes(app: FastAPI, facade: Facade, settings: SettingsFacade | None) -> None:
    """Add ``/admin/models`` and what is below it; without ``settings`` only what can be seen."""
    _add_list(app, facade, settings)
    if settings is not None:
        _add_changes(app, facade, settings)


def _add_list(app: FastAPI, facade: Facade, settings: SettingsFacade | None) -> None:
    @app.get("/admin/models", response_model=ModelPage)
    async def models(
        search: Annotated[str, Query(max_length=_SEARCH_MAX_CHARS)] = "",
        state: Annotated[str, Query(max_length=_SEARCH_MAX_CHARS)] = "",
        sort: Sorting = Sorting.ID,
        order: Direction = Direction.ASCENDING,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX_COUNT)] = _PAGE_DEFAULT_COUNT,
        offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    ) -> Response:
        words = search.casefold().split()
        found = [
            info
            for info in drained(await facade.models())
            if _fits(words, info.id, *info.names, info.title) and state in ("", info.state)
        ]
        content: dict[str, object] = {"total": len(found), "offset": offset, "limit": limit}
        found = _in_order(found, sort, order)
        content["models"] = [model_shape(info) for info in found[offset : offset + limit]]
        for _info in drained(found):
            pass
        others = [] if state else await facade.others()
        content["others"] = [
            other_shape(one) for one in drained(others) if _fits(words, one.id, one.title)
        ]
        return encoded(content)

    @app.get("/admin/models/{name:path}", response_model=ModelDetail)
    async def model(name: ModelName) -> Response:
        info = await facade.model(name)
        resolved = None
        if settings is not None and not info.is_remote:
            resolved = await settings.settings(info.id)
        return encoded({"model": model_shape(info), "settings": resolved})


def _add_changes(app: FastAPI, facade: Facade, settings: SettingsFacade) -> None:
    @app.patch(
        "/admin/models/{name:path}", response_model=SettingsShape, responses=declared(409, 412)
    )
    async def configure(name: ModelName, order: Configure) -> Response:
        changes = set_values(order.settings)
        if not changes:
            raise ControlError(400, "invalid_request", "no settings are given", param="settings")
        info = await facade.model(name)
        return encoded(await settings.configure(info.id, changes, keep=order.keep))

    # Before the route that would take it for a model's name.
    @app.delete("/admin/models/{name:path}/overrides", response_model=SettingsShape)
    async def drop_override(name: ModelName) -> Response:
        info = await facade.model(name)
        return encoded(await settings.drop_override(info.id))

    @app.delete(
        "/admin/models/{name:path}", response_model=DeletedShape, responses=declared(409, 424)
    )
    async def delete(
        name: ModelName,
        *,
        force: Annotated[
            bool,
            Query(description="unload it first, and take it out of the config as startup_model"),
        ] = False,
    ) -> Response:
        info = await facade.model(name)
        if not force and (info.state in _RUNNING_STATES or info.waiting):
            message = f"'{info.id}' is in use: unload it first, or say force=true"
            raise ControlError(409, "model_loaded", message)
        deleted = await settings.delete(info.id, force=force)
        return encoded({"success": True, **msgspec.structs.asdict(deleted)})

    @app.get("/admin/parameters", response_model=ParameterList)
    async def parameters(model: Annotated[Name | None, Query()] = None) -> Response:
        return encoded({"parameters": await settings.parameters(model)})


def model_shape(info: ModelInfo) -> dict[str, object]:
    """Return a model as a ModelShape has it."""
    return {
        "id": info.id,
        "names": info.names,
        "title": info.title,
        "description": info.description,
        "source": info.source,
        "state": info.state,
        "group": info.group,
        "path": info.path,
        "mmproj": info.mmproj,
        "draft": info.draft,
        "size_bytes": info.size_bytes,
        "created_s": info.created_s,
        "unlisted": info.is_unlisted,
        "error": info.error,
        "progress": info.fraction,
        "retry_in_s": info.retry_in_s,
        "metadata": info.metadata,
        "capabilities": info.capabilities,
        "residency": residency(info),
    }


def other_shape(listed: ListedModel) -> dict[str, object]:
    """Return a name as an OtherShape has it."""
    return {
        "id": listed.id,
        "kind": listed.kind,
        "title": listed.title,
        "description": listed.description,
    }


_SORT_KEYS: dict[Sorting, Callable[[ModelInfo], Any]] = {
    Sorting.ID: lambda info: info.id,
    Sorting.SIZE: lambda info: (info.size_bytes, info.id),
    Sorting.CREATED: lambda info: (info.created_s, info.id),
    Sorting.STATE: lambda info: (info.state, info.id),
}


def _in_order(found: list[ModelInfo], sort: Sorting, order: Direction) -> list[ModelInfo]:
    """Return models, which come sorted by id, in another order.

    In portions: one sort of ten thousand would not let another thread in.
    """
    key, is_reversed = _SORT_KEYS[sort], order is Direction.DESCENDING
    portions = [
        sorted(found[start : start + _PORTION_COUNT], key=key, reverse=is_reversed)
        for start in range(0, len(found), _PORTION_COUNT)
    ]
    return list(merge(*portions, key=key, reverse=is_reversed))


def _fits(words: Sequence[str], *names: str) -> bool:
    text = " ".join(names).casefold()
    return all(word in text for word in words)
