"""A supervisor under test: what it reports, waited for under a deadline."""

import asyncio
import itertools
import os
import select
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from llama_router.core.events import ExitCause
from llama_router.engines.environment import engine_environment
from llama_router.engines.launch import LaunchSpec, OwnerCheck, Readiness
from llama_router.engines.logs import LogStore
from llama_router.engines.ports import PortAllocator
from llama_router.engines.supervisor import Supervisor
from tests.support.ports import HOST, port_window

DEADLINE_S = 60.0

Report = tuple[object, ...]


class Recorder:
    """An EngineListener that keeps everything in order."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self._news = asyncio.Event()

    def _add(self, *report: object) -> None:
        self.reports.append(report)
        self._news.set()

    def spawned(self, model: str, generation: int) -> None:
        self._add("spawned", generation, model)

    def spawn_failed(self, model: str, generation: int, reason: str) -> None:
        self._add("spawn_failed", generation, reason, model)

    def progress(self, model: str, generation: int, fraction: float) -> None:
        self._add("progress", generation, fraction, model)

    def ready(self, model: str, generation: int) -> None:
        self._add("ready", generation, model)

    def exited(self, model: str, generation: int, reason: str, cause: ExitCause) -> None:
        self._add("exited", generation, reason, cause, model)

    def reaped(self, model: str, generation: int) -> None:
        self._add("reaped", generation, model)

    def address_stolen(self, model: str, generation: int) -> None:
        self._add("address_stolen", generation, model)

    def output(self, model: str, stream: str, line: str) -> None:
        self._add("output", stream, line, model)

    def kinds(self, generation: int) -> list[object]:
        """What was reported of one engine, output apart."""
        return [kind for kind, number, *_ in self.reports if number == generation]

    async def wait(self, kind: str, matches: Callable[[Report], bool] = lambda _: True) -> Report:
        """Return the first report of ``kind`` that matches, once it is there."""
        seen = 0
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for report in itertools.islice(self.reports, seen, None):
                    if report[0] == kind and matches(report):
                        return report
                seen = len(self.reports)
                self._news.clear()
                await self._news.wait()


class Supervised:
    """A started supervisor with its logs, and what it reports."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.recorder = Recorder()
        self.logs = LogStore()
        self.supervisor = Supervisor(self.recorder, self.logs, state_dir)
        self.ports = PortAllocator(port_window(), HOST)
        self._last_generation = 0

    def spawn(
        self,
        *argv: str,
        readiness: Readiness = Readiness.PROBED,
        owner_check: OwnerCheck = OwnerCheck.TREE,
        port: int | None = None,
        extra_env: dict[str, str] | None = None,
        model: str = "m",
        health_path: str = "/health",
        is_address_given: bool = False,
        stop_argv: tuple[tuple[str, ...], ...] = (),
    ) -> int:
        """Start a command; return its generation."""
        self._last_generation += 1
        self.supervisor.spawn(
            LaunchSpec(
                model=model,
                generation=self._last_generation,
                argv=argv,
                env=engine_environment(os.environ, extra_env or {}),
                host=HOST,
                port=port or self.ports.acquire(),
                health_path=health_path,
                readiness=readiness,
                owner_check=owner_check,
                is_address_given=is_address_given,
                stop_argv=stop_argv,
            )
        )
        return self._last_generation

    def spawn_python(self, program: str, *arguments: str, **options: object) -> int:
        """Start a Python program, given as text."""
        return self.spawn(sys.executable, "-I", "-S", "-c", program, *arguments, **options)  # type: ignore[arg-type] # passed on

    async def wait(self, kind: str, generation: int) -> Report:
        """Await a report of one engine."""
        return await self.recorder.wait(kind, lambda report: report[1] == generation)

    async def wait_line(self, start: str) -> str:
        """Await a line of output that begins so; return the rest of it."""
        report = await self.recorder.wait("output", lambda report: str(report[2]).startswith(start))
        return str(report[2]).removeprefix(start)


def supervise(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    state_dir: Path,
    scenario: Callable[[Supervised], Awaitable[None]],
) -> None:
    """Run a scenario on a loop of the given kind; afterwards nothing may be left."""

    async def run() -> None:
        supervised = Supervised(state_dir)
        await supervised.supervisor.start()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await scenario(supervised)
        finally:
            await supervised.supervisor.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run())
    assert list(state_dir.glob("engines-*")) == []


def await_gone(pids: Iterable[int], timeout_s: float) -> set[int]:
    """Return which of the processes are still there when the time is over; zombies are not."""
    poll = select.poll()
    waiting: dict[int, int] = {}
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        waiting[pidfd] = pid
        poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    try:
        while waiting:
            left_s = max(0.0, deadline - time.monotonic())
            for pidfd, _ in poll.poll(left_s * 1000):
                poll.unregister(pidfd)
                os.close(pidfd)
                del waiting[pidfd]
            if left_s == 0.0:
                break
        return set(waiting.values())
    finally:
        for pidfd in waiting:
            os.close(pidfd)
