"""How long a model that crashes is left alone, and when it is given up."""

from typing import Final

import msgspec

FIRST_BACKOFF_S: Final = 1.0
MAX_BACKOFF_S: Final = 30.0
"""Long enough to keep a crash loop cheap, short enough for a person to wait out."""

STABLE_AFTER_S: Final = 60.0
"""An engine that was ready for this long did start properly: the next crash is a first one."""

FAILED_AFTER_CRASHES: Final = 5
FAILED_WINDOW_S: Final = 300.0
"""This many crashes within the window: trying again on each request helps nobody."""

TRIAL_AFTER_S: Final = 600.0
"""What was wrong may have gone away (a full disk, a busy GPU): one request may try after this."""


class CrashHistory(msgspec.Struct):
    """The crashes of one model, and what follows from them. Times as in ``Core.handle``.

    ``retry_at`` is when the back-off, or the ban after giving up, is over; it is 0 at first.
    """

    streak: int = 0
    times: list[float] = msgspec.field(default_factory=list)
    on_trial: bool = False
    retry_at: float = 0.0

    def record(self, now: float, ready_for_s: float) -> bool:
        """Count a crash after ``ready_for_s`` of being ready (0: it never was).

        Returns whether to give the model up. ``retry_at`` then holds the end of the ban, otherwise
        the end of the back-off.
        """
        if ready_for_s >= STABLE_AFTER_S:
            self.streak = 0
        self.streak += 1
        self.times = [at for at in self.times if now - at <= FAILED_WINDOW_S]
        self.times.append(now)
        if self.on_trial or len(self.times) >= FAILED_AFTER_CRASHES:
            self.clear()
            self.retry_at = now + TRIAL_AFTER_S
            return True
        doublings = min(self.streak - 1, 16)  # capped: 2**n must not overflow a float
        self.retry_at = now + min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0**doublings)
        return False

    def begin_trial(self) -> None:
        """Let one load decide: ready clears the history, another failure is a new ban."""
        self.clear()
        self.on_trial = True

    def became_ready(self) -> None:
        """A trial that got this far has been passed."""
        if self.on_trial:
            self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.streak = 0
        self.times = []
        self.on_trial = False
        self.retry_at = 0.0
