"""Everything that the core may ask for: the closed vocabulary of its output.

The caller carries the commands out in their order and reports what came of them as events.
Every command is idempotent towards its object: doing it twice is doing it once.
"""

from enum import Enum

import msgspec

from llama_router.core.events import Timer


class Command(msgspec.Struct, frozen=True):
    """Something to be done. Only the subclasses below are ever returned by the core."""


class Spawn(Command, frozen=True):
    """Start the engine of ``model``; answer with EngineSpawned or SpawnFailed."""

    model: str
    generation: int


class Inspect(Command, frozen=True):
    """Look whether the engine of ``model`` could be started; answer with ModelInspected.

    That its executable exists and its files can be read, nothing that takes long. Asked before
    another engine is stopped for the model's sake; ``inspection`` numbers the question.
    """

    model: str
    inspection: int


class Terminate(Command, frozen=True):
    """Ask the engine to end in its own way; the core sends Kill when it does not."""

    model: str
    generation: int


class Kill(Command, frozen=True):
    """End the engine's whole process tree now."""

    model: str
    generation: int


class Dispatch(Command, frozen=True, gc=False):
    """Send the request to the engine. Exactly one of Dispatch-then-finish or Reject ends it."""

    request_id: int
    model: str
    generation: int


class RejectKind(Enum):
    """Why a request gets no engine. Each kind has one status and one ``code`` at the edge."""

    MODEL_NOT_FOUND = "model_not_found"
    MODEL_NOT_LOADED = "model_not_loaded"
    MODEL_LOAD_FAILED = "model_load_failed"
    LOAD_TIMEOUT = "load_timeout"
    MODEL_BACKING_OFF = "model_backing_off"
    MODEL_FAILED = "model_failed"
    MODEL_UNLOADED = "model_unloaded"
    MODEL_STUCK = "model_stuck"
    ENGINE_CRASHED = "engine_crashed"
    SHUTTING_DOWN = "shutting_down"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    DOES_NOT_FIT = "does_not_fit"


class Reject(Command, frozen=True):
    """Tell the request's client why it gets no answer. ``retry_after_s`` is a hint, if any."""

    request_id: int
    kind: RejectKind
    reason: str
    retry_after_s: float | None = None


class Abort(Command, frozen=True):
    """Cut a dispatched request: its time is over. RequestFinished must still follow."""

    request_id: int
    reason: str


class NoticeKind(Enum):
    """What a waiting client can be told."""

    UNLOADING = "unloading"
    LOADING = "loading"
    READY = "ready"
    QUEUED = "queued"


class Notify(Command, frozen=True):
    """Tell a waiting request how its load is going, or where in its queue it stands.

    ``model`` is the one that is unloaded, loaded, ready or queued for; ``fraction`` (0 to 1) is how
    far loading has come, as the engine says, or elapsed against what its last load took; None when
    unknown. ``position`` is there only with QUEUED: how many requests of the model's queue go
    before it, as things are, plus one.
    """

    request_id: int
    kind: NoticeKind
    model: str
    fraction: float | None = None
    position: int | None = None


class Settled(Command, frozen=True):
    """A LoadRequested or UnloadRequested has come to its end; ``error`` is None when it worked."""

    request_id: int
    error: RejectKind | None = None
    reason: str = ""


class SetTimer(Command, frozen=True):
    """Report TimerFired(timer) at ``at`` (the clock of ``handle``); replacing its namesake."""

    timer: Timer
    at: float


class CancelTimer(Command, frozen=True):
    """The timer is not needed any more."""

    timer: Timer


class Emit(Command, frozen=True):
    """For logs and feeds: ``model`` went from state ``old`` to ``new`` (values of ``State``)."""

    model: str
    old: str
    new: str
    reason: str


class ShutdownComplete(Command, frozen=True):
    """Nothing runs any more."""
