"""How other routers do it, for comparison: least recently used goes, requests in their order.

These take in the core's events and give its commands, but know nothing of faults, cancellations or
limits: what a trace on a healthy machine needs, and no more.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from llama_router.core.commands import Command, Dispatch, Spawn, Terminate
from llama_router.core.events import (
    EngineReady,
    EngineReaped,
    Event,
    RequestArrived,
    RequestFinished,
)
from llama_router.simulator.fleet import Fleet

_ABSENT: Final = "absent"
_LOADING: Final = "loading"
_READY: Final = "ready"
_LEAVING: Final = "leaving"
_STOPPING: Final = "stopping"


class _Model:
    __slots__ = (
        "generation",
        "in_flight",
        "last_used",
        "limit",
        "name",
        "size",
        "state",
        "waiting",
    )

    def __init__(self, name: str, size: int, limit: int) -> None:
        self.name = name
        self.size = size
        self.limit = limit
        self.state = _ABSENT
        self.generation = 0
        self.in_flight = 0
        self.last_used = 0.0
        self.waiting: deque[int] = deque()


class LruRouter:
    """Serves what is loaded; evicts the least recently used, idle before busy, after a drain.

    ``by_count`` limits the number of loaded models to what fits whichever they are; otherwise the
    limit is in bytes. The oldest request whose model does not fit has the next room; what is chosen
    to leave for it takes no more requests. ``in_order`` is strict arrival order: no request is
    dispatched before all older ones are.
    """

    def __init__(self, fleet: Fleet, *, by_count: bool, in_order: bool = False) -> None:
        self._limit = fleet.safe_count() if by_count else fleet.machine.memory_bytes
        self._models = {
            model.name: _Model(model.name, 1 if by_count else model.size_bytes, model.slots)
            for model in fleet.models
        }
        self._in_order = in_order
        self._used = 0
        self._waiting: dict[str, _Model] = {}
        self._running: dict[str, _Model] = {}
        self._requests: dict[int, _Model] = {}
        self._order: deque[int] = deque()
        self._generation = 0
        self._out: list[Command] = []
        self._now = 0.0

    def handle(self, event: Event, now: float) -> list[Command]:
        """See ``Core.handle``; events of faults are ignored."""
        self._now = now
        out: list[Command] = []
        self._out = out
        match event:
            case RequestArrived(request_id, name):
                self._arrived(request_id, self._models[name])
            case RequestFinished(request_id):
                model = self._requests.pop(request_id)
                model.in_flight -= 1
                model.last_used = now
                self._schedule()
            case EngineReady(name):
                self._models[name].state = _READY
                self._schedule()
            case EngineReaped(name):
                model = self._running.pop(name)
                model.state = _ABSENT
                self._used -= model.size
                self._schedule()
            case _:
                pass
        return out

    def _arrived(self, request_id: int, model: _Model) -> None:
        self._requests[request_id] = model
        has_slot = model.state is _READY and model.in_flight < model.limit
        if has_slot and not model.waiting and not self._in_order:
            self._dispatch(request_id, model)
            return
        model.waiting.append(request_id)
        self._waiting[model.name] = model
        self._order.append(request_id)
        self._schedule()

    def _dispatch(self, request_id: int, model: _Model) -> None:
        model.in_flight += 1
        model.last_used = self._now
        self._out.append(Dispatch(request_id, model.name, model.generation))

    def _schedule(self) -> None:
        if self._in_order:
            self._serve_in_order()
        else:
            self._serve_ready()
        for model in list(self._running.values()):
            if model.state is _LEAVING and not model.in_flight:
                model.state = _STOPPING
                self._out.append(Terminate(model.name, model.generation))

    def _serve_in_order(self) -> None:
        order = self._order
        while order:
            model = self._requests[order[0]]
            if model.state is not _READY or model.in_flight >= model.limit:
                if model.state is _ABSENT:
                    self._make_room(model)
                return
            self._dispatch(order.popleft(), model)
            model.waiting.popleft()
            if not model.waiting:
                del self._waiting[model.name]

    def _serve_ready(self) -> None:
        absent = []
        for model in list(self._waiting.values()):
            if model.state is _READY:
                while model.waiting and model.in_flight < model.limit:
                    self._dispatch(model.waiting.popleft(), model)
                if not model.waiting:
                    del self._waiting[model.name]
            elif model.state is _ABSENT:
                absent.append(model)
        absent.sort(key=lambda model: model.waiting[0])
        for model in absent:
            if not self._make_room(model):
                return  # younger ones do not take the room that this one waits for

    def _make_room(self, model: _Model) -> bool:
        """Start ``model`` if it fits, else choose who leaves for it."""
        if self._used + model.size <= self._limit:
            self._generation += 1
            model.generation = self._generation
            model.state = _LOADING
            self._used += model.size
            self._running[model.name] = model
            self._out.append(Spawn(model.name, model.generation))
            return True
        leaving = sum(
            other.size for other in self._running.values() if other.state in (_LEAVING, _STOPPING)
        )
        for other in self._victims():
            if self._used - leaving + model.size <= self._limit:
                break
            other.state = _LEAVING
            leaving += other.size
        return False

    def _victims(self) -> Iterable[_Model]:
        ready = [model for model in self._running.values() if model.state is _READY]
        return sorted(ready, key=lambda model: (model.in_flight > 0, model.last_used))
