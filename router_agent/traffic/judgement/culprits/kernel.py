"""What the kernel's counters say: routes, neighbours, conntrack, backlog, sockets' buffers."""

from __future__ import annotations

from collections.abc import Iterator

from router_agent.traffic.counters.source import Side
from router_agent.traffic.judgement.culprits.case import Case, Culprit, Rule

_BY_COUNTER: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Udp.RcvbufErrors", "Udp6RcvbufErrors"),
        "UDP RcvbufErrors at the receiver, {n:,} packets: raise rmem (net.core.rmem_max), or read faster",
    ),
    (
        ("nf_conntrack.drop",),
        "conntrack dropped {n:,} packets, its table is full: raise nf_conntrack_max, or keep what is "
        "forwarded out of it (notrack)",
    ),
    (
        ("nf_conntrack.insert_failed",),
        "conntrack could not enter {n:,} flows: keep what is forwarded out of it (notrack)",
    ),
    (
        ("IpExt.InNoRoutes", "Ip6InNoRoutes"),
        "no route for {n:,} packets: their prefixes are not in the FIB: ask `router-agent explain PREFIX`",
    ),
    (
        ("TcpExt.IPReversePathFilter",),
        "reverse path filter dropped {n:,} packets: no route back to their sources by that port (rp_filter)",
    ),
    (
        ("softnet.dropped", "dropped"),
        "softnet dropped {n:,} packets, a CPU's backlog was full: raise net.core.netdev_max_backlog, or "
        "spread receipt over more CPUs",
    ),
)
"""Counters, together, and what they say. `dropped` is that of `counters.kernel.HostBacklog`."""


def _by_counter(case: Case) -> Iterator[Culprit]:
    if case.trial.lost <= 0:
        return
    for names, words in _BY_COUNTER:
        n = case.grown(*names)
        if n:
            yield Culprit(n, words.format(n=n))


def _squeezed(case: Case) -> Iterator[Culprit]:
    n = case.grown("softnet.time_squeeze", "time_squeeze")
    if n and case.trial.lost > 0:
        yield Culprit(
            0,
            f"softirqs ended {n:,} times with packets left (time_squeeze): the CPU that receives is busy: "
            "spread receipt over more CPUs, or raise net.core.netdev_budget_usecs",
        )


def _by_class(case: Case) -> Iterator[Culprit]:
    for drop in case.drops(Side.DEVICE):
        if "neighbour unresolved" in drop.name:
            discards = case.grown("neighbour.unresolved_discards")
            seen = f", {discards:,} of them waiting for it" if discards else ""
            yield Culprit(
                drop.count,
                f"the kernel knew no neighbour for {drop.count:,} packets{seen}: does the next hop answer?",
            )
        elif "egress queue full" in drop.name:
            yield Culprit(
                drop.count,
                f"{drop.name}, {drop.count:,} packets: more left by it than it sends: is its link as fast as "
                "it should be, and its queueing discipline the one that is wanted?",
            )
        elif "discarded by a route" in drop.name:
            yield Culprit(
                drop.count,
                f"{drop.count:,} packets met a route that drops (blackhole, unreachable, prohibit): ask "
                "`router-agent explain PREFIX`",
            )


RULES: tuple[Rule, ...] = (_by_counter, _squeezed, _by_class)
