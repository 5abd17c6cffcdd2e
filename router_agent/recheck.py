"""The other half of the audit: is the RIB what its source has, read again beside the events.

A feed follows events, and reads everything again when some were lost. A loss that nobody reported (a filter,
a fault of ours or of the kernel's) would stay for ever. So the source is read once more from time to time,
slowly, into nothing but a comparison; events are followed meanwhile as always.

No false alarm. A prefix that an event was about while the reading ran is no suspect, and a suspect counts
only if the next reading, which begins at once, suspects it too. Then the feed is asked to read everything
again in its own way: that, and no second machinery, repairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from router_agent.feeds.feed import Rereadable
from router_agent.model import U64, Mask, RouteBatch
from router_agent.pipeline import Pipeline
from router_agent.prefix_table import PrefixTable
from router_agent.reconcile import Reconciler

_PAUSE_SECONDS = 0.05
"""After each part of a reading (some 15,000 routes)."""
_MOST_TOUCHED = 500_000
"""Prefixes that may change during one reading; with more of them it says nothing."""


@dataclass(slots=True)
class _Reading:
    """One table, read again."""

    rib_rows: Mask
    odd: list[tuple[U64, np.ndarray]] = field(default_factory=list)
    touched: PrefixTable | None = None
    compared: int = 0


@dataclass(slots=True)
class Unheard:
    """What the RIB should have been told of: keys by table, and how many routes were compared."""

    keys: dict[Reconciler, U64]
    compared: int

    @property
    def total(self) -> int:
        """How many prefixes."""
        return sum(map(len, self.keys.values()))


class Recheck:
    """Compares the RIBs of a pipeline with its feed's source.

    Args:
        pipeline: whose RIBs.
        feed: its feed.
    """

    def __init__(self, pipeline: Pipeline, feed: Rereadable) -> None:
        self._pipeline = pipeline
        self._feed = feed

    async def check(self) -> Unheard | None:
        """Read the source, and again if anything is odd; return what is, None when no reading was clean."""
        first = await self._suspects()
        if first is None or not first.total:
            return first
        second = await self._suspects()
        if second is None:
            return None
        both = {
            reconciler: _common(keys, second.keys.get(reconciler, keys[:0]))
            for reconciler, keys in first.keys.items()
        }
        return Unheard({reconciler: keys for reconciler, keys in both.items() if len(keys)}, second.compared)

    async def _suspects(self) -> Unheard | None:
        readings = {
            reconciler: _Reading(reconciler.rib.no_rows(), touched=PrefixTable(reconciler.family.key_width))
            for reconciler in self._pipeline.reconcilers.values()
        }
        before = self._snapshots()
        with self._listening(readings):
            clean = await self._feed.reread(self._comparer(readings), pause_seconds=_PAUSE_SECONDS)
            self._feed.read_waiting_events()
        if not clean or before != self._snapshots():
            return None
        found = {}
        for reconciler, reading in readings.items():
            assert reading.touched is not None
            if len(reading.touched) > _MOST_TOUCHED:
                return None
            keys = _odd_keys(reconciler, reading)
            found[reconciler] = keys[reading.touched.find(keys) < 0]
        return Unheard(found, sum(reading.compared for reading in readings.values()))

    def _snapshots(self) -> tuple[int, int]:
        counts = self._pipeline.counts
        return counts.snapshots, counts.unclean_snapshots

    def _comparer(self, readings: dict[Reconciler, _Reading]) -> Callable[[RouteBatch], None]:
        def take(batch: RouteBatch) -> None:
            reconciler = self._pipeline.reconcilers.get((batch.family, batch.table))
            if reconciler is None:
                return
            reading, rib = readings[reconciler], reconciler.rib
            rows = rib.find(batch.keys, batch.metrics)
            same = rib.leads(rows, batch.paths)
            reading.rib_rows = rib.marked(reading.rib_rows, rows[same])
            reading.compared += len(batch)
            if not same.all():
                reading.odd.append((batch.keys[~same], batch.metrics[~same]))

        return take

    @contextmanager
    def _listening(self, readings: dict[Reconciler, _Reading]) -> Iterator[None]:
        def heard(reconciler: Reconciler, keys: U64) -> None:
            touched = readings[reconciler].touched
            if touched is not None and len(touched) <= _MOST_TOUCHED:
                touched.find_or_insert(np.unique(keys, axis=0))

        self._pipeline.heard = heard
        try:
            yield
        finally:
            self._pipeline.heard = None


def _odd_keys(reconciler: Reconciler, reading: _Reading) -> U64:
    """Return the keys that are not in RIB and source alike.

    Of several routes with one prefix and metric, which a kernel may have, the RIB has the one that counts.
    """
    rib = reconciler.rib
    parts = [rib.unmarked(reading.rib_rows)]
    for keys, metrics in reading.odd:
        rows = rib.find(keys, metrics)
        hidden = rib.is_marked(reading.rib_rows, rows)
        parts.append(keys[~hidden])
    return np.unique(np.concatenate(parts), axis=0)


def _common(some: U64, others: U64) -> U64:
    table = PrefixTable(some.shape[1])
    table.insert(others)
    return some[table.find(some) >= 0]
