"""What a traffic generator does, whatever it is made of.

A generator sends a stream at a rate and says exactly what became of it. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from router_agent.model import I64


class GeneratorError(Exception):
    """The generator itself failed (a worker died, an interface is missing): no statement about the device."""


@dataclass(frozen=True, eq=False)
class Series:
    """Packets per interval, from the first packet on. All columns have one length.

    Attributes:
        interval_s: length of an interval in seconds.
        intended: packets that should have been sent in each interval.
        sent: packets sent in each.
        received: packets that arrived in each.
        lost: packets sent in each interval that never arrived.
    """

    interval_s: float
    intended: I64
    sent: I64
    received: I64
    lost: I64

    def per(self, seconds: float) -> Series:
        """Return the same in longer intervals; the last one may be shorter than the others."""
        step = max(1, round(seconds / self.interval_s))
        starts = np.arange(0, len(self.sent), step)

        def summed(column: I64) -> I64:
            return np.add.reduceat(column, starts) if len(column) else column

        return Series(
            step * self.interval_s,
            summed(self.intended),
            summed(self.sent),
            summed(self.received),
            summed(self.lost),
        )


@dataclass(frozen=True, eq=False)
class TrialResult:
    """What became of one stream.

    Attributes:
        rate_pps: intended rate.
        duration_s: intended duration (of a stream stopped early: until it was stopped).
        offered_s: from the first to the end of the last packet, as it was.
        intended: packets that should have been sent.
        sent: packets that the tester's port took.
        received: distinct packets that came back, on any port.
        duplicates: copies beyond the first.
        reordered: packets that arrived on a port after one sent later (RFC 4737).
        series: per interval.
        sent_to: packets sent to each destination, (d,).
        arrived: distinct packets for each destination at each port, (ports, d).
        capture_drops: packets that reached the tester but found its capture ring full, by port name.
        refused: times the sending socket refused a packet; it was offered again.
    """

    rate_pps: float
    duration_s: float
    offered_s: float
    intended: int
    sent: int
    received: int
    duplicates: int
    reordered: int
    series: Series
    sent_to: I64
    arrived: I64
    capture_drops: dict[str, int] = field(default_factory=dict)
    refused: int = 0

    @property
    def lost(self) -> int:
        """Packets sent and not received."""
        return self.sent - self.received

    @property
    def unsent(self) -> int:
        """Packets that should have been sent and were not."""
        return max(0, self.intended - self.sent)

    @property
    def loss_ratio(self) -> float:
        """Lost / sent; 0 when nothing was sent."""
        return self.lost / self.sent if self.sent else 0.0

    @property
    def unsent_ratio(self) -> float:
        """Unsent / intended; 0 when nothing was intended."""
        return self.unsent / self.intended if self.intended else 0.0

    @property
    def received_by_port(self) -> list[int]:
        """Packets received at each port, copies on other ports included."""
        return [int(n) for n in self.arrived.sum(axis=1)]


@dataclass(frozen=True)
class Snapshot:
    """Where a running stream is: seconds since it began, packets sent, packets captured."""

    elapsed_s: float
    sent: int
    received: int


class Running(Protocol):
    """A stream under way."""

    def snapshot(self) -> Snapshot:
        """Return where it is now."""

    def finish(self, progress: Callable[[Snapshot], None] | None = None) -> TrialResult:
        """Wait for its end, calling `progress` some times a second.

        Raises:
            GeneratorError: a worker failed.
        """

    def stop(self) -> TrialResult:
        """End it now and wait for packets under way.

        Raises:
            GeneratorError: a worker failed.
        """


class Generator(Protocol):
    """Sends one configured stream, as often as asked, one after the other."""

    def start(self, rate_pps: float, duration_s: float, *, packets: int | None = None) -> Running:
        """Begin to send; `packets` ends it sooner than `duration_s` would.

        Raises:
            GeneratorError: it cannot start.
        """
