"""What the core remembers of each request and of each model. Data only; others act on it."""

from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum
from itertools import takewhile

import msgspec

from llama_router.core.crashes import CrashHistory
from llama_router.core.events import ModelSpec
from llama_router.core.states import PUBLIC_NAMES, WITH_PROCESS, State


class RequestKind(Enum):
    """Who is behind a request id."""

    CLIENT = "client"
    VISITOR = "visitor"
    """A request that may not load: dispatched or rejected at once, and never in the way."""
    LOAD = "load"
    UNLOAD = "unload"


class Request(msgspec.Struct, eq=False):
    """A request or an operator's ticket that has not come to its end.

    ``generation`` is that of the engine it was dispatched to, and 0 while it waits.
    """

    request_id: int
    model: "Model"
    kind: RequestKind
    wants_notices: bool = False
    generation: int = 0
    bounced: bool = False
    aborted: bool = False

    def __repr__(self) -> str:
        return f"<Request {self.request_id} {self.kind.value} generation={self.generation}>"


class Queue:
    """Those who wait for one model: first come, first served, and leaving is O(1)."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: OrderedDict[int, Request] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._items.values())

    @property
    def head(self) -> Request:
        """The one who is next. Only for a queue that is not empty."""
        return next(iter(self._items.values()))

    def append(self, request: Request) -> None:
        """Add a newcomer at the end."""
        self._items[request.request_id] = request

    def give_back(self, request: Request) -> None:
        """Put a bounced request before all who were never served, the bounced in their order."""
        older = list(
            takewhile(
                lambda other: other.bounced and other.request_id < request.request_id,
                self._items.values(),
            )
        )
        self._items[request.request_id] = request
        for each in [request, *reversed(older)]:
            self._items.move_to_end(each.request_id, last=False)

    def remove(self, request: Request) -> bool:
        """Take out one who leaves; return whether it was the head."""
        was_head = next(iter(self._items)) == request.request_id
        del self._items[request.request_id]
        return was_head

    def take_all(self) -> list[Request]:
        """Empty the queue, in order."""
        requests = list(self._items.values())
        self._items.clear()
        return requests


class Model(msgspec.Struct, eq=False):
    """One model: its configuration, its engine, and who waits for it or is served by it.

    ``in_flight`` are the requests that its present engine is answering, ``visitors`` those of them
    that may not load. ``fraction`` is how far the load is, as far as the engine has said.
    ``after_reap`` is where STOPPING leads. ``held`` keeps its queue back for a moment after a
    bounce, because its engine may be gone without the exit having been seen yet. ``served`` grows
    with each dispatch in the whole router. ``removed`` means that it is not configured any more and
    goes with its process; ``regrouped``, that its group changed under the running process.
    """

    spec: ModelSpec
    state: State = State.UNLOADED
    generation: int = 0
    waiting: Queue = msgspec.field(default_factory=Queue)
    in_flight: dict[int, Request] = msgspec.field(default_factory=dict)
    visitors: dict[int, Request] = msgspec.field(default_factory=dict)
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

    def __repr__(self) -> str:
        return f"<Model {self.name} {self.state.value} generation={self.generation}>"


class ModelView(msgspec.Struct, frozen=True):
    """A model as the API shows it.

    ``state`` is one of unloaded, loading, loaded, unloading, backing_off, failed, stuck.
    ``generation`` is that of its last start, 0 if there was none. ``fraction`` is there only while
    loading. ``retry_at`` (the clock of ``Core.handle``) is the end of its back-off or ban, if any.
    """

    name: str
    state: str
    generation: int
    in_flight: int
    waiting: int
    fraction: float | None
    last_error: str | None
    retry_at: float | None


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
    )
