"""``llama-router stress``: look for bugs of the router, in virtual time and with real processes."""

import secrets
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from llama_router.cli import stress_processes, stress_simulation
from llama_router.cli.ending import refuse

EXIT_VIOLATED = 1
EXIT_UNUSABLE = 2
DEFAULT_MINUTES = 1.0
_SEED_LIMIT = 2**31
_SHORTEST_MINUTES = 0.1
_LONGEST_MINUTES = 24 * 60.0


class Layer(Enum):
    """What is put under stress: the core alone, the router as a process, or one after the other."""

    SIMULATION = "simulation"
    PROCESSES = "processes"
    BOTH = "both"


LayerOption = Annotated[
    Layer, typer.Option("--layer", metavar="LAYER", help="simulation, processes or both.")
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, metavar="N", help="Repeats a run's faults; one is drawn by default."
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        min=_SHORTEST_MINUTES,
        max=_LONGEST_MINUTES,
        metavar="M",
        help="Time for each layer; by default 1000 walks, and one minute of processes.",
    ),
]
SeedsOption = Annotated[
    int | None,
    typer.Option("--seeds", min=1, metavar="N", help="Simulation: how many walks, one per seed."),
]
StepsOption = Annotated[
    int | None, typer.Option("--steps", min=1, metavar="N", help="Simulation: length of a walk.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]


def stress(
    *,
    layer: LayerOption = Layer.BOTH,
    seed: SeedOption = None,
    minutes: MinutesOption = None,
    seeds: SeedsOption = None,
    steps: StepsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for bugs of the router under random faults.

    The simulation walks the core through random faults in virtual time and checks all its rules at
    each step. The processes are a router of its own with a home of its own, over engines that
    crash, hang, flood, garble, fork and steal ports, under the load of clients that misbehave too;
    nothing may be wrong, late or left behind. Status 1 if a rule was broken; what it then prints
    says how to see it again. A seed decides which faults come; the timing of real processes is the
    machine's.
    """
    if sys.platform == "win32" and layer is not Layer.SIMULATION:
        refuse(
            "real processes are put under stress on POSIX only: --layer simulation", EXIT_UNUSABLE
        )
    first = secrets.randbelow(_SEED_LIMIT) if seed is None else seed
    typer.echo(f"seed={first}", err=True)
    outcome: dict[str, Any] = {"seed": first}
    is_good = True
    if layer is not Layer.PROCESSES:
        is_good &= _simulation(first, seeds, minutes, steps, outcome if as_json else None)
    if layer is not Layer.SIMULATION:
        is_good &= _processes(first, minutes or DEFAULT_MINUTES, outcome if as_json else None)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(outcome), indent=2).decode())
    if not is_good:
        raise typer.Exit(EXIT_VIOLATED)


def _simulation(
    seed: int,
    seeds: int | None,
    minutes: float | None,
    steps: int | None,
    outcome: dict[str, Any] | None,
) -> bool:
    """Print what came of it, or put it into ``outcome``; return whether it is good."""
    report = stress_simulation.run_simulation(seed, seeds=seeds, minutes=minutes, steps=steps)
    if outcome is None:
        typer.echo(stress_simulation.as_text(report))
    else:
        outcome["simulation"] = stress_simulation.as_figures(report)
    return not report.failures


def _processes(seed: int, minutes: float, outcome: dict[str, Any] | None) -> bool:
    """Print what came of it, or put it into ``outcome``; return whether it is good."""
    again = f"llama-router stress --layer processes --seed {seed} --minutes {minutes:g}"
    typer.echo(f"again: {again}", err=True)
    log: Path | None = None
    try:
        report, log = stress_processes.run_processes(seed, minutes, _say)
    except stress_processes.StressRunError as error:
        refuse(str(error), EXIT_UNUSABLE)
    if outcome is None:
        typer.echo(report.table())
    else:
        outcome["processes"] = {
            **stress_processes.as_figures(report),
            "again": again,
        }
    if log is not None:
        typer.echo(f"the router's log: {log}", err=True)
    return report.is_good


def _say(line: str) -> None:
    typer.echo(line, err=True)
