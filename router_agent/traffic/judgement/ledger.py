"""The packet ledger of a trial: sent = received + named drop classes + unaccounted.

Counters are read before and after the trial. A class that counts our packets and nothing else is entered as
it is; a derived one (the difference of two counters, which other traffic moves too) only fills what is
still unexplained. What remains is said to be unaccounted; below zero it means that counters name more drops
than packets are missing, because other packets were dropped as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from router_agent.traffic.counters.source import COUNTS_SINCE, CounterSource, DropClass, Side
from router_agent.traffic.generators.generator import TrialResult

_QUEUE = re.compile(r"\.rx_queue_\d+_packets$")
"""A receive queue that got nothing says as much as one that got all."""


@dataclass(frozen=True)
class Ledger:
    """Where every packet of a trial went.

    Attributes:
        sent: packets the tester's port took.
        received: distinct packets that came back.
        drops: named classes with a count above zero, largest first.
        moved: every counter that moved during the trial, by source, as evidence.
        restarted: sources that count anew: they, or their ports, were made anew meanwhile.
    """

    sent: int
    received: int
    drops: tuple[DropClass, ...]
    moved: dict[str, dict[str, int]]
    restarted: tuple[str, ...] = ()

    @property
    def lost(self) -> int:
        """Packets sent and not received."""
        return self.sent - self.received

    @property
    def unaccounted(self) -> int:
        """Lost packets that no class names; negative when classes name more than were lost."""
        return self.lost - sum(drop.count for drop in self.drops)

    def dropped(self, side: Side) -> int:
        """Return the packets dropped on one side."""
        return sum(drop.count for drop in self.drops if drop.side is side)


class LedgerKeeper:
    """Reads counters around trials.

    Args:
        sources: where to read; none gives a ledger of the tester's own counts only.
    """

    def __init__(self, sources: Sequence[CounterSource]) -> None:
        names = [source.name for source in sources]
        if len(set(names)) != len(names):
            raise ValueError(f"counter sources must have different names, found {', '.join(names)}")
        self._sources = sources
        self._before: list[dict[str, int]] = []

    def open(self) -> None:
        """Read the counters before a trial.

        Raises:
            CounterError: some cannot be read.
        """
        self._before = [source.read() for source in self._sources]

    def close(self, result: TrialResult) -> Ledger:
        """Read them again and return the ledger of the trial.

        Raises:
            CounterError: some cannot be read.
        """
        if len(self._before) != len(self._sources):
            raise ValueError("the ledger was not opened before the trial")
        classes = [
            _no_room(port, count, udp=port in result.udp_hosts) for port, count in result.tester_drops.items()
        ]
        moved: dict[str, dict[str, int]] = {}
        restarted: list[str] = []
        for source, before in zip(self._sources, self._before, strict=True):
            after = source.read()
            growth = grown(before, after)
            classes += source.drops(growth)
            moved[source.name] = {name: n for name, n in growth.items() if n or _QUEUE.search(name)}
            if _restarted(before, after):
                restarted.append(source.name)
        return balance(result.sent, result.received, classes, moved, tuple(restarted))


def _no_room(port: str, count: int, *, udp: bool) -> DropClass:
    if udp:
        return DropClass(
            f"UDP RcvbufErrors at the receiver, port {port}", count, Side.TESTER, "SO_MEMINFO drops"
        )
    return DropClass(f"tester's capture of port {port} full", count, Side.TESTER, "capture")


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return by how much each counter grew.

    One that is new began at zero, and so did one that is smaller than before, and all of a source that says
    it counts since another time: its owner was restarted.
    """
    if before.get(COUNTS_SINCE) != after.get(COUNTS_SINCE):
        return {name: value for name, value in after.items() if name != COUNTS_SINCE}
    growth = {name: value - before.get(name, 0) for name, value in after.items()}
    return {name: after[name] if n < 0 else n for name, n in growth.items()}


def _restarted(before: Mapping[str, int], after: Mapping[str, int]) -> bool:
    """Return whether a source counts anew: it says so, or more went back than went on, as gauges may."""
    if before.get(COUNTS_SINCE) != after.get(COUNTS_SINCE):
        return True
    back = sum(after[name] < before.get(name, 0) for name in after)
    return back > sum(after[name] > before.get(name, 0) for name in after)


def balance(
    sent: int,
    received: int,
    classes: Sequence[DropClass],
    moved: dict[str, dict[str, int]] | None = None,
    restarted: tuple[str, ...] = (),
) -> Ledger:
    """Return the ledger of these classes; see the module's text for derived ones."""
    exact = [drop for drop in classes if drop.count > 0 and not drop.derived]
    left = sent - received - sum(drop.count for drop in exact)
    entries = list(exact)
    for drop in classes:
        if drop.derived and min(drop.count, left) > 0:
            count = min(drop.count, left)
            entries.append(DropClass(drop.name, count, drop.side, drop.source, derived=True))
            left -= count
    entries.sort(key=lambda drop: -drop.count)
    return Ledger(sent, received, tuple(entries), moved or {}, restarted)
