"""The control plane's way to the core: every question is a message to the data plane's thread."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TypeVar

import msgspec

from llama_router import __version__
from llama_router.control.facade import ControlError, Follower, ModelInfo, RouterInfo
from llama_router.engines.logs import LogStore
from llama_router.proxy.errors import RequestError
from llama_router.proxy.server import ProxyServer, Services
from llama_router.runtime.desk import Desk
from llama_router.runtime.roster import RosterModel

_T = TypeVar("_T")
# Described in one callback of the data plane's loop; one takes some 10 µs.
_PORTION_COUNT = 100


class Bridge:
    """Implements Facade. Made on the data plane's loop, used on the control plane's."""

    def __init__(self, desk: Desk, logs: LogStore, services: Services, server: ProxyServer) -> None:
        self._desk = desk
        self._logs = logs
        self._services = services
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._started_s = time.monotonic()

    async def models(self) -> list[ModelInfo]:
        """See Facade."""
        return await self._ask(self._models())

    async def model(self, name: str) -> ModelInfo:
        """See Facade."""
        return await self._ask(self._model(name))

    async def load(self, name: str) -> ModelInfo:
        """See Facade."""
        return await self._ask(self._ordered(name, self._desk.load))

    async def unload(self, name: str) -> ModelInfo:
        """See Facade."""
        return await self._ask(self._ordered(name, self._desk.unload))

    async def info(self) -> RouterInfo:
        """See Facade."""
        return await self._ask(self._info())

    def log_text(self, model: str | None) -> str:
        """See Facade."""
        return self._logs.text(model)

    def follow_log(self, model: str | None, wake: Callable[[], object]) -> Follower:
        """See Facade."""
        return self._logs.subscribe(model, wake, with_kept_lines=True)

    async def _ask(self, question: Coroutine[object, object, _T]) -> _T:
        try:
            future = asyncio.run_coroutine_threadsafe(question, self._loop)
            return await asyncio.wrap_future(future)
        except RequestError as error:
            raise ControlError(error.status, error.code, error.message) from None

    # --- on the data plane's loop

    async def _models(self) -> list[ModelInfo]:
        models = self._desk.roster.models
        described: list[ModelInfo] = []
        for start in range(0, len(models), _PORTION_COUNT):
            if start:
                await asyncio.sleep(0)
            described += map(self._describe, models[start : start + _PORTION_COUNT])
        return described

    async def _model(self, name: str) -> ModelInfo:
        found = self._desk.find(name)
        return self._describe(self._desk.roster[found.id])

    async def _ordered(
        self, name: str, order: Callable[[str], Coroutine[object, object, None]]
    ) -> ModelInfo:
        model = self._desk.resolve(name).model
        await order(model)
        return self._describe(self._desk.roster[model])

    async def _info(self) -> RouterInfo:
        return RouterInfo(
            version=__version__,
            model_count=len(self._desk.roster),
            connection_count=len(self._services.connections),
            requests_under_way=self._desk.waiter_count,
            uptime_s=round(time.monotonic() - self._started_s, 3),
            max_loop_lag_s=round(self._server.max_loop_lag_s, 6),
        )

    def _describe(self, model: RosterModel) -> ModelInfo:
        found = model.found
        described = ModelInfo(
            id=found.id,
            names=found.names,
            source=found.source.value,
            state="invalid",
            path=str(found.path or ""),
            mmproj=str(found.mmproj or ""),
            group=model.group,
            size_bytes=found.size_bytes,
            created_s=int(found.modified_at_s),
            error=found.invalid,
        )
        if found.invalid:
            return described
        view = self._desk.core.view(found.id)
        retry_in_s = None if view.retry_at is None else max(0.0, view.retry_at - self._loop.time())
        return msgspec.structs.replace(
            described,
            state=view.state,
            in_flight=view.in_flight,
            waiting=view.waiting,
            fraction=view.fraction,
            error=view.last_error or "",
            retry_in_s=retry_in_s,
        )
