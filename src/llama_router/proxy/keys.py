"""API keys: what they open, and for whom. Only digests of them are kept and compared."""

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import msgspec

from llama_router.proxy.caller import ALL_SCOPES, INFERENCE, Caller

_HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")


class KeySettings(Protocol):
    """What holds for an API key. Of the limits, 0 is none."""

    @property
    def name(self) -> str:
        """Its owner's name."""

    @property
    def priority(self) -> int:
        """The higher goes first."""

    @property
    def batch(self) -> bool:
        """Whether all its requests are a batch's."""

    @property
    def scopes(self) -> tuple[str, ...] | None:
        """What it opens: "inference", "admin". None: as without scopes."""

    @property
    def models(self) -> tuple[str, ...]:
        """Patterns (fnmatch) of the models that it may use; none: any."""

    @property
    def requests_per_minute(self) -> int:
        """How many requests it may send in a minute."""

    @property
    def max_in_flight(self) -> int:
        """How many of its requests may be under way at a time."""


@runtime_checkable
class KeyRule(KeySettings, Protocol):
    """A key of which only the digest is known."""

    @property
    def digest(self) -> bytes:
        """The SHA-256 digest of the secret."""


class KeyEntry(KeySettings, Protocol):
    """A key as the config has it."""

    @property
    def key(self) -> str:
        """The secret, or ``sha256:`` and its digest in hex."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A KeyRule as a value."""

    digest: bytes
    name: str
    priority: int = 0
    batch: bool = False
    scopes: tuple[str, ...] | None = None
    models: tuple[str, ...] = ()
    requests_per_minute: int = 0
    max_in_flight: int = 0


def digest_of(key: str | bytes) -> bytes:
    """Return the digest of a secret."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def digest_in_config(key: str) -> bytes:
    """Return the digest of a key as a config has it: in the plain, or as ``sha256:<hex>``."""
    hashed = _HASHED.fullmatch(key)
    return bytes.fromhex(hashed[1]) if hashed is not None else digest_of(key)


def rule_of(entry: KeyEntry) -> ApiKey:
    """Return the rule for a key as the config has it."""
    return ApiKey(
        digest=digest_in_config(entry.key),
        name=entry.name,
        priority=entry.priority,
        batch=entry.batch,
        scopes=entry.scopes,
        models=entry.models,
        requests_per_minute=entry.requests_per_minute,
        max_in_flight=entry.max_in_flight,
    )


class KeyRing:
    """All keys that are good here, the admin token among them.

    A key without scopes of its own opens inference, and the admin API too unless there is an admin
    token.
    """

    def __init__(self, rules: Iterable[KeyRule], admin_token: str = "") -> None:
        implied = (INFERENCE,) if admin_token else ALL_SCOPES
        self._callers = {rule.digest: _caller(rule, implied) for rule in rules}
        self._token = digest_in_config(admin_token) if admin_token else None
        self.has_keys = bool(self._callers)
        self.has_token = self._token is not None

    @property
    def callers(self) -> tuple[Caller, ...]:
        """Those whom the keys stand for."""
        return tuple(self._callers.values())

    def owners(self, presented: Iterable[bytes]) -> list[Caller]:
        """Return whose keys these are, of those that are good here.

        Every pair is compared, so that the time tells nothing about which one was close.
        """
        digests = [digest_of(key) for key in presented]
        return [caller for own, caller in self._callers.items() if _is_among(own, digests)]

    def has_admin_token(self, presented: Iterable[bytes]) -> bool:
        """Tell whether one of these is the admin token."""
        return self._token is not None and _is_among(self._token, map(digest_of, presented))


def _is_among(own: bytes, digests: Iterable[bytes]) -> bool:
    found = False
    for one in digests:
        found |= hmac.compare_digest(one, own)
    return found


def _caller(rule: KeyRule, implied_scopes: tuple[str, ...]) -> Caller:
    return Caller(
        rule.name,
        rule.priority,
        rule.batch,
        implied_scopes if rule.scopes is None else tuple(rule.scopes),
        tuple(rule.models),
        rule.requests_per_minute,
        rule.max_in_flight,
    )
