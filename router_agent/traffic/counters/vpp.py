"""VPP's counters for the ledger, from its stats segment: no CLI, no API call, so a trial is not disturbed.

/if/drops counts every packet that ends in VPP's drop node, by the interface it came in by; /err/* says why,
but also counts what is no drop. So the reasons are entered as far as /if/drops goes, largest first, and what
they leave of it has no reason. Outside of it are /if/rx-miss, rx-no-buf, rx-error and tx-error
(vnet/interface.h), and packets for a memif whose other end, the tester, does not take them. "no error" is
VPP's reason for a FIB entry that drops.

What the threads did is evidence: /sys/node/{calls,vectors,clocks,suspends}, by thread and graph node. VPP has
them with ``statseg { per-node-counters on }`` and renews them every 10 s (``update-interval``), which
/sys/heartbeat counts.

An af_packet port (``host-X``) has the kernel's port X below it: what that one received and VPP did not take
is a class of its own, as the kernel does not say how often VPP's ring was full.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from vpp_papi.vpp_stats import VPPStats

from router_agent.traffic.counters.kernel import parse_dev, proc_net
from router_agent.traffic.counters.source import COUNTS_SINCE, CounterError, DropClass, Side

_SYMLINK = 6
"""``STAT_DIR_TYPE_SYMLINK`` of vlib/stats/shared.h."""

_SIMPLE = ("drops", "punt", "rx-miss", "rx-no-buf", "rx-error", "tx-error")
_COMBINED = ("rx", "tx")
_OUTSIDE = {
    "rx-miss": "receive queue full",
    "rx-no-buf": "no packet buffer",
    "rx-error": "receive errors",
    "tx-error": "transmit errors",
}
_NO_DROP = ("af-packet-input/", "ip4-icmp-error/", "ip6-icmp-error/")
_RING_FULL = re.compile(r"/err/(memif\d+/\d+)-tx/no_free_slots")
_NO_REASON = "no error"
_ATTEMPTS = 8
_NODE_COUNTERS = ("calls", "vectors", "clocks", "suspends")


class VppForwarder:
    """Counters of one VPP.

    Args:
        stats_socket: its ``statseg`` socket.
        namespace: network namespace of the kernel ports below its af_packet ports; None leaves them out.
    """

    def __init__(self, stats_socket: Path, namespace: str | None = None) -> None:
        self._socket = stats_socket
        self._namespace = namespace

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return f"VPP at {self._socket}"

    def read(self) -> dict[str, int]:
        """Return the counters; see `source.CounterSource`.

        Each reading connects anew, so that a VPP that was restarted in between is read as well.
        """
        stats = VPPStats(str(self._socket))
        try:
            _connect(stats)
            counters = _interfaces(stats) | _errors(stats) | _nodes(stats)
        except Exception as error:  # vpp_papi raises bare Exception for a wrong segment version
            raise CounterError(f"cannot read the stats segment of {self.name}: {error}") from error
        finally:
            stats.disconnect()
        if self._namespace is not None:
            counters |= parse_dev(proc_net(self._namespace, ("dev",))["dev"])
        return counters

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:
        """Return the drop classes; see `source.CounterSource`."""
        return [*_reasons(growth), *_outside(growth), *_rings(growth), *_below(growth)]


def _connect(stats: Any) -> None:
    """Connect; vpp_papi waits for a second, and a main thread that reads out a FIB takes longer."""
    for _ in range(_ATTEMPTS - 1):
        with suppress(TimeoutError):
            stats.connect()
            return
    stats.connect()


def _interfaces(stats: Any) -> dict[str, int]:
    counters: dict[str, int] = {}
    names = [str(name) for name in stats["/if/names"]]
    for kind in (*_SIMPLE, *_COMBINED):
        threads = stats[f"/if/{kind}"]
        for index, name in enumerate(names):
            cells = [thread[index] for thread in threads if index < len(thread)]
            counters[f"/if/{kind}/{name}"] = sum(int(c[0]) if kind in _COMBINED else int(c) for c in cells)
    return counters


def _errors(stats: Any) -> dict[str, int]:
    """Return what /err/* count above zero.

    Each of some 3,000 is a link to one cell of a table (vlib/stats: target's entry in the low half of the
    value, column in the high one). vpp_papi reads the whole table for each (0.6 s), this reads it once.
    """
    counters: dict[str, int] = {}
    columns: dict[int, list[int]] = {}
    for name, entry in stats.directory.items():
        if not name.startswith("/err/") or entry.type != _SYMLINK:
            continue
        table, column = entry.value & 0xFFFFFFFF, entry.value >> 32
        if table not in columns:
            threads = stats[stats.directory_by_idx[table]]
            columns[table] = [sum(cells) for cells in zip_longest(*threads, fillvalue=0)]
        if column < len(columns[table]) and (count := columns[table][column]):
            counters[name] = count
    return counters


def _nodes(stats: Any) -> dict[str, int]:
    """Return what graph nodes did, as ``/sys/node/COUNTER/THREAD/NODE``; node names may have slashes."""
    counters = {
        "/sys/heartbeat": int(stats["/sys/heartbeat"]),
        COUNTS_SINCE: int(stats["/sys/boottime"]),
    }
    if "/sys/node/names" not in stats.directory:
        return counters
    names = [str(name) for name in stats["/sys/node/names"]]
    for kind in _NODE_COUNTERS:
        for thread, cells in enumerate(stats[f"/sys/node/{kind}"]):
            counters.update(
                (f"/sys/node/{kind}/{thread}/{name}", int(n))
                for name, n in zip(names, cells, strict=False)
                if n
            )
    return counters


def _reasons(growth: Mapping[str, int]) -> list[DropClass]:
    """Return the reasons of /err/*, together exactly what /if/drops counts."""
    left = sum(n for name, n in growth.items() if name.startswith("/if/drops/"))
    errors = {
        name.removeprefix("/err/"): n
        for name, n in growth.items()
        if name.startswith("/err/") and not _RING_FULL.fullmatch(name)
    }
    named = sorted((-n, reason) for reason, n in errors.items() if not reason.startswith(_NO_DROP))
    classes: list[DropClass] = []
    for negative, reason in named:
        count = min(-negative, left)
        node, _, why = reason.partition("/")
        words = "dropped by a FIB entry, or no reason given" if why == _NO_REASON else f"{node}: {why}"
        classes.append(DropClass(f"VPP {words}", count, Side.DEVICE, f"/err/{reason}"))
        left -= count
    return [*classes, DropClass("VPP dropped without a reason", left, Side.DEVICE, "/if/drops")]


def _outside(growth: Mapping[str, int]) -> list[DropClass]:
    classes: list[DropClass] = []
    for name, n in growth.items():
        kind, _, port = name.removeprefix("/if/").partition("/")
        if name.startswith("/if/") and kind in _OUTSIDE:
            classes.append(DropClass(f"VPP port {port}: {_OUTSIDE[kind]}", n, Side.DEVICE, f"/if/{kind}"))
    return classes


def _rings(growth: Mapping[str, int]) -> list[DropClass]:
    """Return what the tester did not take from memifs: it has their other ends."""
    found = ((_RING_FULL.fullmatch(name), n) for name, n in growth.items())
    return [
        DropClass(f"tester did not empty the memif of VPP port {match[1]} in time", n, Side.TESTER, match[0])
        for match, n in found
        if match
    ]


def _below(growth: Mapping[str, int]) -> list[DropClass]:
    """Return what got lost between kernel ports and the af_packet ports above them."""
    classes: list[DropClass] = []
    for name, taken in growth.items():
        direction, _, port = name.removeprefix("/if/").partition("/host-")
        if not name.startswith("/if/") or direction not in _COMBINED:
            continue
        kernel = growth.get(f"dev.{port}.{direction}_packets")
        if kernel is None:
            continue
        lost, where = (
            (kernel - taken, "not taken in by")
            if direction == "rx"
            else (taken - kernel, "not put out below")
        )
        source = f"{port} {direction}_packets against /if/{direction}"
        classes.append(DropClass(f"{where} VPP port host-{port}", lost, Side.DEVICE, source, derived=True))
    return classes
