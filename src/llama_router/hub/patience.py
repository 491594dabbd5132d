"""How long and how often the hub is asked again."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec


class Patience(msgspec.Struct, frozen=True):
    """``attempts_max_count`` counts those in a row that brought nothing.

    ``stall_s``: how long nothing may come. ``delay_max_s`` limits a back-off, ``retry_after_max_s``
    what the hub may ask for.
    """

    attempts_max_count: int = 8
    connect_s: float = 30.0
    stall_s: float = 60.0
    delay_s: float = 1.0
    delay_max_s: float = 60.0
    retry_after_max_s: float = 600.0


# Even where each attempt brings a little.
ATTEMPTS_IN_ALL_MAX_COUNT = 10_000


def delay_s(patience: Patience, attempt: int, retry_after_s: float | None) -> float:
    """Return how long to wait before the next attempt; ``attempt`` counts from 1.

    What the hub asks for is never undercut, but for ``retry_after_max_s``.
    """
    longest_s = min(patience.delay_max_s, patience.delay_s * 2.0 ** min(attempt - 1, 32))
    jittered_s = longest_s * (0.5 + random.random() / 2)  # noqa: S311 - no secret
    if retry_after_s is None:
        return jittered_s
    return max(jittered_s, min(retry_after_s, patience.retry_after_max_s))


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Read Retry-After (RFC 9110, section 10.2.3), seconds or a date; None if there is none."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
