"""Telling a feed what became of its routes: that the FIB holds them, or that it does not and will not.

A feed that asks for this (zebra's FPM) waits for one answer to each route it gives, the same path as before
included. What it was told is kept in a column of the RIB beside the prefix, so that looking at a prefix again
tells it only what it does not know.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from router_agent.model import U8, U64, Mask, Operation, Outcome, Outcomes, RouteBatch
from router_agent.reconcile import CHUNK, Reconciler


class Confirmer:
    """Tells of the routes of one table.

    Args:
        reconciler: of the table.
        table: the feed's number of it.
        tell: takes what became of routes; must return at once.
    """

    def __init__(self, reconciler: Reconciler, table: int, tell: Callable[[Outcomes], None]) -> None:
        self._reconciler = reconciler
        self._table = table
        self._tell = tell

    def received(self, batch: RouteBatch) -> U64:
        """Note that the feed waits for answers; return the keys of a batch that the RIB has taken already."""
        rows = self._reconciler.rib.prefixes.find(batch.keys[batch.operations != Operation.DELETE])
        self._told[rows[rows >= 0]] = Outcome.UNKNOWN
        return batch.keys

    def report(self, keys: U64) -> None:
        """Tell what is known of these distinct prefixes and was not told yet."""
        prefixes = self._reconciler.rib.prefixes
        rows = prefixes.find(keys)
        keys, rows = keys[rows >= 0], rows[rows >= 0]
        outcomes = self._reconciler.outcomes(keys)
        news = np.flatnonzero((outcomes != Outcome.UNKNOWN) & (outcomes != self._told[rows]))
        if len(news):
            self._told[rows[news]] = outcomes[news]
            self._send(keys[news], outcomes[news] == Outcome.IN_FIB)

    def withdraw(self, *, lost: bool) -> int:
        """Tell that routes are not in the FIB that were said to be; return how many.

        Args:
            lost: the FIB is away, so that it is all of them; otherwise those that it does not hold now.
        """
        count = 0
        for rows in self._reconciler.rib.prefixes.chunks(CHUNK):
            rows = rows[self._told[rows] == Outcome.IN_FIB]
            keys = self._reconciler.rib.prefixes.keys(rows)
            if not lost:
                missing = self._reconciler.outcomes(keys) != Outcome.IN_FIB
                rows, keys = rows[missing], keys[missing]
            if len(rows):
                self._told[rows] = Outcome.FAILED
                self._send(keys, np.zeros(len(rows), np.bool_))
                count += len(rows)
        return count

    def counts(self) -> dict[Outcome, int]:
        """Return how many prefixes the feed was told what of."""
        numbers = np.bincount(self._told[self._reconciler.rib.prefixes.rows()], minlength=len(Outcome))
        return {outcome: int(numbers[outcome]) for outcome in Outcome}

    @property
    def _told(self) -> U8:
        # Looked up each time: the table replaces its columns when it grows.
        told: U8 = self._reconciler.rib.prefixes["told"]
        return told

    def _send(self, keys: U64, in_fib: Mask) -> None:
        rib = self._reconciler.rib
        self._tell(Outcomes(rib.family, self._table, keys, rib.best(keys), in_fib))
