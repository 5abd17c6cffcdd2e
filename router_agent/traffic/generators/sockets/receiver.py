"""The receiving worker: takes the stream from one or more ports and marks every sequence number seen."""

from __future__ import annotations

import os
import select
from bisect import bisect_right
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from router_agent.model import I64
from router_agent.traffic.generators.sockets.board import Board, Layout
from router_agent.traffic.generators.sockets.capture import Capture, Captured
from router_agent.traffic.generators.sockets.datagrams import Datagrams

FRAMES, REORDERED, STRAY = range(3)
"""Counters of a receiver's board: frames of the stream, those overtaken, those of an earlier stream."""

_LEAST_LOOK_MS, _MOST_LOOK_MS = 1.0, 16.0
_FASTEST_PER_MS = 4_000
"""Rings are looked at before such a rate fills them: each look costs CPU time that the device may need."""


@dataclass(frozen=True)
class ReceiverSetup:
    """What a receiver needs to know once: interfaces to capture from, the stream's marks, where to run.

    `group` is the fanout group of the receivers that share these ports; None when there is no other. With
    `udp_port` the stream is received by UDP sockets, as the host does that it is addressed to.
    """

    interfaces: tuple[str, ...]
    tag: int
    signature: int
    ring_frames: int
    cpu: int | None
    group: int | None = None
    udp_port: int | None = None


@dataclass(frozen=True)
class ReceiveJob:
    """One stream: `start_ns` is CLOCK_REALTIME, `first` its first sequence number.

    `lanes` are the senders' first packets, counted from `first`, ascending; `shift` says which packets are
    sampled (see `sampling`).
    """

    first: int
    lanes: tuple[int, ...]
    shift: int
    start_ns: int
    interval_ns: int
    layout: Layout


class Receiver:
    """What arrives at some ports."""

    def __init__(self, setup: ReceiverSetup) -> None:
        if setup.cpu is not None:
            os.sched_setaffinity(0, {setup.cpu})
        self._look_ms = min(max(setup.ring_frames / _FASTEST_PER_MS, _LEAST_LOOK_MS), _MOST_LOOK_MS)
        self._captures: list[Capture | Datagrams] = []
        try:
            for interface in setup.interfaces:
                self._captures.append(_opened(interface, setup))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every ring."""
        for capture in self._captures:
            capture.close()

    def drain(self) -> None:
        """Throw away what is in the rings."""
        for capture in self._captures:
            while n := len(capture.waiting()):
                capture.release(n)

    def run(self, job: ReceiveJob, board: Board, parent: Connection) -> list[int]:
        """Capture until the coordinator says a word; return the frames each ring had to drop.

        Raises:
            EOFError: the coordinator is gone.
        """
        before = [capture.drops() for capture in self._captures]
        tallies = [Tally(job, board, port) for port in range(len(self._captures))]
        # Connection.poll makes a selector each time, which costs more than a look at idle rings
        line = select.poll()
        line.register(parent.fileno(), select.POLLIN)
        while not line.poll(self._look_ms):
            self._sweep(tallies)
        parent.recv()
        while self._sweep(tallies):
            pass
        return [capture.drops() - old for capture, old in zip(self._captures, before, strict=True)]

    def _sweep(self, tallies: list[Tally]) -> int:
        total = 0
        for capture, tally in zip(self._captures, tallies, strict=True):
            while n := len(frames := capture.waiting()):
                tally.add(frames)
                capture.release(n)
                total += n
                if not frames.more:
                    # What came meanwhile waits for the next look: a few frames cost as much as thousands.
                    break
        return total


def _opened(interface: str, setup: ReceiverSetup) -> Capture | Datagrams:
    tag, signature, slots = setup.tag, setup.signature, setup.ring_frames
    if setup.udp_port is not None:
        return Datagrams(interface, udp_port=setup.udp_port, tag=tag, signature=signature, slots=slots)
    return Capture(interface, tag=tag, signature=signature, slots=slots, group=setup.group)


class Tally:
    """Enters the frames of one port on the board.

    Args:
        job: what is being sent.
        board: where to enter it.
        port: row of the board's marks.
    """

    def __init__(self, job: ReceiveJob, board: Board, port: int) -> None:
        self._job = job
        self._board = board
        self._marks = board.seen[port]
        self._newest = [-1] * len(job.lanes)
        self._between = 1 << job.shift

    def add(self, frames: Captured) -> None:
        """Count frames in the order of their arrival.

        Most batches are an unbroken run of one sender's packets, which is entered as a whole.
        """
        packets = frames.sequence
        packets -= self._job.first
        low, high = int(packets[0]), int(packets[-1])
        rising = bool((packets[1:] > packets[:-1]).all())
        if not rising:
            low, high = int(packets.min()), int(packets.max())
        if low < 0 or high >= len(self._marks):
            self._add_without_strays(frames)
            return
        lane = self._lane_of(low)
        if rising and lane == self._lane_of(high) and low > self._newest[lane]:
            self._newest[lane] = high
        else:
            self._in_order(packets)
        if rising and high - low == len(packets) - 1:
            self._marks[low : high + 1] = 1
            sampled = np.arange(-low % self._between, len(packets), self._between)
        else:
            self._marks[packets] = 1
            sampled = np.flatnonzero((packets & (self._between - 1)) == 0)
        self._in_time(frames)
        self._sample(frames, sampled)
        self._board.counters[FRAMES] += len(packets)

    def _add_without_strays(self, frames: Captured) -> None:
        packets = frames.sequence
        ours = np.flatnonzero((packets >= 0) & (packets < len(self._marks)))
        self._board.counters[STRAY] += len(packets) - len(ours)
        if len(ours):
            kept = frames.only(ours)
            kept.sequence[:] += self._job.first
            self.add(kept)

    def _lane_of(self, packet: int) -> int:
        return bisect_right(self._job.lanes, packet) - 1

    def _in_time(self, frames: Captured) -> None:
        """Count by interval; frames lie in the ring in the order of their arrival."""
        job, columns = self._job, self._board.intervals
        first, last = (
            min(max((when - job.start_ns) // job.interval_ns, 0), len(columns) - 1)
            for when in frames.arrived_first_last_ns()
        )
        if first == last:
            columns[first] += len(frames)
            return
        since = frames.arrived_ns(slice(None)) - job.start_ns
        counts = np.bincount(np.clip(since // job.interval_ns, 0, len(columns) - 1))
        columns[: len(counts)] += counts

    def _in_order(self, packets: I64) -> None:
        """Count packets that arrive after one sent later by the same sender."""
        lanes = np.searchsorted(self._job.lanes, packets, side="right") - 1
        for lane in np.flatnonzero(np.bincount(lanes)).tolist():
            own = packets[lanes == lane]
            highest = np.maximum.accumulate(np.concatenate(([self._newest[lane]], own)))
            self._board.counters[REORDERED] += int((own < highest[:-1]).sum())
            self._newest[lane] = int(highest[-1])

    def _sample(self, frames: Captured, rows: I64) -> None:
        """Note the time of the first arrival of sampled packets."""
        if not len(rows):
            return
        times, at = self._board.times, frames.sequence[rows] >> self._job.shift
        fresh = times[at] == 0
        times[at[fresh]] = frames.arrived_ns(rows[fresh])
