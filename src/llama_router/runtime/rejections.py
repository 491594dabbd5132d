"""What the core's reasons are at the edge: one kind of error for each."""

from llama_router.core.commands import RejectKind
from llama_router.proxy import errors

_ERRORS: dict[RejectKind, type[errors.RequestError]] = {
    RejectKind.MODEL_NOT_FOUND: errors.ModelNotFoundError,
    RejectKind.MODEL_NOT_LOADED: errors.ModelNotLoadedError,
    RejectKind.MODEL_LOAD_FAILED: errors.ModelLoadFailedError,
    RejectKind.LOAD_TIMEOUT: errors.LoadTimeoutError,
    RejectKind.MODEL_BACKING_OFF: errors.ModelBackingOffError,
    RejectKind.MODEL_FAILED: errors.ModelFailedError,
    RejectKind.MODEL_UNLOADED: errors.ModelUnloadedError,
    RejectKind.MODEL_STUCK: errors.ModelStuckError,
    RejectKind.ENGINE_CRASHED: errors.EngineCrashedError,
    RejectKind.SHUTTING_DOWN: errors.ShuttingDownError,
    RejectKind.QUEUE_FULL: errors.QueueFullError,
    RejectKind.QUEUE_TIMEOUT: errors.QueueTimeoutError,
    RejectKind.DOES_NOT_FIT: errors.DoesNotFitError,
}
# Another try by a client's own retry loop would meet the same state. Exceptions are a router that
# is going down, whose successor may be up by then, and a queue, which moves.
_WORTH_RETRYING = frozenset({RejectKind.QUEUE_FULL, RejectKind.SHUTTING_DOWN})


def error_for(
    kind: RejectKind, reason: str, retry_after_s: float | None = None
) -> errors.RequestError:
    """Return the error with which a request ends that the core has rejected."""
    return _ERRORS[kind](reason, retry_after_s=retry_after_s, should_retry=kind in _WORTH_RETRYING)
