"""(b) Small requests in a closed loop: rate on one core, latency, CPU time per request."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import http_probe, loads, peers, procs
from bench.peers import Running
from bench.settings import Settings
from bench.stats import Table

CHAT_PATH = "/v1/chat/completions"
WARMUP_S = 0.5
# Of the generator beyond its window.
EXTRA_S = 10.0
# The rate settles within milliseconds; longer windows only take longer.
WINDOW_MAX_S = 4.0
BODY_BYTES = 300


@dataclass(frozen=True)
class Target:
    """A peer with the request that it is asked."""

    peer: Running
    path: str
    body: str


def setting_of(connections: int) -> str:
    """The name of the setting with so many connections."""
    return f"{connections} connection" + "s" * (connections != 1)


# With one connection only one process has work at any time, and most of what two cores take is
# their waking each other. With all on one core what is left is the work itself.
SAME_CORE = setting_of(1) + ", all on one core"


def chat_body(model: str) -> str:
    """A chat request of BODY_BYTES."""
    return _padded({"model": model, "max_tokens": 14, "temperature": 0.7}, "messages")


def _padded(fields: dict[str, object], key: str) -> str:
    def build(text: str) -> str:
        content: object = text if key == "content" else [{"role": "user", "content": text}]
        return json.dumps({**fields, key: content}, separators=(",", ":"))

    words = "Tell me a story about a fox. " * 20
    return build(words[: BODY_BYTES - len(build(""))])


def measure(
    settings: Settings,
    load: Path,
    stub_peers: Sequence[Running],
    stub_model: str,
    skipped: peers.Skipped,
) -> Table:
    """Drive every peer in turn, round by round. Raises LoadError."""
    table = Table()
    targets = [Target(peer, CHAT_PATH, chat_body(stub_model)) for peer in stub_peers]
    with ExitStack() as stack:
        if settings.llama_server is None:
            skipped.add("(b) llama-server router", "no llama-server built")
        else:
            try:
                targets += _llama_server_targets(settings, settings.llama_server, stack)
            except (peers.PeerError, http_probe.ProbeError, OSError) as error:
                skipped.add("(b) llama-server router", error)
        for round_number in range(settings.rounds):
            for connections in settings.connection_counts:
                for target in targets:
                    values = _round(settings, load, target, connections)
                    table.add(target.peer.name, setting_of(connections), values)
            for target in targets:
                table.add(target.peer.name, SAME_CORE, _same_core_round(settings, load, target))
            print(f"  requests: round {round_number + 1} of {settings.rounds} done", flush=True)
    table.subtract("p50_us", "direct", "added_p50_us")
    table.subtract("p99_us", "direct", "added_p99_us")
    for setting in (*map(setting_of, settings.connection_counts), SAME_CORE):
        _against_own_floor(table, setting)
    return table


def _against_own_floor(table: Table, setting: str) -> None:
    # llama-server's router has another engine, and so another floor, than the rest.
    router = table.get("llama-server router", setting)
    bare = table.get("llama-server", setting)
    if router is None or bare is None:
        return
    for name in ("p50_us", "p99_us"):
        pairs = zip(router.values[name], bare.values[name], strict=True)
        router.values[f"added_{name}"] = [value - least for value, least in pairs]
        bare.values.pop(f"added_{name}", None)


def _llama_server_targets(settings: Settings, server: Path, stack: ExitStack) -> list[Target]:
    """llama-server bare and behind its router mode, asked to tokenize: its cheapest answer."""
    folder = settings.work_dir / "rate-llama"
    models = peers.write_tiny_models(folder / "models", ("tiny-a",))
    body = _padded({"model": "tiny-a"}, "content")
    bare_spec = peers.llama_server_spec(server, folder / "bare", models["tiny-a"])
    bare = stack.enter_context(peers.running(bare_spec, settings.load_cpu, counted=False))
    router_spec = peers.llama_server_router_spec(server, folder / "router", folder / "models")
    router = stack.enter_context(peers.running(router_spec, settings.peer_cpu))
    http_probe.first_token_s(router.port, "tiny-a")
    procs.move_to_cpu(router.engine_pids(), settings.load_cpu)
    return [Target(bare, "/tokenize", body), Target(router, "/tokenize", body)]


def _same_core_round(settings: Settings, load: Path, target: Target) -> dict[str, float]:
    procs.move_to_cpu(target.peer.pids(), settings.load_cpu)
    try:
        return _round(settings, load, target, 1)
    finally:
        procs.move_to_cpu(target.peer.pids(), settings.peer_cpu)


def _round(settings: Settings, load: Path, target: Target, connections: int) -> dict[str, float]:
    seconds = min(settings.seconds, WINDOW_MAX_S)
    command = [
        str(load),
        *("--port", str(target.peer.port), "--connections", str(connections)),
        *("--seconds", str(seconds), "--warmup", str(WARMUP_S)),
        *("--path", target.path, "--body", target.body),
        *loads.cpu_flag(settings.load_cpu),
    ]
    result = loads.drive(command, target.peer, seconds + WARMUP_S + EXTRA_S)
    requests = result.report["requests"]
    values = {
        "requests_per_s": result.report["requests_per_s"],
        "p50_us": result.us("p50"),
        "p99_us": result.us("p99"),
        "failed": result.report["failed"],
        "body_bytes": result.report["body_bytes"],
        "others_cores": result.others_cores,
        "load_cpu_us_per_request": result.report["cpu_ns"] / 1000 / max(1, requests),
    }
    if target.peer.counted:
        values["cpu_us_per_request"] = result.peer_cpu_ns / 1000 / max(1, requests)
        values["core_busy"] = result.peer_cpu_ns / 1e9 / max(1e-9, result.report["window_s"])
    return values
