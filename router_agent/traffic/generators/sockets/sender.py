"""The sending worker: whole frames through a packet socket, in paced bursts of sendmmsg.

Measured on one core, forwarding namespace included: a packet socket that passes by the queueing discipline
(PACKET_QDISC_BYPASS) sends 400,000 frames/s, a UDP socket with a destination per datagram 275,000.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from router_agent.mmsg import SendRing
from router_agent.traffic.generators.frames import Frames
from router_agent.traffic.generators.sockets.board import Board, Layout
from router_agent.traffic.generators.sockets.pacing import Pacer

SENT, STOP, REFUSED, INTENDED, LAST_NS = range(5)
"""Counters of the sender's board. STOP is written by the coordinator."""

_SOL_PACKET = 263
_PACKET_QDISC_BYPASS = 20
SLOTS = 1024
"""Packets in a burst at most."""

_PARENT_CHECK_NS = 50_000_000


@dataclass(frozen=True, eq=False)
class SenderSetup:
    """What a sender needs to know once."""

    interface: str
    frames: Frames
    cpu: int | None


@dataclass(frozen=True)
class SendJob:
    """A sender's part of one stream: times are CLOCK_MONOTONIC nanoseconds.

    `first` is its first sequence number, `shift` says which packets are sampled (see `sampling`).
    """

    rate_pps: float
    packets: int
    first: int
    shift: int
    start_ns: int
    end_ns: int
    interval_ns: int
    layout: Layout


class Sender:
    """A packet socket on one port and the ring it sends from."""

    def __init__(self, setup: SenderSetup) -> None:
        if setup.cpu is not None:
            os.sched_setaffinity(0, {setup.cpu})
        self._frames = setup.frames
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        self._socket.bind((setup.interface, 0))
        self._ring = SendRing(self._socket, SLOTS, setup.frames.largest)

    def run(self, job: SendJob, board: Board, parent: Connection) -> None:
        """Send one stream; the board holds the outcome.

        Raises:
            EOFError: the coordinator is gone.
            OSError: the port refused for another reason than a full queue.
        """
        pacer = Pacer(job.rate_pps, job.packets, job.start_ns)
        counters = board.counters
        sent = 0
        check_ns = 0
        now = _sleep_until(job.start_ns)
        while sent < job.packets and now < job.end_ns and not counters[STOP]:
            count = min(pacer.due(now, sent), SLOTS)
            if count:
                self._prepare(job, sent, count)
                taken, refused = self._send(count, sent, job.shift, board)
                sent += taken
                counters[SENT] = sent
                counters[REFUSED] += refused
                interval = (now - job.start_ns) // job.interval_ns
                board.intervals[min(interval, job.layout.intervals - 1)] += taken
            if now > check_ns:
                check_ns = now + _PARENT_CHECK_NS
                if parent.poll(0):
                    parent.recv()
            due_ns = min(pacer.next_ns(now, sent), job.end_ns, now + _PARENT_CHECK_NS)
            now = _spin_until(due_ns) if pacer.behind(now, sent) else _sleep_until(due_ns)
        counters[LAST_NS] = time.monotonic_ns()
        stopped = min(now, job.end_ns) if counters[STOP] else job.end_ns
        counters[INTENDED] = max(sent, pacer.scheduled(stopped))

    def _prepare(self, job: SendJob, sent: int, count: int) -> None:
        self._frames.fill(self._ring.data[:count], sent, job.first + sent)
        if self._frames.mixed:
            self._ring.lengths[:count] = self._frames.lengths_of(sent, count)

    def _send(self, count: int, sent: int, shift: int, board: Board) -> tuple[int, int]:
        """Send the first slots; return how many went and whether the port refused the next one."""
        done, between = 0, 1 << shift
        while done < count:
            packet = sent + done
            past = packet & (between - 1)
            if not past:
                board.times[packet >> shift] = time.time_ns()
            try:
                taken = self._ring.send(done, min(count - done, between - past))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                taken = 0
            if not taken:
                return done, 1
            done += taken
        return done, 0


def _spin_until(due_ns: int) -> int:
    """Wait for a time of CLOCK_MONOTONIC without giving the CPU away and return the time then.

    On a busy machine a sleeper gets its CPU back milliseconds late: whoever is behind cannot afford that.
    """
    while (now := time.monotonic_ns()) < due_ns:
        pass
    return now


def _sleep_until(due_ns: int) -> int:
    """Sleep until a time of CLOCK_MONOTONIC and return the time then."""
    now = time.monotonic_ns()
    if due_ns > now:
        time.sleep((due_ns - now) / 1e9)
        now = time.monotonic_ns()
    return now
