"""Everything that can happen to the core: the closed vocabulary of its input.

Each event is a value. Times are seconds of one monotonic clock that the caller owns; the core only
compares and adds them. A ``generation`` numbers the starts of engines across the whole router: what
belongs to an earlier start carries an earlier number and is ignored.
"""

from enum import Enum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from llama_router.core.settings import CoreSettings


class Event(msgspec.Struct, frozen=True):
    """Something that happened. Only the subclasses below are ever handed to the core."""


class RequestArrived(Event, frozen=True, gc=False):
    """A client's request for ``model`` is complete and wants an engine.

    ``request_id`` is unique for the life of the router and grows with each arrival.
    ``may_load`` is false for requests that must never start an engine (a plain GET): such a one
    is dispatched or rejected at once, never queued, does not count as use of the model, and holds
    up no swap. ``wants_notices`` asks for ``Notify`` commands while waiting. ``key`` names the API
    key; keys take turns in a queue. The higher ``priority`` goes first, and among equals the
    interactive before the batch. ``keep_alive_s`` takes the place of the model's ``ttl_s`` until
    it is unloaded; it is what the operator allows already, and infinite or negative for "no end".
    ``takes_slot`` is false for what costs the engine next to nothing (tokenize, props): neither
    ``max_in_flight`` nor those who wait for one of the engine's slots hold it up.
    """

    request_id: int
    model: str
    may_load: bool = True
    wants_notices: bool = False
    key: str = ""
    priority: int = 0
    is_batch: bool = False
    keep_alive_s: float | None = None
    takes_slot: bool = True


class RequestCancelled(Event, frozen=True, gc=False):
    """The client left. Valid at any time; ignored when the request has already ended."""

    request_id: int


class RequestFinished(Event, frozen=True, gc=False):
    """A dispatched request ended: answered, failed by its engine, or cut."""

    request_id: int


class RequestBounced(Event, frozen=True):
    """A dispatched request got no byte from its engine and can be sent again as it was."""

    request_id: int


class ModelInspected(Event, frozen=True):
    """The answer to an ``Inspect``: ``problem`` is why ``model`` cannot be started, empty if none.

    It is for people. A problem is counted as a load that failed, and costs no other model.
    """

    model: str
    inspection: int
    problem: str = ""


class EngineSpawned(Event, frozen=True):
    """The process of ``generation`` exists."""

    model: str
    generation: int


class SpawnFailed(Event, frozen=True):
    """No process came of a ``Spawn``: nothing to stop or reap. ``reason`` is for people."""

    model: str
    generation: int
    reason: str


class EngineProgress(Event, frozen=True):
    """Loading has come as far as ``fraction`` (0 to 1).

    As the engine says, or elapsed against what its last load took.
    """

    model: str
    generation: int
    fraction: float


class EngineReady(Event, frozen=True):
    """The engine of ``generation`` answers, and it is known to be ours."""

    model: str
    generation: int


class ExitCause(Enum):
    """Why an engine's process ended, as far as can be told from outside."""

    EXITED = "exited"
    OUT_OF_MEMORY = "out_of_memory"
    ADDRESS_IN_USE = "address_in_use"


class EngineExited(Event, frozen=True):
    """The engine's main process ended; its resources are free only with :class:`EngineReaped`.

    ``reason`` is for people ("exited with status 1", "killed by SIGSEGV").
    """

    model: str
    generation: int
    reason: str
    cause: ExitCause = ExitCause.EXITED


class EngineReaped(Event, frozen=True):
    """Nothing of the engine's process tree is left: its memory and its address are free."""

    model: str
    generation: int


class AddressStolen(Event, frozen=True):
    """A process that is not the engine's answers on the engine's address."""

    model: str
    generation: int


class LoadRequested(Event, frozen=True):
    """An operator (or the start-up) wants ``model`` loaded; it queues like a request.

    ``request_id`` comes from the same sequence as those of requests. It is answered by ``Settled``.
    """

    request_id: int
    model: str


class UnloadRequested(Event, frozen=True):
    """An operator wants ``model`` stopped: drained, then terminated; ends in ``Settled``."""

    request_id: int
    model: str


class DeviceBytes(msgspec.Struct, frozen=True):
    """An amount of one device's memory: RAM, or a GPU's. ``device`` is its name."""

    device: str
    size_bytes: int


class ModelSpec(msgspec.Struct, frozen=True):
    """What the core must know of a model.

    ``group``: models of one group may run together; others exclude each other. The models without
    one (the empty name) are such a group, too: memory alone restricts them.
    ``address``: where its engine listens, if that is always the same; no two with the same one run
    at a time.
    ``fingerprint``: changes when the engine would have to be restarted to follow the config.
    ``memory``: what its engine needs on each device, as estimated; empty when that is not known.
    ``load_cost_s``: how long a load takes, as far as known.
    ``pinned``: once loaded it stays, whoever waits; only an operator unloads it.
    ``ttl_s``: unloaded this long after the end of its last request; None: never by time.
    ``priority``: the higher is loaded first, and never gives way early to a lower one.
    ``max_in_flight``: requests at a time, 0 for any number. ``max_waiting`` (0) and
    ``min_residency_s`` (None): the router's, see ``CoreSettings``. ``max_requests``: those that run
    and wait together, 0 for any number.
    Times in seconds; see ``config`` for their meaning and defaults.
    """

    name: str
    group: str
    fingerprint: str = ""
    ready_timeout_s: float = 60.0
    stop_grace_s: float = 2.0
    drain_deadline_s: float = 300.0
    memory: tuple[DeviceBytes, ...] = ()
    load_cost_s: float = 1.0
    pinned: bool = False
    ttl_s: float | None = None
    priority: int = 0
    max_in_flight: int = 0
    max_waiting: int = 0
    max_requests: int = 0
    min_residency_s: float | None = None
    address: str = ""


class ModelsChanged(Event, frozen=True):
    """The models are now exactly these. Unchanged ones are not touched."""

    models: tuple[ModelSpec, ...]


class ModelsPatched(Event, frozen=True):
    """These models are new or other than they were, those are not configured any more.

    What is named by neither is not touched: a portion of what ``ModelsChanged`` says at once, so
    that thousands of changes need not be taken in in one step. Who is in both is there.
    """

    changed: tuple[ModelSpec, ...] = ()
    removed: tuple[str, ...] = ()


class SettingsChanged(Event, frozen=True):
    """The limits and rules are now these, but for the budgets: see ``BudgetsChanged``.

    Nobody is stopped for it, and nobody who waits already is refused for the length of a queue;
    the next load follows them.
    """

    settings: "CoreSettings"


class BudgetsChanged(Event, frozen=True):
    """The devices now have this much for engines; without any, memory is not looked at.

    A device without a budget is not looked at either.
    """

    budgets: tuple[DeviceBytes, ...]


class FootprintMeasured(Event, frozen=True):
    """What the engine of ``model`` really holds, or really held, and how long its load took.

    It takes the place of the estimate. Empty ``memory`` or None: that was not measured.
    """

    model: str
    memory: tuple[DeviceBytes, ...] = ()
    load_cost_s: float | None = None


class TimerKind(Enum):
    """What a timer is for."""

    READY_TIMEOUT = "ready_timeout"
    STOP_GRACE = "stop_grace"
    REAP_DEADLINE = "reap_deadline"
    DRAIN_DEADLINE = "drain_deadline"
    BACKOFF = "backoff"
    BOUNCE = "bounce"
    SHUTDOWN_DEADLINE = "shutdown_deadline"
    TTL = "ttl"
    QUEUE_TIMEOUT = "queue_timeout"
    SWITCH = "switch"
    INSPECTION = "inspection"


class Timer(msgspec.Struct, frozen=True):
    """The name of a timer. ``model`` is empty for the router's own.

    ``generation`` is that of the engine, or the number of the inspection that it is about.
    """

    kind: TimerKind
    model: str = ""
    generation: int = 0


class TimerFired(Event, frozen=True):
    """A timer that the core set has come due."""

    timer: Timer


class ShutdownRequested(Event, frozen=True):
    """The router is to end: refuse newcomers, drain until the deadline, stop every engine."""

    drain_deadline_s: float


class ShutdownForced(Event, frozen=True):
    """The router is to end at once: cut every request, kill every engine."""
