"""Many walks of the swarm, one after the other; what fails is shrunk and told."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from llama_router.simulator.shrink import MAX_TRIES_COUNT, shrink
from llama_router.simulator.swarm import STEPS_COUNT, CoreFactory, Step, Swarm, make_core

MAX_FAILURES_COUNT: Final = 5
"""More are mostly the same bug again, and shrinking takes its time."""


class Failure(msgspec.Struct, frozen=True):
    """A walk that broke a rule. ``log`` is what is left of it after shrinking."""

    seed: int
    steps_count: int
    kind: str
    message: str
    faults: tuple[str, ...]
    log: tuple[Step, ...]

    @property
    def rule(self) -> str:
        """What was broken, without the particulars."""
        return _rule(self.kind, self.message)

    @property
    def replay_command(self) -> str:
        """The command that walks this walk again."""
        command = f"llama-router stress --layer simulation --seed {self.seed} --seeds 1"
        if self.steps_count != STEPS_COUNT:
            command += f" --steps {self.steps_count}"
        return command


class Report(msgspec.Struct, frozen=True):
    """What came of a campaign."""

    first_seed: int
    seeds: int
    events: int
    elapsed_s: float
    outcomes: dict[str, int]
    failures: tuple[Failure, ...]


def _rule(kind: str, message: str) -> str:
    return f"{kind}: {message.partition(':')[0]}" if message else kind


def _attempt(act: Callable[[], None]) -> tuple[str, str] | None:
    """Return how ``act`` failed, if it did: the kind of the exception and its text."""
    try:
        act()
    except Exception as error:  # noqa: BLE001 - any exception of the core is what is looked for
        return type(error).__name__, str(error)
    return None


def walk(
    seed: int,
    steps_count: int = STEPS_COUNT,
    factory: CoreFactory = make_core,
    max_shrinks_count: int = MAX_TRIES_COUNT,
) -> tuple[Swarm, Failure | None]:
    """Walk one seed; return the walk and how it failed, if it did."""
    swarm = Swarm(seed, factory)
    failed = _attempt(lambda: swarm.run(steps_count))
    if failed is None:
        return swarm, None
    kind, message = failed
    log: Sequence[Step] = swarm.log
    wanted = _rule(kind, message)

    def fails(part: Sequence[Step]) -> bool:
        again = Swarm(seed, factory)
        found = _attempt(lambda: again.replay(part))
        return found is not None and _rule(*found) == wanted

    if max_shrinks_count and fails(log):
        log = shrink(log, fails, max_shrinks_count)
    faults = tuple(name for name, rate in swarm.plan.rates.items() if rate)
    return swarm, Failure(seed, steps_count, kind, message, faults, tuple(log))


def run(
    first_seed: int,
    seeds_count: int,
    *,
    steps_count: int = STEPS_COUNT,
    max_time_s: float | None = None,
    factory: CoreFactory = make_core,
    on_progress: Callable[[int, int], None] = lambda _done, _failed: None,
) -> Report:
    """Walk ``seeds_count`` seeds from the first, or as many as ``max_time_s`` allows.

    Ends early after MAX_FAILURES_COUNT failures. ``on_progress`` is told how many walks are done
    and how many failed, after each.
    """
    started_at = time.monotonic()
    outcomes: Counter[str] = Counter()
    failures: list[Failure] = []
    events = 0
    done = 0
    for seed in range(first_seed, first_seed + seeds_count):
        if max_time_s is not None and time.monotonic() - started_at >= max_time_s:
            break
        swarm, failure = walk(seed, steps_count, factory)
        done += 1
        events += len(swarm.log)
        outcomes.update(swarm.auditor.outcomes)
        if failure is not None:
            failures.append(failure)
        on_progress(done, len(failures))
        if len(failures) >= MAX_FAILURES_COUNT:
            break
    elapsed_s = time.monotonic() - started_at
    return Report(first_seed, done, events, elapsed_s, dict(outcomes), tuple(failures))


def describe(failure: Failure) -> str:
    """Return a failure as text: what, the seed, the shortest log, the command to see it again."""
    lines = [
        f"seed={failure.seed} {failure.kind}: {failure.message}",
        f"  faults: {', '.join(failure.faults) or 'none'}",
        f"  {len(failure.log)} events are enough, after which faults stop:",
        *(f"    {now:10.3f} {event}" for now, event in failure.log),
        f"  again: {failure.replay_command}",
    ]
    return "\n".join(lines)


def summary(report: Report) -> str:
    """Return a campaign's outcome as a few lines."""
    outcomes = ", ".join(f"{name} {count}" for name, count in sorted(report.outcomes.items()))
    last_seed = report.first_seed + report.seeds - 1
    return (
        f"{report.seeds} walks (seeds {report.first_seed} to {last_seed}), {report.events} events, "
        f"{report.elapsed_s:.1f} s\n"
        f"outcomes: {outcomes or 'none'}\n"
        f"violations: {len(report.failures)}"
    )
