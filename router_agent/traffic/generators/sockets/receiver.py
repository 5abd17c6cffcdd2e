"""The receiving worker: captures the stream at one or more ports and marks every sequence number seen."""

from __future__ import annotations

import os
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from router_agent.model import I64
from router_agent.traffic.generators.sockets.board import Board, Layout
from router_agent.traffic.generators.sockets.capture import Capture, Captured

FRAMES, REORDERED, STRAY = range(3)
"""Counters of a receiver's board: frames of the stream, those overtaken, those of an earlier stream."""

_LOOK_S = 0.001
"""How often rings are looked at; one of 65,536 slots holds what 65 Mpps bring in that time."""


@dataclass(frozen=True)
class ReceiverSetup:
    """What a receiver needs to know once: interfaces to capture from, the stream's marks, where to run.

    `group` is the fanout group of the receivers that share these ports; None when there is no other.
    """

    interfaces: tuple[str, ...]
    tag: int
    signature: int
    ring_frames: int
    cpu: int | None
    group: int | None = None


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
    """Capture rings of some ports."""

    def __init__(self, setup: ReceiverSetup) -> None:
        if setup.cpu is not None:
            os.sched_setaffinity(0, {setup.cpu})
        self._captures: list[Capture] = []
        try:
            for interface in setup.interfaces:
                capture = Capture(
                    interface,
                    tag=setup.tag,
                    signature=setup.signature,
                    slots=setup.ring_frames,
                    group=setup.group,
                )
                self._captures.append(capture)
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
        while not parent.poll(_LOOK_S):
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
        return total


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
        self._starts = np.array(job.lanes[1:], np.int64)
        self._newest: list[int] = [-1] * len(job.lanes)
        self._unsampled = (1 << job.shift) - 1

    def add(self, frames: Captured) -> None:
        """Count frames in the order of their arrival."""
        packets = frames.sequence
        packets -= self._job.first
        rows: I64 | slice = slice(None)
        if packets.min() < 0 or packets.max() >= len(self._marks):
            rows = np.flatnonzero((packets >= 0) & (packets < len(self._marks)))
            self._board.counters[STRAY] += len(packets) - len(rows)
            packets = packets[rows]
            if not len(packets):
                return
        self._marks[packets] = 1
        self._in_time(frames, rows)
        self._in_order(packets)
        self._sample(frames, rows, packets)
        self._board.counters[FRAMES] += len(packets)

    def _in_time(self, frames: Captured, rows: I64 | slice) -> None:
        """Count by interval; frames lie in the ring in the order of their arrival."""
        columns = self._board.intervals
        ends = np.array([0, -1]) if isinstance(rows, slice) else rows[[0, -1]]
        first, last = self._interval(frames.arrived_ns(ends)).tolist()
        if first == last:
            columns[first] += len(frames) if isinstance(rows, slice) else len(rows)
            return
        counts = np.bincount(self._interval(frames.arrived_ns(rows)))
        columns[: len(counts)] += counts

    def _interval(self, when: I64) -> I64:
        job = self._job
        return np.clip((when - job.start_ns) // job.interval_ns, 0, job.layout.intervals - 1)

    def _in_order(self, packets: I64) -> None:
        """Count packets that arrive after one sent later by the same sender."""
        if not len(self._starts):
            self._one_lane(0, packets)
            return
        lanes = np.searchsorted(self._starts, packets, side="right")
        for lane in np.flatnonzero(np.bincount(lanes)).tolist():
            self._one_lane(lane, packets[lanes == lane])

    def _one_lane(self, lane: int, packets: I64) -> None:
        newest = self._newest[lane]
        if packets[0] > newest and (packets[1:] > packets[:-1]).all():
            self._newest[lane] = int(packets[-1])
            return
        highest = np.maximum.accumulate(np.concatenate(([newest], packets)))
        self._board.counters[REORDERED] += int((packets < highest[:-1]).sum())
        self._newest[lane] = int(highest[-1])

    def _sample(self, frames: Captured, rows: I64 | slice, packets: I64) -> None:
        """Note the time of the first arrival of sampled packets."""
        chosen = np.flatnonzero((packets & self._unsampled) == 0)
        if not len(chosen):
            return
        times, at = self._board.times, packets[chosen] >> self._job.shift
        fresh = times[at] == 0
        if not fresh.all():
            chosen, at = chosen[fresh], at[fresh]
        times[at] = frames.arrived_ns(chosen if isinstance(rows, slice) else rows[chosen])
