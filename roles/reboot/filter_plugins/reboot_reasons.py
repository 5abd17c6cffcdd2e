# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filter: why a host must be rebooted before it is what the inventory asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

PAGE_KIB = {"2M": "2048", "1G": "1048576"}


def argument_reasons(running: Iterable[str], wanted: Sequence[str], withdrawn: Sequence[str]) -> list[str]:
    """Kernel arguments that are wanted and missing, or withdrawn and still there."""
    present = set(running)
    missing = [argument for argument in dict.fromkeys(wanted) if argument not in present]
    left = [
        argument for argument in dict.fromkeys(withdrawn) if argument in present and argument not in wanted
    ]
    reasons = []
    if missing:
        reasons.append(f"the running kernel lacks the arguments {' '.join(missing)}")
    if left:
        reasons.append(f"the running kernel still has the withdrawn arguments {' '.join(left)}")
    return reasons


def page_reasons(nodes: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> list[str]:
    """NUMA nodes without exactly the huge pages wanted; a node not named wants none of a wanted size."""
    count = {(int(pages["node"]), str(pages["size"])): int(pages["count"]) for pages in wanted}
    sizes = sorted({size for _, size in count})
    present = {int(node["id"]): node["hugepages"] for node in nodes}
    reasons = []
    for node in sorted(present.keys() | {node for node, _ in count}):
        for size in sizes:
            expected = count.get((node, size), 0)
            found = int(present.get(node, {}).get(PAGE_KIB[size], {}).get("total", 0))
            if found != expected:
                reasons.append(f"NUMA node {node} has {found} pages of {size}, expected {expected}")
    return reasons


def isolation_reasons(isolated: Iterable[int], wanted: Iterable[int]) -> list[str]:
    """CPUs that should be isolated and are not."""
    missing = sorted({int(cpu) for cpu in wanted} - {int(cpu) for cpu in isolated})
    return [f"CPUs {', '.join(map(str, missing))} are not isolated"] if missing else []


def reboot_reasons(
    facts: Mapping[str, Any],
    arguments: Sequence[str] = (),
    withdrawn: Sequence[str] = (),
    pages: Sequence[Mapping[str, Any]] = (),
    isolated: Sequence[int] = (),
    iommu: bool = False,
    kernel: str = "",
) -> list[str]:
    """Reasons to reboot, in words; none when the running kernel is as wanted.

    Args:
        facts: `ansible_facts.router_host`.
        arguments: kernel arguments wanted.
        withdrawn: kernel arguments the kit once put in and wants no longer.
        pages: huge pages wanted, {node, size: 2M or 1G, count} each.
        isolated: CPUs that are to be isolated.
        iommu: whether the IOMMU must be on.
        kernel: release of the kernel that must run; any when empty.
    """
    reasons = argument_reasons(facts["cmdline"], arguments, withdrawn)
    reasons += page_reasons(facts["numa_nodes"], pages)
    reasons += isolation_reasons(facts["cpu"]["isolated"], isolated)
    if iommu and not facts["iommu"]["enabled"]:
        reasons.append("the IOMMU is off")
    if kernel and facts["kernel"] != kernel:
        reasons.append(f"kernel {facts['kernel']} runs, expected {kernel}")
    return reasons


class FilterModule:
    """Filters of role reboot."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name of each filter and its function."""
        return {"reboot_reasons": reboot_reasons}
