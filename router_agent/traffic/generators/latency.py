"""How long packets took, as a histogram with a fixed relative error (HdrHistogram, PyPI ``hdrhistogram``).

Percentiles of a histogram are exact to three digits whatever the shape of the distribution, and histograms
of several trials add up; means of percentiles do neither.
"""

from __future__ import annotations

import numpy as np
from hdrh.histogram import HdrHistogram

from router_agent.model import I64

_LEAST_NS, _MOST_NS, _DIGITS = 1, 100_000_000_000, 3

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99, 100.0)
"""What reports show."""


class Latency:
    """Latencies in nanoseconds.

    Args:
        what: what lies between the two time stamps, in words: a figure without it cannot be compared.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._histogram = HdrHistogram(_LEAST_NS, _MOST_NS, _DIGITS)

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def add(self, nanoseconds: I64) -> None:
        """Add latencies; less than a nanosecond (clocks disagree) counts as one, over 100 s as 100 s."""
        values, counts = np.unique(_rounded(nanoseconds.clip(_LEAST_NS, _MOST_NS)), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._histogram.record_value(value, count)

    def merge(self, other: Latency) -> None:
        """Add another one's."""
        self._histogram.add(other._histogram)

    def percentile(self, percent: float) -> int:
        """Return the latency in nanoseconds that so many percent of packets did not exceed; 0 of none."""
        return int(self._histogram.get_value_at_percentile(percent)) if len(self) else 0

    def percentiles(self) -> dict[float, int]:
        """Return the percentiles of `PERCENTILES`, in nanoseconds."""
        return {percent: self.percentile(percent) for percent in PERCENTILES}

    @property
    def least(self) -> int:
        """The least latency in nanoseconds; 0 of none."""
        return int(self._histogram.get_min_value()) if len(self) else 0

    @property
    def mean(self) -> float:
        """The mean in nanoseconds; 0 of none."""
        return float(self._histogram.get_mean_value()) if len(self) else 0.0

    def encoded(self) -> str:
        """Return the histogram as HdrHistogram writes it (V2, compressed, base64), for other tools."""
        return str(self._histogram.encode().decode())

    @classmethod
    def decoded(cls, what: str, histogram: str) -> Latency:
        """Return the latencies of a histogram that `encoded` has written."""
        latency = cls(what)
        latency._histogram = HdrHistogram.decode(histogram)
        return latency


def _rounded(nanoseconds: I64) -> I64:
    """Drop digits that the histogram does not keep, so that equal values meet before it is asked."""
    digits = np.floor(np.log10(nanoseconds)).astype(np.int64)
    step = np.power(10, np.maximum(digits - _DIGITS, 0))
    return nanoseconds // step * step
