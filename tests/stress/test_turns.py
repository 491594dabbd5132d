"""Alternating requests against real routers, all times shortened."""

import asyncio
import sys
from pathlib import Path

import pytest

from llama_router.stress.turns import Case, Outcome, run, table

# Strict order takes a load for each: the whole case would take a minute even so.
SHORT = Case(requests_count=12).scaled(0.1)
# Of a wait beyond its bound, in turns of the same machine: stops, spawns, and what they wait for.
SLACK_TURNS = 4


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.skipif(sys.platform == "win32", reason="the fake engine is POSIX")
async def test_benefit_is_much_quicker_than_strict_order_and_bounded(short_path: Path) -> None:
    outcomes: list[Outcome] = []
    for policy in ("arrival", "benefit"):
        folder = short_path / policy
        await asyncio.to_thread(folder.mkdir)
        outcomes.append(await run(policy, SHORT, folder))
    arrival, benefit = outcomes
    assert arrival.problems == benefit.problems == ()
    assert arrival.makespan_s > 2.0 * benefit.makespan_s, table(SHORT, outcomes)
    assert benefit.loads_count <= 4
    assert arrival.loads_count == SHORT.requests_count
    slack_s = SLACK_TURNS * arrival.makespan_s / arrival.loads_count
    assert benefit.worst_wait_s <= SHORT.wait_max_s + slack_s, table(SHORT, outcomes)


def test_a_case_is_scaled_in_its_times_only() -> None:
    case = Case().scaled(0.5)
    assert (case.requests_count, case.load_s, case.max_wait_s) == (60, 1.0, 10.0)
    assert case.wait_max_s == pytest.approx(10.0 + 0.1 + 1.0)


def test_the_table_compares_with_the_first_and_names_problems() -> None:
    outcomes = [
        Outcome("arrival", 30.0, 29.0, 15.0, 60, ()),
        Outcome("benefit", 10.0, 9.0, 2.0, 2, ("not alpha's words",)),
    ]
    text = " ".join(table(Case(), outcomes).split())
    assert "benefit 10.00 s 3.00 2 2.00 s 9.00 s" in text
    assert "PROBLEM: not alpha's words" in text
    assert "one load): 22.20 s" in text
