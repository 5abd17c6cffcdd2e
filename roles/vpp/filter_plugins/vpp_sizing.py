# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filters: how large VPP's memory is, how many queues and descriptors its ports get.

Every figure says where it comes from: VPP 26.06's source (paths below ``src/``), or a measurement with VPP
26.06 (``show memory``, before and after 500,000 IPv4 and 100,000 IPv6 routes through one next hop, one
thread).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

MIB = 1 << 20

#: Main heap of an idle VPP with the plugins of a router, bytes (measured: 33 MiB), with room for clients and
#: traces.
IDLE_HEAP_BYTES = 256 * MIB
#: Main heap a route takes, bytes (measured: 327 and 285; the IPv6 hash table is in the main heap,
#: bihash_24_8.h).
ROUTE_BYTES = {"ipv4": 330, "ipv6": 290}
#: One ply of the IPv4 mtrie, bytes: 256 leaves of 4 bytes and their prefix lengths (vnet/ip/ip4_mtrie.h).
PLY_BYTES = 1344
#: Plies below the root, which resolves 16 bits: at most one for each /16 while no route is longer than /24.
MOST_PLIES = 1 << 16
#: Plies for routes longer than /24, which a full table has few of.
SPARE_PLIES = 1024
#: Spare share of the heap: path lists, neighbours, fragmentation.
HEAP_FACTOR = 1.25
#: A route in an answer to ip_route_v2_dump, bytes (measured: 229 MB for 1,055,514). Answers to a client that
#: does not keep up wait in the main heap (vlibmemory/socket_api.c), in a vector that doubles as it grows.
DUMP_BYTES = 217
DUMP_FACTOR = 2.5
#: What main heap and stats segment are rounded up to, bytes.
HEAP_STEP = 256 * MIB
STATS_STEP = 32 * MIB
LEAST_HEAP_BYTES = 512 * MIB

#: Stats segment of an idle VPP, bytes: interface, node and error counters (VPP's own default is 32 MiB).
IDLE_STATS_BYTES = 64 * MIB
#: Counters of a route, bytes for each thread: 16 for packets sent to it and 16 via it
#: (vnet/dpo/load_balance.c).
COUNTER_BYTES = 32
#: Counter vectors grow by copying (vppinfra/vec.h): the old and the new one are there at once.
COUNTER_FACTOR = 2.5

#: Spare share of the pools of routes: VPP's own entries, and routes that change places.
POOL_FACTOR = 1.2
#: Routes in a bucket of the IPv6 table: four entries fill a page of it (vppinfra/bihash_24_8.h).
BUCKET_ROUTES = 2
LEAST_IP6_BUCKETS = 1 << 16

#: Descriptors of a queue that says nothing else: VPP's default (plugins/dpdk/device/dpdk_priv.h).
DESCRIPTORS = 1024
#: Buffers a NUMA node has at least, those a worker may hold, and the spare share; see role hugepages.
LEAST_BUFFERS = 16_384
BUFFERS_PER_WORKER = 256
BUFFER_FACTOR = 2.5
#: Data of a buffer, bytes (vlib/buffer.h), and what a frame has beside its IP packet: Ethernet header, two
#: VLAN tags and FCS.
BUFFER_DATA_BYTES = 2048
FRAME_BYTES = 26


def vpp_memory(routes: Mapping[str, Any], workers: int) -> dict[str, Any]:
    """Sizes of VPP's memory for a table of routes.

    Args:
        routes: `router_expected_routes`, {ipv4, ipv6}.
        workers: number of worker threads; the main thread counts beside them.

    Returns:
        {heap_bytes, stats_bytes, fib: {entries, load_balances, ip4_mtries, ip6_buckets}}
    """
    ipv4, ipv6 = (_count(routes, family) for family in ("ipv4", "ipv6"))
    plies = min(ipv4, MOST_PLIES) + SPARE_PLIES
    tables = ipv4 * ROUTE_BYTES["ipv4"] + ipv6 * ROUTE_BYTES["ipv6"] + plies * PLY_BYTES
    heap = HEAP_FACTOR * (IDLE_HEAP_BYTES + tables) + DUMP_FACTOR * DUMP_BYTES * (ipv4 + ipv6)
    stats = IDLE_STATS_BYTES + COUNTER_FACTOR * COUNTER_BYTES * (ipv4 + ipv6) * (workers + 1)
    entries = math.ceil(POOL_FACTOR * (ipv4 + ipv6)) + SPARE_PLIES
    return {
        "heap_bytes": max(LEAST_HEAP_BYTES, _rounded(heap, HEAP_STEP)),
        "stats_bytes": _rounded(stats, STATS_STEP),
        "fib": {
            "entries": entries,
            "load_balances": entries,
            "ip4_mtries": plies,
            "ip6_buckets": max(LEAST_IP6_BUCKETS, 1 << math.ceil(math.log2(max(1, ipv6 / BUCKET_ROUTES)))),
        },
    }


def vpp_ports(
    ports: Sequence[Mapping[str, Any]], facts: Mapping[str, Any] | None = None, workers: int = 0
) -> list[dict[str, Any]]:
    """The ports of startup.conf's dpdk stanza.

    A port gets a receive queue for each worker, as far as its NIC has them (VPP leaves it at one otherwise),
    and VPP gives it a transmit queue for each thread, unless the inventory says something else.

    Args:
        ports: `router_ports`.
        facts: `ansible_facts.router_host`, for ports given by an interface's name; None where all are PCI
        addresses.
        workers: number of worker threads.

    Returns:
        [{pci, name, node, rx_queues, rx_descriptors, tx_descriptors} and, as given, {tx_queues}]; `node` is
        None for a NIC that says none.

    Raises:
        AnsibleFilterError: a NIC is not on this host.
    """
    found = []
    for index, port in enumerate(ports):
        nic = _nic(port, index, facts)
        node = nic.get("numa_node")
        entry = {
            "pci": nic["pci"],
            "name": port["name"],
            "node": None if node is None or int(node) < 0 else int(node),
            "rx_queues": int(port.get("rx_queues") or max(1, workers)),
            "rx_descriptors": int(port.get("rx_descriptors") or DESCRIPTORS),
            "tx_descriptors": int(port.get("tx_descriptors") or DESCRIPTORS),
        }
        if port.get("tx_queues"):
            entry["tx_queues"] = int(port["tx_queues"])
        found.append(entry)
    return found


def vpp_buffers(ports: Sequence[Mapping[str, Any]], workers: int = 0) -> int:
    """Buffers a NUMA node gets: 2.5 x (descriptors of all queues there + 256 a worker), 16,384 at least.

    VPP takes one figure for all nodes, so that of the node with the most descriptors.

    Args:
        ports: what `vpp_ports` returned.
        workers: number of worker threads; each may hold a frame of any node.
    """
    descriptors: dict[int, int] = {}
    for port in ports:
        receive = port["rx_queues"] * port["rx_descriptors"]
        transmit = port.get("tx_queues", workers + 1) * port["tx_descriptors"]
        node = port["node"] or 0
        descriptors[node] = descriptors.get(node, 0) + receive + transmit
    most = max(descriptors.values(), default=0)
    return max(LEAST_BUFFERS, math.ceil(BUFFER_FACTOR * (most + BUFFERS_PER_WORKER * workers)))


def vpp_fits_one_buffer(ports: Sequence[Mapping[str, Any]], bonds: Sequence[Mapping[str, Any]] = ()) -> bool:
    """Whether the longest frame of every port fits into one buffer, so that no packet needs a chain of them.

    With `no-multi-seg` VPP neither asks NICs to scatter packets nor to gather them, which lets drivers use
    their vector functions, and limits frames to the size of a buffer (plugins/dpdk/device/common.c).

    Args:
        ports: `router_ports`.
        bonds: `router_bonds`.
    """
    return all(int(link.get("mtu") or 1500) + FRAME_BYTES <= BUFFER_DATA_BYTES for link in (*ports, *bonds))


def vpp_size(size: int) -> str:
    """A size in VPP's notation, in whole MiB: 512M."""
    return f"{math.ceil(int(size) / MIB)}M"


def vpp_bytes(size: str | int) -> int:
    """Bytes of a size in VPP's notation: 512M, 2G, 4k or a number (unformat_memory_size).

    Raises:
        AnsibleFilterError: it is none.
    """
    text = str(size).strip()
    shift = {"k": 10, "m": 20, "g": 30}.get(text[-1:].lower(), 0)
    digits = text[:-1] if shift else text
    if not digits.isdecimal():
        raise AnsibleFilterError(f"found {size!r}, expected a size in VPP's notation, such as 512M or 2G")
    return int(digits) << shift


def _nic(port: Mapping[str, Any], index: int, facts: Mapping[str, Any] | None) -> Mapping[str, Any]:
    device = str(port["device"])
    nics = (facts or {}).get("nics", [])
    for nic in nics:
        if device in (nic["pci"], nic.get("interface"), nic.get("former_interface")):
            assert isinstance(nic, Mapping)
            return nic
    if facts is None and device.count(":") == 2:
        return {"pci": device}
    known = ", ".join(f"{nic['pci']} ({nic.get('interface') or nic.get('driver')})" for nic in nics) or "none"
    raise AnsibleFilterError(
        f"router_ports[{index}].device: found {device!r}, expected a NIC of this host: {known}"
    )


def _count(routes: Mapping[str, Any], family: str) -> int:
    count = int(routes.get(family, 0))
    if count < 0:
        raise AnsibleFilterError(f"router_expected_routes.{family}: found {count}, expected 0 or more")
    return count


def _rounded(size: float, step: int) -> int:
    return math.ceil(size / step) * step


class FilterModule:
    """Filters of role vpp."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name of each filter and its function."""
        return {
            "vpp_memory": vpp_memory,
            "vpp_ports": vpp_ports,
            "vpp_buffers": vpp_buffers,
            "vpp_fits_one_buffer": vpp_fits_one_buffer,
            "vpp_size": vpp_size,
            "vpp_bytes": vpp_bytes,
        }
