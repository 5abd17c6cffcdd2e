"""What VPP's counters say: full receive queues beside how busy the workers were, buffers, FIB, neighbours.

A frame holds 256 packets (VLIB_FRAME_SIZE). A worker that finds nearly as many at each call has all it can
do; one that finds few has time to spare on the whole, so a queue that overflowed meanwhile was not read for a
while.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from router_agent.traffic.counters.source import Side
from router_agent.traffic.judgement.culprits.case import Case, Culprit, Rule
from router_agent.traffic.judgement.culprits.queues import uneven

BUSY_VECTORS, IDLE_VECTORS = 200.0, 64.0
"""Packets a call from which a worker has all it can do, and up to which it has time to spare."""

_LOOKUPS = frozenset(("ip4-lookup", "ip6-lookup", "ip4-input", "ip4-input-no-chksum", "ip6-input"))
"""Nodes that every forwarded packet passes: their packets a call are the graph's."""

_GRAPH_INPUTS = _LOOKUPS | {"ethernet-input", "arp-input", "mpls-input", "unix-epoll-input"}
"""Nodes called input that poll no port."""

_NO_ROUTE = "VPP dropped by a FIB entry, or no reason given"
_NEIGHBOUR = re.compile(r"/err/(ip[46]-(glean|arp|discover-neighbor))/")


def _rx_miss(case: Case) -> Iterator[Culprit]:
    for drop in case.drops(Side.DEVICE):
        if drop.source == "/if/rx-miss":
            port = drop.name.removesuffix(": receive queue full")
            found = vectors_per_call(case.ledger.moved)
            yield Culprit(drop.count, f"{port} rx-miss ({drop.count:,} packets) {_meanwhile(found)}")


def _meanwhile(vectors: float | None) -> str:
    if vectors is None:
        return (
            "while nobody counted vectors, so whether workers were busy is not known: set statseg "
            "{ per-node-counters on }, and let trials last longer than its update-interval"
        )
    ran = f"while workers ran at {vectors:.0f} vectors/call"
    if vectors >= BUSY_VECTORS:
        return f"{ran}: add a worker"
    if vectors <= IDLE_VECTORS:
        return (
            f"{ran}: a stall, not the load: look at what else ran on the workers' CPUs (isolcpus, steal, "
            "SMIs), and at API calls that hold a barrier"
        )
    return f"{ran}: bursts: give the port more receive descriptors, or add a worker"


def _no_buffers(case: Case) -> Iterator[Culprit]:
    for drop in case.drops(Side.DEVICE):
        if drop.source == "/if/rx-no-buf":
            yield Culprit(
                drop.count, f"{drop.name}: {drop.count:,} packets: raise buffers-per-numa in startup.conf"
            )


def _one_worker(case: Case) -> Iterator[Culprit]:
    """Compare what each thread that polls a kind of port took from it."""
    for moved in case.ledger.moved.values():
        polled: dict[str, dict[str, int]] = defaultdict(dict)
        for thread, node, _ in node_counters(moved, "calls"):
            if node.endswith("-input") and node not in _GRAPH_INPUTS:
                polled[node][thread] = moved.get(f"/sys/node/vectors/{thread}/{node}", 0)
        for node, by_thread in polled.items():
            yield from uneven(case, by_thread, f"VPP thread {{}} took {{:.0%}} of what {node} polls")


def _no_route(case: Case) -> Iterator[Culprit]:
    for drop in case.drops(Side.DEVICE):
        if drop.name == _NO_ROUTE:
            yield Culprit(
                drop.count,
                f"VPP had no route, or one that drops, for {drop.count:,} packets: ask `router-agent explain "
                "PREFIX`",
            )


def _neighbours(case: Case) -> Iterator[Culprit]:
    for drop in case.drops(Side.DEVICE):
        node = _NEIGHBOUR.match(drop.source)
        if node:
            yield Culprit(
                drop.count,
                f"VPP knew no neighbour for {drop.count:,} packets ({node[1]}): does the next hop answer?",
            )


RULES: tuple[Rule, ...] = (_rx_miss, _no_buffers, _one_worker, _no_route, _neighbours)


def node_counters(moved: Mapping[str, int], counter: str) -> Iterator[tuple[str, str, int]]:
    """Yield thread, graph node and growth of one counter of graph nodes; see `counters.vpp`."""
    prefix = f"/sys/node/{counter}/"
    for name, n in moved.items():
        if name.startswith(prefix):
            thread, _, node = name.removeprefix(prefix).partition("/")
            yield thread, node, n


def vectors_per_call(sources: Mapping[str, Mapping[str, int]]) -> float | None:
    """Return packets a call of the look-up nodes, of the thread that has most; None where nobody counted.

    Args:
        sources: growth of counters by source, see `Ledger.moved`.
    """
    found: list[float] = []
    for moved in sources.values():
        packets, calls = (dict[str, int]() for _ in range(2))
        for thread, node, n in node_counters(moved, "calls"):
            if node in _LOOKUPS:
                calls[thread] = calls.get(thread, 0) + n
                vectors = moved.get(f"/sys/node/vectors/{thread}/{node}", 0)
                packets[thread] = packets.get(thread, 0) + vectors
        found += [packets[thread] / n for thread, n in calls.items() if n]
    return max(found, default=None)
