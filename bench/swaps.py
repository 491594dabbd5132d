"""(c) What a swap costs beyond the engine's own stop and start.

A swap is measured from the request for the model that is not loaded, the other one being idle, to
its first event. The engine's own stop and start are measured without a router in the same run.
"""

import os
import select
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import http_probe, peers, procs
from bench.peers import Running
from bench.settings import Settings
from bench.stats import Table

STUB_MODELS = ("stub-a", "stub-b")
TINY_MODELS = ("tiny-a", "tiny-b")
STUB_SETTING = "stub engine"
LLAMA_SETTING = "llama-server engine"
# After an answer: until the engine and the router have taken note that it is over.
IDLE_S = 0.1
BARE_TIMEOUT_S = 20.0
# What llama-server understands on stdin when its router mode has started it, and what it says.
EXIT_LINE = b"cmd_router_to_child:exit\n"
READY_MARK = b'"state":"ready"'


@dataclass(frozen=True)
class BareEngine:
    """An engine without a router. `pushed`: told to stop on stdin, as llama-server allows."""

    command: Callable[[int], Sequence[str]]
    model: str
    folder: Path
    pushed: bool = False


@dataclass(frozen=True)
class Contest:
    """One engine: the ways to run it bare, and the routers that swap two models of it."""

    setting: str
    bare: tuple[BareEngine, ...]
    routers: tuple[Running, ...]
    models: tuple[str, str]


def measure(settings: Settings, stub: Path, skipped: peers.Skipped) -> Table:
    """Swap with every router in turn, round by round. Raises ProbeError."""
    table = Table()
    with ExitStack() as stack:
        contests = [_stub_contest(settings, stub, stack, skipped)]
        if settings.llama_server is None:
            skipped.add("(c) llama-server", "no llama-server built")
        else:
            try:
                contests.append(_llama_contest(settings, settings.llama_server, stack, skipped))
            except peers.PeerError as error:
                skipped.add("(c) llama-server", error)
        for contest in contests:
            for router in contest.routers:
                # Both once, so that every swap that counts finds the files in the page cache.
                for model in contest.models:
                    http_probe.first_token_s(router.port, model)
        for round_number in range(settings.rounds):
            for contest in contests:
                _round(settings, contest, table)
            print(f"  swaps: round {round_number + 1} of {settings.rounds} done", flush=True)
    return table


def _stub_contest(
    settings: Settings, stub: Path, stack: ExitStack, skipped: peers.Skipped
) -> Contest:
    folder = settings.work_dir / "swap-stub"
    command = peers.stub_command(stub, "$port", None)
    models = [peers.RouterModel(name, command=command) for name in STUB_MODELS]
    routers: list[Running] = []
    try:
        spec = peers.router_spec(settings.router, folder / "router", models, [stub])
        routers.append(stack.enter_context(peers.running(spec, None)))
    except peers.PeerError as error:
        skipped.add("(c) router with the stub", error)
    bare = BareEngine(
        lambda port: peers.stub_command(stub, str(port), None), STUB_MODELS[0], folder / "bare"
    )
    return Contest(STUB_SETTING, (bare,), tuple(routers), STUB_MODELS)


def _llama_contest(
    settings: Settings, server: Path, stack: ExitStack, skipped: peers.Skipped
) -> Contest:
    folder = settings.work_dir / "swap-llama"
    paths = peers.write_tiny_models(folder / "models", TINY_MODELS)
    routers: list[Running] = []
    try:
        models = [peers.RouterModel(name, path=str(path)) for name, path in paths.items()]
        default = peers.llama_server_command(server, "$path", "$port")
        spec = peers.router_spec(settings.router, folder / "router", models, [server], default)
        routers.append(stack.enter_context(peers.running(spec, None)))
    except peers.PeerError as error:
        skipped.add("(c) router with llama-server", error)
    spec = peers.llama_server_router_spec(server, folder / "llama-router", folder / "models")
    routers.append(stack.enter_context(peers.running(spec, None)))

    def command(port: int) -> Sequence[str]:
        return peers.llama_server_command(server, str(paths[TINY_MODELS[0]]), str(port))

    bare = tuple(
        BareEngine(command, TINY_MODELS[0], folder / "bare", pushed=pushed)
        for pushed in (False, True)
    )
    return Contest(LLAMA_SETTING, bare, tuple(routers), TINY_MODELS)


def _round(settings: Settings, contest: Contest, table: Table) -> None:
    sums: list[float] = []
    for engine in contest.bare:
        cycles = [_bare_cycle(engine) for _ in range(settings.swap_pairs)]
        medians = {
            name: statistics.median(cycle[name] for cycle in cycles)
            for name in ("start_ms", "stop_ms", "first_token_ms")
        }
        medians["stop_and_start_ms"] = medians["start_ms"] + medians["stop_ms"]
        sums.append(medians["stop_and_start_ms"])
        name = "bare, told on stdin" if engine.pushed else "bare"
        table.add(name, contest.setting, medians)
    for router in contest.routers:
        # In pairs: a round ends with the model loaded that it began with.
        order = contest.models * settings.swap_pairs
        swaps_ms = [_swap_ms(router, model) for model in order]
        swap_ms = statistics.median(swaps_ms)
        # Against the quickest way to run the engine bare, whichever the router takes.
        values = {
            "swap_ms": swap_ms,
            "worst_swap_ms": max(swaps_ms),
            "overhead_ms": swap_ms - min(sums),
        }
        table.add(router.name, contest.setting, values)


def _swap_ms(router: Running, model: str) -> float:
    time.sleep(IDLE_S)
    return http_probe.first_token_s(router.port, model) * 1000


def _bare_cycle(engine: BareEngine) -> dict[str, float]:
    """Start an engine, ask it once, stop it. Raises ProbeError."""
    engine.folder.mkdir(parents=True, exist_ok=True)
    port = procs.free_port()
    env = dict(os.environ)
    pipe = subprocess.PIPE if engine.pushed else subprocess.DEVNULL
    if engine.pushed:
        env["LLAMA_SERVER_ROUTER_PORT"] = str(port)
    with (engine.folder / "log").open("ab") as log:
        begin = time.monotonic()
        process = subprocess.Popen(
            engine.command(port), stdin=pipe, stdout=pipe, stderr=log, env=env
        )
        try:
            if engine.pushed:
                ready = _wait_ready_line(process)
            else:
                ready = http_probe.wait_until(
                    lambda: http_probe.is_healthy(port, ("/health",)),
                    lambda: process.poll() is not None,
                    "bare engine",
                    BARE_TIMEOUT_S,
                )
            first_token_s = http_probe.first_token_s(port, engine.model)
            time.sleep(IDLE_S)
            stop_begin = time.monotonic()
            _ask_to_stop(process, pushed=engine.pushed)
            if not procs.wait_exit(process, BARE_TIMEOUT_S):
                raise http_probe.ProbeError("bare engine: does not stop")
            stopped = time.monotonic()
        finally:
            procs.stop(process)
    return {
        "start_ms": (ready - begin) * 1000,
        "stop_ms": (stopped - stop_begin) * 1000,
        "first_token_ms": first_token_s * 1000,
    }


def _ask_to_stop(process: subprocess.Popen[bytes], *, pushed: bool) -> None:
    if pushed and process.stdin is not None:
        os.write(process.stdin.fileno(), EXIT_LINE)
    else:
        process.send_signal(signal.SIGTERM)


def _wait_ready_line(process: subprocess.Popen[bytes]) -> float:
    assert process.stdout is not None
    handle = process.stdout.fileno()
    deadline = time.monotonic() + BARE_TIMEOUT_S
    received = bytearray()
    while READY_MARK not in received.replace(b" ", b""):
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([handle], [], [], left_s)[0]:
            raise http_probe.ProbeError("bare engine: says nothing of being ready")
        part = os.read(handle, 65536)
        if not part:
            raise http_probe.ProbeError("bare engine: ended before it was ready")
        received += part
    return time.monotonic()
