"""Virtual time: engines that take as long as they are told to, around the real core."""

import heapq
from collections.abc import Callable, Iterable

import msgspec

from llama_router.core import events as ev
from llama_router.core.commands import (
    Command,
    Dispatch,
    Inspect,
    Reject,
    SetTimer,
    Spawn,
    Terminate,
)
from llama_router.core.machine import Core


class Job(msgspec.Struct, frozen=True):
    """A request: when it comes, for what, and how long it keeps its engine busy."""

    at: float
    model: str
    service_s: float = 0.2
    key: str = ""
    is_batch: bool = False
    priority: int = 0


class Clockwork:
    """Runs jobs through a core. ``watch`` sees every event with its commands."""

    def __init__(
        self,
        core: Core,
        loads_s: dict[str, float],
        stop_s: float = 0.0,
        watch: Callable[[ev.Event, list[Command], float], None] | None = None,
    ) -> None:
        self.core = core
        self.now = 0.0
        self.waits_s: dict[int, float] = {}
        """From arrival to dispatch, by request."""
        self.finished_at = 0.0
        self.loads: list[str] = []
        self.rejects: list[Reject] = []
        self._loads_s = loads_s
        self._stop_s = stop_s
        self._watch = watch
        self._agenda: list[tuple[float, int, ev.Event]] = []
        self._counter = 0
        self._jobs: dict[int, Job] = {}

    def run(self, jobs: Iterable[Job]) -> "Clockwork":
        """Let everything happen in the order of time, until nothing is left but idle timers."""
        for number, job in enumerate(sorted(jobs, key=lambda job: job.at), 1):
            self._jobs[number] = job
            arrival = ev.RequestArrived(
                number, job.model, key=job.key, is_batch=job.is_batch, priority=job.priority
            )
            self._push(job.at, arrival)
        agenda, timers, handle = self._agenda, self.core.ledger.timers, self.core.handle
        while agenda:
            self.now, _, event = heapq.heappop(agenda)
            if isinstance(event, ev.TimerFired):
                at = timers.get(event.timer)
                if at is None or at > self.now:
                    continue
            commands = handle(event, self.now)
            if self._watch is not None:
                self._watch(event, commands, self.now)
            for command in commands:
                self._obey(command)
        return self

    def _push(self, at: float, event: ev.Event) -> None:
        self._counter += 1
        heapq.heappush(self._agenda, (at, self._counter, event))

    def _obey(self, command: Command) -> None:
        now = self.now
        match command:
            case Dispatch(request_id):
                job = self._jobs[request_id]
                self.waits_s[request_id] = now - job.at
                self.finished_at = now + job.service_s
                self._push(now + job.service_s, ev.RequestFinished(request_id))
            case Spawn(model, generation):
                self.loads.append(model)
                self._push(now + self._loads_s[model], ev.EngineReady(model, generation))
            case Inspect(model, inspection):
                self._push(now, ev.ModelInspected(model, inspection))
            case Terminate(model, generation):
                self._push(now + self._stop_s, ev.EngineReaped(model, generation))
            case SetTimer(timer, at):
                self._push(at, ev.TimerFired(timer))
            case Reject():
                self.rejects.append(command)
            case _:
                pass
