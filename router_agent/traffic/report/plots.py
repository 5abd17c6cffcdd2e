"""Plots as SVG, for a page that loads nothing from anywhere and runs no script.

Each plot is drawn twice, for wide and for narrow screens, because text in one that is scaled down cannot be
read; the page's style sheet shows one of them. Plots carry classes, no colours: the style sheet decides for
light, dark and paper. Curves differ by dashes and markers too, not by colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape

from router_agent.traffic.report.axes import Axis

_BAR_GAP = 0.5
_LABEL_WIDTH = 7.4
"""Width of a character of a tick's text, in user units: keeps ticks from overlapping."""


class Shape(StrEnum):
    """How values are drawn."""

    LINE = "line"
    BARS = "bars"
    POINTS = "points"
    MARKED = "marked"
    """A line with a marker at each value: for few of them."""


@dataclass(frozen=True)
class Curve:
    """Values to draw.

    Attributes:
        label: what people read in the key.
        css: class that gives it colour and dashes.
        points: (x, y), ascending in x.
        shape: how they are drawn.
        marker: "circle", "square", "diamond" or "triangle".
    """

    label: str
    css: str
    points: Sequence[tuple[float, float]]
    shape: Shape = Shape.LINE
    marker: str = "circle"


@dataclass(frozen=True)
class Event:
    """Something that happened at one x, drawn as a vertical line with a few letters on top."""

    at: float
    label: str


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        title: its caption.
        summary: what it shows, in words, for the text beside it: who cannot see the plot has this.
        bar_width: of bars, as a difference of x.
    """

    title: str
    summary: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    events: tuple[Event, ...] = field(default=())
    bar_width: float = 1.0


@dataclass(frozen=True)
class _Frame:
    """Where things are, in user units."""

    css: str
    width: float
    height: float
    left: float = 58.0
    right: float = 14.0
    top: float = 26.0
    bottom: float = 40.0

    def x(self, share: float) -> float:
        return self.left + (self.width - self.left - self.right) * share

    def y(self, share: float) -> float:
        return self.top + (self.height - self.top - self.bottom) * (1.0 - share)


_FRAMES = (_Frame("wide", 780.0, 260.0), _Frame("narrow", 340.0, 240.0))


def svg(plot: Plot) -> str:
    """Return the plot, drawn for wide and for narrow screens."""
    return "".join(_drawn(plot, frame) for frame in _FRAMES)


def key(curve: Curve) -> str:
    """Return the sample of a curve for the key beside its label."""
    if curve.shape is Shape.BARS:
        inner = f'<rect class="bar {escape(curve.css)}" x="4" y="2" width="16" height="8"/>'
    else:
        line = "" if curve.shape is Shape.POINTS else f'<path class="curve {escape(curve.css)}" d="M0 6H24"/>'
        marked = curve.shape in (Shape.POINTS, Shape.MARKED)
        inner = line + (_marker(curve, 12, 6) if marked else "")
    return f'<svg class="key" viewBox="0 0 24 12" width="24" height="12" aria-hidden="true">{inner}</svg>'


def _drawn(plot: Plot, frame: _Frame) -> str:
    return (
        f'<svg class="plot {frame.css}" viewBox="0 0 {frame.width:g} {frame.height:g}" role="img" '
        f'aria-label="{escape(plot.title)}">{_rows(plot, frame)}{_columns(plot, frame)}{_events(plot, frame)}'
        f"{''.join(_curve(plot, curve, frame) for curve in plot.curves)}</svg>"
    )


def _rows(plot: Plot, frame: _Frame) -> str:
    left, right = frame.left, frame.width - frame.right
    drawn = [f'<text class="unit" x="{4 if frame.width < 500 else 8}" y="14">{escape(plot.y.label)}</text>']
    for value, text in plot.y.ticks:
        y = frame.y(plot.y.place(value))
        drawn.append(f'<path class="grid" d="M{left:g} {y:.1f}H{right:g}"/>')
        drawn.append(f'<text class="end" x="{left - 6:g}" y="{y + 4:.1f}">{escape(text)}</text>')
    return "".join(drawn)


def _columns(plot: Plot, frame: _Frame) -> str:
    base = frame.height - frame.bottom
    drawn = [
        f'<text class="unit end" x="{frame.width - frame.right:g}" y="{frame.height - 6:g}">'
        f"{escape(plot.x.label)}</text>"
    ]
    taken = -1.0
    for value, text in plot.x.ticks:
        x, half = frame.x(plot.x.place(value)), len(text) * _LABEL_WIDTH / 2
        if x - half < taken:
            continue
        x = min(x, frame.width - half)
        taken = x + half + _LABEL_WIDTH
        drawn.append(f'<text class="mid" x="{x:.1f}" y="{base + 17:g}">{escape(text)}</text>')
    return "".join(drawn)


def _events(plot: Plot, frame: _Frame) -> str:
    drawn: list[str] = []
    taken = 8 + len(plot.y.label) * _LABEL_WIDTH
    for event in plot.events:
        x = frame.x(plot.x.place(event.at))
        top, base = frame.top - 4, frame.height - frame.bottom
        drawn.append(f'<path class="event" d="M{x:.1f} {top:g}V{base:g}"/>')
        half = len(event.label) * _LABEL_WIDTH / 2
        if x - half >= taken:
            taken = x + half + _LABEL_WIDTH
            drawn.append(
                f'<text class="mid event-label" x="{x:.1f}" y="{top - 3:g}">{escape(event.label)}</text>'
            )
    return "".join(drawn)


def _curve(plot: Plot, curve: Curve, frame: _Frame) -> str:
    if curve.shape is Shape.BARS:
        return "".join(_bar(plot, curve, frame, x, y) for x, y in curve.points if y)
    at = [(frame.x(plot.x.place(x)), frame.y(plot.y.place(y))) for x, y in curve.points]
    drawn = ""
    if curve.shape is not Shape.POINTS and len(at) > 1:
        way = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        drawn = f'<path class="curve {escape(curve.css)}" d="M{way}"/>'
    if curve.shape is not Shape.LINE or len(at) == 1:
        drawn += "".join(_marker(curve, x, y) for x, y in at)
    return drawn


def _bar(plot: Plot, curve: Curve, frame: _Frame, x: float, y: float) -> str:
    left, right = (frame.x(plot.x.place(edge)) for edge in (x, x + plot.bar_width))
    top, base = frame.y(plot.y.place(y)), frame.height - frame.bottom
    width = max(right - left - _BAR_GAP, 1.0)
    height = max(base - top, 1.0)
    return (
        f'<rect class="bar {escape(curve.css)}" x="{left:.1f}" y="{base - height:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}"/>'
    )


def _marker(curve: Curve, x: float, y: float) -> str:
    css = f'class="marker {escape(curve.css)}"'
    match curve.marker:
        case "square":
            return f'<rect {css} x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
        case "diamond":
            return f'<path {css} d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"/>'
        case "triangle":
            return f'<path {css} d="M{x:.1f} {y - 5:.1f}l5 9h-10z"/>'
        case "cross":
            return f'<path {css} d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>'
        case _:
            return f'<circle {css} cx="{x:.1f}" cy="{y:.1f}" r="3.8"/>'
