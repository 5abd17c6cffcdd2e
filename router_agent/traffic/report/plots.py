"""Small line and bar plots as SVG elements, for a page that loads nothing from anywhere.

Plots carry classes, no colours: the page's style sheet decides for light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

_WIDTH, _HEIGHT = 760, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 34
_TICKS = 4


@dataclass(frozen=True)
class Curve:
    """One row of values; `css` names its class, `label` is what people read."""

    label: str
    css: str
    values: Sequence[float]


def lines(title: str, curves: Sequence[Curve], *, interval_s: float, unit: str) -> str:
    """Return a plot of curves over time in seconds."""
    top = _ceiling(max((max(c.values, default=0.0) for c in curves), default=0.0))
    n = max((len(c.values) for c in curves), default=0)
    drawn = "".join(
        f'<polyline class="curve {escape(c.css)}" points="{_points(c.values, n, top)}"/>' for c in curves
    )
    return _plot(title, drawn, top, n * interval_s, unit)


def bars(title: str, curve: Curve, *, interval_s: float, unit: str) -> str:
    """Return a plot of one bar an interval over time in seconds."""
    top = _ceiling(max(curve.values, default=0.0))
    n = len(curve.values)
    width = (_WIDTH - _LEFT - _RIGHT) / max(1, n)
    drawn = "".join(
        f'<rect class="bar {escape(curve.css)}" x="{_LEFT + i * width:.2f}" y="{_y(v, top):.2f}" '
        f'width="{max(width - 0.5, 0.75):.2f}" height="{_HEIGHT - _BOTTOM - _y(v, top):.2f}"/>'
        for i, v in enumerate(curve.values)
        if v
    )
    return _plot(title, drawn, top, n * interval_s, unit)


def _plot(title: str, drawn: str, top: float, seconds: float, unit: str) -> str:
    grid = "".join(_row(top * i / _TICKS, top) for i in range(_TICKS + 1))
    axis = "".join(_column(value, seconds) for value in _seconds(seconds))
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{grid}{axis}"
        f'<text class="unit" x="{_LEFT}" y="{_HEIGHT - 2}">{escape(unit)} over seconds</text>{drawn}</svg>'
    )


def _row(value: float, top: float) -> str:
    y = _y(value, top)
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick end" x="{_LEFT - 6}" y="{y + 4:.1f}">{_short(value)}</text>'
    )


def _column(value: float, seconds: float) -> str:
    x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value / seconds if seconds else 0.0)
    return f'<text class="tick mid" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 15}">{value:.3g}</text>'


def _seconds(seconds: float) -> list[float]:
    """Return round times for the axis, at most nine."""
    if seconds <= 0:
        return [0.0]
    scale = 10.0 ** floor(log10(seconds / 8))
    step = next(s * scale for s in (1, 2, 5, 10) if s * scale >= seconds / 8)
    return [i * step for i in range(int(seconds / step + 1e-9) + 1)]


def _points(values: Sequence[float], n: int, top: float) -> str:
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, n)
    return " ".join(f"{_LEFT + (i + 0.5) * step:.2f},{_y(v, top):.2f}" for i, v in enumerate(values))


def _y(value: float, top: float) -> float:
    height = _HEIGHT - _TOP - _BOTTOM
    return _TOP + height * (1 - value / top)


def _ceiling(value: float) -> float:
    """Return the next round number of which a quarter is round too."""
    if value <= 0:
        return 4.0
    scale = 10.0 ** floor(log10(value))
    for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8):
        if value <= step * scale:
            return max(4.0, step * scale)
    return float(ceil(10 * scale))


def _short(value: float) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g} {suffix}"
    return f"{value:.4g}"
