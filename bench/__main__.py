"""The command: `python -m bench`."""

import argparse
import resource
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from bench import build, http_probe, loads, peers, rates, report, starts, streams, swaps
from bench.peers import Running, Skipped
from bench.settings import REPOSITORY, Settings, choose_cpus, find_llama_server, find_nginx
from bench.stats import Table

PARTS = {"a": "streams", "b": "requests", "c": "swaps", "d": "starts"}
# Each stream is a descriptor on both sides of a peer.
DESCRIPTORS_COUNT = 8192
# As shells report a command that SIGINT has ended.
INTERRUPTED_STATUS = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that were asked for, print the report, write the JSON file."""
    options = _parser().parse_args(arguments)
    parts = options.only.split(",")
    if not set(parts) <= set(PARTS):
        print(f"bench: --only wants letters of {','.join(PARTS)}", file=sys.stderr)
        return 2
    _raise_descriptor_limit()
    # Ended from outside, the peers are to be ended too.
    signal.signal(signal.SIGTERM, _interrupt)
    skipped = Skipped()
    sections: dict[str, Table] = {}
    status = 0
    with tempfile.TemporaryDirectory(prefix="llama-router-bench-") as work:
        settings = _settings(options, Path(work))
        try:
            tools = {name: build.tool(name) for name in build.TOOLS}
        except build.BuildError as error:
            print(error, file=sys.stderr)
            return 1
        try:
            _run(settings, tools, parts, sections, skipped)
        except KeyboardInterrupt:
            print("bench: interrupted; what follows is incomplete", file=sys.stderr)
            skipped.add("the rest", "interrupted")
            status = INTERRUPTED_STATUS
    print(report.text(sections, skipped.reasons))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "bench.json"
    path.write_text(report.as_json(sections, skipped.reasons, settings), encoding="utf-8")
    print(f"\nevery round's values: {path}")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Benchmarks of the router against real peers."
    )
    parser.add_argument("--only", default="a,b,c,d", metavar="a,b,c,d", help="parts to run")
    parser.add_argument("--seconds", type=_seconds, help="window of a measurement (default 8)")
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "bench" / "out", help="folder of bench.json"
    )
    parser.add_argument(
        "--router", metavar="COMMAND", help="the router to measure (default: of this checkout)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round with short windows: a trial, not a result"
    )
    return parser


def _seconds(value: str) -> float:
    seconds = float(value)
    if not 0.1 <= seconds <= 120:
        raise argparse.ArgumentTypeError("want 0.1 to 120")
    return seconds


def _settings(options: argparse.Namespace, work_dir: Path) -> Settings:
    peer_cpu, load_cpu = choose_cpus()
    quick: bool = options.quick
    return Settings(
        seconds=options.seconds or (2.0 if quick else 8.0),
        rounds=1 if quick else 3,
        stream_counts=(1, 100, 500),
        connection_counts=(1, 32),
        swap_pairs=2 if quick else 6,
        starts=2 if quick else 5,
        work_dir=work_dir,
        peer_cpu=peer_cpu,
        load_cpu=load_cpu,
        llama_server=find_llama_server(),
        nginx=find_nginx(),
        router=tuple(shlex.split(options.router)) if options.router else peers.router_command(),
    )


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS_COUNT:
        wanted = (
            DESCRIPTORS_COUNT if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_COUNT)
        )
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _run(
    settings: Settings,
    tools: dict[str, Path],
    parts: list[str],
    sections: dict[str, Table],
    skipped: Skipped,
) -> None:
    """Run `parts`; a part that fails is left out, and the others run."""
    if settings.peer_cpu is None:
        print("only one core: nothing is pinned, and rates are lower than they could be")
    with ExitStack() as stack:
        stub = tools["stub_engine"]
        floor_spec = peers.stub_spec(stub, settings.work_dir / "direct", settings.load_cpu)
        floor = stack.enter_context(peers.running(floor_spec, settings.load_cpu, counted=False))
        contestants = [floor]
        if {"a", "b"} & set(parts):
            contestants += _proxies(settings, stub, floor, stack, skipped)
        runs: dict[str, Callable[[], Table]] = {
            "a": lambda: streams.measure(settings, tools["stream_load"], contestants),
            "b": lambda: rates.measure(
                settings, tools["rate_load"], contestants, streams.MODEL, skipped
            ),
            "c": lambda: swaps.measure(settings, stub, skipped),
            "d": lambda: starts.measure(settings, stub, floor.port, skipped),
        }
        if "a" in parts:
            skipped.add("(a) llama-server router", "it starts only engines of its own, no stub")
        for part in parts:
            print(f"({part}) {PARTS[part]}", flush=True)
            try:
                sections[PARTS[part]] = runs[part]()
            except (loads.LoadError, http_probe.ProbeError, peers.PeerError, OSError) as error:
                skipped.add(f"({part})", error)


def _proxies(
    settings: Settings, stub: Path, floor: Running, stack: ExitStack, skipped: Skipped
) -> list[Running]:
    """Start nginx and the router, each in front of a stub, those that start."""
    found: list[Running] = []
    if settings.nginx is None:
        skipped.add("nginx", "not installed")
    else:
        spec = peers.nginx_spec(settings.nginx, settings.work_dir / "nginx", floor.port)
        found.append(stack.enter_context(peers.running(spec, settings.peer_cpu)))
    model = peers.RouterModel(
        streams.MODEL, command=peers.stub_command(stub, "$port", settings.load_cpu)
    )
    try:
        spec = peers.router_spec(settings.router, settings.work_dir / "router", [model], [stub])
        router = stack.enter_context(peers.running(spec, settings.peer_cpu))
        # Loads the stub.
        http_probe.first_token_s(router.port, streams.MODEL)
        found.append(router)
    except (peers.PeerError, http_probe.ProbeError, OSError) as error:
        skipped.add("router", error)
    return found


if __name__ == "__main__":
    sys.exit(main())
