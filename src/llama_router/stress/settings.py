"""What a run is made of: the models, the router's config, the load, and what must hold."""

from dataclasses import dataclass, replace

from llama_router.stress.books import Rules

# Short ones, so that a minute meets every deadline of the router many times.
READY_TIMEOUT_S = 5.0
STOP_GRACE_S = 0.5
DRAIN_DEADLINE_S = 4.0
READ_TIMEOUT_S = 4.0
CLIENT_STALL_TIMEOUT_S = 5.0
SHUTDOWN_DEADLINE_S = 5.0
MAX_WAIT_S = 3.0
MIN_RESIDENCY_S = 0.5
TTL_S = 6.0
MAX_KEEP_ALIVE_S = 5.0

# Requests a second: enough for a swap or two in each, and less than a core.
RATE_PER_S = 8.0
# What has not been answered counts against it; beyond, arrivals wait.
CLIENTS_MAX_COUNT = 60

# Patience, then seven models, each waiting for a drain, a stop and a load of all before it, and an
# answer.
WAIT_MAX_S = 90.0
# Lists and health never wait for an engine; the machine may be busy.
CONTROL_WAIT_MAX_S = 5.0
# Rings of engine logs are 1 MiB each, one per model and one for all; the rest is head-room of the
# allocator. A leak per request passes this in half an hour.
RSS_GROWTH_MAX_BYTES = 64 * 1024 * 1024
# Idle connections are closed within these, and killed engines reaped.
QUIET_TIMEOUT_S = 20.0
START_TIMEOUT_S = 30.0
END_TIMEOUT_S = SHUTDOWN_DEADLINE_S + 20.0

_GIB = 1024**3
# A graphics card that no machine needs to have: engines are fakes, and so is what they take of it.
DEVICE = "cuda0"
BUDGET_BYTES = 20 * _GIB
_MAX_LOADED_COUNTS = (0, 2, 3)


@dataclass(frozen=True, slots=True)
class StressModel:
    """One model of the run. ``is_pushed``: its engine passes for llama-server.

    ``group`` and ``is_pinned`` hold for a part of all seeds, see ``Setup``.
    """

    name: str
    size_bytes: int
    group: str = ""
    is_pushed: bool = False
    is_pinned: bool = False
    ttl_s: float | None = None
    max_in_flight: int = 0
    priority: int = 0


# All of them take more than twice what there is; most pairs fit, few of three do.
MODELS: tuple[StressModel, ...] = (
    StressModel("alpha", 6 * _GIB),
    StressModel("bravo", 8 * _GIB, is_pushed=True, max_in_flight=4),
    # These two run together, and beside nobody else.
    StressModel("carol", 8 * _GIB, group="duo"),
    StressModel("delta", 9 * _GIB, group="duo", is_pushed=True, ttl_s=1.5),
    StressModel("echo", 15 * _GIB, priority=1),
    StressModel("golf", 3 * _GIB, is_pushed=True, is_pinned=True),
    StressModel("hotel", 18 * _GIB, is_pushed=True),
)


# Its program is not there: it is refused, and nobody makes room for it.
BROKEN_MODEL = "india"
_BROKEN_SIZE_BYTES = 15 * _GIB


@dataclass(frozen=True, slots=True)
class StressKey:
    """An API key of the run."""

    key: str
    priority: int = 0
    is_batch: bool = False


KEYS = (
    StressKey("stress-plain"),
    StressKey("stress-other"),
    StressKey("stress-first", priority=1),
    StressKey("stress-batch", is_batch=True),
)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a seed makes of it: groups, or else a pin, beside which no other group could run."""

    models: tuple[StressModel, ...]
    max_loaded: int
    has_notices: bool

    def rules(self) -> Rules:
        """Return what must hold between engines."""
        return Rules(
            {model.name: model.size_bytes for model in self.models},
            {model.name: model.group for model in self.models},
            BUDGET_BYTES,
            self.max_loaded,
        )


def setup(seed: int) -> Setup:
    """Return the setup of a seed."""
    if seed % 2:
        # With a pin, whose model leaves the others less.
        models = tuple(
            replace(model, group="", size_bytes=min(model.size_bytes, BUDGET_BYTES - 5 * _GIB))
            for model in MODELS
        )
    else:
        models = tuple(replace(model, is_pinned=False) for model in MODELS)
    rest, count = seed // 2, len(_MAX_LOADED_COUNTS)
    return Setup(models, _MAX_LOADED_COUNTS[rest % count], has_notices=bool(rest // count % 2))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a router is to listen, and two ways to one engine: a command, and a llama-server."""

    port: int
    base_port: int
    command: tuple[str, ...]
    llama_server: str


ENGINE_FLAGS = ("--alias", "$model", "--host", "$host", "--port", "$port")


def router_config(place: Place, of: Setup | None = None) -> dict[str, object]:
    """Return the router's config; by default for the setup of seed 0."""
    of = of or setup(0)
    return {
        "version": "1.0",
        "router": {
            "port": place.port,
            "base_port": place.base_port,
            "ready_timeout_s": READY_TIMEOUT_S,
            "stop_grace_s": STOP_GRACE_S,
            "drain_deadline_s": DRAIN_DEADLINE_S,
            "read_timeout_s": READ_TIMEOUT_S,
            "first_byte_timeout_s": READ_TIMEOUT_S,
            "client_stall_timeout_s": CLIENT_STALL_TIMEOUT_S,
            "shutdown_deadline_s": SHUTDOWN_DEADLINE_S,
            "policy": "benefit",
            "memory": {DEVICE: BUDGET_BYTES},
            "max_loaded": of.max_loaded,
            "notify_model_swap": of.has_notices,
            "max_wait_s": MAX_WAIT_S,
            "min_residency_s": MIN_RESIDENCY_S,
            "ttl_s": TTL_S,
            "max_keep_alive_s": MAX_KEEP_ALIVE_S,
            "api_keys": [
                {"key": each.key, "priority": each.priority, "batch": each.is_batch}
                for each in KEYS
            ],
        },
        "models": [*(_entry(place, model) for model in of.models), _broken_entry(place)],
    }


def _entry(place: Place, model: StressModel) -> dict[str, object]:
    program = (place.llama_server,) if model.is_pushed else place.command
    entry: dict[str, object] = {
        "name": model.name,
        "group": model.group,
        "memory": {DEVICE: model.size_bytes},
        "pinned": model.is_pinned,
        "max_in_flight": model.max_in_flight,
        "priority": model.priority,
        "spawn": {"command": [*program, *ENGINE_FLAGS]},
    }
    return entry if model.ttl_s is None else entry | {"ttl_s": model.ttl_s}


def _broken_entry(place: Place) -> dict[str, object]:
    return {
        "name": BROKEN_MODEL,
        "memory": {DEVICE: _BROKEN_SIZE_BYTES},
        "spawn": {"command": [f"{place.llama_server}-gone", *ENGINE_FLAGS]},
    }
