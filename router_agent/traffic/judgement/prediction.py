"""What the rate should be, and why it is not: the least of link, NIC, and workers x cycles per packet.

Links and NICs are the tester's sending ports: what they cannot carry, the device is never offered. Cycles
per packet are measured, in the very trials that are judged: VPP's per-node counters before and after
(/sys/node/{clocks,vectors}, see `counters.vpp`), which nobody polls meanwhile. Clocks are ticks of the time
stamp counter; a polling thread uses all of them whether it has packets or not, so the nodes that poll count
only where frames are nearly full, and the limit is "at most" where they are not.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from router_agent.traffic.judgement.culprits.vpp import BUSY_VECTORS, node_counters, vectors_per_call
from router_agent.traffic.judgement.ledger import Ledger
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.results import Limit, Measurement, Prediction, RateSearch, Target
from router_agent.traffic.nics import NicModel, model_of
from router_agent.traffic.scenario import FrameSizes, Port

AS_PREDICTED = 0.95
"""A measured rate from this part of the least limit on is as predicted."""

BUSY = 0.9
"""A forwarder that is busy for this part of its time has no more to give."""

_FORWARDED = ("ip4-lookup", "ip6-lookup")
"""Every forwarded packet passes one of them once."""

_WAITING = ("unix-epoll-input", "api-rx-from-ring", "statseg-collector-process")
"""Nodes in which time passes that no packet takes: waiting for events, the API, statistics."""

_NOMINAL = re.compile(r"^model name\s*:.*@ *([\d.]+) *GHz", re.MULTILINE)
_CURRENT = re.compile(r"^cpu MHz\s*:\s*([\d.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Processor:
    """What is known of the device's processors.

    Attributes:
        clock_hz: of the time stamp counter; None when it is not known.
        workers: threads that may forward; None takes those that did.
    """

    clock_hz: float | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Sending:
    """A port of the tester that sends: its name, the speed of its link, and its model, where known."""

    name: str
    link_bps: float | None = None
    nic: NicModel | None = None


def sending(ports: Iterable[Port]) -> list[Sending]:
    """Return the tester's ports that send, with what is known of their NICs."""
    return [Sending(port.name, port.link_bps, model_of(port.pci_id)) for port in ports]


@dataclass(frozen=True)
class Cycles:
    """What packets cost a VPP.

    Attributes:
        per_packet: clocks of the nodes that work on packets, by packet.
        whole: whether the nodes that poll are in it, as they had nearly full frames; else it is the least.
        busy: part of the time of the busiest thread that packets took.
        threads: threads that forwarded.
        vectors: packets a call.
    """

    per_packet: float
    whole: bool
    busy: float
    threads: int
    vectors: float


def clock_hz(cpuinfo: str) -> float | None:
    """Return ticks a second of the time stamp counter, by /proc/cpuinfo.

    The nominal frequency in the model's name is that of the counter; without it (AMD, virtual machines), the
    highest present frequency is taken for it.
    """
    if found := _NOMINAL.search(cpuinfo):
        return float(found[1]) * 1e9
    present = [float(text) for text in _CURRENT.findall(cpuinfo)]
    return max(present) * 1e6 if present else None


def cycles(moved: Mapping[str, Mapping[str, int]]) -> Cycles | None:
    """Return what packets cost, from the growth of counters by source; None where nobody counted."""
    for counters in moved.values():
        found = _cycles(counters)
        if found is not None:
            return found
    return None


def _cycles(moved: Mapping[str, int]) -> Cycles | None:
    packets: dict[str, int] = defaultdict(int)
    for thread, node, n in node_counters(moved, "vectors"):
        if node in _FORWARDED:
            packets[thread] += n
    threads = [thread for thread, n in packets.items() if n]
    total = sum(packets[thread] for thread in threads)
    if not total:
        return None
    vectors = vectors_per_call({"": moved}) or 0.0
    whole = vectors >= BUSY_VECTORS
    working, spent = _clocks(moved, threads, polling=whole)
    busy = max(working[thread] / spent[thread] for thread in threads)
    per_packet = sum(working[thread] for thread in threads) / total
    return Cycles(per_packet, whole, min(1.0, busy), len(threads), vectors)


def _clocks(
    moved: Mapping[str, int], threads: Sequence[str], *, polling: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the clocks that packets took on each thread, and all clocks of the thread."""
    working, spent = dict.fromkeys(threads, 0), dict.fromkeys(threads, 0)
    for thread, node, n in node_counters(moved, "clocks"):
        if thread not in spent:
            continue
        spent[thread] += n
        suspended = moved.get(f"/sys/node/suspends/{thread}/{node}", 0)
        if node in _WAITING or suspended or (_polls(node) and not polling):
            continue
        working[thread] += n
    return working, spent


def _polls(node: str) -> bool:
    """Return whether a node looks for packets at a port, whether there are any or not."""
    return node.endswith("-input") and not node.startswith(("ip4-", "ip6-", "ethernet-", "mpls-", "arp-"))


def predict(
    sizes: FrameSizes, ports: Sequence[Sending], found: Sequence[Measurement], processor: Processor
) -> Prediction:
    """Return the prediction of one frame size, beside what was measured at it.

    Args:
        sizes: frame sizes.
        ports: the tester's ports that send.
        found: its measurements.
        processor: of the device.
    """
    ledgers = [one.ledger for one in found if isinstance(one, Target)]
    cost = next((cost for ledger in ledgers if (cost := cycles(ledger.moved)) is not None), None)
    limits = [*_links(sizes, ports), *_nics(ports), *_cpu(cost, processor)]
    limits.sort(key=lambda limit: limit.pps)
    measured = _measured(found)
    return Prediction(
        sizes,
        tuple(limits),
        measured,
        _difference(limits, measured, found, cost),
        tuple(_unknown(ports, cost, processor, ledgers)),
    )


def _links(sizes: FrameSizes, sending: Sequence[Sending]) -> list[Limit]:
    speeds = [port.link_bps for port in sending]
    if not speeds or None in speeds:
        return []
    pps = sum(sizes.line_pps(bps) for bps in speeds if bps)
    named = ", ".join(f"{port.name} {(port.link_bps or 0) / 1e9:g} Gbit/s" for port in sending)
    return [Limit(f"link ({named})", pps)]


def _nics(sending: Sequence[Sending]) -> list[Limit]:
    """Return the limit of the NICs, when one of them has one below its link."""
    ceilings = [port.nic.ceiling_pps if port.nic else None for port in sending]
    if not ceilings or None in ceilings:
        return []
    named = ", ".join(sorted({port.nic.name for port in sending if port.nic}))
    return [Limit(f"NIC ({named})", sum(pps for pps in ceilings if pps))]


def _cpu(cost: Cycles | None, processor: Processor) -> list[Limit]:
    if cost is None or processor.clock_hz is None:
        return []
    workers = processor.workers or cost.threads
    least = "" if cost.whole else " at least"
    return [
        Limit(
            f"{workers} worker{'s' if workers > 1 else ''} at {processor.clock_hz / 1e9:.2f} GHz,"
            f"{least} {cost.per_packet:,.0f} cycles a packet",
            workers * processor.clock_hz / cost.per_packet,
        )
    ]


def _measured(found: Sequence[Measurement]) -> float | None:
    """Return the highest rate that the device was seen to forward."""
    rates: list[float] = []
    for one in found:
        if isinstance(one, Target) and one.trial.offered_s > 0:
            rates.append(one.trial.received / one.trial.offered_s)
        if isinstance(one, RateSearch):
            rates += [pps for pps in (one.found.forwarded_pps, one.found.rate_pps) if pps]
    return max(rates, default=None)


def _difference(
    limits: Sequence[Limit], measured: float | None, found: Sequence[Measurement], cost: Cycles | None
) -> str:
    """Return why the measured rate is not the least limit, or that it is, in words."""
    if measured is None:
        return "nothing was measured"
    busy = f"the forwarder ran {cost.busy:.0%} busy" if cost else ""
    targets = [one for one in found if isinstance(one, Target)]
    missed = [one for one in targets if one.verdict.outcome is not Outcome.PASS]
    if limits and measured >= AS_PREDICTED * limits[0].pps:
        return f"{limits[0].what} is the limit, as predicted{f'; {busy}' if busy else ''}"
    below = f"measured {1 - measured / limits[0].pps:.0%} below {limits[0].what}" if limits else ""
    if missed and missed[0].verdict.outcome is Outcome.INVALID:
        return _joined(below, f"the tester was the limit: {missed[0].verdict.reason}")
    if cost is not None and cost.busy >= BUSY:
        return _joined(below, f"{busy}: CPU bound")
    if missed:
        culprit = missed[0].culprits[0] if missed[0].culprits else missed[0].verdict.reason
        return _joined(below, culprit, busy)
    if not any(isinstance(one, RateSearch) for one in found):
        return _joined(below, "no more than the goal's rate was asked for", busy)
    limit = next((s.found.limit for s in found if isinstance(s, RateSearch) and s.found.limit), "")
    return _joined(below, limit or "the search found no more", busy)


def _joined(*parts: str) -> str:
    return ": ".join(part for part in parts[:2] if part) + "".join(f"; {part}" for part in parts[2:] if part)


def _unknown(
    sending: Sequence[Sending], cost: Cycles | None, processor: Processor, ledgers: Iterable[Ledger]
) -> list[str]:
    """Return what no limit is known for, and why."""
    unknown = [
        f"link of port {port.name}: none, or its speed is not known"
        for port in sending
        if port.link_bps is None
    ]
    if cost is None:
        counted = any(
            name.startswith("/if/") for ledger in ledgers for m in ledger.moved.values() for name in m
        )
        unknown.append(
            "cycles per packet: VPP's per-node counters did not move in the trial; set statseg "
            "{ per-node-counters on }, and let the trial last longer than its update-interval (10 s)"
            if counted
            else "cycles per packet: the device's forwarding does not count them"
        )
    elif processor.clock_hz is None:
        unknown.append("the device's processor clock: cycles per packet are no rate without it")
    return unknown
