"""The control plane's way to the core: every question is a message to the data plane's thread."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from itertools import islice
from typing import Protocol, TypeVar

import msgspec

from llama_router import __version__
from llama_router.control.facade import (
    HISTORY_MAX_COUNT,
    ControlError,
    DeviceInfo,
    Follower,
    ListedModel,
    ModelInfo,
    PlanInfo,
    RouterInfo,
    VictimInfo,
)
from llama_router.engines.logs import LogStore
from llama_router.proxy.errors import (
    EndpointNotAllowedError,
    ForbiddenError,
    ModelNotFoundError,
)
from llama_router.proxy.server import ProxyServer, Services
from llama_router.runtime.bridge_ask import ask
from llama_router.runtime.bridge_events import EventLines
from llama_router.runtime.bridge_models import (
    by_device,
    describe,
    listed_model,
    may_use,
    open_aliases,
    other_names,
)
from llama_router.runtime.desk import Desk
from llama_router.runtime.roster import RosterModel
from llama_router.store.records import RequestRecord
from llama_router.store.store import StoreError

_T = TypeVar("_T")
# Described in one callback of the data plane's loop; one takes some 10 µs.
_PORTION_COUNT = 100


class History(Protocol):
    """What the store has for it."""

    def requests(self, since_s: float, limit: int) -> list[RequestRecord]:
        """Return the newest requests since a Unix time, in order; blocks. Raises StoreError."""


class Bridge:
    """Implements Facade. Made on the data plane's loop, used on the control plane's.

    ``store`` is None as long as there is no history; ``total_bytes`` is how much memory the devices
    have that were found. ``patterns_of`` gives the models that a key is for, by its name.
    ``problem_of_config`` is called on any thread.
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
        self.patterns_of: Callable[[str], tuple[str, ...]] = lambda _key: ()
        self.problem_of_config: Callable[[], str] = str

    async def models(self) -> list[ModelInfo]:
        """See Facade."""
        return await self._ask(self._models())

    async def model(self, name: str) -> ModelInfo:
        """See Facade."""
        return await self._ask(self._model(name))

    async def others(self) -> list[ListedModel]:
        """See Facade."""
        return await self._ask(_in_portions(other_names(self._desk, (), has_aliases=False)))

    async def listing(self, key: str) -> list[ListedModel]:
        """See Facade."""
        return await self._ask(self._listing(key))

    async def listed(self, name: str, key: str) -> ListedModel:
        """See Facade."""
        return await self._ask(self._listed(name, key))

    async def load(self, name: str) -> ModelInfo:
        """See Facade."""
        return await self._ask(self._load(name))

    async def unload(self, name: str) -> ModelInfo:
        """See Facade."""
        return await self._ask(self._unload(name))

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

    def follow_events(
        self, model: str | None, wake: Callable[[], object], kinds: frozenset[str]
    ) -> Follower:
        """See Facade."""
        return EventLines(self._desk.feed, self._logs, model, wake, kinds)

    def config_problem(self) -> str:
        """See Facade."""
        return self.problem_of_config()

    async def whose_log(self, name: str | None, key: str) -> str | None:
        """See Facade."""
        return await self._ask(self._whose_log(name, key))

    def log_text(self, model: str | None) -> str:
        """See Facade."""
        return self._logs.text(model)

    def follow_log(self, model: str | None, wake: Callable[[], object]) -> Follower:
        """See Facade."""
        return self._logs.subscribe(model, wake, with_kept_lines=True)

    async def _ask(self, question: Coroutine[object, object, _T]) -> _T:
        return await ask(self._loop, question)

    # --- on the data plane's loop

    async def _models(self) -> list[ModelInfo]:
        models = self._desk.roster.models
        described: list[ModelInfo] = []
        for start in range(0, len(models), _PORTION_COUNT):
            if start:
                await asyncio.sleep(0)
            portion = models[start : start + _PORTION_COUNT]
            described += map(self._describe, filter(self._is_known, portion))
        return described

    async def _listing(self, key: str) -> list[ListedModel]:
        patterns, is_off = self.patterns_of(key), self._desk.names.is_off
        listed: list[ListedModel] = []
        aliases: list[ListedModel] = []
        models = self._desk.roster.models
        for start in range(0, len(models), _PORTION_COUNT):
            if start:
                await asyncio.sleep(0)
            for model in filter(self._is_known, models[start : start + _PORTION_COUNT]):
                if model.entry.unlisted or is_off(model.found.id):
                    continue
                if may_use(patterns, model.found.id):
                    listed.append(listed_model(model, self._describe(model)))
                else:
                    aliases += open_aliases(model, patterns)
        others = await _in_portions(other_names(self._desk, patterns))
        shown = {one.id for one in others}
        aliases = [one for one in aliases if one.id not in shown and not is_off(one.id)]
        return [*listed, *others, *aliases]

    async def _listed(self, name: str, key: str) -> ListedModel:
        patterns = self.patterns_of(key)
        others = other_names(self._desk, patterns, has_aliases=False)
        for other in await _in_portions(others):
            if other.id == name:
                return other
        model = self._desk.roster[self._find_for(patterns, name)]
        if self._desk.names.is_off(name):
            # Says so.
            self._desk.resolve(name)
        return listed_model(model, self._describe(model))

    async def _whose_log(self, name: str | None, key: str) -> str | None:
        patterns = self.patterns_of(key)
        if name is not None:
            return self._find_for(patterns, name)
        if patterns:
            raise ForbiddenError("this key is for some models only: ask for /logs/MODEL")
        return None

    def _find_for(self, patterns: tuple[str, ...], name: str) -> str:
        """Return the id of the model that a name means, if these patterns of a key open it."""
        found = self._desk.find(name)
        if not may_use(patterns, found.id, name):
            raise ModelNotFoundError(f"there is no model '{name}' for this key", param="model")
        return found.id

    async def _model(self, name: str) -> ModelInfo:
        found = self._desk.find(name)
        return self._describe(self._desk.roster[found.id])

    async def _load(self, name: str) -> ModelInfo:
        model = self._meant(name)
        await self._desk.load(model)
        return await self._model(model)

    async def _unload(self, name: str) -> ModelInfo:
        try:
            found = self._desk.find(name)
        except ModelNotFoundError:
            found = None
        # Whatever a profile makes of its name: what runs can be stopped.
        model = self._meant(name) if found is None or found.invalid else found.id
        await self._desk.unload(model)
        return await self._model(model)

    def _meant(self, name: str) -> str:
        """Return the id of our model that a request of this name would be for."""
        target = self._desk.resolve(name)
        if target.door is not None:
            raise EndpointNotAllowedError(
                f"'{target.model}' is on another machine and takes inference requests only"
            )
        return target.model

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
        model = self._meant(name)
        if self._desk.foresight is not None:
            await self._desk.foresight.know(model)
        core = self._desk.core
        plan = core.plan(model, self._loop.time())
        return PlanInfo(
            model=plan.model,
            state=plan.state,
            fits=plan.fits,
            reason=plan.reason,
            wait_s=None if plan.wait_s is None else round(plan.wait_s, 3),
            load_cost_s=round(core.view(model).load_cost_s, 3),
            needs=by_device(plan.needs),
            free=by_device(plan.free),
            victims=tuple(VictimInfo(one.model, one.reason, one.in_flight) for one in plan.victims),
        )

    def _is_known(self, model: RosterModel) -> bool:
        """Tell whether a model is still there: lists are made in portions."""
        return bool(model.found.invalid) or model.found.id in self._desk.core.ledger.models

    def _describe(self, model: RosterModel) -> ModelInfo:
        return describe(self._desk, model, self._loop.time())


async def _in_portions(items: Iterator[_T]) -> list[_T]:
    """Return all items, of which there may be thousands, letting others in between."""
    taken: list[_T] = []
    while portion := list(islice(items, _PORTION_COUNT)):
        taken += portion
        await asyncio.sleep(0)
    return taken


def _history(store: History, since_s: float, limit: int) -> list[bytes]:
    # One by one: other threads get the interpreter in between.
    encode = msgspec.json.Encoder().encode
    return [encode(record) for record in store.requests(since_s, limit)]
