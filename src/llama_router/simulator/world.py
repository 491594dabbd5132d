"""Virtual time around a scheduler: plays a trace with modelled engines and keeps the books."""

import math
import random
from array import array
from collections import Counter, deque
from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import chain
from typing import Final, Protocol

import msgspec

from llama_router.core.commands import (
    Abort,
    CancelTimer,
    Command,
    Dispatch,
    Inspect,
    Kill,
    Reject,
    SetTimer,
    Spawn,
    Terminate,
)
from llama_router.core.events import (
    EngineExited,
    EngineReady,
    EngineReaped,
    EngineSpawned,
    Event,
    ModelInspected,
    RequestArrived,
    RequestFinished,
    Timer,
    TimerFired,
)
from llama_router.simulator.fleet import Fleet, Machine, SimulatedModel
from llama_router.simulator.trace import TraceRequest

DEFAULT_SLO_S: Final = 10.0
MAX_TAIL_S: Final = 30 * 24 * 3600.0
"""Whoever still waits this long after the last arrival is never served."""
MAX_FIRINGS_COUNT: Final = 10_000
"""Timers that fire this often without the clock moving are set anew for the same moment."""


class SimulationError(Exception):
    """The simulation cannot go on: the trace does not fit the fleet, or a request is forgotten."""


class Scheduler(Protocol):
    """What is simulated: the core, or something else that speaks its events and commands."""

    def handle(self, event: Event, now: float) -> list[Command]:
        """See ``Core.handle``."""


class FaultRates(msgspec.Struct, frozen=True):
    """Chances of modelled faults: that a load fails half-way, that a request kills its engine."""

    load_failure: float = 0.0
    crash: float = 0.0
    seed: int = 0


class Result(msgspec.Struct):
    """What came of a trace. Times in seconds of virtual time.

    ``waits_s`` are from arrival to dispatch, ``first_token_waits_s`` from arrival to the end of the
    prefill, both of dispatched requests, in the order in which they came to it.
    """

    requests: int = 0
    served: int = 0
    failed: int = 0
    loads: int = 0
    load_time_s: float = 0.0
    makespan_s: float = 0.0
    peak_memory_bytes: int = 0
    rejected: Counter[str] = msgspec.field(default_factory=Counter)
    waits_s: "array[float]" = msgspec.field(default_factory=lambda: array("d"))
    first_token_waits_s: "array[float]" = msgspec.field(default_factory=lambda: array("d"))

    def slo_attainment(self, slo_s: float) -> float:
        """Return the share of all requests whose first token came within ``slo_s``."""
        if not self.requests:
            return 1.0
        return sum(wait <= slo_s for wait in self.first_token_waits_s) / self.requests


class _Engine:
    """A process: what it holds, and its slots."""

    __slots__ = ("active", "generation", "model", "queue", "spawned_at", "stopping", "up")

    def __init__(self, model: SimulatedModel, generation: int, spawned_at: float) -> None:
        self.model = model
        self.generation = generation
        self.spawned_at = spawned_at
        self.up = False
        self.stopping = False
        self.active: dict[int, TraceRequest] = {}
        self.queue: deque[int] = deque()


class World:
    """Plays one trace against one scheduler; use it once."""

    def __init__(
        self, fleet: Fleet, scheduler: Scheduler, faults: FaultRates | None = None
    ) -> None:
        self._machine: Machine = fleet.machine
        self._models = {model.name: model for model in fleet.models}
        self._load_s = {model.name: fleet.load_s(model) for model in fleet.models}
        self._scheduler = scheduler
        self._faults = faults
        self._rng = random.Random(faults.seed if faults else 0)  # noqa: S311 - reproducible
        self._heap: list[tuple[float, int, Event]] = []
        self._pushed = 0
        self._now = 0.0
        self._timers: dict[Timer, float] = {}
        self._open: dict[int, TraceRequest] = {}
        self._engines: dict[int, _Engine] = {}
        self._engine_of: dict[int, _Engine] = {}
        self._cut: set[int] = set()
        self._memory_bytes = 0
        self._firings = 0
        self._fired_at = -1.0
        self.result = Result()

    def run(self, trace: Iterable[TraceRequest]) -> Result:
        """Play the whole trace, in order of time, until nobody waits any more.

        Raises SimulationError when a model is unknown or a request is never answered.
        """
        result = self.result
        heap = self._heap
        opened = self._open
        models = self._models
        end: list[TraceRequest | None] = [None]
        for request_id, request in enumerate(chain(trace, end), 1):
            until = math.inf if request is None else request.time_s
            while heap and heap[0][0] <= until and (request is not None or opened):
                at, _, event = heappop(heap)
                self._now = max(self._now, at)
                self._happen(event, at)
                if request is None and at > result.makespan_s + MAX_TAIL_S:
                    break
            if request is None:
                break
            if request.model not in models:
                raise SimulationError(f"model '{request.model}' of the trace is not in the fleet")
            self._now = result.makespan_s = max(self._now, request.time_s)
            result.requests += 1
            opened[request_id] = request
            event = RequestArrived(
                request_id, request.model, key=request.key, is_batch=request.is_batch
            )
            for command in self._scheduler.handle(event, self._now):
                self._carry_out(command)
        if opened:
            raise SimulationError(
                f"{len(opened)} requests are never answered, the first one for "
                f"'{next(iter(opened.values())).model}'"
            )
        return result

    def _push(self, at: float, event: Event) -> None:
        self._pushed += 1
        heappush(self._heap, (at, self._pushed, event))

    def _tell(self, event: Event) -> None:
        for command in self._scheduler.handle(event, self._now):
            self._carry_out(command)

    # What happens

    def _happen(self, event: Event, at: float) -> None:
        if isinstance(event, RequestFinished):
            self._finish(event)
            return
        match event:
            case TimerFired(timer):
                if self._timers.get(timer) != at:
                    return  # cancelled, or set anew
                del self._timers[timer]
                self._note_firing(timer)
            case EngineReady(_, generation):
                engine = self._engines.get(generation)
                if engine is None or engine.stopping:
                    return
                engine.up = True
                self.result.load_time_s += self._now - engine.spawned_at
            case EngineExited(_, generation):
                if generation not in self._engines:
                    return
                self._exit(self._engines[generation], event)
                return
            case EngineReaped(_, generation):
                engine = self._engines.pop(generation, None)
                if engine is None:
                    return
                self._memory_bytes -= engine.model.size_bytes
            case _:
                pass
        self._tell(event)

    def _note_firing(self, timer: Timer) -> None:
        self._firings = self._firings + 1 if self._fired_at == self._now else 0
        self._fired_at = self._now
        if self._firings > MAX_FIRINGS_COUNT:
            raise SimulationError(f"the clock stands still at {self._now:g} s, firing {timer}")

    def _finish(self, event: RequestFinished) -> None:
        request_id = event.request_id
        engine = self._engine_of.pop(request_id, None)
        if engine is None:  # cut, or its engine went before it was done
            if request_id in self._cut:
                self._cut.discard(request_id)
                self._tell(event)
            return
        del engine.active[request_id]
        del self._open[request_id]
        result = self.result
        result.served += 1
        result.makespan_s = self._now
        if engine.queue:
            self._begin(engine, engine.queue.popleft())
        self._tell(event)

    def _exit(self, engine: _Engine, event: Event) -> None:
        """The process ends by itself; its connections break."""
        if not engine.up and not engine.stopping:
            self.result.load_time_s += self._now - engine.spawned_at
        engine.stopping = True
        lost = [*engine.active, *engine.queue]
        engine.active.clear()
        engine.queue.clear()
        self._tell(event)
        for request_id in lost:
            self._engine_of.pop(request_id, None)
            self._open.pop(request_id, None)
            self.result.failed += 1
            self.result.makespan_s = self._now
            self._tell(RequestFinished(request_id))
        self._push(self._now, EngineReaped(engine.model.name, engine.generation))

    # What is done

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, Dispatch):
            self._dispatch(command)
            return
        match command:
            case SetTimer(timer, at):
                self._timers[timer] = at
                self._push(at, TimerFired(timer))
            case CancelTimer(timer):
                self._timers.pop(timer, None)
            case Spawn(model, generation):
                self._spawn(self._models[model], generation)
            case Terminate(_, generation) | Kill(_, generation):
                self._stop(generation, 0.0 if isinstance(command, Kill) else self._machine.stop_s)
            case Inspect(model, inspection):
                self._push(self._now, ModelInspected(model, inspection))
            case Reject(request_id, reason):
                if self._open.pop(request_id, None) is not None:
                    self.result.rejected[reason.value] += 1
                    self.result.makespan_s = max(self.result.makespan_s, self._now)
            case Abort(request_id):
                self._abort(request_id)
            case _:
                pass

    def _dispatch(self, command: Dispatch) -> None:
        request_id = command.request_id
        engine = self._engines.get(command.generation)
        request = self._open.get(request_id)
        if engine is None or not engine.up or request is None or request_id in self._engine_of:
            raise SimulationError(f"a dispatch that cannot be: {command} at {self._now:g} s")
        self._engine_of[request_id] = engine
        self.result.waits_s.append(self._now - request.time_s)
        if len(engine.active) < engine.model.slots:
            self._begin(engine, request_id)
        else:
            engine.queue.append(request_id)

    def _begin(self, engine: _Engine, request_id: int) -> None:
        request = self._open[request_id]
        machine = self._machine
        engine.active[request_id] = request
        first_token_at = self._now + request.tokens_in / machine.prefill_tokens_s
        self.result.first_token_waits_s.append(first_token_at - request.time_s)
        end_at = first_token_at + request.tokens_out / machine.decode_tokens_s
        if self._faults is not None and self._rng.random() < self._faults.crash:
            crash = EngineExited(engine.model.name, engine.generation, "modelled crash")
            self._push((self._now + end_at) / 2, crash)
        self._push(end_at, RequestFinished(request_id))

    def _spawn(self, model: SimulatedModel, generation: int) -> None:
        self._engines[generation] = _Engine(model, generation, self._now)
        self._memory_bytes += model.size_bytes
        result = self.result
        result.loads += 1
        result.peak_memory_bytes = max(result.peak_memory_bytes, self._memory_bytes)
        load_s = self._load_s[model.name]
        self._push(self._now, EngineSpawned(model.name, generation))
        if self._faults is not None and self._rng.random() < self._faults.load_failure:
            failure = EngineExited(model.name, generation, "modelled failure of a load")
            self._push(self._now + load_s / 2, failure)
        else:
            self._push(self._now + load_s, EngineReady(model.name, generation))

    def _stop(self, generation: int, stop_s: float) -> None:
        engine = self._engines.get(generation)
        if engine is None:
            return
        if not engine.up and not engine.stopping:
            self.result.load_time_s += self._now - engine.spawned_at
        engine.stopping = True
        self._push(self._now + stop_s, EngineReaped(engine.model.name, generation))

    def _abort(self, request_id: int) -> None:
        engine = self._engine_of.pop(request_id, None)
        if engine is None:
            return
        if engine.active.pop(request_id, None) is None:
            engine.queue.remove(request_id)
        self._open.pop(request_id, None)
        self.result.failed += 1
        # Not at once: the scheduler is in the middle of its commands.
        self._cut.add(request_id)
        self._push(self._now, RequestFinished(request_id))
