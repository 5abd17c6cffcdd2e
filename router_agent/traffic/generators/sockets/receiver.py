"""The receiving worker: captures the stream at one or more ports and marks every sequence number seen."""

from __future__ import annotations

import os
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from router_agent.traffic.generators.sockets.board import Board
from router_agent.traffic.generators.sockets.capture import Capture, Captured

FRAMES, REORDERED, STRAY = range(3)
"""Counters of a receiver's board: frames of the stream, those overtaken, those of an earlier stream."""

_LOOK_S = 0.001
"""How often rings are looked at; one of 65,536 slots holds what 65 Mpps bring in that time."""


@dataclass(frozen=True)
class ReceiverSetup:
    """What a receiver needs to know once: the interfaces to capture from, and the stream's marks."""

    interfaces: tuple[str, ...]
    tag: int
    signature: int
    ring_frames: int
    cpu: int | None


@dataclass(frozen=True)
class ReceiveJob:
    """One stream: `start_ns` is CLOCK_REALTIME, `first` its first sequence number."""

    first: int
    packets: int
    start_ns: int
    interval_ns: int
    intervals: int


class Receiver:
    """Capture rings of some ports."""

    def __init__(self, setup: ReceiverSetup) -> None:
        if setup.cpu is not None:
            os.sched_setaffinity(0, {setup.cpu})
        self._captures: list[Capture] = []
        try:
            for interface in setup.interfaces:
                capture = Capture(
                    interface, tag=setup.tag, signature=setup.signature, slots=setup.ring_frames
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
            while len(capture.take()):
                pass

    def run(self, job: ReceiveJob, board: Board, parent: Connection) -> list[int]:
        """Capture until the coordinator says a word; return the frames each ring had to drop.

        Raises:
            EOFError: the coordinator is gone.
        """
        before = [capture.drops() for capture in self._captures]
        newest = np.full(len(self._captures), -1, np.int64)
        while not parent.poll(_LOOK_S):
            self._sweep(job, board, newest)
        parent.recv()
        while self._sweep(job, board, newest):
            pass
        return [capture.drops() - old for capture, old in zip(self._captures, before, strict=True)]

    def _sweep(
        self, job: ReceiveJob, board: Board, newest: np.ndarray[tuple[int], np.dtype[np.int64]]
    ) -> int:
        total = 0
        for port, capture in enumerate(self._captures):
            while n := len(frames := capture.take()):
                total += n
                newest[port] = mark(frames, job, board, port, int(newest[port]))
        return total


def mark(frames: Captured, job: ReceiveJob, board: Board, port: int, newest: int) -> int:
    """Enter frames of one port on the board; return the highest sequence number so far."""
    sequence = frames.sequence.astype(np.int64) - job.first
    ours = (sequence >= 0) & (sequence < job.packets)
    when = frames.arrived_ns
    if not ours.all():
        board.counters[STRAY] += int((~ours).sum())
        sequence, when = sequence[ours], when[ours]
        if not len(sequence):
            return newest
    board.seen[port, sequence] = 1
    intervals = np.clip((when - job.start_ns) // job.interval_ns, 0, job.intervals - 1)
    counts = np.bincount(intervals)
    board.intervals[: len(counts)] += counts
    highest = np.maximum.accumulate(np.concatenate(([newest], sequence)))
    board.counters[REORDERED] += int((sequence < highest[:-1]).sum())
    board.counters[FRAMES] += len(sequence)
    return int(highest[-1])
