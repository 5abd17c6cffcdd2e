"""The port proof: one packet to each of many prefixes, and the port that each of them left by.

Nothing is sent twice in the proof itself. Prefixes not seen are tried once more at a lower rate, and those
that are seen then are reported as recovered, never as proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router_agent.model import I64
from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.scenario import ANY_PORT, Destinations

LISTED = 100
"""How many deviations of a kind are listed; all are counted."""


@dataclass(frozen=True)
class Deviation:
    """A prefix whose packet was not seen where it should have been; ports by name."""

    prefix: str
    expected: str
    seen: str


@dataclass(frozen=True)
class Deviations:
    """How many prefixes deviate in one way, and the first of them."""

    count: int = 0
    first: tuple[Deviation, ...] = ()

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class Proof:
    """Outcome of a port proof.

    Attributes:
        prefixes: how many were asked for.
        unsent: how many were not sent to.
        right: how many left by the expected port (or by any port, where any will do).
        wrong: those seen at another port, or at more than one.
        missing: those seen at none, neither at first nor at the second attempt.
        recovered: those seen at the second attempt only, by the right port.
        by_port: packets seen at each port.
        rate_pps: rate of the first attempt; retry_pps that of the second, 0 when there was none.
        tester_drops: packets the tester's own capture had to drop.
        shadowed: prefixes that could not be tested because more specific ones cover them.
    """

    prefixes: int
    unsent: int
    right: int
    wrong: Deviations
    missing: Deviations
    recovered: Deviations
    by_port: dict[str, int]
    rate_pps: float
    retry_pps: float = 0.0
    tester_drops: int = 0
    shadowed: int = 0

    def notes(self) -> tuple[str, ...]:
        """Return what a reader should know besides the outcome."""
        notes: list[str] = []
        if self.recovered:
            notes.append(
                f"port proof: {len(self.recovered):,} prefixes were seen only when sent to again at "
                f"{self.retry_pps:,.0f} pps; the first packet to each was lost"
            )
        if self.shadowed:
            notes.append(
                f"port proof: {self.shadowed:,} prefixes left out, more specific ones cover all of each"
            )
        return tuple(notes)


def prove(
    destinations: Destinations,
    ports: Sequence[str],
    first: TrialResult,
    again: tuple[I64, TrialResult] | None,
) -> Proof:
    """Return the proof from what each port saw.

    Args:
        destinations: with their expected ports.
        ports: names, in the order of `TrialResult.arrived`.
        first: the trial of one packet to each destination.
        again: rows of `destinations` tried a second time, and that trial; its destinations are these rows.
    """
    seen = first.arrived > 0
    right = _right(seen, destinations.expected)
    wrong = seen.any(axis=0) & ~right
    missing = (first.sent_to > 0) & ~seen.any(axis=0)
    recovered = np.zeros(len(destinations), np.bool_)
    retry_pps = 0.0
    drops = sum(first.tester_drops.values())
    if again is not None:
        rows, second = again
        retry_pps = second.rate_pps
        drops += sum(second.tester_drops.values())
        seen_again = np.zeros_like(seen)
        seen_again[:, rows] = second.arrived > 0
        right_again = _right(seen_again, destinations.expected)
        recovered = missing & right_again
        wrong |= missing & seen_again.any(axis=0) & ~right_again
        missing &= ~seen_again.any(axis=0)
        seen |= seen_again

    def listed(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Deviations:
        rows = np.flatnonzero(mask)
        first = (_deviation(destinations, ports, seen, int(row)) for row in rows[:LISTED])
        return Deviations(len(rows), tuple(first))

    return Proof(
        prefixes=len(destinations),
        unsent=int((first.sent_to == 0).sum()),
        right=int(right.sum()),
        wrong=listed(wrong),
        missing=listed(missing),
        recovered=listed(recovered),
        by_port=dict(zip(ports, first.received_by_port, strict=True)),
        rate_pps=first.rate_pps,
        retry_pps=retry_pps,
        tester_drops=drops,
        shadowed=destinations.shadowed,
    )


def missing_rows(first: TrialResult) -> I64:
    """Return the destinations that were sent to and seen at no port."""
    return np.flatnonzero((first.sent_to > 0) & ~(first.arrived > 0).any(axis=0))


def _right(
    seen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    expected: np.ndarray[tuple[int, ...], np.dtype[np.int16]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return which destinations were seen at one port only, and that the expected one."""
    alone = seen.sum(axis=0) == 1
    at = np.argmax(seen, axis=0)
    return np.asarray(alone & ((expected == ANY_PORT) | (at == expected)), np.bool_)


def _deviation(
    destinations: Destinations,
    ports: Sequence[str],
    seen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    row: int,
) -> Deviation:
    expected = int(destinations.expected[row])
    at = [ports[int(i)] for i in np.flatnonzero(seen[:, row])]
    name = "any port" if expected == ANY_PORT else ports[expected]
    return Deviation(str(destinations.prefix(row)), name, ", ".join(at) or "no port")
