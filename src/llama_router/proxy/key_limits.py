"""How much one API key may ask for: so many requests a minute, and so many at a time.

A token bucket: a key that has been idle may ask for a minute's worth at once, and then gets one
request for each share of a minute that goes by. Times are of a monotonic clock.
"""

from llama_router.proxy.caller import Caller
from llama_router.proxy.errors import RateLimitError

_MINUTE_S = 60.0
# When one of a key's requests ends is not known; looking again costs little.
_BUSY_RETRY_S = 1.0


class KeyUse:
    """What one key has in hand. It outlives changes of the key's limits, but not the key."""

    __slots__ = ("_at_s", "_max_in_flight", "_name", "_per_minute", "_tokens", "in_flight")

    def __init__(self, caller: Caller) -> None:
        self.in_flight = 0
        self._name = caller.key
        self._per_minute = caller.requests_per_minute
        self._max_in_flight = caller.max_in_flight
        self._tokens = float(caller.requests_per_minute)
        self._at_s: float | None = None

    def set_limits(self, caller: Caller) -> None:
        """Let other limits hold from now on. What has been used up stays so."""
        used = self._per_minute - self._tokens
        self._per_minute = caller.requests_per_minute
        self._max_in_flight = caller.max_in_flight
        self._tokens = max(0.0, self._per_minute - used)

    def enter(self, now_s: float) -> None:
        """Count a request in. Raises RateLimitError; then it is not counted."""
        if self._max_in_flight and self.in_flight >= self._max_in_flight:
            raise RateLimitError(
                f"the key '{self._name}' has {self.in_flight} requests under way, which is as many"
                " as it may (max_in_flight)",
                retry_after_s=_BUSY_RETRY_S,
            )
        if self._per_minute:
            self._take_token(now_s)
        self.in_flight += 1

    def leave(self) -> None:
        """A request that was counted in has ended."""
        self.in_flight -= 1

    def _take_token(self, now_s: float) -> None:
        per_s = self._per_minute / _MINUTE_S
        if self._at_s is not None:
            grown = self._tokens + max(0.0, now_s - self._at_s) * per_s
            self._tokens = min(float(self._per_minute), grown)
        self._at_s = now_s
        if self._tokens < 1.0:
            raise RateLimitError(
                f"the key '{self._name}' may send {self._per_minute} requests a minute"
                " (requests_per_minute)",
                retry_after_s=(1.0 - self._tokens) / per_s,
            )
        self._tokens -= 1.0


class KeyLimits:
    """The uses of all keys that have limits, by the keys' names."""

    def __init__(self) -> None:
        self._uses: dict[str, KeyUse] = {}

    def replace(self, callers: tuple[Caller, ...]) -> None:
        """Let the limits of these keys hold from now on, and of no others."""
        limited = {one.key: one for one in callers if one.requests_per_minute or one.max_in_flight}
        uses = {}
        for name, caller in limited.items():
            use = uses[name] = self._uses.get(name) or KeyUse(caller)
            use.set_limits(caller)
        self._uses = uses

    def use_of(self, caller: Caller) -> KeyUse | None:
        """Return the use of a caller's key; None when it has no limits."""
        return self._uses.get(caller.key)
