"""How long a model is to stay loaded, as clients of other servers say it in a request's body.

``keep_alive`` is Ollama's: seconds, or a duration in Go's notation ("5m", "1h30m", "-1"); 0 unloads
the model behind the request, anything below keeps it for ever. ``ttl`` is LM Studio's: seconds.
"""

import re

import msgspec

from llama_router.proxy.errors import BadRequestError

FOREVER_S = -1.0
# Longer than any router runs, and still no number that a clock could stumble over.
_LONGEST_S = 10 * 365 * 24 * 3600.0
# A number or a duration; longer texts are neither.
_MAX_VALUE_BYTES = 64
_UNITS_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PLAIN = re.compile(rf"[+-]?{_NUMBER}")
_PART = re.compile(rf"({_NUMBER})(ns|us|µs|ms|s|m|h)")
_DURATION = re.compile(rf"([+-]?)((?:{_NUMBER}(?:ns|us|µs|ms|s|m|h))+)")

_decode = msgspec.json.Decoder(float | str | None).decode


_Member = msgspec.Raw | msgspec.UnsetType | None


def read_keep_alive(keep_alive: _Member, ttl: _Member) -> float | None:
    """Return the seconds that one of two JSON values means: negative for ever, None for neither.

    Raises BadRequestError for a ``keep_alive`` that means nothing, as Ollama answers it. A ``ttl``
    that means nothing is the engine's affair: the name is a common one.
    """
    if isinstance(keep_alive, msgspec.Raw) and not _is_null(keep_alive):
        seconds = _seconds(keep_alive)
        if seconds is None:
            raise BadRequestError(
                "'keep_alive' must be a number of seconds, or a duration such as '5m'; 0 unloads "
                "the model, -1 keeps it",
                param="keep_alive",
            )
        return seconds
    return _seconds(ttl) if isinstance(ttl, msgspec.Raw) else None


def bounded(seconds: float | None, limit_s: float | None) -> float | None:
    """Return what an operator lets a request have: ``limit_s`` None is all, 0 nothing."""
    if seconds is None or limit_s is None:
        return seconds
    if limit_s <= 0:
        return None
    return limit_s if seconds < 0 else min(seconds, limit_s)


def _is_null(value: msgspec.Raw) -> bool:
    return len(value) == len(b"null") and bytes(value) == b"null"


def _seconds(value: msgspec.Raw) -> float | None:
    if len(value) > _MAX_VALUE_BYTES:
        return None
    try:
        found = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if isinstance(found, str):
        found = _of_text(found)
    if found is None:
        return None
    return FOREVER_S if found < 0 or found > _LONGEST_S else found


def _of_text(text: str) -> float | None:
    if _PLAIN.fullmatch(text):
        return float(text)
    whole = _DURATION.fullmatch(text)
    if whole is None:
        return None
    total = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(whole[2]))
    return -total if whole[1] == "-" else total
