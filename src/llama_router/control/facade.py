"""What the control plane may ask of the router, in values that belong to no room.

The runtime implements these; the calls go to the data plane's thread and back as messages.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

HISTORY_MAX_COUNT = 10_000
"""Of one answer; as JSON some megabytes."""


class ControlError(Exception):
    """Something asked for cannot be done: ``status`` and ``code`` are the answer's.

    ``param``: the field at fault. ``retry_after_s``: when trying again makes sense.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


# gc=False: lists have thousands; a collection while one is made would stop all threads.
class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One model as the API shows it.

    ``state`` is one of invalid, unloaded, loading, loaded, unloading, backing_off, failed, stuck.
    ``created_s``: the file's modification time, Unix seconds. ``fraction``: how far its load is.
    ``error``: why it is invalid, or what its last load or engine came to.
    ``memory``: bytes by device, those booked for its engine (``is_booked``) or else those that it
    is expected to need; measured, or else estimated or configured. ``load_cost_s``: how long a load
    takes. ``ttl_s``: how long it may be idle, and ``expires_at_s`` (Unix time) when that ends.
    ``last_eviction``: why it last had to go, and for whom. ``is_remote``: it is another machine's.
    ``metadata``, ``capabilities``: what its file and the config say of it, as JSON has it.
    """

    id: str
    names: tuple[str, ...]
    source: str
    state: str
    path: str
    mmproj: str
    group: str
    size_bytes: int
    created_s: int
    in_flight: int = 0
    waiting: int = 0
    fraction: float | None = None
    error: str = ""
    retry_in_s: float | None = None
    pinned: bool = False
    memory: dict[str, int] = {}
    is_booked: bool = False
    is_measured: bool = False
    load_cost_s: float = 0.0
    ttl_s: float | None = None
    expires_at_s: float | None = None
    last_eviction: str = ""
    draft: str = ""
    title: str = ""
    description: str = ""
    is_unlisted: bool = False
    is_remote: bool = False
    metadata: dict[str, object] = {}
    capabilities: dict[str, object] = {}


class DeviceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Memory that engines are given of: RAM, or a graphics card's.

    ``total_bytes``: what there is, None if not known. ``budget_bytes``: what engines may take
    together. ``reserved_bytes``: what is booked for those that run. ``free_bytes``: the rest,
    negative when they turned out to hold more.
    """

    name: str
    total_bytes: int | None
    budget_bytes: int
    reserved_bytes: int
    free_bytes: int


class VictimInfo(msgspec.Struct, frozen=True):
    """A model that would go, with the reason and how many requests it answers now."""

    model: str
    reason: str
    in_flight: int


class PlanInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a request for a model would cause now.

    ``fits``: whether the model can be loaded at all, beside what has to stay. ``reason``: the whole
    in one sentence. ``wait_s``: how long a request that came now would wait, about; None: it would
    be refused. ``needs``, ``free``: bytes by device. ``victims``: who would go.
    """

    model: str
    state: str
    fits: bool
    reason: str
    wait_s: float | None
    load_cost_s: float
    needs: dict[str, int]
    free: dict[str, int]
    victims: tuple[VictimInfo, ...]


class RouterInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The router itself. ``max_loop_lag_s``: the longest that its event loop was held up.

    ``unrecorded_count``: requests that are not in the history, as there were too many at a time.
    """

    version: str
    model_count: int
    connection_count: int
    requests_under_way: int
    uptime_s: float
    max_loop_lag_s: float
    unrecorded_count: int = 0
    devices: tuple[DeviceInfo, ...] = ()


class ListedModel(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A name in the list of models that clients see: a model, an alias, a selector, a peer's.

    ``kind`` is which of them; ``info`` is the model behind it, where that is one of this machine.
    """

    id: str
    kind: str = "model"
    title: str = ""
    description: str = ""
    owner: str = "llama-router"
    created_s: int = 0
    metadata: dict[str, object] = {}
    info: ModelInfo | None = None


class Follower(Protocol):
    """Lines of text as they come up, one after the other. Usable from any thread."""

    def take(self) -> Sequence[str]:
        """Return the lines that have come since the last call."""

    def close(self) -> None:
        """Follow no longer."""


class Facade(Protocol):
    """The router as the control plane sees it."""

    async def models(self) -> list[ModelInfo]:
        """Return all models, sorted by id, as a list of the caller's. Never waits for a load."""

    async def model(self, name: str) -> ModelInfo:
        """Return the model that a name leads to. Raises ControlError."""

    async def others(self) -> list[ListedModel]:
        """Return what lists have beside our models: selectors, and the models of peers."""

    async def listing(self, key: str) -> list[ListedModel]:
        """Return what the owner of the API key of that name ("": anybody) sees in the list."""

    async def listed(self, name: str, key: str) -> ListedModel:
        """Return what a name means to the owner of that key, listed or not. Raises ControlError."""

    async def load(self, name: str) -> ModelInfo:
        """Load a model; return when it is ready. Raises ControlError."""

    async def unload(self, name: str) -> ModelInfo:
        """Stop a model's engine; return when it is gone. Raises ControlError."""

    async def plan(self, name: str) -> PlanInfo:
        """Return what a request would cause; nothing is changed. Raises ControlError."""

    async def info(self) -> RouterInfo:
        """Return how the router itself is doing."""

    async def history(self, since_s: float, limit: int) -> list[bytes]:
        """Return the newest ``limit`` requests since then (Unix time), oldest first, each as JSON.

        At most HISTORY_MAX_COUNT. Raises ControlError.
        """

    def config_problem(self) -> str:
        """Say why the config file, as it is now, is not what holds; empty when it is."""

    async def whose_log(self, name: str | None, key: str) -> str | None:
        """Return the id of the model whose log is meant; None: the log of all.

        Raises ControlError where the key of that name ("": anybody) is not for it.
        """

    def log_text(self, model: str | None) -> str:
        """Return what a model's engines have written lately, or all engines (None)."""

    def follow_log(self, model: str | None, wake: Callable[[], object]) -> Follower:
        """Follow a log, from the lines that are kept on, without a gap.

        ``wake`` is called, on any thread, when lines begin to wait.
        """

    def follow_events(
        self, model: str | None, wake: Callable[[], object], kinds: frozenset[str]
    ) -> Follower:
        """Follow what happens to a model, or to all (None), from now on: JSON objects as lines.

        ``kinds``: "model", "download", "config", "request", "log". ``wake`` as for ``follow_log``.
        """
