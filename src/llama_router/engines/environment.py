"""The environment that engines get."""

from collections.abc import Mapping

# Ours: keys, tokens and settings of the router.
_OWN_PREFIX = "LLAMA_ROUTER_"

# llama-server reads these (llama.cpp, common/arg.cpp); set for the router's own use they would move
# the engine to another address, put another model in it, or lock the router out.
_REMOVED = frozenset(
    {
        "LLAMA_API_KEY",
        "LLAMA_ARG_HOST",
        "LLAMA_ARG_MODEL",
        "LLAMA_ARG_PORT",
        "LLAMA_SERVER_ROUTER_PORT",
    }
)


def engine_environment(base: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """Return ``base`` without the router's own secrets and settings, with ``extra`` over it.

    Never a minimal environment: CUDA, conda and the dynamic linker need theirs.
    """
    environment = {
        name: value
        for name, value in base.items()
        if not name.upper().startswith(_OWN_PREFIX) and name.upper() not in _REMOVED
    }
    environment.update(extra)
    return environment
