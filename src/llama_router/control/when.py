"""Points in time as people write them: so long ago, a date, or Unix time."""

import re
from datetime import UTC, datetime

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_AGO = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([smhdw])")
# Shorter ones are not meant as Unix time: 2026 is a year, and 20261123 a date.
_UNIX_S = re.compile(r"[0-9]{9,11}(?:\.[0-9]{1,9})?")


def since_s(text: str, now_s: float) -> float:
    """Return the Unix time that ``text`` means at ``now_s``; 0 for "". Raises ValueError."""
    text = text.strip()
    if not text:
        return 0.0
    if found := _AGO.fullmatch(text):
        return now_s - float(found[1]) * _UNITS_S[found[2]]
    if _UNIX_S.fullmatch(text):
        return float(text)
    try:
        # Without an offset, the time of this place.
        return datetime.fromisoformat(text).astimezone(UTC).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"'{text}' is neither a time ago (90m, 24h, 7d) nor a date (2026-11-23T08:00)"
        ) from None
