"""(d) Cold start, and what an idle peer takes: memory and CPU time."""

import time
from collections.abc import Callable
from pathlib import Path

from bench import http_probe, peers, procs
from bench.peers import Spec
from bench.settings import Settings
from bench.stats import Table

SETTING = "cold start"
# Until a fresh process has done what it does once.
SETTLE_S = 1.0
IDLE_WINDOW_S = 1.0


def measure(settings: Settings, stub: Path, upstream_port: int, skipped: peers.Skipped) -> Table:
    """Start every peer anew several times; `upstream_port` is nginx's engine."""
    table = Table()
    broken: set[str] = set()
    makers = _makers(settings, stub, upstream_port, skipped)
    for i in range(settings.starts):
        for name, make in makers.items():
            if name in broken:
                continue
            try:
                table.add(name, SETTING, _one_start(make(settings.work_dir / f"{name}-start-{i}")))
            except peers.PeerError as error:
                broken.add(name)
                skipped.add(f"(d) {name}", error)
        print(f"  starts: round {i + 1} of {settings.starts} done", flush=True)
    return table


def _makers(
    settings: Settings, stub: Path, upstream_port: int, skipped: peers.Skipped
) -> dict[str, Callable[[Path], Spec]]:
    makers: dict[str, Callable[[Path], Spec]] = {}
    nginx, server = settings.nginx, settings.llama_server
    if nginx is not None:
        makers["nginx"] = lambda folder: peers.nginx_spec(nginx, folder, upstream_port)
    else:
        skipped.add("(d) nginx", "not installed")
    model = peers.RouterModel("stub", command=peers.stub_command(stub, "$port", None))
    makers["router"] = lambda folder: peers.router_spec(settings.router, folder, [model], [stub])
    if server is not None:
        makers["llama-server router"] = lambda folder: peers.llama_server_router_spec(
            server, folder, folder
        )
    else:
        skipped.add("(d) llama-server router", "no llama-server built")
    return makers


def _one_start(spec: Spec) -> dict[str, float]:
    with peers.started(spec, None) as (process, begin):
        try:
            accepting = http_probe.wait_until(
                lambda: http_probe.accepts(spec.port),
                lambda: process.poll() is not None,
                spec.name,
                peers.READY_TIMEOUT_S,
            )
        except http_probe.ProbeError:
            # Says the same, with the end of the log.
            accepting = peers.wait_healthy(spec, process)
        healthy = peers.wait_healthy(spec, process)
        time.sleep(SETTLE_S)
        pids = procs.tree(process.pid, spec.engines)
        before = procs.sample_cpu(pids)
        time.sleep(IDLE_WINDOW_S)
        after = procs.sample_cpu(pids)
        return {
            "accepting_ms": (accepting - begin) * 1000,
            "health_ms": (healthy - begin) * 1000,
            "idle_pss_mib": procs.pss_bytes(pids) / (1 << 20),
            "idle_cpu_ms_per_s": procs.cpu_between_ns(before, after) / 1e6 / IDLE_WINDOW_S,
            "processes": float(len(pids)),
        }
