"""What of the config the data plane goes by."""

from collections.abc import Iterable

from llama_router.config.schema import RouterSettings
from llama_router.proxy.guard import Guard
from llama_router.proxy.keys import KeyRule
from llama_router.proxy.server import PlaneSettings


def guard_of(settings: RouterSettings, rules: Iterable[KeyRule]) -> Guard:
    """Return the checks that every request has to pass."""
    return Guard(
        api_keys=rules, admin_token=settings.admin_token, allowed_hosts=settings.allowed_hosts
    )


def plane_settings(settings: RouterSettings) -> PlaneSettings:
    """Return everything else."""
    return PlaneSettings(
        notify_model_swap=settings.notify_model_swap,
        read_timeout_s=settings.read_timeout_s,
        first_byte_timeout_s=settings.first_byte_timeout_s,
        max_keep_alive_s=settings.max_keep_alive_s,
        client_stall_timeout_s=settings.client_stall_timeout_s,
        abort_on_half_close=settings.half_close == "abort",
        history_prompts=settings.history_prompts,
        upstream_ignore_paths=settings.upstream_ignore_paths,
    )
