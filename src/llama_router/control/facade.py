"""What the control plane may ask of the router, in values that belong to no room.

The runtime implements these; the calls go to the data plane's thread and back as messages.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec


class ControlError(Exception):
    """Something asked for cannot be done: ``status`` and ``code`` are the answer's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One model as the API shows it.

    ``state`` is one of invalid, unloaded, loading, loaded, unloading, backing_off, failed, stuck.
    ``created_s``: the file's modification time, Unix seconds. ``fraction``: how far its load is.
    ``error``: why it is invalid, or what its last load or engine came to.
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


class RouterInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The router itself. ``max_loop_lag_s``: the longest that its event loop was held up."""

    version: str
    model_count: int
    connection_count: int
    requests_under_way: int
    uptime_s: float
    max_loop_lag_s: float


class Follower(Protocol):
    """The lines of a log, one after the other. Usable from any thread."""

    def take(self) -> Sequence[str]:
        """Return the lines that have come since the last call."""

    def close(self) -> None:
        """Follow no longer."""


class Facade(Protocol):
    """The router as the control plane sees it."""

    async def models(self) -> list[ModelInfo]:
        """Return all models, sorted by id. Never waits for a load."""

    async def model(self, name: str) -> ModelInfo:
        """Return the model that a name leads to. Raises ControlError."""

    async def load(self, name: str) -> ModelInfo:
        """Load a model; return when it is ready. Raises ControlError."""

    async def unload(self, name: str) -> ModelInfo:
        """Stop a model's engine; return when it is gone. Raises ControlError."""

    async def info(self) -> RouterInfo:
        """Return how the router itself is doing."""

    def log_text(self, model: str | None) -> str:
        """Return what a model's engines have written lately, or all engines (None)."""

    def follow_log(self, model: str | None, wake: Callable[[], object]) -> Follower:
        """Follow a log, from the lines that are kept on, without a gap.

        ``wake`` is called, on any thread, when lines begin to wait.
        """
