"""The hub as the settings have it, which may change while there are downloads."""

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import msgspec

from llama_router.hub.download import Hub, open_hub
from llama_router.hub.protocol import Settings


class Hubs:
    """The one of ``now``, and earlier ones that somebody still uses. Closed when it is left."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._now: Hub | None = None
        self._open: dict[Hub, AsyncExitStack] = {}
        self._users: dict[asyncio.Task[Any], Hub] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def now(self) -> Hub:
        """The hub of the last settings."""
        if self._now is None:
            raise AssertionError("there are no settings yet")
        return self._now

    @property
    def open_count(self) -> int:
        """How many there are."""
        return len(self._open)

    async def go_by(self, settings: Settings) -> None:
        """Have limits hold at once, and the rest for who comes from now on. Raises HubError."""
        before = self._settings
        if before is not None and _without_limits(before) == _without_limits(settings):
            self._settings = settings
            self.now.limit(settings.max_parallel_files, settings.bandwidth_bytes_per_s)
            return
        stack = AsyncExitStack()
        earlier = self._now
        self._now = await stack.enter_async_context(open_hub(settings, earlier))
        self._settings = settings
        self._open[self._now] = stack
        if earlier is not None:
            self._close_unused(earlier)

    def used_by(self, task: "asyncio.Task[Any]") -> None:
        """Keep the one of now open until this task is done."""
        self._users[task] = self.now
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._close_unused(self._users.pop(task))

    def _close_unused(self, hub: Hub) -> None:
        if hub is self._now or hub in self._users.values() or hub not in self._open:
            return
        closing = asyncio.get_running_loop().create_task(
            self._open.pop(hub).aclose(), name="close hub"
        )
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for stack in self._open.values():
            await stack.aclose()
        self._open.clear()
        if self._closing:
            await asyncio.wait(self._closing)


def _without_limits(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, max_parallel_files=0, bandwidth_bytes_per_s=0)
