"""Axes of plots: where a value lies between 0 and 1, and which values are written beside the axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TypeAlias

Words: TypeAlias = Callable[[float], str]

_NINES = 7
"""A percentile axis ends at 99.99999 %; what is beyond lies on its end."""


_NOTHING = 1e-9
"""Values that differ by less, relative to them or to one, are one value."""


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: what it shows, with its unit.
        place: where a value lies, 0 at the beginning and 1 at the end.
        ticks: values with their text, ascending.
    """

    label: str
    place: Callable[[float], float]
    ticks: tuple[tuple[float, str], ...]


def linear(
    label: str, low: float, high: float, *, words: Words | None = None, ticks: int = 5, least: float = 0.0
) -> Axis:
    """Return an axis that covers low to high in at most `ticks` round steps, none below `least`."""
    spread = high - low
    step = _round_step(spread / ticks if spread > _NOTHING * max(1.0, high) else max(spread, 1.0))
    step = max(step, least)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    last = max(last, first + 1)
    shown = words or short
    start, width = first * step, (last - first) * step
    marks = tuple((i * step, shown(i * step)) for i in range(first, last + 1))
    return Axis(label, lambda value: _within((value - start) / width), marks)


def time(label: str, seconds: float) -> Axis:
    """Return an axis from 0 to so many seconds, which ends where they end."""
    end = seconds if seconds > 0 else 1.0
    step = _round_step(end / 8)
    marks = tuple((i * step, f"{i * step:.10g}") for i in range(floor(end / step + 1e-9) + 1))
    return Axis(label, lambda value: _within(value / end), marks)


def logarithmic(label: str, low: float, high: float, *, words: Words | None = None) -> Axis:
    """Return an axis of decades that covers low to high; below low is at its beginning."""
    first = floor(log10(low)) if low > 0 else 0
    last = max(ceil(log10(high) - 1e-9) if high > 0 else first, first + 1)
    shown = words or short
    marks = tuple((10.0**i, shown(10.0**i)) for i in range(first, last + 1))

    def place(value: float) -> float:
        return 0.0 if value <= 0 else _within((log10(value) - first) / (last - first))

    return Axis(label, place, marks)


def percentiles(label: str, highest: float = 99.999) -> Axis:
    """Return the axis of HdrHistogram plots: each nine takes as much room as the one before.

    Args:
        label: what it shows.
        highest: the last percentile below 100 that there are enough packets for.
    """
    nines = min(_NINES, max(1, round(_nines(highest))))
    marks = [(100.0 - 10.0 ** (2 - i), max(0, i - 2)) for i in range(1, nines + 1)]
    ticks = ((0.0, "0 %"), (50.0, "50 %"), *((value, f"{value:.{digits}f} %") for value, digits in marks))
    return Axis(label, lambda value: _within(_nines(value) / nines), ticks)


def categories(label: str, names: Sequence[str]) -> Axis:
    """Return an axis of names; the value of one is its position, 0 the first."""
    count = max(1, len(names))
    return Axis(label, lambda value: (value + 0.5) / count, tuple(enumerate(names)))


def short(value: float) -> str:
    """Return a number of at most four digits with k, M or G."""
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{suffix}"
    return f"{value:.4g}"


def duration(nanoseconds: float) -> str:
    """Return a time with the unit that fits."""
    for size, suffix in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.4g} {suffix}"
    return f"{nanoseconds:.4g} ns"


def _nines(percentile: float) -> float:
    left = 1.0 - percentile / 100.0
    return float(_NINES) if left <= 0 else -log10(left)


def _round_step(least: float) -> float:
    """Return the next of 1, 2, 2.5, 5, 10 and their decades."""
    scale = 10.0 ** floor(log10(least))
    return next(step * scale for step in (1, 2, 2.5, 5, 10) if step * scale >= least * (1 - 1e-9))


def _within(share: float) -> float:
    return min(1.0, max(0.0, share))
