"""Totals of a trial over time, read by a thread, and the series per interval that they make."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_agent.model import I64
from router_agent.traffic.generators.generator import Series

F64: TypeAlias = NDArray[np.float64]

_LAST_PART = 0.001
"""Seconds between looks once the last packet is due: how exactly the end of a stream is known."""
_BEFORE_END = 0.01


@dataclass(frozen=True)
class Totals:
    """Packets since the trial began: sent, received, and not taken by the sending side."""

    sent: int
    received: int
    refused: int


class Recording(threading.Thread):
    """Reads totals every `interval_s` until all packets are sent, the time is over, or it is told to end.

    Args:
        read: returns the totals now; what it raises ends the recording and is raised again by `wait`.
        planned: packets that will be sent.
        duration_s: when the last one is due.
        limit_s: when to stop looking for it.
        interval_s: seconds between two readings.
    """

    def __init__(
        self,
        read: Callable[[], Totals],
        *,
        planned: int,
        duration_s: float,
        limit_s: float,
        interval_s: float,
    ) -> None:
        super().__init__(name="traffic series", daemon=True)
        self._read = read
        self._planned = planned
        self._duration_s = duration_s
        self._limit_s = limit_s
        self._interval_s = interval_s
        self._end = threading.Event()
        self._over = threading.Event()
        self._error: Exception | None = None
        self._times: list[float] = []
        self._totals: list[Totals] = []

    def begin(self, started_s: float) -> None:
        """Begin to read; `started_s` is when the first packet was sent, on the monotonic clock."""
        self._started_s = started_s
        self.start()

    def run(self) -> None:
        """Read; see `threading.Thread`."""
        try:
            while not self._done(self.note()):
                self._end.wait(self._pause())
        except Exception as error:  # noqa: BLE001 - it is raised by `wait`, in the thread that asked for it
            self._error = error
        finally:
            self._over.set()

    def note(self) -> Totals:
        """Read and keep the totals now, and return them."""
        totals = self._read()
        self._times.append(time.monotonic() - self._started_s)
        self._totals.append(totals)
        return totals

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end, at most so long; return whether it has come.

        Raises:
            Exception: what reading raised.
        """
        over = self._over.wait(timeout_s)
        if self._error is not None:
            raise self._error
        return over

    def end(self) -> None:
        """End it now; idempotent."""
        self._end.set()
        if self.is_alive():
            self.join()

    @property
    def latest(self) -> Totals:
        """The last totals that were read."""
        return self._totals[-1] if self._totals else Totals(0, 0, 0)

    @property
    def last_sent_s(self) -> float:
        """When the last packet that was sent was seen to have been sent; 0 when there was none."""
        for at, totals in zip(self._times, self._totals, strict=True):
            if totals.sent == self._totals[-1].sent:
                return at if totals.sent else 0.0
        return 0.0

    def series(self, rate_pps: float, intended: int) -> Series:
        """Return packets per interval; totals at its edges lie on straight lines between readings."""
        step = self._interval_s
        columns = [[t.sent for t in self._totals], [t.received for t in self._totals]]
        sent, received = (np.array(column, np.float64) for column in columns)
        times = np.array(self._times)
        last = max(_when_reached(times, sent), _when_reached(times, received), intended / rate_pps)
        edges = np.arange(1, max(1, int(np.ceil(last / step - 1e-9))) + 1) * step
        edges[-1] = max(edges[-1], times[-1])
        planned = np.minimum(np.floor(edges * rate_pps), intended)
        planned[-1] = intended
        at = np.concatenate([[0.0], times])
        lost = np.concatenate([[0.0], _lost_for_good(sent, received)])
        sent, received = np.concatenate([[0.0], sent]), np.concatenate([[0.0], received])
        return Series(
            step,
            _steps(planned),
            _steps(np.interp(edges, at, sent)),
            _steps(np.interp(edges, at, received)),
            _steps(np.interp(edges, at, lost)),
        )

    def _done(self, totals: Totals) -> bool:
        return self._end.is_set() or totals.sent >= self._planned or self._times[-1] >= self._limit_s

    def _pause(self) -> float:
        now = self._times[-1]
        if now >= self._duration_s - _BEFORE_END:
            return _LAST_PART
        next_edge = (int(now / self._interval_s) + 1) * self._interval_s
        return max(_LAST_PART, min(next_edge, self._duration_s - _BEFORE_END) - now)


def _lost_for_good(sent: F64, received: F64) -> F64:
    """Return how many of the packets sent so far never arrived.

    What is missing at one time and less later was under way; so it is the least that is missing from then on.
    """
    return np.asarray(np.minimum.accumulate((sent - received)[::-1])[::-1], np.float64)


def _when_reached(times: F64, totals: F64) -> float:
    """Return when a total had its last value."""
    return float(times[int(np.searchsorted(totals, totals[-1]))]) if totals[-1] else 0.0


def _steps(totals: F64) -> I64:
    """Return by how much totals grow, from 0, in whole packets whose sum is the last total."""
    whole = np.rint(totals).astype(np.int64)
    return np.diff(whole, prepend=np.int64(0))
