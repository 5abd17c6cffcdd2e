"""What a traffic generator does, whatever it is made of.

A generator sends a stream at a rate and says exactly what became of it. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from router_agent.model import I64
from router_agent.traffic.counters.source import CounterSource
from router_agent.traffic.generators.latency import Latency


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
class ByDestination:
    """Packets `sent` to each of d destinations, (d,), and `arrived` for each at each port, (ports, d)."""

    sent: I64
    arrived: I64


@dataclass(frozen=True, eq=False)
class Losses:
    """Every lost packet: the destination `rows` it was sent to and the interval of the series it was sent in.

    Both columns have a row for each lost packet, in no particular order.
    """

    rows: I64
    intervals: I64


@dataclass(frozen=True, eq=False)
class TrialResult:
    """What became of one stream.

    What a generator cannot know is None: one that only has the counters of its ports follows no single
    packet, so it knows nothing of duplicates, order and destinations, and its `series.lost` is the
    difference of what was sent and received in each interval.

    Attributes:
        rate_pps: intended rate, of all sending ports together.
        duration_s: intended duration (of a stream stopped early: until it was stopped).
        offered_s: from the first to the end of the last packet, as it was.
        intended: packets that should have been sent.
        sent: packets that the tester's port took.
        received: distinct packets that came back, on any port.
        received_by_port: packets received at each port, in the order of `Endpoints.ports`; copies on other
            ports included.
        series: per interval.
        duplicates: copies beyond the first.
        reordered: packets that arrived on a port after one sent later (RFC 4737).
        by_destination: the same for each destination.
        losses: when and where to each lost packet was sent; None also when there were too many to list.
        latency: from sending to receipt of each packet, or of a sample of them.
        tester_drops: packets that reached the tester but which it had no room for, by port name.
        refused: times the sending side refused a packet; it was offered again.
        udp_hosts: names of ports whose packets were received by UDP sockets.
        setup: how the generator was set up, in words: where its processes ran.
    """

    rate_pps: float
    duration_s: float
    offered_s: float
    intended: int
    sent: int
    received: int
    received_by_port: tuple[int, ...]
    series: Series
    duplicates: int | None = None
    reordered: int | None = None
    by_destination: ByDestination | None = None
    losses: Losses | None = None
    latency: Latency | None = None
    tester_drops: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    udp_hosts: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()

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
    def sent_to(self) -> I64:
        """Packets sent to each destination, (d,).

        Raises:
            GeneratorError: the generator does not follow single packets.
        """
        return self._followed.sent

    @property
    def arrived(self) -> I64:
        """Distinct packets for each destination at each port, (ports, d).

        Raises:
            GeneratorError: the generator does not follow single packets.
        """
        return self._followed.arrived

    @property
    def _followed(self) -> ByDestination:
        if self.by_destination is None:
            raise GeneratorError(
                "this generator counts packets by port only, expected one that follows each packet: sockets"
            )
        return self.by_destination


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
    """Sends one configured stream, as often as asked, one after the other.

    A context manager: processes, ports and streams are set up on entry and taken away on exit, whatever
    happened in between. What it is to send (destinations, frame sizes, sources, intervals, seed) is given
    to its constructor as a `Scenario`, whose rate and duration it does not use, with the `Endpoints`.

    Attributes:
        kind: its name in scenarios and reports: "sockets", "vpp-pg", "testpmd", "trex".
        follows_packets: whether it knows the fate of each packet, see `TrialResult`.
        process_ids: of the processes that send and receive, so that their CPU time can be told from the
            device's.
        counters: of the tester's ports and of the generator itself, for the ledger.
    """

    @property
    def kind(self) -> str: ...  # noqa: D102

    @property
    def follows_packets(self) -> bool: ...  # noqa: D102

    @property
    def process_ids(self) -> Sequence[int]: ...  # noqa: D102

    @property
    def counters(self) -> Sequence[CounterSource]: ...  # noqa: D102

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def start(self, rate_pps: float, duration_s: float, *, packets: int | None = None) -> Running:
        """Begin to send; `packets` ends it sooner than `duration_s` would.

        Ports send at equal rates. Of a number of packets each port sends a part, and at a rate, that is to
        the whole as its destinations are to all of them: as many packets as destinations are one to each.

        Raises:
            GeneratorError: it cannot start.
        """
