"""One run: load under faults, then calm, then a look at everything that is left."""

import asyncio
import re
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from llama_router.stress import settings
from llama_router.stress.books import Books
from llama_router.stress.clients import Clients
from llama_router.stress.director import Director
from llama_router.stress.router_process import (
    RouterProcess,
    RouterStartError,
    marked_processes,
    running_router,
)
from llama_router.stress.tally import Leaks, Report, Tally

Say = Callable[[str], None]

# Each poll looks at every process of the machine.
_POLL_S = 0.25
_PROGRESS_INTERVAL_S = 30.0
# A calm engine may still meet the end of one that was drawn before.
_CALM_TRIES = 5
_ENGINE_LINE = re.compile(r"[0-9:]{8} [A-Z] \[")
# What the router's log has for a mistake of its own.
_MISTAKES = (
    "Traceback (most recent call last)",
    "never retrieved",
    "fault in '",
    "was destroyed",
    # A broken model costs no healthy one.
    f"swap for {settings.BROKEN_MODEL}",
)
_GUARDIAN_RECORDS = "engines-*.json"
_SHOWN_MAX_COUNT = 5


async def run(seed: int, duration_s: float, folder: Path, say: Say) -> Report:
    """Stress a router for so long and return what came of it.

    ``folder`` is empty and holds what the router leaves behind. Raises RouterStartError and OSError
    when the run cannot be made. Nothing that was started outlives it.
    """
    mark = secrets.token_hex(8)
    tally = Tally()
    report = Report(seed, duration_s, tally, Leaks())
    setup = settings.setup(seed)
    books = Books(setup.rules(), tally.violate)
    configure = partial(settings.router_config, of=setup)
    async with (
        Director(seed, books=books) as director,
        running_router(folder, director.address, mark, configure) as router,
    ):
        clients = Clients(router.port, seed, tally, books)
        baseline = await _warm_up(router, clients, report, mark)
        director.has_faults = True
        await _under_load(clients, duration_s, tally, say)
        await clients.finish()
        director.calm_down()
        await _converge(clients, router, tally)
        await _look_at_the_quiet_router(router, baseline, report, mark)
        await _end(router, report, mark)
        report.engines_started_count = director.started_count
        report.engine_kinds = director.kinds
        if director.robbed_count:
            tally.violate(f"{director.robbed_count} requests were sent to a stranger's port")
    await asyncio.to_thread(_read_log, router, tally)
    report.judge(settings.RSS_GROWTH_MAX_BYTES)
    return report


async def _warm_up(
    router: RouterProcess, clients: Clients, report: Report, mark: str
) -> dict[int, str]:
    """Use everything once; what is open after that may stay open. Returns the descriptors."""
    for model in settings.MODELS:
        problem = await clients.ask_well(model.name)
        if problem:
            raise RouterStartError(
                f"without any fault, {model.name} does not serve: {problem}\n"
                f"the router said:\n{await router.last_words()}"
            )
    if problems := await _unload_all(clients):
        raise RouterStartError(f"without any fault, {problems[0]}")
    await _until(lambda: _engines(router, mark) == [] and router.sockets() == [])
    report.rss_start_bytes = router.rss_bytes()
    return router.descriptors()


async def _under_load(clients: Clients, duration_s: float, tally: Tally, say: Say) -> None:
    async def tell() -> None:
        started_s = time.monotonic()
        while True:
            await asyncio.sleep(_PROGRESS_INTERVAL_S)
            passed_s = time.monotonic() - started_s
            say(
                f"{passed_s:.0f} s: {tally.request_count} requests, "
                f"{tally.violation_count} violations"
            )

    telling = asyncio.create_task(tell(), name="progress")
    try:
        await clients.run(duration_s)
    finally:
        telling.cancel()


async def _converge(clients: Clients, router: RouterProcess, tally: Tally) -> None:
    """Without faults, every model must serve again."""
    if not router.is_running:
        tally.violate(f"the router has ended by itself, status {router.process.returncode}")
        return
    for model in settings.MODELS:
        problem = ""
        for _ in range(_CALM_TRIES):
            problem = await clients.ask_well(model.name)
            if not problem:
                break
        if problem:
            tally.violate(f"after the faults, {model.name} does not serve: {problem}")
    for problem in await _unload_all(clients):
        tally.violate(f"after the faults, {problem}")


async def _unload_all(clients: Clients) -> list[str]:
    """Order the end of all models; return which have no answer to that, and why."""
    return [
        f"{model.name} does not go: {problem}"
        for model in settings.MODELS
        if (problem := await clients.unload(model.name))
    ]


async def _look_at_the_quiet_router(
    router: RouterProcess,
    baseline: dict[int, str],
    report: Report,
    mark: str,
) -> None:
    if not router.is_running:
        return
    left = Leaks()

    def nothing_is_left() -> bool:
        nonlocal left
        # What is there at one look and not at the next was on its way.
        left = _left(router, baseline, mark)
        return left == Leaks()

    await _until(nothing_is_left)
    report.rss_end_bytes = router.rss_bytes()
    report.leaks = left


def _left(router: RouterProcess, baseline: dict[int, str], mark: str) -> Leaks:
    """Look once at what a quiet router still has and should not have."""
    leaks = Leaks(
        processes=[_name(process) for process in _engines(router, mark)],
        sockets=router.sockets(),
    )
    found = router.descriptors()
    if len(found) > len(baseline):
        new = [what for number, what in found.items() if baseline.get(number) != what]
        shown = ", ".join(new[:_SHOWN_MAX_COUNT])
        leaks.descriptors += [shown] * (len(found) - len(baseline))
    return leaks


async def _end(router: RouterProcess, report: Report, mark: str) -> None:
    try:
        status = await router.end()
    except TimeoutError:
        report.tally.violate(f"the router does not end within {settings.END_TIMEOUT_S:g} s")
        return
    if status != 0:
        report.tally.violate(f"the router ended with status {status}")
    # Its guardian goes after it.
    left: list[psutil.Process] = []

    def nobody_is_left() -> bool:
        nonlocal left
        left = marked_processes(mark)
        return left == []

    await _until(nobody_is_left)
    report.leaks.processes += [_name(process) for process in left]
    report.leaks.files += await asyncio.to_thread(_left_files, router)


def _left_files(router: RouterProcess) -> list[str]:
    left = [str(path) for path in sorted(router.temp_folder.rglob("*"))]
    return left + [str(path) for path in sorted(router.state_folder.glob(_GUARDIAN_RECORDS))]


def _read_log(router: RouterProcess, tally: Tally) -> None:
    with router.log_path.open(errors="replace") as log:
        for line in log:
            # Engines may say what they like.
            if not _ENGINE_LINE.match(line) and any(mistake in line for mistake in _MISTAKES):
                tally.violate(f"in the router's log: {line.strip()[:200]}")


def _engines(router: RouterProcess, mark: str) -> list[psutil.Process]:
    """Return what lives below the router, without its helpers: its own children, one of a kind."""
    found = [process for process in marked_processes(mark) if process.pid != router.process.pid]
    helpers: dict[str, int] = {}
    for process in found:
        if _parent(process) == router.process.pid:
            # By its command: the guardian, the watcher of folders, the reader of bodies.
            helpers.setdefault(_name(process).partition(": ")[2], process.pid)
    return [process for process in found if process.pid not in helpers.values()]


def _parent(process: psutil.Process) -> int:
    try:
        return int(process.ppid())
    except psutil.Error:
        return 0


def _name(process: psutil.Process) -> str:
    try:
        return f"{process.pid}: {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return str(process.pid)


async def _until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, or has had its time."""
    tries = round(settings.QUIET_TIMEOUT_S / _POLL_S)
    for _ in range(tries):
        if is_so():
            return
        await asyncio.sleep(_POLL_S)
