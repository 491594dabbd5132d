"""``llama-router simulate``: scheduling policies side by side, in virtual time."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from llama_router.cli.ending import EXIT_USAGE, refuse

if TYPE_CHECKING:
    from llama_router.simulator.experiments import Case, Shape


TraceArgument = Annotated[
    Path | None,
    typer.Argument(metavar="TRACE", help="CSV or JSON Lines; see `llama-router record`."),
]
GenerateOption = Annotated[
    str,
    typer.Option(
        "--generate", metavar="KIND", help="Without TRACE: zipf, bursty, alternating or two."
    ),
]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option("--policy", metavar="NAME", help="May be given several times; default: all."),
]
FleetOption = Annotated[
    Path | None,
    typer.Option(
        "--models", metavar="FILE", help="What TRACE ran on; see `llama-router record --models`."
    ),
]
ModelCountOption = Annotated[
    int,
    typer.Option("--model-count", min=2, max=100_000, metavar="N", help="Models of a made-up one."),
]
RequestsOption = Annotated[
    int, typer.Option("--requests", min=1, max=10_000_000, metavar="N", help="Its requests.")
]
RateOption = Annotated[
    float, typer.Option("--rate", min=1e-4, metavar="R", help="Its requests a second.")
]
RoomOption = Annotated[
    float,
    typer.Option("--room-for", min=1.0, metavar="N", help="Models of average size that fit."),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="The same seed makes the same trace.")
]
SeedsOption = Annotated[
    int, typer.Option("--seeds", min=1, max=1000, metavar="N", help="The mean over so many.")
]
MaxWaitOption = Annotated[
    float | None,
    typer.Option(
        "--max-wait", min=0.0, metavar="SECONDS", help="When a model's turn comes at any cost."
    ),
]
SloOption = Annotated[
    float,
    typer.Option("--slo", min=0.0, metavar="SECONDS", help="When a first token is in time."),
]
CalibrateOption = Annotated[
    str | None,
    typer.Option(
        "--calibrate", metavar="NAME", help="The rate at which half is in time with this policy."
    ),
]
OptimumOption = Annotated[
    bool, typer.Option("--optimum", help="Also the least load time there could be.")
]
SpeedOption = Annotated[
    bool,
    typer.Option("--speed", help="Measure what the core's decisions cost instead of simulating."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the waits.")
]


def simulate(
    *,
    trace: TraceArgument = None,
    generate: GenerateOption = "zipf",
    policies: PolicyOption = None,
    fleet: FleetOption = None,
    models_count: ModelCountOption = 30,
    requests: RequestsOption = 2000,
    rate: RateOption = 0.5,
    room_for: RoomOption = 6.0,
    seed: SeedOption = 0,
    seeds: SeedsOption = 1,
    max_wait_s: MaxWaitOption = None,
    slo_s: SloOption = 10.0,
    calibrate: CalibrateOption = None,
    optimum: OptimumOption = False,
    speed: SpeedOption = False,
    as_json: JsonOption = False,
    plot: PlotOption = None,
) -> None:
    """Replay a trace in virtual time, with one or many policies.

    Without a trace, one is made up. Prints for each policy what was served, how much was loaded and
    how long requests waited. No engine is started and nothing waits for real.
    """
    if speed:
        _measure_speed()
        return
    from llama_router.core.settings import CoreSettings
    from llama_router.simulator.experiments import Shape, compare
    from llama_router.simulator.fleet import FleetError
    from llama_router.simulator.report import as_json as to_json
    from llama_router.simulator.report import table
    from llama_router.simulator.schedulers import SCHEDULERS
    from llama_router.simulator.trace import TraceError
    from llama_router.simulator.world import SimulationError

    chosen = policies or list(SCHEDULERS)
    for name in [*chosen, *([calibrate] if calibrate else [])]:
        if name not in SCHEDULERS:
            refuse(f"there is no policy '{name}'; there are {', '.join(SCHEDULERS)}", EXIT_USAGE)
    if plot is not None and plot.suffix.lower() != ".svg":
        refuse(f"{plot}: what is drawn is SVG: name a file .svg", EXIT_USAGE)
    settings = CoreSettings() if max_wait_s is None else CoreSettings(max_wait_s=max_wait_s)
    shape = Shape(models_count, requests, rate, room_for)
    try:
        if trace is None:
            cases = _generated(generate, shape, fleet, range(seed, seed + seeds), calibrate)
        else:
            cases = [_recorded(trace, fleet, shape, seed)]
        summaries = compare(cases, chosen, settings, slo_s)
        if plot is not None:
            _draw(plot, cases[0], chosen, settings)
        least = _least(cases, settings.max_wait_s) if optimum else None
    except (TraceError, FleetError, SimulationError) as error:
        refuse(str(error), EXIT_USAGE)
    typer.echo(to_json(summaries) if as_json else table(summaries))
    if least is not None:
        typer.echo(least, err=as_json)


def _measure_speed() -> None:
    from llama_router.simulator.speed import SIZES, cost_beside, table

    typer.echo(table([cost_beside(others) for others in SIZES]))


def _generated(
    name: str, shape: "Shape", fleet: Path | None, seeds: range, calibrate: str | None
) -> "list[Case]":
    from llama_router.simulator.experiments import GENERATORS, rate_for_attainment

    if fleet is not None:
        refuse("--models goes with a TRACE; made-up traces make their models", EXIT_USAGE)
    if name not in GENERATORS:
        refuse(f"there is no generator '{name}'; there are {', '.join(GENERATORS)}", EXIT_USAGE)
    generator = GENERATORS[name]
    cases = []
    for seed in seeds:
        fitting = shape
        if calibrate is not None:
            rate = rate_for_attainment(generator, shape, seed, calibrate)
            fitting = msgspec.structs.replace(shape, rate_per_s=rate)
        cases.append(generator(fitting, seed))
    return cases


def _recorded(path: Path, fleet_path: Path | None, shape: "Shape", seed: int) -> "Case":
    from llama_router.simulator.experiments import Case
    from llama_router.simulator.fleet import random_fleet, read_fleet
    from llama_router.simulator.trace import read_trace

    requests = read_trace(path)
    if fleet_path is not None:
        return Case(read_fleet(fleet_path), requests)
    names = sorted({request.model for request in requests})
    return Case(random_fleet(names, seed, room_for=shape.room_for), requests)


def _draw(path: Path, case: "Case", policies: list[str], settings: object) -> None:
    from llama_router.core.settings import CoreSettings
    from llama_router.simulator.experiments import play
    from llama_router.simulator.plot import wait_plot

    given = settings if isinstance(settings, CoreSettings) else None
    waits = {name: play(case, name, given).waits_s for name in policies}
    try:
        path.write_text(wait_plot(waits, "How long requests waited"), encoding="utf-8")
    except OSError as error:
        refuse(f"{path}: cannot be written: {error}", EXIT_USAGE)


def _least(cases: "list[Case]", max_wait_s: float) -> str:
    from llama_router.simulator.experiments import bounds
    from llama_router.simulator.optimum import TooLargeError, in_order, with_batching

    least = bounds(cases)
    lines = [f"in the order of arrival, no schedule loads for less than {least.in_order_s:.1f} s"]
    if least.without_foresight_s is not None:
        lines.append(
            "nor, in the mean, does any router that knows how popular each model is, but not what "
            f"comes next, for less than {least.without_foresight_s:.1f} s"
        )
    try:
        ordered_s = [in_order(case.fleet, case.trace) for case in cases]
        batched_s = [with_batching(case.fleet, case.trace, max_wait_s) for case in cases]
    except TooLargeError:
        return "\n".join(lines)
    best_s, bound_s = sum(ordered_s) / len(cases), sum(batched_s) / len(cases)
    lines.append(f"the best schedule in that order, knowing the future, loads for {best_s:.1f} s")
    lines.append(
        f"and in any order that lets nobody wait longer than {max_wait_s:g} s, none for less than"
        f" {bound_s:.1f} s"
    )
    return "\n".join(lines)
