"""What VPP has counted: interfaces, reasons of drops, threads, buffers; from its stats segment.

The agent reads them because it has the segment anyway. Whoever may connect to VPP's stats socket is handed
memory that it could map to write into (the descriptor of vlib/stats/init.c is not sealed), and VPP gives that
socket to the group that may also change its FIB. Nobody who only serves figures should be in that group.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from router_agent.model import U64
from router_agent.observe.answers import (
    BufferPool,
    ForwarderCounters,
    InterfaceCounters,
    NodeCounters,
    ThreadCounters,
)
from router_agent.vpp.stats import StatsBusyError, StatsError, StatsSegment

_log = logging.getLogger(__name__)

_OWN = frozenset({"local0"})
"""Interfaces that VPP makes for itself."""
_MOST_ERRORS = 100
"""Reasons that are told, those with the largest counts: VPP knows some 3,000, and a few dozen ever count."""
_SIMPLE = {
    "drops": "/if/drops",
    "punts": "/if/punt",
    "rx_misses": "/if/rx-miss",
    "rx_no_buffers": "/if/rx-no-buf",
    "rx_errors": "/if/rx-error",
    "tx_errors": "/if/tx-error",
}
_COMBINED = {"rx": "/if/rx", "tx": "/if/tx"}
NODES = frozenset(
    {
        *("af-packet-input", "af_xdp-input", "avf-input", "dpdk-input", "memif-input", "rdma-input"),
        *("virtio-input", "vmxnet3-input", "ethernet-input"),
        *("ip4-input", "ip4-input-no-checksum", "ip4-lookup", "ip4-load-balance", "ip4-rewrite", "ip4-local"),
        *("ip6-input", "ip6-lookup", "ip6-load-balance", "ip6-rewrite", "ip6-local"),
        *("mpls-input", "mpls-lookup", "mpls-output"),
        *("ip4-drop", "ip6-drop", "error-drop", "error-punt"),
    }
)
"""Graph nodes that are told of: those that packets of a router go through. VPP has over a thousand."""


class Forwarder:
    """The counters of one VPP.

    Args:
        stats_socket: of its stats segment.
        pipelines: names of those that write to it.
        version: tells its version.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        stats_socket: Path,
        pipelines: Sequence[str],
        version: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = stats_socket
        self._pipelines = tuple(pipelines)
        self._version = version
        self._clock = clock
        self._segment: StatsSegment | None = None
        self._inode = 0
        self._heartbeat: tuple[int, float] | None = None
        self._connecting = asyncio.Lock()

    async def read(self) -> ForwarderCounters:
        """Return what is counted now, or why it cannot be read; takes some milliseconds."""
        try:
            return self._counters(await self._connected())
        except StatsBusyError as error:
            return self._unknown(str(error))
        except StatsError as error:
            self._disconnect()
            return self._unknown(str(error))

    def _unknown(self, problem: str) -> ForwarderCounters:
        return ForwarderCounters(pipelines=self._pipelines, version=self._version(), problem=problem)

    async def _connected(self) -> StatsSegment:
        """Return the segment of the VPP that is there now: one that was restarted has another socket."""
        async with self._connecting:
            try:
                inode = self._path.stat().st_ino
            except OSError:
                inode = 0
            if self._segment is None or inode != self._inode:
                self._disconnect()
                self._segment = await asyncio.to_thread(StatsSegment, self._path)
                self._inode = inode
            return self._segment

    def _disconnect(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        self._heartbeat = None

    def _counters(self, segment: StatsSegment) -> ForwarderCounters:
        return ForwarderCounters(
            pipelines=self._pipelines,
            version=self._version(),
            heartbeat_age_seconds=self._heartbeat_age(segment.heartbeat),
            started=segment.gauge("/sys/boottime"),
            interfaces=tuple(_interfaces(segment)),
            errors=_errors(segment),
            threads=tuple(_threads(segment)),
            buffers=tuple(_buffers(segment)),
        )

    def _heartbeat_age(self, heartbeat: int) -> float:
        """Return for how long the heartbeat has been what it is, as far as we have seen."""
        now = self._clock()
        if self._heartbeat is None or self._heartbeat[0] != heartbeat:
            self._heartbeat = (heartbeat, now)
        return now - self._heartbeat[1]


def _interfaces(segment: StatsSegment) -> Iterator[InterfaceCounters]:
    names = segment.texts("/if/names")
    simple = {field: _sum(segment.per_thread(name), len(names)) for field, name in _SIMPLE.items()}
    both = {field: _sum(segment.per_thread(name), len(names), 2) for field, name in _COMBINED.items()}
    for index, name in enumerate(names):
        if not name or name in _OWN:
            continue
        counts = {field: int(totals[index]) for field, totals in simple.items()}
        for field, totals in both.items():
            counts |= {f"{field}_packets": int(totals[index, 0]), f"{field}_bytes": int(totals[index, 1])}
        yield InterfaceCounters(name=name, **counts)


def _sum(threads: Sequence[U64], count: int, words: int = 1) -> U64:
    """Return the first `count` counters of all threads together; a thread's vector may be shorter."""
    totals = np.zeros(count if words == 1 else (count, words), np.uint64)
    for vector in threads:
        length = min(count, len(vector))
        totals[:length] += vector[:length]
    return totals


def _errors(segment: StatsSegment) -> dict[str, int]:
    found = {name.removeprefix("/err/"): count for name, count in segment.links("/err/").items()}
    if len(found) <= _MOST_ERRORS:
        return found
    return dict(sorted(found.items(), key=lambda item: -item[1])[:_MOST_ERRORS])


def _threads(segment: StatsSegment) -> Iterator[ThreadCounters]:
    rates = segment.simple("/sys/vector_rate_per_worker")
    loops = segment.simple("/sys/loops_per_worker") if segment.has("/sys/loops_per_worker") else rates[:0]
    nodes = _nodes(segment)
    # VPP's vectors by thread are longer than it has threads.
    for number, rate in enumerate(rates[: 1 + segment.gauge("/sys/num_worker_threads")].tolist()):
        yield ThreadCounters(
            name=f"worker-{number - 1}" if number else "main",
            vectors_per_call=rate,
            loops_per_second=int(loops[number]) if number < len(loops) else 0.0,
            nodes=nodes[number] if number < len(nodes) else (),
        )


def _nodes(segment: StatsSegment) -> list[tuple[NodeCounters, ...]]:
    """Return what the nodes did, by thread; nothing where VPP does not tell (``per-node-counters off``)."""
    if not segment.has("/sys/node/names"):
        return []
    names = segment.texts("/sys/node/names")
    wanted = [index for index, name in enumerate(names) if name in NODES]
    columns = [segment.per_thread(f"/sys/node/{kind}") for kind in ("calls", "vectors", "clocks")]
    return [
        tuple(
            NodeCounters(node=names[i], calls=int(calls[i]), vectors=int(vectors[i]), clocks=int(clocks[i]))
            for i in wanted
            if i < min(len(calls), len(vectors), len(clocks)) and calls[i]
        )
        for calls, vectors, clocks in zip(*columns, strict=False)
    ]


def _buffers(segment: StatsSegment) -> Iterator[BufferPool]:
    pools = {name.split("/")[2] for name in segment.called("/buffer-pools/")}
    for pool in sorted(pools):
        counts = {
            kind: segment.gauge(f"/buffer-pools/{pool}/{kind}") for kind in ("available", "cached", "used")
        }
        yield BufferPool(name=pool, **counts)
