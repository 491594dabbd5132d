"""The simulated layer of ``llama-router stress``: the core under faults, in virtual time."""

import sys
from typing import TYPE_CHECKING, Any

import msgspec
import typer

if TYPE_CHECKING:
    from llama_router.simulator.campaign import Report

DEFAULT_SEEDS_COUNT = 1000
_ENDLESS_SEEDS_COUNT = 2**31
_PROGRESS_EVERY_COUNT = 100


def run_simulation(
    seed: int,
    *,
    seeds: int | None = None,
    minutes: float | None = None,
    steps: int | None = None,
) -> "Report":
    """Walk the swarm from ``seed`` on and return what came of it.

    Ends after ``seeds`` walks or ``minutes``, whichever comes first; without either, after
    DEFAULT_SEEDS_COUNT walks.
    """
    from llama_router.simulator import campaign
    from llama_router.simulator.swarm import STEPS_COUNT

    count = seeds
    if count is None:
        count = DEFAULT_SEEDS_COUNT if minutes is None else _ENDLESS_SEEDS_COUNT
    return campaign.run(
        seed,
        count,
        steps_count=steps or STEPS_COUNT,
        max_time_s=None if minutes is None else 60.0 * minutes,
        on_progress=_show_progress,
    )


def as_text(report: "Report") -> str:
    """Return what came of it for people: each failure with its replay, then the sums."""
    from llama_router.simulator import campaign

    failures = [campaign.describe(failure) for failure in report.failures]
    return "\n".join([*failures, campaign.summary(report)])


def as_figures(report: "Report") -> dict[str, Any]:
    """Return the same for programs."""
    figures = msgspec.structs.asdict(report)
    figures["failures"] = [
        {
            "seed": failure.seed,
            "rule": failure.rule,
            "message": failure.message,
            "faults": failure.faults,
            "events": [f"{now:.3f} {event}" for now, event in failure.log],
            "again": failure.replay_command,
        }
        for failure in report.failures
    ]
    return figures


def _show_progress(done: int, failed: int) -> None:
    if sys.stderr.isatty() and done % _PROGRESS_EVERY_COUNT == 0:
        typer.echo(f"\r{done} walks, {failed} failed", err=True, nl=False)
