"""The command `python -m bench.turns`: requests that alternate between two models, per policy.

Real processes: the router, and its fake engine with slow loads. In strict order each request costs
a load. It stands apart from the other benchmarks as it compares the router with itself, and takes
its time by design.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from llama_router.stress.router_process import RouterStartError
from llama_router.stress.turns import Case, Outcome, run, table

POLICIES = ("arrival", "benefit")
# The goal that is set for the last policy against the first.
RATIO_MIN = 2.7
# Of a wait beyond its bound: spawning, stopping and scheduling, which the bound leaves out.
SLACK_S = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Run the policies one after the other; return 1 if the goal was missed."""
    options = _parser().parse_args(arguments)
    case = Case().scaled(options.scale)
    outcomes: list[Outcome] = []
    for policy in POLICIES:
        with tempfile.TemporaryDirectory(prefix="llama-router-turns-") as folder:
            try:
                outcomes.append(asyncio.run(run(policy, case, Path(folder))))
            except TimeoutError:
                print(f"bench: {policy} has not come to its end", file=sys.stderr)
                return 2
            except (RouterStartError, OSError) as error:
                print(f"bench: {policy}: {error}", file=sys.stderr)
                return 2
        print(f"  {policy}: done", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        print(table(case, outcomes))
    return 0 if is_good(case, outcomes) else 1


def is_good(case: Case, outcomes: list[Outcome]) -> bool:
    """Return whether the last was quick enough against the first, and nobody waited too long."""
    first, last = outcomes[0], outcomes[-1]
    is_quick = first.makespan_s >= RATIO_MIN * last.makespan_s
    is_bounded = last.worst_wait_s <= case.wait_max_s + SLACK_S
    return is_quick and is_bounded and not any(outcome.problems for outcome in outcomes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.turns", description=__doc__)
    parser.add_argument(
        "--scale", type=_scale, default=1.0, metavar="F", help="multiplies all times (default 1)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser


def _scale(value: str) -> float:
    scale = float(value)
    if not 0.01 <= scale <= 10:
        raise argparse.ArgumentTypeError("want 0.01 to 10")
    return scale


if __name__ == "__main__":
    sys.exit(main())
