"""What of the environment is the router's own secret, and so not for engines."""

import hashlib
from collections.abc import Collection, Mapping

from llama_router.config.schema import Config

# A shorter one may stand in any value by chance.
_CONTAINED_MIN_CHARS = 8
_HASHED_PREFIX = "sha256:"


def own_secrets(config: Config) -> frozenset[str]:
    """Return every key and token of a config that is not hashed."""
    router = config.router
    found = {router.admin_token, config.hub.token}
    found |= {entry.key for entry in router.api_keys}
    found |= {peer.api_key for peer in config.peers.values()}
    return frozenset(one for one in found if one and not one.startswith(_HASHED_PREFIX))


def engine_base_environment(
    env: Mapping[str, str], config: Config, digests: Collection[bytes] = ()
) -> dict[str, str]:
    """Return the environment without variables that hold a secret of the config.

    ``${env.NAME}`` takes secrets out of there; engines inherit the rest. ``digests`` are the
    SHA-256 digests of further secrets: of keys that nobody knows any more but their owners.
    """
    secrets = own_secrets(config)
    return {
        name: value
        for name, value in env.items()
        if not _holds_any(value, secrets) and _digest(value) not in digests
    }


def _digest(value: str) -> bytes:
    # As the variable was read: it need not be text.
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()


def _holds_any(value: str, secrets: frozenset[str]) -> bool:
    return value in secrets or any(
        len(secret) >= _CONTAINED_MIN_CHARS and secret in value for secret in secrets
    )
