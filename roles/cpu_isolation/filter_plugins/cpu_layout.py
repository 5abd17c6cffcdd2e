# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filters: which CPUs forward, which one is VPP's main thread, and which stay with Linux."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

#: Port speed counted for one worker, Mbit/s: about what a core forwards of small packets with a full table.
WORKER_MBPS = 10_000
#: A physical core in this many stays with Linux, for FRR, the agent and interrupts.
HOUSEKEEPING_SHARE = 4

#: A physical core: (package, core id within it).
CoreKey = tuple[int, int]


class CpuLayoutError(ValueError):
    """The layout asked for is impossible on this host."""


def cpu_list(cpus: Iterable[int]) -> str:
    """CPU numbers as the kernel writes them: 1-3,8 (Documentation/admin-guide/kernel-parameters.rst)."""
    ranges: list[list[int]] = []
    for cpu in sorted({int(cpu) for cpu in cpus}):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def physical_cores(facts: Mapping[str, Any]) -> dict[CoreKey, list[int]]:
    """CPUs (hardware threads) of each physical core that is online, both in ascending order of CPU."""
    threads: dict[CoreKey, list[int]] = defaultdict(list)
    for cpu in sorted(facts["cpu"]["cores"], key=lambda cpu: int(cpu["id"])):
        if cpu["online"]:
            threads[int(cpu["package"]), int(cpu["core"])].append(int(cpu["id"]))
    return dict(threads)


def node_speeds(facts: Mapping[str, Any], ports: Sequence[Mapping[str, Any]]) -> Counter[int]:
    """Rated speed of the ports on each NUMA node, Mbit/s; a NIC whose model fixes none counts for one worker.

    The speed of the link is no measure: it is gone once vfio has the NIC, and the layout must not change by
    that. A port whose NIC is not on this host is left out: saying so is the preflight's business. A NIC
    without a node counts for the first one.
    """
    first = min((int(node["id"]) for node in facts["numa_nodes"]), default=0)
    speeds: Counter[int] = Counter()
    for port in ports:
        for nic in facts["nics"]:
            if port["device"] in (nic["pci"], nic["interface"], nic.get("former_interface")):
                node = int(nic["numa_node"])
                speeds[node if node >= 0 else first] += nic.get("rated_mbps") or WORKER_MBPS
    return speeds


def choose_workers(
    available: Sequence[CoreKey],
    node_of: Mapping[CoreKey, int],
    speeds: Mapping[int, int],
    count: int | None,
) -> list[CoreKey]:
    """Physical cores of the workers: those of the NICs' nodes, as many a node as its ports need.

    With `count` given, nodes are filled in the order of their ports' speed and other nodes last.
    """
    by_speed = sorted({node_of[core] for core in available}, key=lambda node: (-speeds.get(node, 0), node))
    if count is not None:
        return [core for node in by_speed for core in available if node_of[core] == node][:count]
    chosen: list[CoreKey] = []
    for node in by_speed:
        needed = math.ceil(speeds.get(node, 0) / WORKER_MBPS)
        chosen += [core for core in available if node_of[core] == node][:needed]
    return chosen


def cpu_layout(
    facts: Mapping[str, Any],
    ports: Sequence[Mapping[str, Any]],
    *,
    forwarding: str = "vpp",
    worker_count: int | str | None = None,
    share_siblings: bool = False,
) -> dict[str, Any]:
    """Divide the CPUs of a host.

    CPU 0 and the other hardware threads of its core always stay with Linux, and so does one physical core
    in four (at least that one). The main thread gets the first core that is left on the node with the
    fastest ports, the workers those after it. Where only one core is left (two physical cores) it becomes a
    worker and the main thread shares CPU 0; where none is, VPP runs without workers. Each worker has a
    physical core to itself, whose other threads are isolated too and stay idle, unless `share_siblings`
    makes workers of them as well.

    Args:
        facts: `ansible_facts.router_host`.
        ports: `router_ports`.
        forwarding: `router_forwarding`; the kernel forwards on every CPU, so nothing is isolated then.
        worker_count: workers wanted, None for one per 10 Gbit/s of port speed on a node.
        share_siblings: put two workers on the two hardware threads of one core.

    Returns:
        {main: CPU, workers: [CPU], isolated: [CPU], housekeeping: [CPU]}

    Raises:
        CpuLayoutError: there are fewer cores than workers asked for.
    """
    count = None if worker_count is None else int(worker_count)  # -e on the command line gives text
    cores = physical_cores(facts)
    online = sorted(cpu for threads in cores.values() for cpu in threads)
    nothing: dict[str, Any] = {"main": 0, "workers": [], "isolated": [], "housekeeping": online}
    if forwarding != "vpp" or count == 0:
        return nothing
    order = sorted(cores, key=lambda core: cores[core][0])
    node_of = {core: node_number(facts, cores[core][0]) for core in order}
    speeds = node_speeds(facts, ports)
    left = [core for core in order if 0 not in cores[core]]
    keep = max(0, len(order) // HOUSEKEEPING_SHARE - 1) if count is None else 0
    left.sort(key=lambda core: (-speeds.get(node_of[core], 0), order.index(core)))
    usable = left[: len(left) - keep]
    main_core = usable[0] if len(usable) > 1 else None
    threads_per_worker = max((len(cores[core]) for core in usable), default=1) if share_siblings else 1
    cores_wanted = None if count is None else math.ceil(count / threads_per_worker)
    available = [core for core in usable if core != main_core]
    chosen = choose_workers(available, node_of, speeds, cores_wanted)
    workers = [cpu for core in chosen for cpu in (cores[core] if share_siblings else cores[core][:1])]
    workers = sorted(workers[:count])
    if count is not None and len(workers) < count:
        raise CpuLayoutError(
            f"cpu_isolation_worker_count: found {count}, expected at most {len(workers)}: "
            f"the host has {len(order)} physical cores, of which CPU 0's stays with Linux"
            + (" and one is VPP's main thread" if main_core else "")
        )
    if not workers:
        return nothing
    taken = [*chosen, *([main_core] if main_core else [])]
    isolated = sorted(cpu for core in taken for cpu in cores[core])
    return {
        "main": cores[main_core][0] if main_core else 0,
        "workers": workers,
        "isolated": isolated,
        "housekeeping": [cpu for cpu in online if cpu not in isolated],
    }


def node_number(facts: Mapping[str, Any], cpu: int) -> int:
    """NUMA node of a CPU."""
    return next(int(entry["node"]) for entry in facts["cpu"]["cores"] if int(entry["id"]) == cpu)


def layout_problems(
    facts: Mapping[str, Any], main: int, workers: Sequence[int], isolated: Sequence[int]
) -> list[str]:
    """What is wrong with a layout somebody chose; empty when nothing is."""
    online = {int(cpu["id"]) for cpu in facts["cpu"]["cores"] if cpu["online"]}
    problems = []
    for name, cpus in (("main_core", [main]), ("workers", workers), ("cores", isolated)):
        if absent := sorted(set(cpus) - online):
            problems.append(
                f"cpu_isolation_{name}: found {cpu_list(absent)}, expected CPUs that are online "
                f"({cpu_list(online)})"
            )
    if 0 in isolated or 0 in workers:
        problems.append(
            "cpu_isolation_cores: found CPU 0, expected it to stay with Linux: it takes the timers"
        )
    if main in workers:
        problems.append(
            f"cpu_isolation_workers: found {main}, which is also cpu_isolation_main_core: choose another"
        )
    if isolated and not online - set(isolated):
        problems.append("cpu_isolation_cores: found every CPU, expected one at least to be left to Linux")
    if loose := sorted(set(workers) - set(isolated)):
        problems.append(
            f"cpu_isolation_cores: found no {cpu_list(loose)}, expected every worker to be isolated"
        )
    return problems


def cpu_kernel_arguments(isolated: Sequence[int], facts: Mapping[str, Any]) -> list[str]:
    """Kernel arguments that keep the scheduler, timers, RCU callbacks and interrupts away from `isolated`.

    Documentation/admin-guide/kernel-parameters.rst; none when nothing is isolated.
    """
    if not isolated:
        return []
    online = {int(cpu["id"]) for cpu in facts["cpu"]["cores"] if cpu["online"]}
    cpus = cpu_list(isolated)
    return [
        f"isolcpus=managed_irq,domain,{cpus}",
        f"nohz_full={cpus}",
        f"rcu_nocbs={cpus}",
        f"irqaffinity={cpu_list(online - set(isolated))}",
    ]


class FilterModule:
    """Filters of role cpu_isolation."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name of each filter and its function."""
        return {
            "cpu_layout": cpu_layout,
            "cpu_layout_problems": layout_problems,
            "cpu_kernel_arguments": cpu_kernel_arguments,
            "cpu_list": cpu_list,
        }
