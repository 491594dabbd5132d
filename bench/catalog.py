"""The command `python -m bench.catalog`: ten thousand models on disk, and what they cost.

Makes the files in a temporary folder (sparse; 0.9 GB are real), then measures: the header of a
model with a vocabulary like Qwen's, the first scan, a scan with nothing changed, the router's start
with all of them, its lists, the first request to one; and what a first scan and rescans do to the
latency of running streams. Linux, and a C compiler for the streams. Status 1 if a target is missed.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import build, catalog_files, loads, peers, streams
from bench.peers import RouterModel, Running
from llama_router.catalog.gguf_reader import read_gguf
from llama_router.config.schema import Config
from llama_router.runtime.stock import Stock

SMALL_COUNT, LARGE_COUNT = 9_900, 100
FIRST_SCAN_MAX_S = 60.0
RESCAN_MAX_S = 1.0
HEADER_MAX_MS = 25.0
P99_GROWTH_MAX_MS = 2.0
STREAM_COUNT = 100
# The router answers at once or is broken.
ASK_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Figure:
    """One thing measured; ``most`` is the target, None where there is none."""

    name: str
    value: float
    unit: str
    most: float | None = None

    @property
    def is_good(self) -> bool:
        """Whether the target is kept."""
        return self.most is None or self.value <= self.most


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, and return 1 if a target was missed."""
    options = _parser().parse_args(arguments)
    counts = max(1, SMALL_COUNT // options.divide), max(1, LARGE_COUNT // options.divide)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="llama-router-catalog-") as work:
        folder = Path(work)
        begin = time.monotonic()
        _small, large = catalog_files.make(folder / "made", *counts)
        _say(f"{sum(counts)} files made in {time.monotonic() - begin:.1f} s")
        figures += headers(large)
        figures += scans(folder, sum(counts))
        if not options.no_router:
            try:
                figures += router(folder, sum(counts), options.seconds)
            except (build.BuildError, peers.PeerError, loads.LoadError, OSError) as error:
                print(f"bench: the router was not measured: {error}", file=sys.stderr)
                return 2
    for figure in figures:
        target = "" if figure.most is None else f"at most {figure.most:g}"
        mark = "" if figure.is_good else "  MISSED"
        print(f"{figure.name:<58} {figure.value:10.2f} {figure.unit:<3} {target}{mark}")
    if options.json:
        content = [{"name": one.name, "value": one.value, "unit": one.unit} for one in figures]
        options.json.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return 0 if all(figure.is_good for figure in figures) else 1


def headers(large: list[Path]) -> list[Figure]:
    """Time the reading of large headers, in CPU time: others may use the machine."""
    took_ms = []
    for path in large:
        best_s = 1e9
        for _ in range(3):
            begin = time.process_time()
            read_gguf(path)
            best_s = min(best_s, time.process_time() - begin)
        took_ms.append(best_s * 1000)
    return [
        Figure("header like Qwen's, median file, CPU", statistics.median(took_ms), "ms"),
        Figure("header like Qwen's, slowest file, CPU", max(took_ms), "ms", HEADER_MAX_MS),
    ]


def scans(folder: Path, count: int) -> list[Figure]:
    """Time a first scan and scans with nothing changed, without a router."""
    config = Config.model_validate({"router": {"models_dirs": [str(folder / "made")]}})
    stock = Stock(env={}, home=folder / "home", index=folder / "scan.index", has_caches=False)
    first = stock.take_now(config)
    _check(len(first.models) == count, f"{len(first.models)} models found instead of {count}")
    # What has changed within the clock's last ticks is read once more by the next scan.
    time.sleep(3)
    stock.take_now(config)
    again = [stock.take_now(config) for _ in range(3)]
    _check(not again[-1].read_count and again[-1].is_same, "an unchanged file was read again")
    return [
        Figure("first scan", first.took_s, "s", FIRST_SCAN_MAX_S),
        Figure("rescan, nothing changed", max(one.took_s for one in again), "s", RESCAN_MAX_S),
    ]


def router(folder: Path, count: int, seconds: float) -> list[Figure]:
    """Measure a router that serves streams while it scans, and one that starts with all models."""
    stub, load = build.tool("stub_engine"), build.tool("stream_load")
    models = folder / "models"
    models.mkdir()
    spec = _spec(folder / "router", models, stub)
    figures: list[Figure] = []
    with ExitStack() as stack:
        running = stack.enter_context(peers.running(spec, None))
        quiet = _p99_ms(load, running, seconds, lambda: None)
        (folder / "made").rename(models / "made")
        took: list[float] = []
        first = _p99_ms(load, running, seconds, lambda: took.append(_rescan(running)))
        _check(bool(took), "the first scan was not done within the window")
        times: list[float] = []

        def rescan_again() -> None:
            times.extend(_rescan(running) for _ in range(3))

        again = _p99_ms(load, running, seconds, rescan_again)
        quiet_again = _p99_ms(load, running, seconds, lambda: None)
        calm = statistics.mean((quiet, quiet_again))
        figures += [
            Figure(f"p99 of {STREAM_COUNT} streams, before", quiet, "ms"),
            Figure("p99, with all models, nothing else", quiet_again, "ms"),
            Figure("p99 grows during a first scan by", first - calm, "ms", P99_GROWTH_MAX_MS),
            Figure("p99 grows during rescans by", again - calm, "ms", P99_GROWTH_MAX_MS),
            Figure("first scan, asked over HTTP, beside streams", took[0], "s", FIRST_SCAN_MAX_S),
            Figure("rescan, asked over HTTP, beside streams", max(times), "s"),
        ]
    begin = time.monotonic()
    with peers.running(spec, None) as running:
        figures.append(Figure("start with all models known", time.monotonic() - begin, "s"))
        figures += _asked(running, count)
    return figures


def _asked(running: Running, count: int) -> list[Figure]:
    figures = []
    listed: list[dict[str, str]] = []
    for _ in range(2):
        begin = time.monotonic()
        listed = json.loads(_ask(running, "/v1/models"))["data"]
        figures.append(Figure("GET /v1/models", (time.monotonic() - begin) * 1000, "ms"))
    _check(len(listed) == count + 1, f"{len(listed)} models are listed")
    wanted = sorted(one["id"] for one in listed if one["id"] != streams.MODEL)[count // 2]
    body = {"model": wanted, "messages": [], "stream": False}
    for name in ("first", "second"):
        begin = time.monotonic()
        _ask(running, "/v1/chat/completions", json.dumps(body).encode())
        took_ms = (time.monotonic() - begin) * 1000
        figures.append(Figure(f"{name} request to a model nobody had asked for", took_ms, "ms"))
    return figures


def _spec(folder: Path, models: Path, stub: Path) -> peers.Spec:
    command = peers.stub_command(stub, "$port", None)
    spec = peers.router_spec(
        peers.router_command(),
        folder,
        [RouterModel(streams.MODEL, command=command)],
        [stub],
        default_command=command,
    )
    path = folder / "config.yaml"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["router"] |= {"models_dirs": [str(models)], "watch_models": False}
    path.write_text(json.dumps(config), encoding="utf-8")
    return spec


def _p99_ms(load: Path, running: Running, seconds: float, beside: Callable[[], None]) -> float:
    """Measure streams for so long, and do something beside them when they all run."""
    command = [
        *(str(load), "--port", str(running.port), "--streams", str(STREAM_COUNT)),
        *("--model", streams.MODEL, "--rate", str(streams.RATE_PER_STREAM)),
        *("--seconds", str(seconds), "--ramp", str(streams.ramp_s(STREAM_COUNT))),
    ]
    faults: list[Exception] = []

    def act() -> None:
        try:
            beside()
        except (OSError, ValueError, KeyError) as error:
            faults.append(error)

    timer = threading.Timer(streams.ramp_s(STREAM_COUNT) + 1.0, act)
    timer.start()
    result = loads.drive(command, running, seconds + ASK_TIMEOUT_S)
    timer.join(ASK_TIMEOUT_S)
    _check(not faults, f"beside the streams: {faults}")
    _check(not result.report["failed_streams"], "a stream was cut")
    return result.us("p99") / 1000


def _rescan(running: Running) -> float:
    begin = time.monotonic()
    _ask(running, "/admin/rescan", b"{}")
    return time.monotonic() - begin


def _ask(running: Running, path: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{running.port}{path}",
        data=body,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=ASK_TIMEOUT_S) as response:  # noqa: S310  # http
        content: bytes = response.read()
    return content


def _check(is_so: bool, problem: str) -> None:  # noqa: FBT001
    if not is_so:
        raise OSError(problem)


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.catalog", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each window of streams")
    parser.add_argument("--divide", type=int, default=1, help="make so many times fewer files")
    parser.add_argument("--no-router", action="store_true", help="measure the scans only")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
