"""Ethernet frame sizes of a stream: one size, or a mix of them (IMIX, RFC 6985).

Sizes count the frame check sequence, as RFC 2544 does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from router_agent.model import I64
from router_agent.traffic.scenario.errors import ScenarioError

FCS_BYTES = 4
"""Frame sizes count the Ethernet frame check sequence, as RFC 2544 does; sockets do not see it."""

WIRE_OVERHEAD = 20
"""Preamble (7), start of frame (1) and the least gap between frames (12): bytes on the wire."""

SMALLEST, LARGEST = 64, 9_018


@dataclass(frozen=True)
class FrameSizes:
    """One frame size, or a mix.

    Attributes:
        shares: (size in bytes, weight) of each size, in ascending order of sizes. The mix
            ``((64, 7), (594, 4), (1518, 1))`` sends seven frames of 64 bytes for one of 1,518.
        label: how people call it: "64", "imix".
    """

    shares: tuple[tuple[int, int], ...]
    label: str

    def __post_init__(self) -> None:
        sizes = [size for size, _ in self.shares]
        if not sizes or sizes != sorted(set(sizes)):
            raise ScenarioError(f"frame sizes are {sizes}, expected at least one, ascending, none twice")
        for size, weight in self.shares:
            if not SMALLEST <= size <= LARGEST:
                raise ScenarioError(
                    f"a frame size is {size}, expected {SMALLEST} to {LARGEST} bytes with FCS"
                )
            if weight < 1:
                raise ScenarioError(f"frames of {size} bytes have weight {weight}, expected 1 or more")

    @classmethod
    def of(cls, size: int) -> FrameSizes:
        """Return one size."""
        return cls(((size, 1),), str(size))

    @property
    def largest(self) -> int:
        """Largest size in bytes."""
        return self.shares[-1][0]

    @property
    def mean(self) -> float:
        """Mean size in bytes."""
        total = sum(weight for _, weight in self.shares)
        return sum(size * weight for size, weight in self.shares) / total

    def raised_to(self, least: int) -> FrameSizes:
        """Return the same with sizes below `least` bytes raised to it."""
        weights: dict[int, int] = {}
        for size, weight in self.shares:
            weights[max(size, least)] = weights.get(max(size, least), 0) + weight
        return FrameSizes(tuple(sorted(weights.items())), self.label)

    def line_pps(self, link_bps: float) -> float:
        """Return frames a second that fill a link of so many bits a second (14.88 M for 10G at 64)."""
        return link_bps / ((self.mean + WIRE_OVERHEAD) * 8)

    def assigned(self, count: int) -> I64:
        """Return a size for each of `count` frames in sending order: each run of weights has each share."""
        cycle = np.array([size for size, weight in self.shares for _ in range(weight)], np.int64)
        spread = np.argsort((np.arange(len(cycle)) * 0.6180339887498949) % 1.0, kind="stable")
        return np.resize(cycle[spread], count)


IMIX = FrameSizes(((64, 7), (594, 4), (1518, 1)), "imix")
"""The simple Internet mix: seven to four to one, in frames with FCS."""
