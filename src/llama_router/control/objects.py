"""How models look in the API's answers."""

from llama_router.control.facade import ModelInfo

# llama-server's router mode knows these words for a model's status; ours map onto them.
_LLAMA_SERVER_STATUS = {
    "loading": "loading",
    "loaded": "loaded",
    # llama-server calls a model loaded until it is gone.
    "unloading": "loaded",
}
_FAILURES = ("backing_off", "failed", "stuck")


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
