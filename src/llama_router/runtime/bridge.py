"""The control plane's way to the core: every question is a message to the data plane's thread."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Protocol, TypeVar

import msgspec

from llama_router import __version__
from llama_router.control.facade import (
    HISTORY_MAX_COUNT,
    ControlError,
    DeviceInfo,
    Follower,
    ModelInfo,
    PlanInfo,
    RouterInfo,
    VictimInfo,
)
from llama_router.core.events import DeviceBytes
from llama_router.core.states import PUBLIC_NAMES, State
from llama_router.engines.logs import LogStore
from llama_router.proxy.errors import RequestError
from llama_router.proxy.server import ProxyServer, Services
from llama_router.runtime.desk import Desk
from llama_router.runtime.feed import EventsDropped, FeedEvent, FeedFollower, StateChanged
from llama_router.runtime.roster import RosterModel
from llama_router.store.records import RequestRecord
from llama_router.store.store import StoreError

_T = TypeVar("_T")
# Described in one callback of the data plane's loop; one takes some 10 µs.
_PORTION_COUNT = 100
# States in which a process holds what is booked.
_BOOKED_STATES = frozenset({"loading", "loaded", "unloading", "stuck"})


class History(Protocol):
    """What the store has for it."""

    def requests(self, since_s: float, limit: int) -> list[RequestRecord]:
        """Return the newest requests since a Unix time, in order; blocks. Raises StoreError."""


class Bridge:
    """Implements Facade. Made on the data plane's loop, used on the control plane's.

    ``store`` is None as long as there is no history; ``total_bytes`` is how much memory the devices
    have that were found.
    """

    def __init__(self, desk: Desk, logs: LogStore, services: Services, server: ProxyServer) -> None:
        self._desk = desk
        self._logs = logs
        self._services = services
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._started_s = time.monotonic()
        self.store: History | None = None
        self.total_bytes: Mapping[str, int] = {}

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

    async def plan(self, name: str) -> PlanInfo:
        """See Facade."""
        return await self._ask(self._plan(name))

    async def history(self, since_s: float, limit: int) -> list[bytes]:
        """See Facade."""
        store = self.store
        if store is None:
            message = "no history is kept: router.history is off, or its file cannot be used"
            raise ControlError(404, "not_found", message)
        limit = min(limit, HISTORY_MAX_COUNT)
        try:
            return await asyncio.to_thread(_history, store, since_s, limit)
        except StoreError as error:
            raise ControlError(500, "internal_error", str(error)) from None

    def follow_events(self, model: str | None, wake: Callable[[], object]) -> Follower:
        """See Facade."""
        return _EventLines(self._desk.feed.subscribe(wake), model)

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
            unrecorded_count=self._desk.unrecorded_count,
            devices=self._devices(),
        )

    def _devices(self) -> tuple[DeviceInfo, ...]:
        memory = self._desk.core.ledger.memory
        return tuple(
            DeviceInfo(
                name=name,
                total_bytes=self.total_bytes.get(name),
                budget_bytes=budget_bytes,
                reserved_bytes=memory.reserved[name],
                free_bytes=budget_bytes - memory.reserved[name],
            )
            for name, budget_bytes in memory.budgets.items()
        )

    async def _plan(self, name: str) -> PlanInfo:
        model = self._desk.resolve(name).model
        core = self._desk.core
        plan = core.plan(model, self._loop.time())
        return PlanInfo(
            model=plan.model,
            state=plan.state,
            fits=plan.fits,
            reason=plan.reason,
            wait_s=None if plan.wait_s is None else round(plan.wait_s, 3),
            load_cost_s=round(core.view(model).load_cost_s, 3),
            needs=_by_device(plan.needs),
            free=_by_device(plan.free),
            victims=tuple(VictimInfo(one.model, one.reason, one.in_flight) for one in plan.victims),
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
            pinned=view.pinned,
            memory=_by_device(view.memory),
            is_booked=view.state in _BOOKED_STATES,
            is_measured=view.is_measured,
            load_cost_s=view.load_cost_s,
            ttl_s=view.ttl_s,
            expires_at_s=self._unix_time(view.expires_at),
            last_eviction=view.last_eviction,
        )

    def _unix_time(self, at: float | None) -> float | None:
        """Return a time of the core's clock as people and programs know it."""
        return None if at is None else round(time.time() + at - self._loop.time(), 3)


class _EventLines:
    """The events of a model, or all, as JSON. Implements Follower."""

    def __init__(self, followed: FeedFollower, model: str | None) -> None:
        self._followed = followed
        self._model = model

    def take(self) -> list[str]:
        """See Follower."""
        return [
            msgspec.json.encode(_shown(event)).decode()
            for event in self._followed.take()
            if self._is_wanted(event)
        ]

    def close(self) -> None:
        """See Follower."""
        self._followed.close()

    def _is_wanted(self, event: FeedEvent) -> bool:
        return self._model in (None, event.model) or isinstance(event, EventsDropped)


def _shown(event: FeedEvent) -> FeedEvent:
    """Return an event with the names that the API has for states."""
    if not isinstance(event, StateChanged):
        return event
    old, new = PUBLIC_NAMES[State(event.old)], PUBLIC_NAMES[State(event.new)]
    return msgspec.structs.replace(event, old=old, new=new)


def _history(store: History, since_s: float, limit: int) -> list[bytes]:
    # One by one: other threads get the interpreter in between.
    encode = msgspec.json.Encoder().encode
    return [encode(record) for record in store.requests(since_s, limit)]


def _by_device(parts: tuple[DeviceBytes, ...]) -> dict[str, int]:
    return {part.device: part.size_bytes for part in parts}
