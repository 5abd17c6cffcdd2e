"""On which CPU each worker runs: near its NIC, and not where the NIC's interrupts are served.

A worker far from its NIC reads every frame through another socket's memory; one on the CPU that serves the
NIC's interrupts is interrupted by what it receives. Who names CPUs himself gets those.

What is read: /sys/bus/pci/devices/ADDRESS/{numa_node,msi_irqs}, /sys/devices/system/node/nodeN/cpulist,
/sys/devices/system/cpu/cpuN/topology/thread_siblings_list (sysfs-devices-system-cpu, sysfs-bus-pci of the
kernel's ABI documentation) and /proc/irq/N/effective_affinity_list (core-api/irq). PCI devices are looked up
by their address, which a network namespace does not hide.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Work:
    """A worker to be placed: how it is called, and PCI addresses of its ports' NICs, if they have any."""

    what: str
    nics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Placement:
    """The CPU of each worker, None for any, and why, in words."""

    cpus: tuple[int | None, ...]
    words: str


class Machine:
    """What a machine's files say of its NICs and CPUs.

    Args:
        root: directory that holds the machine's /sys and /proc.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def node_of(self, nic: str) -> int | None:
        """Return the NUMA node of a PCI device; None when there is none or the firmware is silent."""
        text = self._text(f"sys/bus/pci/devices/{nic}/numa_node")
        return int(text) if text and int(text) >= 0 else None

    def cpus_of(self, node: int) -> frozenset[int]:
        """Return the CPUs of a NUMA node."""
        return cpu_list(self._text(f"sys/devices/system/node/node{node}/cpulist"))

    def interrupted_by(self, nic: str) -> frozenset[int]:
        """Return the CPUs that serve the interrupts of a PCI device."""
        directory = self._root / f"sys/bus/pci/devices/{nic}/msi_irqs"
        numbers = [entry.name for entry in directory.iterdir()] if directory.is_dir() else []
        return frozenset[int]().union(*(self._serving(number) for number in numbers))

    def siblings_of(self, cpu: int) -> frozenset[int]:
        """Return the CPUs that are threads of the same core, this one included."""
        return cpu_list(self._text(f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"))

    def _serving(self, interrupt: str) -> frozenset[int]:
        for name in ("effective_affinity_list", "smp_affinity_list"):
            cpus = cpu_list(self._text(f"proc/irq/{interrupt}/{name}"))
            if cpus:
                return cpus
        return frozenset()

    def _text(self, path: str) -> str:
        try:
            return (self._root / path).read_text().strip()
        except OSError:
            return ""


def place(
    works: Sequence[Work], allowed: Collection[int], machine: Machine, *, wanted: Sequence[int] = ()
) -> Placement:
    """Give each worker a CPU.

    Args:
        works: the workers.
        allowed: CPUs that may be used. Unless there are more than workers nobody is pinned: the system,
            and in a lab the device, need some too.
        machine: what is known of NICs and CPUs.
        wanted: CPUs to take in turn, whatever they are.
    """
    if wanted:
        cpus = [wanted[i % len(wanted)] for i in range(len(works))]
        asked = "; ".join(f"{work.what} on CPU {cpu}" for work, cpu in zip(works, cpus, strict=True))
        return Placement(tuple(cpus), f"{asked}, as asked for")
    if len(allowed) <= len(works):
        return Placement(
            (None,) * len(works),
            f"{len(works)} workers not pinned: there are {len(allowed)} CPUs for everything",
        )
    taken: list[int] = []
    told: list[str] = []
    for work in works:
        cpu, why = _best(work, sorted(set(allowed) - set(taken)), machine, taken)
        taken.append(cpu)
        told.append(f"{work.what} on CPU {cpu}{why}")
    return Placement(tuple(taken), "; ".join(told))


def _best(work: Work, free: Sequence[int], machine: Machine, taken: Sequence[int]) -> tuple[int, str]:
    """Return the best free CPU for a worker, and what is to be said of it."""
    nodes = sorted({node for nic in work.nics if (node := machine.node_of(nic)) is not None})
    near = frozenset[int]().union(*(machine.cpus_of(node) for node in nodes))
    interrupted = frozenset[int]().union(*(machine.interrupted_by(nic) for nic in work.nics))
    beside = frozenset[int]().union(*(machine.siblings_of(cpu) for cpu in taken))

    def rank(cpu: int) -> tuple[bool, bool, bool, int]:
        return bool(near) and cpu not in near, cpu in interrupted, cpu in beside, cpu

    cpu = min(free, key=rank)
    far, shared, _, _ = rank(cpu)
    where = " and ".join(map(str, nodes))
    if far:
        return cpu, f", not on its NIC's node {where}: no CPU is free there"
    note = ", which serves its NIC's interrupts: no other is free" if shared else ""
    return cpu, (f" of its NIC's node {where}" if nodes else "") + note


def cpu_list(text: str) -> frozenset[int]:
    """Return the CPUs of a list as the kernel writes it: ``0-3,8,10-11``."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
