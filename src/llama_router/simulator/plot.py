"""A picture of how long requests waited, as SVG: one curve for each policy."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

WIDTH_PX: Final = 760
HEIGHT_PX: Final = 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 170, 40, 50
_MIN_WAIT_S: Final = 0.01
"""What is served at once is drawn here: a logarithm has no zero."""
_MAX_POINTS_COUNT: Final = 400
"""More than this is not to be seen at this width, and a million would not be opened."""
_FONT: Final = 'font-family="sans-serif" font-size="12" role="img"'
_COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's palette, which colour-blind people can tell apart."""


def wait_plot(waits_s: Mapping[str, Sequence[float]], title: str) -> str:
    """Return an SVG with the share of requests (up) that waited no longer than a time (right)."""
    longest = max((max(waits) for waits in waits_s.values() if len(waits)), default=1.0)
    decades = max(1, math.ceil(math.log10(max(longest, 10 * _MIN_WAIT_S) / _MIN_WAIT_S)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" {_FONT}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH_PX}" height="{HEIGHT_PX}" fill="#fff"/>',
        _text(WIDTH_PX / 2, 22, title, "middle", 'font-size="14"'),
        *_axes(decades),
    ]
    for number, (name, waits) in enumerate(waits_s.items()):
        color = _COLORS[number % len(_COLORS)]
        dash = ' stroke-dasharray="6 3"' if number >= len(_COLORS) else ""
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in _curve(waits, decades))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"{dash}/>'
        )
        y = _TOP + 14 + 20 * number
        x = WIDTH_PX - _RIGHT + 14
        parts.append(
            f'<line x1="{x}" y1="{y - 4}" x2="{x + 20}" y2="{y - 4}" stroke="{color}" '
            f'stroke-width="2"{dash}/>'
        )
        parts.append(_text(x + 26, y, name))
    return "\n".join([*parts, "</svg>", ""])


def _x(wait_s: float, decades: int) -> float:
    share = math.log10(max(wait_s, _MIN_WAIT_S) / _MIN_WAIT_S) / decades
    return _LEFT + share * (WIDTH_PX - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _TOP + (1.0 - share) * (HEIGHT_PX - _TOP - _BOTTOM)


def _axes(decades: int) -> Iterator[str]:
    right, bottom = WIDTH_PX - _RIGHT, HEIGHT_PX - _BOTTOM
    for decade in range(decades + 1):
        wait_s = _MIN_WAIT_S * 10**decade
        x = _x(wait_s, decades)
        yield f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#ddd"/>'
        label = f"≤ {wait_s:g}" if decade == 0 else f"{wait_s:g}"
        yield _text(x, bottom + 18, label, "middle")
    for percent in range(0, 101, 25):
        y = _y(percent / 100)
        yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>'
        yield _text(_LEFT - 8, y + 4, f"{percent} %", "end")
    yield _text((_LEFT + right) / 2, HEIGHT_PX - 10, "waited no longer than, seconds", "middle")


def _text(x: float, y: float, text: str, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def _curve(waits: Sequence[float], decades: int) -> Iterator[tuple[float, float]]:
    ordered = sorted(waits)
    count = len(ordered)
    if not count:
        return
    yield _x(_MIN_WAIT_S, decades), _y(0.0)
    points_count = min(count, _MAX_POINTS_COUNT)
    for number in range(1, points_count + 1):
        rank = math.ceil(number * count / points_count)
        yield _x(ordered[rank - 1], decades), _y(rank / count)
    yield _x(_MIN_WAIT_S * 10**decades, decades), _y(1.0)
