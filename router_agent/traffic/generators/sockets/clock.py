"""Whether the system clock was stepped.

The kernel stamps arriving frames with CLOCK_REALTIME. Unlike CLOCK_MONOTONIC it may be set, by a person or
by time synchronisation, and then arrival times of one trial do not fit together. Both clocks are slewed
alike (adjtimex(2)), so their difference changes by steps alone.
"""

from __future__ import annotations

import time

TOLERANCE_NS = 1_000_000
"""Two readings of the difference may be apart by so much without a step: the reader was interrupted."""

_READINGS = 5


def realtime_offset_ns() -> int:
    """Return CLOCK_REALTIME - CLOCK_MONOTONIC: of several readings the one that took the least time."""
    readings = []
    for _ in range(_READINGS):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]


class StepWatch:
    """Remembers the difference of both clocks and tells by how much it has changed since."""

    def __init__(self) -> None:
        self.offset_ns = realtime_offset_ns()

    def step_ns(self) -> int:
        """Return by how much CLOCK_REALTIME was stepped, 0 for not at all."""
        change = realtime_offset_ns() - self.offset_ns
        return change if abs(change) > TOLERANCE_NS else 0
