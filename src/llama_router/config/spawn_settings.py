"""How engines are started: ``default_spawn``, and what is different for one model."""

from llama_router.config import fields
from llama_router.config.fields import (
    Command,
    Endpoints,
    EngineAddress,
    EnvValue,
    EnvVariable,
    HealthEndpoint,
    OwnerCheckName,
    setting,
)
from llama_router.config.section import Section

# No --n-gpu-layers: llama.cpp fits the layers to the memory it finds, a number switches that off.
DEFAULT_COMMAND = (
    "llama-server",
    "--jinja",
    "--model",
    "$path",
    "--mmproj",
    "$mmproj",
    "--alias",
    "$model",
    "--host",
    "$host",
    "--port",
    "$port",
)

# Part of the health endpoint's kind: nothing is asked, an open port is enough.
NO_HEALTH_ENDPOINT = "none"


class SpawnSettings(Section):
    """``default_spawn``: how engines are started."""

    command: Command = setting(
        DEFAULT_COMMAND, "Program and arguments of the engine, with placeholders; no shell."
    )
    env: dict[EnvVariable, EnvValue] = setting(
        {},
        "Environment variables of the engine, besides the router's own.",
        max_length=fields.LIST_MAX_COUNT,
        repr=False,
    )
    stop_command: Command | None = setting(
        None,
        "Program and arguments run to stop the engine in place of SIGTERM, with the same"
        " placeholders and `$pid`; absent: the signal.",
    )
    address: EngineAddress | None = setting(
        None, "Where the engine listens; absent: `http://$host:$port`."
    )
    proxy_endpoints: Endpoints | None = setting(
        None, "Path prefixes that clients may use; absent: every inference route."
    )
    health_endpoint: HealthEndpoint = setting(
        "/health",
        "Path that answers 200 once the engine is ready; `none`: ready as soon as its port accepts"
        " connections.",
    )
    owner_check: OwnerCheckName = setting(
        "tree",
        "Whose listener is believed: only one of the engine's own processes (`tree`), or any on"
        " its port (`port`; for `docker run`, `sudo` and the like).",
    )


class SpawnOverride(Section):
    """``models[].spawn``: what is different for one model. Absent keys are as in default_spawn."""

    command: Command | None = setting(None, "As in `default_spawn`.")
    env: dict[EnvVariable, EnvValue] = setting(
        {},
        "As in `default_spawn`; variables that are set there and not here stay.",
        max_length=fields.LIST_MAX_COUNT,
        repr=False,
    )
    stop_command: Command | None = setting(None, "As in `default_spawn`.")
    address: EngineAddress | None = setting(None, "As in `default_spawn`.")
    proxy_endpoints: Endpoints | None = setting(None, "As in `default_spawn`.")
    health_endpoint: HealthEndpoint | None = setting(None, "As in `default_spawn`.")
    owner_check: OwnerCheckName | None = setting(None, "As in `default_spawn`.")
