"""How models look in the API's answers."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from llama_router.control.facade import ListedModel, ModelInfo
from llama_router.control.shapes import Answer, Json

# llama-server's router mode knows these words for a model's status; ours map onto them.
_LLAMA_SERVER_STATUS = {
    "loading": "loading",
    "loaded": "loaded",
    # llama-server calls a model loaded until it is gone.
    "unloading": "loaded",
}
_FAILURES = ("backing_off", "failed", "stuck")


class ResidencyShape(Answer):
    """What keeps a model in memory or costs it its place."""

    in_flight: int
    waiting: int
    pinned: bool
    memory: dict[str, int]
    is_booked: bool
    is_measured: bool
    load_cost_s: float
    ttl_s: float | None
    expires_at_s: float | None
    last_eviction: str


class StatusShape(ResidencyShape):
    """A model as the router's status lists it."""

    id: str
    state: str
    group: str
    progress: float | None = None
    error: str | None = None
    retry_in_s: float | None = None


class ListedShape(BaseModel):
    """A model as OpenAI's list has it, with llama-server's additions and ours."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    created: int
    owned_by: str
    aliases: list[str] | None = None
    status: Json | None = None
    meta: Json | None = None
    residency: ResidencyShape | None = None


class ListShape(Answer):
    """OpenAI's list of models."""

    object: str
    data: list[ListedShape]


def listed_object(listed: ListedModel) -> dict[str, Any]:
    """Return a name as the list of models has it."""
    shown = {} if listed.info is None else model_object(listed.info)
    shown |= {
        "id": listed.id,
        "object": "model",
        "created": listed.created_s,
        "owned_by": listed.owner,
    }
    if listed.kind != "model":
        shown["kind"] = listed.kind
    # As llama-swap has them.
    if listed.title:
        shown["name"] = listed.title
    if listed.description:
        shown["description"] = listed.description
    if listed.metadata:
        shown["meta"] = {**shown.get("meta", {}), "llamaswap": listed.metadata}
    if listed.info is not None and listed.info.capabilities:
        shown |= _advertised(listed.info.capabilities, shown)
    return shown


def _advertised(said: Mapping[str, object], shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the config says that a model can do, as llama-swap's list and others have it."""
    architecture = dict(shown["architecture"])
    for key, name in (("in", "input_modalities"), ("out", "output_modalities")):
        if _is_texts(said.get(key)):
            architecture[name] = said[key]
    has_tools = said.get("tools") is True
    advertised: dict[str, Any] = {
        "architecture": architecture,
        "capabilities": {**said, "function_calling": has_tools},
    }
    if has_tools:
        advertised["supported_parameters"] = ["tools", "tool_choice"]
    context = said.get("context")
    if isinstance(context, int) and not isinstance(context, bool) and context > 0:
        advertised["context_length"] = context
    return advertised


def _is_texts(value: object) -> bool:
    """Tell whether it is what lists of models have there: clients go by its form."""
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(isinstance(one, str) for one in value)


def model_object(info: ModelInfo) -> dict[str, Any]:
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
        "residency": residency(info),
    }


def residency(info: ModelInfo) -> dict[str, object]:
    """Return what keeps a model in memory or costs it its place; see ModelInfo."""
    return {
        "in_flight": info.in_flight,
        "waiting": info.waiting,
        "pinned": info.pinned,
        "memory": info.memory,
        "is_booked": info.is_booked,
        "is_measured": info.is_measured,
        "load_cost_s": round(info.load_cost_s, 3),
        "ttl_s": info.ttl_s,
        "expires_at_s": info.expires_at_s,
        "last_eviction": info.last_eviction,
    }


def status_object(info: ModelInfo) -> dict[str, object]:
    """Return a model as the router's status lists it."""
    shown: dict[str, object] = {"id": info.id, "state": info.state, "group": info.group}
    if info.fraction is not None:
        shown["progress"] = round(info.fraction, 3)
    if info.error:
        shown["error"] = info.error
    if info.retry_in_s is not None:
        shown["retry_in_s"] = round(info.retry_in_s, 3)
    return {**shown, **residency(info)}
