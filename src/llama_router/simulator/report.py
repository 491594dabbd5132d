"""What came of simulations, in numbers that can be compared: summaries, a table, JSON."""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from llama_router.simulator.world import Result

_COLUMNS: Final = (
    ("policy", "policy", "{}"),
    ("served", "served", "{:.0f}"),
    ("refused", "refused", "{:.0f}"),
    ("loads", "loads", "{:.0f}"),
    ("load_time_s", "load time s", "{:.1f}"),
    ("wait_p50_s", "wait p50 s", "{:.2f}"),
    ("wait_p99_s", "p99 s", "{:.2f}"),
    ("wait_max_s", "max s", "{:.2f}"),
    ("makespan_s", "makespan s", "{:.1f}"),
    ("slo_attainment", "SLO", "{:.1%}"),
)


class Summary(msgspec.Struct, frozen=True):
    """One policy's outcome; over several seeds, the mean of each figure.

    Of ``wait_max_s`` it is the worst. ``wait_*_s`` are from arrival to dispatch,
    ``slo_attainment`` is the share of all requests whose first token came within ``slo_s`` of
    their arrival.
    """

    policy: str
    seeds: int
    requests: float
    served: float
    refused: float
    failed: float
    loads: float
    load_time_s: float
    wait_p50_s: float
    wait_p99_s: float
    wait_max_s: float
    makespan_s: float
    slo_s: float
    slo_attainment: float
    peak_memory_bytes: float


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """Return the smallest value that at least ``fraction`` of the sorted values do not exceed."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def summarize(policy: str, result: Result, slo_s: float) -> Summary:
    """Return the figures of one simulation."""
    waits = sorted(result.waits_s)
    return Summary(
        policy=policy,
        seeds=1,
        requests=result.requests,
        served=result.served,
        refused=sum(result.rejected.values()),
        failed=result.failed,
        loads=result.loads,
        load_time_s=result.load_time_s,
        wait_p50_s=quantile(waits, 0.5),
        wait_p99_s=quantile(waits, 0.99),
        wait_max_s=waits[-1] if waits else 0.0,
        makespan_s=result.makespan_s,
        slo_s=slo_s,
        slo_attainment=result.slo_attainment(slo_s),
        peak_memory_bytes=result.peak_memory_bytes,
    )


def mean(summaries: Sequence[Summary]) -> Summary:
    """Return the mean of one policy's summaries over several seeds. Raises ValueError for none."""
    if not summaries:
        raise ValueError("no summaries")
    figures = {
        name: sum(getattr(summary, name) for summary in summaries) / len(summaries)
        for name in Summary.__struct_fields__
        if name not in ("policy", "seeds", "wait_max_s")
    }
    return Summary(
        policy=summaries[0].policy,
        seeds=len(summaries),
        wait_max_s=max(summary.wait_max_s for summary in summaries),
        **figures,
    )


def table(summaries: Sequence[Summary]) -> str:
    """Return the summaries as a plain table, one line each."""
    rows = [[title for _, title, _ in _COLUMNS]]
    rows += [
        [form.format(getattr(summary, name)) for name, _, form in _COLUMNS] for summary in summaries
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def as_json(summaries: Sequence[Summary]) -> str:
    """Return the summaries as JSON."""
    return msgspec.json.format(msgspec.json.encode(summaries), indent=2).decode()
