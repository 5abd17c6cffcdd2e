"""Ansible filter: whether the machine itself can be the router that the inventory wants.

Operating system, processor, memory for the pages asked, NUMA placement of the workers, IOMMU.
"""

# Copyright: the authors. Apache License 2.0 (see LICENSE).
from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Problem = dict[str, str]

MIB = 1 << 20
PAGE_BYTES = {"2M": 2 * MIB, "1G": 1 << 30}
# The level x86-64-v2 (x86-64 psABI 1.0), which VPP's packages are built for, in the words of /proc/cpuinfo.
X86_64_V2_FLAGS = ("cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3")
MACHINES = {"vpp": ("x86_64", "aarch64"), "kernel": ("x86_64", "aarch64")}
# Arguments that turn the IOMMU off (Documentation/admin-guide/kernel-parameters.txt).
IOMMU_OFF = ("intel_iommu=off", "amd_iommu=off", "iommu=off")
IOMMU_ON = {"DMAR": "intel_iommu=on"}
BASE_RESERVE_MIB = 512
ROUTES_PER_RESERVED_MIB = 1000


def preflight_host(
    variables: Mapping[str, Any],
    facts: Mapping[str, Any],
    os_versions: Sequence[str] = ("12", "13"),
    reserved_mb: int | None = None,
) -> dict[str, Any]:
    """Check the machine.

    Args:
        variables: the kit's variables with their defaults; those that are wrong or missing are left out.
        facts: `ansible_facts.router_host`.
        os_versions: versions of Debian that will do.
        reserved_mb: MiB that hugepages must leave; computed from `router_expected_routes` when None.

    Returns:
        {problems: [{variable, found, expected, remedy}], notes: [text]}.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    forwarding = variables.get("router_forwarding", "vpp")
    problems += operating_system(facts, os_versions)
    problems += processor(facts, forwarding)
    pages = [
        page for page in variables.get("hugepages_per_node") or [] if {"node", "size", "count"} <= set(page)
    ]
    problems += page_sizes(facts, pages, variables.get("hugepages_default_size"))
    problems += memory(facts, pages, reserve(variables, reserved_mb))
    if forwarding == "vpp":
        problems += workers(variables, facts)
        found = iommu(variables, facts)
        problems += found["problems"]
        notes += found["notes"]
        if sum(core["online"] for core in facts["cpu"]["cores"]) < 2:
            notes.append("one CPU: VPP's main thread forwards too, at a fraction of the rate")
    return {"problems": problems, "notes": notes}


def operating_system(facts: Mapping[str, Any], versions: Sequence[str]) -> list[Problem]:
    """Debian, and which."""
    system = facts["os"]
    if system["id"] == "debian" and system["version_id"] in versions:
        return []
    found = f"{system['id'] or 'an unknown system'} {system['version_id'] or system['codename']}".strip()
    return [
        {
            "variable": "preflight_os_versions",
            "found": found,
            "expected": f"debian {' or '.join(versions)}",
            "remedy": "install one of these; no other system was tried",
        }
    ]


def processor(facts: Mapping[str, Any], forwarding: str) -> list[Problem]:
    """Architecture, and what VPP's code needs of the processor."""
    machines = MACHINES[forwarding]
    if facts["machine"] not in machines:
        return [
            {
                "variable": "router_forwarding",
                "found": f"{forwarding} on a machine of architecture {facts['machine']}",
                "expected": " or ".join(machines),
                "remedy": "use another machine",
            }
        ]
    lacking = [flag for flag in X86_64_V2_FLAGS if flag not in facts["cpu"]["flags"]]
    if forwarding != "vpp" or facts["machine"] != "x86_64" or not lacking:
        return []
    return [
        {
            "variable": "router_forwarding",
            "found": f"vpp on {facts['cpu']['model'] or 'a CPU'} without {', '.join(lacking)}",
            "expected": "a CPU of level x86-64-v2, which VPP's packages are built for",
            "remedy": "give the virtual machine the host's CPU model, or set router_forwarding: kernel",
        }
    ]


def page_sizes(
    facts: Mapping[str, Any], pages: Sequence[Mapping[str, Any]], default_size: str | None
) -> list[Problem]:
    """Pages of 1G need a flag of the CPU."""
    wanted = {page["size"] for page in pages} | ({default_size} if pages else set())
    if "1G" not in wanted or facts["machine"] != "x86_64" or "pdpe1gb" in facts["cpu"]["flags"]:
        return []
    return [
        {
            "variable": "hugepages_per_node",
            "found": "pages of 1G on a CPU without pdpe1gb",
            "expected": "pages of 2M",
            "remedy": "ask for pages of 2M, or give the virtual machine the host's CPU model",
        }
    ]


def reserve(variables: Mapping[str, Any], reserved_mb: int | None) -> int:
    """MiB that hugepages must leave: what was said, or 512 and one for each 1,000 routes."""
    if reserved_mb is not None:
        return reserved_mb
    routes: int = sum(variables.get("router_expected_routes", {}).values())
    return BASE_RESERVE_MIB + routes // ROUTES_PER_RESERVED_MIB


def memory(facts: Mapping[str, Any], pages: Sequence[Mapping[str, Any]], reserved_mib: int) -> list[Problem]:
    """Room for the pages, on each NUMA node and on all of them together."""
    sizes = {node["id"]: node["memory_bytes"] // MIB for node in facts["numa_nodes"]}
    asked: dict[int, int] = defaultdict(int)
    for page in pages:
        asked[page["node"]] += page["count"] * PAGE_BYTES[page["size"]] // MIB
    problems = []
    for node, wanted in asked.items():
        if node not in sizes:
            known = ", ".join(map(str, sizes))
            problems.append(page_problem(f"pages on NUMA node {node}", f"a node of this host: {known}"))
        elif wanted >= sizes[node]:
            problems.append(
                page_problem(
                    f"{wanted} MiB of pages on NUMA node {node}", f"less than its {sizes[node]} MiB of memory"
                )
            )
    total = facts["memory_bytes"] // MIB
    wanted = sum(asked.values())
    if not problems and wanted and wanted + reserved_mib > total:
        room = max(0, total - reserved_mib)
        problems.append(
            page_problem(
                f"{wanted} MiB of pages",
                f"at most {room} MiB: {total} MiB of memory less {reserved_mib} MiB for the kernel, FRR and "
                "agent (preflight_reserved_memory_mb)",
            )
        )
    return problems


def page_problem(found: str, expected: str) -> Problem:
    """A problem of hugepages_per_node."""
    return {
        "variable": "hugepages_per_node",
        "found": found,
        "expected": expected,
        "remedy": "ask for fewer pages, expect fewer routes (router_expected_routes), or add memory",
    }


def workers(variables: Mapping[str, Any], facts: Mapping[str, Any]) -> list[Problem]:
    """Workers on CPUs that exist, and at least one on each node that has a port's NIC."""
    chosen = variables.get("cpu_isolation_workers") or []
    node_of = {core["id"]: core["node"] for core in facts["cpu"]["cores"] if core["online"]}
    absent = [cpu for cpu in chosen if cpu not in node_of]
    if absent:
        return [
            {
                "variable": "cpu_isolation_workers",
                "found": f"CPU {', '.join(map(str, absent))}",
                "expected": f"CPUs of this host that are online: {', '.join(map(str, node_of))}",
                "remedy": "take CPUs that exist, or leave the choice to the kit",
            }
        ]
    if not chosen:
        return []
    devices = {port.get("device") for port in variables.get("router_ports", [])}
    taken = [
        nic for nic in facts["nics"] if devices & {nic["pci"], nic["interface"], nic.get("former_interface")}
    ]
    problems = []
    for node in sorted({nic["numa_node"] for nic in taken if nic["numa_node"] >= 0}):
        local = [cpu for cpu in node_of if node_of[cpu] == node]
        if len(local) < 2 or any(node_of[cpu] == node for cpu in chosen):
            continue
        ports = ", ".join(nic["pci"] for nic in taken if nic["numa_node"] == node)
        problems.append(
            {
                "variable": "cpu_isolation_workers",
                "found": f"CPU {', '.join(map(str, chosen))}, none of them on NUMA node {node} of {ports}",
                "expected": f"a worker among CPU {', '.join(map(str, local))}",
                "remedy": "put a worker there: packets that cross between nodes cost a third of the rate",
            }
        )
    return problems


def iommu(variables: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The IOMMU: by the firmware, by the kernel, or expressly not."""
    state = facts["iommu"]
    if variables.get("vfio_allow_no_iommu"):
        note = "vfio_allow_no_iommu: a faulty device or VPP can overwrite any memory of this host"
        return {"problems": [], "notes": [note]}
    if state["enabled"]:
        return {"problems": [], "notes": []}
    if not state["tables"]:
        return {
            "problems": [
                {
                    "variable": "router_forwarding",
                    "found": "vpp, and no IOMMU: the firmware has neither a DMAR nor an IVRS table",
                    "expected": "an IOMMU, so that VPP's devices reach no memory but their own",
                    "remedy": "turn on VT-d (Intel) or AMD-Vi (IOMMU) in the firmware's setup; or set "
                    "router_forwarding: kernel; or, knowing what it means, vfio_allow_no_iommu: true",
                }
            ],
            "notes": [],
        }
    off = [argument for argument in facts["cmdline"] if argument in IOMMU_OFF]
    asked = [IOMMU_ON[table] for table in state["tables"] if IOMMU_ON.get(table) in facts["cmdline"]]
    if asked and not off:
        return {
            "problems": [
                {
                    "variable": "router_forwarding",
                    "found": f"vpp, and a kernel that was started with {asked[0]} and uses no IOMMU",
                    "expected": "an IOMMU in use",
                    "remedy": "look for DMAR in the output of dmesg: the firmware's table may be faulty",
                }
            ],
            "notes": [],
        }
    why = f" ({', '.join(off)})" if off else ""
    return {
        "problems": [],
        "notes": [
            f"the kernel does not use the IOMMU now{why}; role kernel_cmdline turns it on, at the next boot. "
            "IOMMU groups can be checked after that only"
        ],
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Filters by name."""
        return {"preflight_host": preflight_host}
