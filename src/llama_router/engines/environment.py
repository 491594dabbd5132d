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

# The person's own key to Hugging Face (huggingface_hub, constants.py), which every download of the
# router's uses too. Not for engines that read files only.
_HUB_TOKENS = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})


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


def without_hub_tokens(env: Mapping[str, str]) -> dict[str, str]:
    """Return ``env`` without the tokens that open somebody's account at Hugging Face."""
    return {name: value for name, value in env.items() if name.upper() not in _HUB_TOKENS}


def check_configured(extra: Mapping[str, str]) -> str:
    """Return what is wrong with variables from the config, "" for nothing.

    They may set whatever the engine reads (LLAMA_ARG_... too), but not what the router and it have
    between them.
    """
    for name, value in extra.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            return f"env: {name!r} is not the name of a variable, or its value holds a NUL"
        if name.upper().startswith(_OWN_PREFIX) or name.upper() == "LLAMA_SERVER_ROUTER_PORT":
            return f"env: {name} is the router's own and cannot be set for an engine"
    return ""
