"""What the core's reasons are at the edge: one kind of error for each, and what to do about it."""

from llama_router.core.commands import RejectKind
from llama_router.proxy import errors

_LOGS = "Its log, GET /logs/MODEL, says more"
# The kind of error, and what a person can do where the core's reason does not say that already.
_ERRORS: dict[RejectKind, tuple[type[errors.RequestError], str]] = {
    RejectKind.MODEL_NOT_FOUND: (errors.ModelNotFoundError, "GET /v1/models lists what there is"),
    RejectKind.MODEL_NOT_LOADED: (
        errors.ModelNotLoadedError,
        "Load it by POST /admin/load, or add ?autoload=true",
    ),
    RejectKind.MODEL_LOAD_FAILED: (errors.ModelLoadFailedError, _LOGS),
    RejectKind.LOAD_TIMEOUT: (
        errors.LoadTimeoutError,
        f"{_LOGS}; router.ready_timeout_s sets the limit",
    ),
    RejectKind.MODEL_BACKING_OFF: (
        errors.ModelBackingOffError,
        f"{_LOGS}; POST /admin/load tries it at once",
    ),
    RejectKind.MODEL_FAILED: (
        errors.ModelFailedError,
        f"{_LOGS}; POST /admin/load tries it at once",
    ),
    RejectKind.MODEL_UNLOADED: (
        errors.ModelUnloadedError,
        "Send the request again to have it loaded",
    ),
    RejectKind.MODEL_STUCK: (errors.ModelStuckError, ""),
    RejectKind.ENGINE_CRASHED: (errors.EngineCrashedError, _LOGS),
    RejectKind.SHUTTING_DOWN: (errors.ShuttingDownError, "Try again when it is up"),
    RejectKind.QUEUE_FULL: (
        errors.QueueFullError,
        "Try again later; router.max_waiting, or the model's own or max_requests, sets the limit",
    ),
    RejectKind.QUEUE_TIMEOUT: (
        errors.QueueTimeoutError,
        "Try again later; router.max_queue_s sets the limit",
    ),
    RejectKind.DOES_NOT_FIT: (errors.DoesNotFitError, ""),
}


def error_for(
    kind: RejectKind, reason: str, retry_after_s: float | None = None
) -> errors.RequestError:
    """Return the error with which a request ends that the core has rejected."""
    error, advice = _ERRORS[kind]
    return error(
        f"{reason.removesuffix('.')}. {advice}" if advice else reason, retry_after_s=retry_after_s
    )
