"""What a rule looks at, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from router_agent.traffic.counters.source import DropClass, Side
from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.judgement.ledger import Ledger
from router_agent.traffic.judgement.route_change import RouteChange


@dataclass(frozen=True)
class Case:
    """A trial that is not clean."""

    trial: TrialResult
    ledger: Ledger
    changes: Sequence[RouteChange] = ()

    def drops(self, side: Side) -> Iterator[DropClass]:
        """Return the named drops of one side."""
        return (drop for drop in self.ledger.drops if drop.side is side)

    def grown(self, *names: str) -> int:
        """Return by how much counters grew together, in the source where they grew most.

        Two sources may read the same counters: tester and device may be one host. Counters of several
        sources in one are called after them, see `counters.together`.
        """
        growth = (
            sum(n for name, n in moved.items() if name.rpartition(": ")[2] in names)
            for moved in self.ledger.moved.values()
        )
        return max(growth, default=0)


@dataclass(frozen=True)
class Culprit:
    """Packets it explains, the words, and whether it is the tester itself."""

    packets: int
    words: str
    tester: bool = False


Rule: TypeAlias = Callable[[Case], Iterator[Culprit]]
