"""The account of a stream, from the boards of its workers: pure arithmetic over columns.

A stream's sequence numbers are dealt to its senders in lanes: each has a run of its own, so a packet's
number tells who sent it, which of its packets it is, and so where it went.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router_agent.model import I64, U8
from router_agent.traffic.generators.generator import ByDestination, Losses, Series
from router_agent.traffic.generators.latency import Latency
from router_agent.traffic.generators.sockets.pacing import Pacer

MOST_LOSSES = 4_000_000
"""Lost packets that are listed one by one: 64 MB."""


@dataclass(frozen=True, eq=False)
class Lane:
    """One sender's part of a stream, and what became of it.

    Attributes:
        rate_pps: its rate.
        first: its first packet, counted from the stream's first sequence number.
        rows: its destinations in sending order, positions in `Destinations`.
        sent: packets it has sent.
        intended: packets it should have sent.
        intervals: packets sent in each interval.
        times: when sampled packets were sent.
    """

    rate_pps: float
    first: int
    rows: I64
    sent: int
    intended: int
    intervals: I64
    times: I64

    def marks(self, column: U8) -> U8:
        """Return the part of a column of the stream's packets that this lane has sent."""
        return column[self.first : self.first + self.sent]


def merged(columns: Sequence[U8]) -> U8:
    """Return the marks of one port from those of the workers that shared it."""
    return columns[0] if len(columns) == 1 else np.asarray(np.bitwise_or.reduce(columns), np.uint8)


def by_destination(lanes: Sequence[Lane], ports: Sequence[U8], destinations: int) -> ByDestination:
    """Return packets sent to each destination, and arrived for each at each port."""
    sent = np.zeros(destinations, np.int64)
    arrived = np.zeros((len(ports), destinations), np.int64)
    for lane in lanes:
        sent[lane.rows] += _per_row(np.ones(lane.sent, np.uint8), len(lane.rows))
        for port, column in enumerate(ports):
            arrived[port, lane.rows] += _per_row(lane.marks(column), len(lane.rows))
    return ByDestination(sent, arrived)


def received(lanes: Sequence[Lane], seen: U8) -> int:
    """Return distinct packets received."""
    return sum(int(np.count_nonzero(lane.marks(seen))) for lane in lanes)


def complete(lanes: Sequence[Lane], seen: U8) -> bool:
    """Return whether every packet sent was received."""
    return all(bool(lane.marks(seen).all()) for lane in lanes)


def series(lanes: Sequence[Lane], seen: U8, arrivals: I64, interval_ns: int) -> Series:
    """Return the stream by interval; `arrivals` are packets received in each."""
    n = len(arrivals)
    planned, sent, lost = (np.zeros(n, np.int64) for _ in range(3))
    for lane in lanes:
        pacer = Pacer(lane.rate_pps, lane.intended, 0)
        edges = [pacer.scheduled(i * interval_ns - 1) for i in range(1, n + 1)]
        planned += _steps(np.array(edges, np.int64))
        sent += lane.intervals
        lost += _lost_by_interval(lane.marks(seen), lane.intervals)
    busy = np.flatnonzero(sent + arrivals + planned)
    used = int(busy[-1]) + 1 if len(busy) else 0
    return Series(interval_ns / 1e9, planned[:used], sent[:used], arrivals[:used].copy(), lost[:used])


def losses(lanes: Sequence[Lane], seen: U8) -> Losses | None:
    """Return every lost packet; None of more than `MOST_LOSSES`."""
    missing = [np.flatnonzero(lane.marks(seen) == 0) for lane in lanes]
    if sum(map(len, missing)) > MOST_LOSSES:
        return None
    rows = [lane.rows[gone % len(lane.rows)] for lane, gone in zip(lanes, missing, strict=True)]
    intervals = [
        np.searchsorted(np.cumsum(lane.intervals), gone, side="right")
        for lane, gone in zip(lanes, missing, strict=True)
    ]
    return Losses(np.concatenate(rows).astype(np.int64), np.concatenate(intervals).astype(np.int64))


def latency(lanes: Sequence[Lane], arrivals: Sequence[I64], shift: int, what: str) -> Latency:
    """Return the latency of sampled packets.

    Args:
        lanes: who sent when.
        arrivals: times of arrival at each worker, 0 for none.
        shift: which packets are sampled, see `sampling`.
        what: what such a latency is, in words.
    """
    found = Latency(what)
    first = arrivals[0]
    for other in arrivals[1:]:
        first = np.where((first == 0) | ((other > 0) & (other < first)), other, first)
    for lane in lanes:
        sampled = -(-lane.sent >> shift)
        at = lane.first >> shift
        came = first[at : at + sampled]
        took = (came - lane.times[: len(came)])[came > 0]
        if len(took):
            found.add(took)
    return found


def _lost_by_interval(seen: U8, sent: I64) -> I64:
    """Return how many of the packets sent in each interval were not seen."""
    missing = np.flatnonzero(seen == 0)
    before = np.searchsorted(missing, np.cumsum(sent))
    return _steps(before.astype(np.int64))


def _steps(totals: I64) -> I64:
    """Return by how much running totals grow, from 0."""
    steps = totals.copy()
    steps[1:] -= totals[:-1]
    return steps


def _per_row(marks: U8, rows: int) -> I64:
    """Return the sum of marks for each destination; a sender's packet k goes to its row k mod rows."""
    whole = len(marks) // rows * rows
    counts = marks[:whole].reshape(-1, rows).sum(axis=0, dtype=np.int64)
    counts[: len(marks) - whole] += marks[whole:]
    return np.asarray(counts, np.int64)
