"""Books on engines that ended uncalled: how often, how soon after, a model may be started again.

Kept apart from the core's own (``core/crashes.py``), which it does not believe; only the limits are
the same ones.
"""

from typing import Final

from llama_router.core.crashes import (
    FAILED_AFTER_CRASHES,
    FAILED_WINDOW_S,
    FIRST_BACKOFF_S,
    TRIAL_AFTER_S,
)
from llama_router.core.lifecycle import MAX_ADDRESS_TRIES

_ROUNDING_S: Final = 1e-6


class Restarts:
    """Tell it what happens to engines; before a start, ask ``why_not``."""

    def __init__(self) -> None:
        self._crashes: dict[str, list[float]] = {}
        self._lost_addresses: dict[str, int] = {}
        self._banned_until: dict[str, float] = {}

    def crashed(self, model: str, now: float) -> None:
        """An engine that nobody had told to end has ended, or did not get ready."""
        times = self._crashes.setdefault(model, [])
        times.append(now)
        recent = [at for at in times if now - at <= FAILED_WINDOW_S]
        if len(recent) >= FAILED_AFTER_CRASHES:
            self._banned_until[model] = now + TRIAL_AFTER_S
        self._lost_addresses.pop(model, None)

    def lost_address(self, model: str, now: float) -> None:
        """An engine did not get its address: a crash only when that goes on."""
        lost_count = self._lost_addresses.get(model, 0) + 1
        self._lost_addresses[model] = lost_count
        if lost_count >= MAX_ADDRESS_TRIES:
            self.crashed(model, now)

    def became_ready(self, model: str) -> None:
        """An engine answers."""
        self._lost_addresses.pop(model, None)

    def forget(self, model: str) -> None:
        """Somebody who may do so wants the model tried again."""
        for books in (self._crashes, self._lost_addresses, self._banned_until):
            books.pop(model, None)

    def why_not(self, model: str, now: float) -> str:
        """Return which rule a start of ``model`` would break now, "" for none."""
        times = self._crashes.get(model)
        if not times:
            return ""
        if now < self._banned_until.get(model, now) - _ROUNDING_S:
            return "a model that was given up is left alone"
        if now < times[-1] + FIRST_BACKOFF_S - _ROUNDING_S:
            return "a crash is followed by a pause"
        return ""
