"""The layer of real processes of ``llama-router stress``: a router under faults and load."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from llama_router.stress.tally import Report

LOG_NAME = "router.log"


class StressRunError(Exception):
    """The run could not be made: nothing is known about the router."""


def run_processes(
    seed: int, minutes: float, say: Callable[[str], None]
) -> "tuple[Report, Path | None]":
    """Stress a router of its own; return what came of it, and its log if that is of interest.

    Raises StressRunError.
    """
    # Every command imports this module, and asyncio takes as long as all the rest of that.
    import asyncio

    from llama_router.stress.router_process import RouterStartError
    from llama_router.stress.run import run

    folder = Path(tempfile.mkdtemp(prefix="llama-router-stress-"))
    try:
        report = asyncio.run(run(seed, 60.0 * minutes, folder, say))
    except (RouterStartError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)  # the error has the router's last words
        raise StressRunError(str(error)) from None
    if report.is_good:
        shutil.rmtree(folder, ignore_errors=True)
        return report, None
    return report, folder / LOG_NAME


def as_figures(report: "Report") -> dict[str, Any]:
    """Return what came of it for programs; of the waits, only the worst."""
    figures: dict[str, Any] = msgspec.to_builtins(report)
    waits_s = figures["tally"].pop("waits_s")
    figures["tally"]["worst_wait_s"] = max(waits_s, default=None)
    return figures
