"""The tables on the terminal, the targets, and the JSON file."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import rates, streams, swaps
from bench.settings import Settings
from bench.stats import Row, Spread, Table, ratios

JSON_VERSION = 1
# Above these a measurement is called doubtful: other work on the machine, events that came late.
OTHERS_MAX_CORES = 0.1
CHUNKS_MIN_SHARE = 0.98

# What each section's table shows: quantity, heading, decimals.
_COLUMNS: dict[str, tuple[tuple[str, str, int], ...]] = {
    "streams": (
        ("cpu_us_per_chunk", "CPU us/chunk", 1),
        ("p50_us", "p50 us", 0),
        ("p99_us", "p99 us", 0),
        ("added_p50_us", "added p50", 0),
        ("added_p99_us", "added p99", 0),
        ("failed_streams", "failed", 0),
        ("others_cores", "others' cores", 2),
    ),
    "requests": (
        ("requests_per_s", "requests/s", 0),
        ("cpu_us_per_request", "CPU us/req", 1),
        ("core_busy", "core busy", 2),
        ("p50_us", "p50 us", 0),
        ("p99_us", "p99 us", 0),
        ("added_p50_us", "added p50", 0),
        ("failed", "failed", 0),
        ("others_cores", "others' cores", 2),
    ),
    "swaps": (
        ("swap_ms", "swap ms", 1),
        ("worst_swap_ms", "worst ms", 1),
        ("stop_ms", "stop ms", 1),
        ("start_ms", "start ms", 1),
        ("first_token_ms", "1st token ms", 1),
        ("overhead_ms", "overhead ms", 1),
    ),
    "starts": (
        ("accepting_ms", "accepting ms", 0),
        ("health_ms", "health ms", 0),
        ("idle_pss_mib", "idle PSS MiB", 1),
        ("idle_cpu_ms_per_s", "idle CPU ms/s", 2),
        ("processes", "processes", 0),
    ),
}
_TITLES = {
    "streams": "(a) paced streams, 50 events/s each",
    "requests": "(b) small requests, closed loop, peer on one core",
    "swaps": "(c) swap of two models",
    "starts": "(d) cold start and idle",
}


@dataclass(frozen=True)
class Verdict:
    """One target next to what was measured; `met` is None when it was not measured.

    `nginx` is the same quantity of nginx, where that says more than a ratio.
    """

    target: str
    limit: float
    at_most: bool
    measured: Spread | None
    met: bool | None
    nginx: Spread | None = None


def verdicts(sections: Mapping[str, Table]) -> list[Verdict]:
    """Judge the targets; each is judged by the median of the rounds."""
    busiest = streams.setting_of(500)
    many = rates.setting_of(32)
    a, b, c = (sections.get(name, Table()) for name in ("streams", "requests", "swaps"))
    tail = _differences(a.get("router", busiest), a.get("nginx", busiest), "added_p99_us")
    found = [
        _verdict(
            "CPU per event, 500 streams: router / nginx",
            1.5,
            ratios(a.get("router", busiest), a.get("nginx", busiest), "cpu_us_per_chunk"),
        ),
        _verdict("added p99, 500 streams: router - nginx [ms]", 2.0, [us / 1000 for us in tail]),
        _verdict(
            "rate on one core, 32 connections: router / nginx",
            0.5,
            ratios(b.get("router", many), b.get("nginx", many), "requests_per_s"),
            at_most=False,
        ),
        _verdict(
            f"added p50, {rates.SAME_CORE} [ms]",
            0.1,
            _added_ms(b.get("router", rates.SAME_CORE)),
            nginx=_added_ms(b.get("nginx", rates.SAME_CORE)),
        ),
    ]
    for setting in (swaps.STUB_SETTING, swaps.LLAMA_SETTING):
        row = c.get("router", setting)
        values = row.values.get("overhead_ms", []) if row else []
        found.append(_verdict(f"swap overhead, {setting} [ms]", 15.0, values))
    return found


def _verdict(
    target: str,
    limit: float,
    values: Sequence[float],
    *,
    at_most: bool = True,
    nginx: Sequence[float] = (),
) -> Verdict:
    reference = Spread.of(nginx) if nginx else None
    if not values:
        return Verdict(target, limit, at_most, None, None, reference)
    spread = Spread.of(values)
    met = spread.median <= limit if at_most else spread.median >= limit
    return Verdict(target, limit, at_most, spread, met, reference)


def _added_ms(row: Row | None) -> list[float]:
    return [us / 1000 for us in row.values.get("added_p50_us", ())] if row else []


def _differences(above: Row | None, below: Row | None, name: str) -> list[float]:
    if above is None or below is None:
        return []
    pairs = zip(above.values.get(name, ()), below.values.get(name, ()), strict=False)
    return [value - base for value, base in pairs]


def text(sections: Mapping[str, Table], skipped: Sequence[str]) -> str:
    """The whole report for a terminal: medians, with the least and the greatest round."""
    lines: list[str] = []
    for name, table in sections.items():
        lines += ["", _TITLES[name], *_table(table.rows(), _COLUMNS[name])]
    lines += ["", "targets"]
    for verdict in verdicts(sections):
        sign = "<=" if verdict.at_most else ">="
        measured = verdict.measured.text(3) if verdict.measured else "not measured"
        mark = {True: "met", False: "MISSED", None: "-"}[verdict.met]
        nginx = f"  (nginx {verdict.nginx.text(3)})" if verdict.nginx else ""
        lines.append(
            f"  {verdict.target:<50} {sign} {verdict.limit:<5g} {measured:<24} {mark}{nginx}"
        )
    lines += _warnings(sections)
    if skipped:
        lines += ["", "left out", *(f"  {reason.splitlines()[0]}" for reason in skipped)]
    return "\n".join(lines)


def _warnings(sections: Mapping[str, Table]) -> list[str]:
    """What makes the numbers doubtful: a machine with other work, answers that were wrong."""
    rows = [(name, row) for name, table in sections.items() for row in table.rows()]
    lines = []
    busy = max((max(row.values.get("others_cores", [0.0])) for _, row in rows), default=0.0)
    if busy > OTHERS_MAX_CORES:
        lines.append(
            f"  other work took up to {busy:.2f} cores of this machine during a measurement: "
            "trust the ratios little and the tails not at all"
        )
    for name, row in rows:
        failed = sum(row.values.get("failed_streams", [])) + sum(row.values.get("failed", []))
        if failed:
            lines.append(f"  {name}, {row.setting}, {row.peer}: {failed:.0f} wrong answers")
        share = min(row.values.get("chunks_share", [1.0]))
        if share < CHUNKS_MIN_SHARE:
            lines.append(f"  {name}, {row.setting}, {row.peer}: {share:.0%} of the events in time")
    return ["", "doubts", *lines] if lines else []


def _table(rows: Sequence[Row], columns: Sequence[tuple[str, str, int]]) -> list[str]:
    shown = [column for column in columns if any(row.values.get(column[0]) for row in rows)]
    cells = [["", "", *(heading for _, heading, _ in shown)]]
    setting = ""
    for row in rows:
        line = [row.setting if row.setting != setting else "", row.peer]
        setting = row.setting
        for name, _, digits in shown:
            spread = row.spread(name)
            line.append(spread.text(digits) if spread else "-")
        cells.append(line)
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def as_json(sections: Mapping[str, Table], skipped: Sequence[str], settings: Settings) -> str:
    """The machine-readable report: every round's values, and the verdicts."""
    document = {
        "version": JSON_VERSION,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(settings),
        "settings": {
            "seconds": settings.seconds,
            "rounds": settings.rounds,
            "peer_cpu": settings.peer_cpu,
            "load_cpu": settings.load_cpu,
        },
        "sections": {
            name: [
                {
                    "peer": row.peer,
                    "setting": row.setting,
                    "values": row.values,
                    "median": {key: Spread.of(v).median for key, v in row.values.items() if v},
                }
                for row in table.rows()
            ]
            for name, table in sections.items()
        },
        "targets": [asdict(verdict) for verdict in verdicts(sections)],
        "skipped": list(skipped),
    }
    return json.dumps(document, indent=1)


def machine(settings: Settings) -> dict[str, object]:
    """What the numbers were measured on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": _version(settings.nginx, "-v"),
        "llama_server": _version(settings.llama_server, "--version"),
    }


def _version(program: Path | None, flag: str) -> str | None:
    if program is None:
        return None
    result = subprocess.run(
        [str(program), flag], capture_output=True, text=True, timeout=10, check=False
    )
    lines = (result.stderr or result.stdout).strip().splitlines()
    return lines[0] if lines else None
