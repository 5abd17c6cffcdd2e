"""Series of generators that count by port: exact sums, and errors that are not lost."""

from __future__ import annotations

import threading
import time

import pytest

from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.sampler import Sampler, Totals


class Counter:
    """Totals that grow by one packet a reading; it tells when it has been read so often."""

    def __init__(self, readings: int) -> None:
        self.count = 0
        self.enough = threading.Event()
        self._readings = readings

    def read(self) -> Totals:
        self.count += 1
        if self.count == self._readings:
            self.enough.set()
        return Totals(2 * self.count, (0, self.count))


def test_sums_are_exact_whatever_was_read_when() -> None:
    counter = Counter(5)
    sampler = Sampler(counter.read, 0.01, time.monotonic_ns(), most_s=30)
    assert counter.enough.wait(10)
    sampler.stop()
    series = sampler.series(Totals(1_000, (3, 600)), 0.02, lambda ns: min(1_000, ns // 10_000))
    assert (series.sent.sum(), series.received.sum(), series.lost.sum()) == (1_000, 603, 397)
    assert series.intended.sum() <= 1_000
    assert (series.sent >= 0).all()
    assert (series.received >= 0).all()
    assert len({len(c) for c in (series.intended, series.sent, series.received, series.lost)}) == 1
    assert len(series.sent) >= 5
    snapshot = sampler.snapshot()
    assert (snapshot.sent, snapshot.received) == (2 * counter.count, counter.count)


def test_a_stream_of_nothing_has_its_length() -> None:
    sampler = Sampler(lambda: Totals(0, (0,)), 0.1, time.monotonic_ns(), most_s=1)
    sampler.stop()
    series = sampler.series(Totals(0, (0,)), 1.0, lambda ns: ns // 1_000_000)
    assert series.intended.tolist() == [100] * 10
    assert not series.sent.any()


def test_readings_end_by_themselves() -> None:
    counter = Counter(3)
    sampler = Sampler(counter.read, 0.001, time.monotonic_ns(), most_s=0.002)
    sampler._thread.join(10)
    assert not sampler._thread.is_alive()
    assert counter.count <= 3
    sampler.stop()


def test_a_reading_that_fails_is_raised_at_every_look() -> None:
    def fail() -> Totals:
        raise GeneratorError("it has ended")

    sampler = Sampler(fail, 0.001, time.monotonic_ns(), most_s=10)
    sampler._thread.join(10)
    for look in (sampler.snapshot, sampler.stop):
        with pytest.raises(GeneratorError, match="it has ended"):
            look()
    sampler.abandon()
