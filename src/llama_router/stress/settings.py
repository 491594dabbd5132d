"""What a run is made of: the models, the router's config, the load, and what must hold."""

from dataclasses import dataclass

# Short ones, so that a minute meets every deadline of the router many times.
READY_TIMEOUT_S = 3.0
STOP_GRACE_S = 0.5
DRAIN_DEADLINE_S = 4.0
READ_TIMEOUT_S = 4.0
CLIENT_STALL_TIMEOUT_S = 5.0
SHUTDOWN_DEADLINE_S = 5.0

# Requests a second: enough for a swap or two in each, and less than a core.
RATE_PER_S = 8.0
# What has not been answered counts against it; beyond, arrivals wait.
CLIENTS_MAX_COUNT = 60

# Six models, each waiting for a drain, a stop and a load of all before it, and an answer.
WAIT_MAX_S = 60.0
# Lists and health never wait for an engine; the machine may be busy.
CONTROL_WAIT_MAX_S = 5.0
# Rings of engine logs are 1 MiB each, one per model and one for all; the rest is head-room of the
# allocator. A leak per request passes this in half an hour.
RSS_GROWTH_MAX_BYTES = 64 * 1024 * 1024
# Idle connections are closed within these, and killed engines reaped.
QUIET_TIMEOUT_S = 20.0
START_TIMEOUT_S = 30.0
END_TIMEOUT_S = SHUTDOWN_DEADLINE_S + 20.0

SHORTEST_S = 5.0
LONGEST_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class StressModel:
    """One model of the run. ``is_pushed``: its engine passes for llama-server."""

    name: str
    group: str = ""
    is_pushed: bool = False


MODELS = (
    StressModel("alpha"),
    StressModel("bravo", is_pushed=True),
    # These two may run together.
    StressModel("carol", group="duo"),
    StressModel("delta", group="duo", is_pushed=True),
    StressModel("echo"),
    StressModel("golf", is_pushed=True),
)


def router_config(
    *, port: int, base_port: int, command: list[str], llama_server: str
) -> dict[str, object]:
    """Return the router's config; ``command`` and ``llama_server`` are two ways to one engine."""
    flags = ["--alias", "$model", "--host", "$host", "--port", "$port"]
    return {
        "version": "1.0",
        "router": {
            "port": port,
            "base_port": base_port,
            "ready_timeout_s": READY_TIMEOUT_S,
            "stop_grace_s": STOP_GRACE_S,
            "drain_deadline_s": DRAIN_DEADLINE_S,
            "read_timeout_s": READ_TIMEOUT_S,
            "client_stall_timeout_s": CLIENT_STALL_TIMEOUT_S,
            "shutdown_deadline_s": SHUTDOWN_DEADLINE_S,
        },
        "models": [
            {
                "name": model.name,
                "group": model.group,
                "spawn": {"command": [*([llama_server] if model.is_pushed else command), *flags]},
            }
            for model in MODELS
        ],
    }
