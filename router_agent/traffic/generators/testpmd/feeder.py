"""A feeder process: ``python -m router_agent.traffic.generators.testpmd.feeder DESCRIPTOR``.

It writes frames into a FIFO at the pace of a schedule, in pcap's format; testpmd reads the other end as a
capture that never seems to end. A FIFO has room for two milliseconds of frames, so when testpmd or its port
cannot follow, the feeder waits, and what it could not write in time counts as unsent.

It is started by `testpmd.feed.Feeder` and talks to it over the socket of that descriptor: a set-up first,
then one job after the other. It ends when the other side closes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from router_agent.traffic.generators.coordinated import Ready, coordinated
from router_agent.traffic.generators.frames import Frames
from router_agent.traffic.generators.pcap import Capture, of_stream
from router_agent.traffic.generators.sockets.pacing import Pacer

_LEAST_PIPE, _MOST_PIPE = 1 << 16, 1 << 20
"""Bytes; what a FIFO has by default, and the most an unprivileged process may have (pipe(7))."""
_PIPE_S = 0.002
_MOST_WRITE = 1 << 18
_NICE = -15
_LOOK_NS = 1_000_000
"""A stop is heard at most so late."""


@dataclass(frozen=True, eq=False)
class FeederSetup:
    """What a feeder needs to know once: its FIFO, its stream, its CPU."""

    fifo: Path
    frames: Frames
    cpu: int | None


@dataclass(frozen=True)
class Open:
    """Open the FIFO for a stream of this rate; somebody must be reading from it."""

    rate_pps: float


@dataclass(frozen=True)
class FeedJob:
    """One stream: times are CLOCK_MONOTONIC nanoseconds; packets go out in multiples of `burst`."""

    rate_pps: float
    packets: int
    burst: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Stop:
    """End the stream now; without one under way it means nothing."""


@dataclass(frozen=True)
class Fed:
    """The job ended: packets due, packets written, times the FIFO was full, when the last was written."""

    intended: int
    written: int
    refused: int
    last_ns: int


class Feed:
    """The writing end of a FIFO.

    Args:
        fifo: which.
        capture: one round of what to write.
        rate_pps: gives the FIFO its size.
    """

    def __init__(self, fifo: Path, capture: Capture, rate_pps: float) -> None:
        self._capture = capture
        self._octets = capture.octets.data
        self._offsets = capture.offsets
        self._descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        mean = len(self._octets) / len(self._capture)
        wanted = max(_LEAST_PIPE, min(_MOST_PIPE, int(rate_pps * _PIPE_S * mean)))
        fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, wanted)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)

    def close(self) -> None:
        """Let the reader see the end."""
        os.close(self._descriptor)

    def run(self, job: FeedJob, parent: Connection) -> Fed:
        """Write one stream.

        Raises:
            EOFError: the coordinator is gone.
            BrokenPipeError: testpmd is gone.
        """
        pacer = Pacer(job.rate_pps, job.packets, job.start_ns)
        written = refused = 0
        stopped_ns: int | None = None
        look_ns = 0
        now = _until(job.start_ns)
        while written < job.packets and now < job.end_ns:
            due = min(pacer.due(now, written), job.packets - written)
            whole = due if due == job.packets - written else due // job.burst * job.burst
            if whole:
                refused += self._write(written, whole)
                written += whole
            if now > look_ns:
                look_ns = now + _LOOK_NS
                if parent.poll(0):
                    parent.recv()
                    stopped_ns = now
                    break
            now = _until(min(pacer.next_ns(now, written), job.end_ns))
        last_ns = time.monotonic_ns()
        intended = max(written, pacer.scheduled((job.end_ns if stopped_ns is None else stopped_ns) - 1))
        return Fed(intended, written, refused, last_ns)

    def _write(self, packet: int, count: int) -> int:
        """Write packets `packet` on; return how often there was no room. What is begun is finished."""
        refused = 0
        n = len(self._capture)
        while count:
            first = packet % n
            run = min(count, n - first)
            at, end = int(self._offsets[first]), int(self._offsets[first + run])
            while at < end:
                try:
                    at += os.write(self._descriptor, self._octets[at : min(end, at + _MOST_WRITE)])
                except BlockingIOError:
                    refused += 1
                    self._poll.poll(100)
            packet, count = packet + run, count - run
        return refused


def _until(due_ns: int) -> int:
    """Sleep until a time of CLOCK_MONOTONIC and return the time then."""
    now = time.monotonic_ns()
    if due_ns > now:
        time.sleep((due_ns - now) / 1e9)
        now = time.monotonic_ns()
    return now


def serve(parent: Connection) -> None:
    """Do what the coordinator says until it closes.

    Raises:
        EOFError: the coordinator closed.
    """
    setup: FeederSetup = parent.recv()
    # threads that poll never sleep, and with few CPUs a feeder would get its turn too late to keep a rate
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    if setup.cpu is not None:
        os.sched_setaffinity(0, {setup.cpu})
    capture = of_stream(setup.frames)
    parent.send(Ready())
    while True:
        wanted: Open | Stop = parent.recv()
        if isinstance(wanted, Stop):
            continue  # it came after the stream's own end
        feed = Feed(setup.fifo, capture, wanted.rate_pps)
        try:
            parent.send(Ready())
            fed = feed.run(parent.recv(), parent)
        finally:
            feed.close()
        parent.send(fed)


if __name__ == "__main__":
    # messages must be of the module's classes, which those of __main__ are not
    from router_agent.traffic.generators.testpmd import feeder

    sys.exit(coordinated(int(sys.argv[1]), feeder.serve))
