"""Receive queues that do not share the load: the NIC hashes flows (RSS), and few flows meet few queues."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from router_agent.traffic.judgement.culprits.case import Case, Culprit, Rule

_ONE = 0.75
_LEAST_PACKETS = 1_000

_QUEUE = re.compile(r"(?:^|[. ])rx_queue_(\d+)_packets$")
"""Packets of a receive queue, whatever its driver calls them: see `counters.ethtool`."""


def _one_queue(case: Case) -> Iterator[Culprit]:
    for moved in case.ledger.moved.values():
        for port, counts in by_queue(moved).items():
            where = f" of {port}" if port else ""
            yield from uneven(case, counts, f"one RSS queue{where} ({{}}) took {{:.0%}} of the packets")


def by_queue(moved: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return packets by queue number, by port, of the counters of one source."""
    ports: dict[str, dict[str, int]] = defaultdict(dict)
    for name, n in moved.items():
        match = _QUEUE.search(name)
        if match:
            ports[name[: match.start()].removeprefix("dev.")][match[1]] = n
    return ports


def uneven(case: Case, counts: Mapping[str, int], words: str) -> Iterator[Culprit]:
    """Yield a culprit when one of several queues or threads took nearly everything.

    Args:
        case: must have lost something: uneven queues that suffice are nobody's fault.
        counts: packets of each.
        words: with places for its name and its share.
    """
    total = sum(counts.values())
    if case.trial.lost <= 0 or len(counts) < 2 or total < _LEAST_PACKETS:
        return
    first = max(counts, key=lambda name: counts[name])
    share = counts[first] / total
    if share >= _ONE:
        advice = "more flows, or another hash (ethtool -N DEV rx-flow-hash)"
        yield Culprit(case.trial.lost, f"{words.format(first, share)}: {advice}")


RULES: tuple[Rule, ...] = (_one_queue,)
