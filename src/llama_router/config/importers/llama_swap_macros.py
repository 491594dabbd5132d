"""llama-swap's macros: ``${name}`` in any value, put in before anything else is looked at.

Macros may contain those defined before them, a model's own come before the file's of the same
name, and a value that is one macro and nothing else keeps its type. ``${PORT}``, ``${PID}`` and
``${env.NAME}`` are left in place: what they become depends on the setting.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

PORT, PID, MODEL_ID = "PORT", "PID", "MODEL_ID"
PORT_MARK, PID_MARK = "${PORT}", "${PID}"
RESERVED = (PORT, PID, MODEL_ID)
NAME_MAX_CHARS = 63
# Far above any command; macros of macros grow exponentially.
EXPANDED_MAX_CHARS = 256 * 1024

ENV = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
# strconv.FormatFloat, format g, shortest: beyond these the exponent is written out.
_GO_PLAIN_EXPONENTS = range(-4, 6)
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_MACRO = re.compile(r"\$\{([A-Za-z0-9_-]+)\}")

Scalar = str | int | float | bool


class MacroError(ValueError):
    """A macro cannot be defined or used as it is; the text says why."""


def check_macro(name: str, value: object) -> None:
    """Refuse what llama-swap refuses in a definition. Raises MacroError."""
    if not _NAME.fullmatch(name) or len(name) > NAME_MAX_CHARS:
        raise MacroError(f"must be named by 1 to {NAME_MAX_CHARS} letters, digits, _ or -")
    if name in RESERVED:
        raise MacroError("is a name that llama-swap uses itself")
    if not isinstance(value, str | int | float | bool):
        raise MacroError("must be text, a number, or true or false")
    if isinstance(value, str) and f"${{{name}}}" in value:
        raise MacroError("contains itself")


@dataclass(frozen=True, slots=True)
class Macros:
    """Macros in the order of their definition."""

    entries: tuple[tuple[str, Scalar], ...] = ()

    def of_model(self, model_id: str, own: Mapping[str, Scalar]) -> "Macros":
        """Return these with a model's own, which take the places of those of the same name."""
        entries = {MODEL_ID: model_id, **dict(self.entries), **own}
        return Macros(tuple(entries.items()))

    def expand(self, value: Any, *, runtime: Iterable[str] = ()) -> Any:  # noqa: ANN401 - any YAML value
        """Put the macros into a value, and into all that is in it; keys stay as they are.

        Of PORT and PID those in ``runtime`` may remain. Raises MacroError.
        """
        if isinstance(value, str):
            return self._expand_text(value, frozenset(runtime))
        if isinstance(value, dict):
            return {key: self.expand(item, runtime=runtime) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expand(item, runtime=runtime) for item in value]
        return value

    def _expand_text(self, text: str, runtime: frozenset[str]) -> Scalar:
        # From the last defined to the first: each may hold only what is still to come.
        for name, value in reversed(self.entries):
            mark = f"${{{name}}}"
            if text == mark and not isinstance(value, str):
                return value
            uses = text.count(mark)
            if uses:
                shown = go_text(value)
                if len(text) + uses * len(shown) > EXPANDED_MAX_CHARS:
                    raise MacroError(
                        f"is longer than {EXPANDED_MAX_CHARS} characters once macros are put in"
                    )
                text = text.replace(mark, shown)
        for match in _MACRO.finditer(text):
            if match[1] not in runtime:
                raise MacroError(self._why_unknown(match[1]))
        return text

    def _why_unknown(self, name: str) -> str:
        if name == PORT:
            return "uses ${PORT}, which only models have"
        if name == PID:
            return "uses ${PID}, which only cmdStop has"
        if name in dict(self.entries):
            return f"uses ${{{name}}} in a macro that is defined before it; define it first"
        return f"uses the unknown macro ${{{name}}}"


def go_text(value: Scalar) -> str:
    """Write a value as Go's ``%v`` does, which is how llama-swap puts it into text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, float):
        return str(value)
    sign, digits, _ = Decimal(repr(value)).normalize().as_tuple()
    exponent = Decimal(repr(value)).adjusted()
    if not value or exponent in _GO_PLAIN_EXPONENTS:
        return f"{Decimal(repr(value)).normalize():f}"
    shown = "".join(map(str, digits))
    point = f".{shown[1:]}" if shown[1:] else ""
    return f"{'-' if sign else ''}{shown[0]}{point}e{exponent:+03d}"
