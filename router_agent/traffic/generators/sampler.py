"""Totals looked at while a stream runs, and the series they make: for generators that count by port."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from router_agent.model import I64
from router_agent.traffic.generators.generator import GeneratorError, Series, Snapshot


@dataclass(frozen=True)
class Totals:
    """Packets sent, and packets received at each port, since the stream began."""

    sent: int
    received_by_port: tuple[int, ...]

    @property
    def received(self) -> int:
        """Packets received at all ports together."""
        return sum(self.received_by_port)


class Sampler:
    """A thread that reads totals every interval, from the first packet of a stream on.

    Args:
        read: reads them, from a thread of its own.
        interval_s: time between two readings; what a reading takes longer is left out.
        start_ns: CLOCK_MONOTONIC of the first packet.
        most_s: no more readings after so long, so that a stream nobody ends takes no more memory.
    """

    def __init__(
        self, read: Callable[[], Totals], interval_s: float, start_ns: int, *, most_s: float
    ) -> None:
        self._read = read
        self._interval_s = interval_s
        self._start_ns = start_ns
        self._most = int(most_s / interval_s) + 1
        self._ended = threading.Event()
        self._failure: GeneratorError | None = None
        self._times: list[int] = [0]
        self._totals: list[Totals] = [Totals(0, ())]
        self._thread = threading.Thread(target=self._run, name="traffic-sampler", daemon=True)
        self._thread.start()

    def snapshot(self) -> Snapshot:
        """Return what the last reading said.

        Raises:
            GeneratorError: a reading failed.
        """
        if self._failure is not None:
            raise self._failure
        elapsed = max(0.0, (time.monotonic_ns() - self._start_ns) / 1e9)
        last = self._totals[-1]
        return Snapshot(elapsed, last.sent, last.received)

    def pause(self, seconds: float) -> None:
        """Wait so long, or until a reading fails.

        Raises:
            GeneratorError: a reading failed.
        """
        self._thread.join(seconds)
        if self._failure is not None:
            raise self._failure
        if not self._thread.is_alive():
            self._ended.wait(seconds)

    def stop(self) -> None:
        """Read no more.

        Raises:
            GeneratorError: a reading failed.
        """
        self.abandon()
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Read no more; a failure of the last reading no longer matters. Idempotent."""
        self._ended.set()
        self._thread.join()

    def series(self, final: Totals, duration_s: float, intended: Callable[[int], int]) -> Series:
        """Return the series of a stream that has ended.

        Readings are not exactly at the borders of intervals, so packets are dealt to intervals as if the
        rate had been steady between two readings; all of them together are exact.

        Args:
            final: totals after the last packet has come back or been given up.
            duration_s: the series is at least so long.
            intended: packets that should have been sent so many nanoseconds after the first.
        """
        times = np.array([*self._times, time.monotonic_ns() - self._start_ns], np.int64)
        sent = np.array([t.sent for t in (*self._totals, final)], np.int64)
        received = np.array([t.received for t in (*self._totals, final)], np.int64)
        step = round(self._interval_s * 1e9)
        last = int(np.searchsorted(np.minimum(sent - final.sent, received - final.received), 0))
        n = -(-max(int(times[last]), round(duration_s * 1e9)) // step)
        edges = np.arange(n + 1, dtype=np.int64) * step
        went, came = _dealt(edges, times, sent), _dealt(edges, times, received)
        planned = np.array([intended(int(edge)) for edge in edges[1:]], np.int64)
        planned = np.diff(planned, prepend=0)
        return Series(self._interval_s, planned, went, came, went - came)

    def _run(self) -> None:
        due_ns = self._start_ns
        step = round(self._interval_s * 1e9)
        while len(self._times) < self._most:
            now = time.monotonic_ns()
            due_ns += step * max(1, -(-(now - due_ns) // step))
            if self._ended.wait((due_ns - now) / 1e9):
                return
            try:
                totals = self._read()
            except GeneratorError as error:
                self._failure = error
                return
            self._times.append(time.monotonic_ns() - self._start_ns)
            self._totals.append(totals)


def _dealt(edges: I64, times: I64, totals: I64) -> I64:
    """Return by how much totals grew between edges; the last interval has what came later."""
    at = np.rint(np.interp(edges, times, totals)).astype(np.int64)
    if len(at) > 1:
        at[-1] = totals[-1]
    return np.diff(at)
