"""(a) CPU time per relayed event, and the latency a peer adds, at 1, 100 and 500 paced streams."""

from collections.abc import Sequence
from pathlib import Path

from bench import loads
from bench.peers import Running
from bench.settings import Settings
from bench.stats import Table

RATE_PER_STREAM = 50.0
MODEL = "stub"
# Of the generator beyond its window: ramp, settling, the late ends of streams, and slack.
EXTRA_S = 20.0


def setting_of(streams: int) -> str:
    """The name of the setting with so many streams."""
    return f"{streams} stream" + "s" * (streams != 1)


def ramp_s(streams: int) -> float:
    """Time over which the streams are opened: at most 500 a second."""
    return min(2.0, streams / 500)


def measure(settings: Settings, load: Path, peers: Sequence[Running]) -> Table:
    """Drive every peer in turn, round by round. Raises LoadError."""
    table = Table()
    for round_number in range(settings.rounds):
        for streams in settings.stream_counts:
            for peer in peers:
                table.add(peer.name, setting_of(streams), _round(settings, load, peer, streams))
        print(f"  streams: round {round_number + 1} of {settings.rounds} done", flush=True)
    table.subtract("p50_us", "direct", "added_p50_us")
    table.subtract("p99_us", "direct", "added_p99_us")
    return table


def _round(settings: Settings, load: Path, peer: Running, streams: int) -> dict[str, float]:
    command = [
        str(load),
        *("--port", str(peer.port), "--streams", str(streams), "--model", MODEL),
        *("--rate", str(RATE_PER_STREAM), "--seconds", str(settings.seconds)),
        *("--ramp", str(ramp_s(streams)), *loads.cpu_flag(settings.load_cpu)),
    ]
    result = loads.drive(command, peer, settings.seconds + EXTRA_S)
    chunks = result.report["chunks"]
    values = {
        "p50_us": result.us("p50"),
        "p99_us": result.us("p99"),
        "max_us": result.us("max"),
        "chunks": chunks,
        "chunks_share": chunks / (streams * RATE_PER_STREAM * settings.seconds),
        "failed_streams": result.report["failed_streams"],
        "others_cores": result.others_cores,
        "load_cpu_us_per_chunk": result.report["cpu_ns"] / 1000 / max(1, chunks),
    }
    if peer.counted:
        values["cpu_us_per_chunk"] = result.peer_cpu_ns / 1000 / max(1, chunks)
    return values
