"""What the core remembers of each request and of each model. Data only; others act on it."""

import math
import sys
from enum import Enum

import msgspec

from llama_router.core.crashes import CrashHistory
from llama_router.core.events import DeviceBytes, ModelSpec
from llama_router.core.queue import Queue
from llama_router.core.states import PUBLIC_NAMES, WITH_PROCESS, State


class RequestKind(Enum):
    """Who is behind a request id."""

    CLIENT = "client"
    VISITOR = "visitor"
    """A request that may not load: dispatched or rejected at once, and never in the way."""
    LOAD = "load"
    UNLOAD = "unload"


class Inspection(msgspec.Struct):
    """The question whether a model could be started, and whether others may go for it by now."""

    number: int
    is_passed: bool = False


class Request(msgspec.Struct, eq=False):
    """A request or an operator's ticket that has not come to its end.

    ``generation`` is that of the engine it was dispatched to, and 0 while it waits. ``rank`` is its
    priority doubled, and one more unless it is a batch's: who is interactive goes first among
    equals. ``takes_slot`` is false for what its engine answers beside everything else.
    ``position`` is the place in the queue that its client was told last, 0 if none was.
    """

    request_id: int
    model: "Model"
    kind: RequestKind
    wants_notices: bool = False
    arrived_at: float = 0.0
    key: str = ""
    rank: int = 1
    keep_alive_s: float | None = None
    takes_slot: bool = True
    position: int = 0
    generation: int = 0
    bounced: bool = False
    aborted: bool = False

    def __repr__(self) -> str:
        return f"<Request {self.request_id} {self.kind.value} generation={self.generation}>"


class Model(msgspec.Struct, eq=False):
    """One model: its configuration, its engine, and who waits for it or is served by it.

    ``in_flight`` are the requests that its present engine is answering, ``visitors`` those of them
    that may not load; ``extras`` counts those in flight that take no slot. ``riders`` are those who
    wait but need no slot, ``listeners`` how many of those who wait want notices. ``fraction`` is
    how far the load is, as far as the engine has said. ``after_reap`` is where STOPPING leads.
    ``held`` keeps its queue back for a moment after a bounce, because its engine may be gone
    without the exit having been seen yet. ``served`` grows with each dispatch in the whole router.
    ``removed`` means that it is not configured any more and goes with its process; ``regrouped``,
    that its group, or the rules for who may run together, changed under the running process.
    ``eviction_cost`` is how dear the configuration makes it to send it away.

    ``address`` is where its present process listens, or else where its next one will, if the
    configuration says so.
    ``memory`` is what its next process is expected to need, ``reserved`` what is booked for the
    present one, ``measured`` what a process of it was seen to hold; ``ran_out`` means that
    ``memory`` was raised because an engine ran out of it, at ``ran_out_at`` the last time.
    ``held_bytes`` is ``reserved``, added up. ``uses`` and ``counted_at`` are kept by ``Usage``.
    ``chosen_for`` is the name of the model that it is to make room for as soon as that one was
    inspected; ``closing`` that of the model that it must make room for by now: it takes no
    newcomers, but ``turn`` of those who waited already. ``last_eviction`` is for whom and why it
    had to go last.
    ``keep_alive_s`` is what the last request of its present engine that said so wanted in place of
    ``ttl_s``.
    ``idle_since`` is the end of its last request, or when it became ready; ``ttl_at`` is when its
    timer looks whether it has been idle for long enough, None when none is set.
    """

    spec: ModelSpec
    state: State = State.UNLOADED
    generation: int = 0
    waiting: Queue = msgspec.field(default_factory=Queue)
    in_flight: dict[int, Request] = msgspec.field(default_factory=dict)
    visitors: dict[int, Request] = msgspec.field(default_factory=dict)
    extras: int = 0
    riders: dict[int, Request] = msgspec.field(default_factory=dict)
    listeners: int = 0
    unloads: dict[int, Request] = msgspec.field(default_factory=dict)
    crashes: CrashHistory = msgspec.field(default_factory=CrashHistory)
    fraction: float | None = None
    ready_since: float = 0.0
    after_reap: State = State.UNLOADED
    killed: bool = False
    held: bool = False
    address_tries: int = 0
    last_error: str | None = None
    served: int = 0
    removed: bool = False
    regrouped: bool = False
    address: str = ""
    memory: tuple[DeviceBytes, ...] = ()
    measured: tuple[DeviceBytes, ...] = ()
    reserved: tuple[DeviceBytes, ...] = ()
    held_bytes: int = 0
    ran_out: bool = False
    ran_out_at: float = 0.0
    load_cost_s: float = 1.0
    eviction_cost: float = 1.0
    uses: float = 0.0
    counted_at: float = -math.inf
    chosen_for: str = ""
    closing: str = ""
    closing_reason: str = ""
    turn: int = 0
    last_eviction: str = ""
    keep_alive_s: float | None = None
    idle_since: float = 0.0
    ttl_at: float | None = None

    def __post_init__(self) -> None:
        self.address = self.spec.address
        self.memory = self.spec.memory
        self.load_cost_s = self.spec.load_cost_s

    @property
    def name(self) -> str:
        """The model's id."""
        return self.spec.name

    @property
    def has_process(self) -> bool:
        """Whether a process of it may exist that is in the way of others."""
        return self.state in WITH_PROCESS

    @property
    def is_set_back(self) -> bool:
        """Whether it is backing off or given up, or will be as soon as its process is reaped."""
        if self.state is State.STOPPING:
            return self.after_reap is not State.UNLOADED
        return self.state is State.COOLING or self.state is State.FAILED

    @property
    def is_given_up(self) -> bool:
        """Whether it has failed for good, or will have as soon as its process is reaped."""
        return self.state is State.FAILED or (
            self.state is State.STOPPING and self.after_reap is State.FAILED
        )

    @property
    def rank(self) -> int:
        """The highest rank that waits for it, its own priority included."""
        own = 2 * self.spec.priority
        return own + self.waiting.rank if self.waiting else own

    @property
    def ttl_s(self) -> float | None:
        """How long it may be idle, if that is limited."""
        ttl_s = self.spec.ttl_s if self.keep_alive_s is None else self.keep_alive_s
        return None if ttl_s is None or ttl_s < 0 or ttl_s == math.inf else ttl_s

    @property
    def capacity(self) -> int:
        """How many more requests its engine may be given."""
        limit = self.spec.max_in_flight
        return max(0, limit - len(self.in_flight) + self.extras) if limit else sys.maxsize

    def holds_on(self, device: str) -> int:
        """Return how many bytes are booked for its process on ``device``."""
        for part in self.reserved:
            if part.device == device:
                return part.size_bytes
        return 0

    def __repr__(self) -> str:
        return f"<Model {self.name} {self.state.value} generation={self.generation}>"


class ModelView(msgspec.Struct, frozen=True):
    """A model as the API shows it.

    ``state`` is one of unloaded, loading, loaded, unloading, backing_off, failed, stuck.
    ``generation`` is that of its last start, 0 if there was none. ``fraction`` is there only while
    loading. ``retry_at`` (the clock of ``Core.handle``) is the end of its back-off or ban, if any,
    and ``expires_at`` when it is unloaded unless somebody uses it. ``memory`` is what is booked for
    its process, or else what it is expected to need; ``is_measured`` tells whether that was
    measured. ``ttl_s`` is how long it may be idle, if that is limited.
    ``last_eviction`` says, for people, for whom and why it had to go last, if it ever had to.
    """

    name: str
    state: str
    generation: int
    in_flight: int
    waiting: int
    fraction: float | None
    last_error: str | None
    retry_at: float | None
    pinned: bool = False
    memory: tuple[DeviceBytes, ...] = ()
    load_cost_s: float = 0.0
    expires_at: float | None = None
    is_measured: bool = False
    ttl_s: float | None = None
    last_eviction: str = ""


def view_of(model: Model) -> ModelView:
    """Return what the API shows of ``model``."""
    return ModelView(
        name=model.name,
        state=PUBLIC_NAMES[model.state],
        generation=model.generation,
        in_flight=len(model.in_flight),
        waiting=len(model.waiting),
        fraction=model.fraction if model.state is State.STARTING else None,
        last_error=model.last_error,
        retry_at=model.crashes.retry_at if model.is_set_back else None,
        pinned=model.spec.pinned,
        memory=model.reserved or model.memory,
        load_cost_s=model.load_cost_s,
        expires_at=_expiry(model),
        is_measured=bool(model.measured),
        ttl_s=model.ttl_s,
        last_eviction=model.last_eviction,
    )


def _expiry(model: Model) -> float | None:
    ttl_s = model.ttl_s
    if ttl_s is None or model.spec.pinned or model.state is not State.READY or model.in_flight:
        return None
    return model.idle_since + ttl_s
