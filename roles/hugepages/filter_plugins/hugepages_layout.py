# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filters: how many huge pages each NUMA node needs, and the kernel arguments that reserve them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MIB = 1 << 20
GIB = 1 << 30
PAGE_BYTES = {"2M": 2 * MIB, "1G": GIB}
PAGE_KIB = {"2M": "2048", "1G": "1048576"}

#: Memory of one VPP buffer, bytes: 2,048 of data, VPP's and DPDK's headers before it, rounded up.
BUFFER_BYTES = 2560
#: Buffers a NUMA node has at least, and those each worker may hold (VPP: frame size 256).
LEAST_BUFFERS = 16_384
BUFFERS_PER_WORKER = 256
#: Spare buffers, so that a full ring does not take the last one.
BUFFER_FACTOR = 2.5
#: Descriptors of a queue that says nothing else.
DESCRIPTORS = 1024
#: DPDK's own memory on a node with ports: rings of descriptors, tables of the drivers.
DPDK_BYTES = 64 * MIB


def node_of(facts: Mapping[str, Any], port: Mapping[str, Any]) -> int | None:
    """NUMA node of a port's NIC, the first one where the NIC tells none; None for a NIC that is not there."""
    first = min((int(node["id"]) for node in facts["numa_nodes"]), default=0)
    for nic in facts["nics"]:
        if port["device"] in (nic["pci"], nic["interface"], nic.get("former_interface")):
            return int(nic["numa_node"]) if int(nic["numa_node"]) >= 0 else first
    return None


def buffers(ports: Sequence[Mapping[str, Any]], workers: int) -> int:
    """Buffers a NUMA node needs: 2.5 x (descriptors of its ports + 256 a worker), 16,384 at least."""
    descriptors = 0
    for port in ports:
        receive = (port.get("rx_queues") or max(1, workers)) * (port.get("rx_descriptors") or DESCRIPTORS)
        transmit = (port.get("tx_queues") or workers + 1) * (port.get("tx_descriptors") or DESCRIPTORS)
        descriptors += receive + transmit
    return max(LEAST_BUFFERS, math.ceil(BUFFER_FACTOR * (descriptors + BUFFERS_PER_WORKER * workers)))


def hugepages_needed(
    facts: Mapping[str, Any],
    ports: Sequence[Mapping[str, Any]],
    *,
    forwarding: str = "vpp",
    workers: int = 0,
    main_core: int = 0,
    heap_bytes: int = 0,
) -> list[dict[str, Any]]:
    """Pages of 2 MiB each NUMA node needs for VPP.

    On every node with memory: buffers x 2,560 bytes, as many as the node with the most ports needs, because
    VPP takes one figure for all nodes; on nodes with ports 64 MiB for DPDK; on the node of the main thread
    what VPP's main heap takes of huge pages. Each is rounded up to whole pages, because each is a mapping of
    its own. None when the kernel forwards.

    Args:
        facts: `ansible_facts.router_host`.
        ports: `router_ports`.
        forwarding: `router_forwarding`.
        workers: number of VPP's workers.
        main_core: CPU of VPP's main thread.
        heap_bytes: VPP's main heap, as far as it is in huge pages.

    Returns:
        [{node, size: 2M, count}] by node.
    """
    if forwarding != "vpp":
        return []
    main_node = next((int(cpu["node"]) for cpu in facts["cpu"]["cores"] if int(cpu["id"]) == main_core), 0)
    nodes = sorted(int(node["id"]) for node in facts["numa_nodes"] if int(node["memory_bytes"]) > 0)
    by_node = {node: [port for port in ports if node_of(facts, port) == node] for node in nodes}
    most = max(buffers(here, workers) for here in by_node.values())
    pages = []
    for node, here in by_node.items():
        needs = [most * BUFFER_BYTES]
        needs += [DPDK_BYTES] if here else []
        needs += [heap_bytes] if node == main_node else []
        count = sum(math.ceil(need / PAGE_BYTES["2M"]) for need in needs)
        pages.append({"node": node, "size": "2M", "count": count})
    return pages


def hugepages_arguments(pages: Sequence[Mapping[str, Any]], default_size: str) -> list[str]:
    """Kernel arguments that reserve `pages` at boot.

    hugepagesz= applies to the hugepages= after it, and that takes counts by node
    (Documentation/admin-guide/mm/hugetlbpage.rst, Linux 5.16): the order of the list matters.
    """
    if not pages:
        return []
    arguments = [f"default_hugepagesz={default_size}"]
    for size in PAGE_BYTES:
        counts = {int(entry["node"]): int(entry["count"]) for entry in pages if entry["size"] == size}
        if counts:
            nodes = ",".join(f"{node}:{count}" for node, count in sorted(counts.items()))
            arguments += [f"hugepagesz={size}", f"hugepages={nodes}"]
    return arguments


def hugepages_default_count(pages: Sequence[Mapping[str, Any]], default_size: str) -> int:
    """Pages of the default size on all nodes: what vm.nr_hugepages shows and sets."""
    return sum(int(entry["count"]) for entry in pages if entry["size"] == default_size)


def hugepages_reserved(facts: Mapping[str, Any], size: str) -> bool:
    """Whether the host has pages of this size now, whoever asked for them."""
    return any(int(node["hugepages"].get(PAGE_KIB[size], {}).get("total", 0)) for node in facts["numa_nodes"])


def hugepages_problems(
    facts: Mapping[str, Any], pages: Sequence[Mapping[str, Any]], default_size: str
) -> list[str]:
    """What is wrong with the pages asked for on this host; empty when nothing is."""
    nodes = {int(node["id"]): int(node["memory_bytes"]) for node in facts["numa_nodes"]}
    problems = []
    seen: set[tuple[int, str]] = set()
    asked: dict[int, int] = {}
    for entry in pages:
        node, size, count = int(entry["node"]), str(entry["size"]), int(entry["count"])
        if node not in nodes:
            known = ", ".join(map(str, sorted(nodes)))
            problems.append(f"hugepages_per_node: found node {node}, expected one of this host ({known})")
        if (node, size) in seen:
            problems.append(
                f"hugepages_per_node: found node {node} with {size} twice, expected one entry: add them up"
            )
        if count < 0:
            problems.append(f"hugepages_per_node: found {count} pages on node {node}, expected 0 or more")
        seen.add((node, size))
        asked[node] = asked.get(node, 0) + count * PAGE_BYTES[size]
    for node, wanted in asked.items():
        if wanted >= nodes.get(node, wanted + 1):
            problems.append(
                f"hugepages_per_node: found {wanted // MIB} MiB on node {node}, expected less than "
                f"its memory of {nodes[node] // MIB} MiB: ask for fewer pages, or add memory"
            )
    sizes = {str(entry["size"]) for entry in pages}
    lacks_1g = facts["machine"] == "x86_64" and "pdpe1gb" not in facts["cpu"]["flags"]
    if lacks_1g and pages and "1G" in {*sizes, default_size}:
        problems.append(
            "hugepages_per_node: found pages of 1G, expected 2M: this CPU has none of 1G (no pdpe1gb)"
        )
    return problems


class FilterModule:
    """Filters of role hugepages."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name of each filter and its function."""
        return {
            "hugepages_needed": hugepages_needed,
            "hugepages_arguments": hugepages_arguments,
            "hugepages_default_count": hugepages_default_count,
            "hugepages_reserved": hugepages_reserved,
            "hugepages_problems": hugepages_problems,
        }
