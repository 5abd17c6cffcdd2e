"""Ansible filter: whether each port's NIC is there, may be taken, and what it can do."""

# Copyright: the authors. Apache License 2.0 (see LICENSE).
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

Problem = dict[str, str]
Nic = Mapping[str, Any]
Port = Mapping[str, Any]

# Preamble, start of frame delimiter and gap between frames take 20 bytes of the wire (IEEE 802.3).
WIRE_BITS_OF_64_BYTES = (64 + 20) * 8
# What is left of a PCIe link for packets, after headers of transactions and descriptors.
PCIE_SHARE = 0.8
# Drivers that may hold other devices of a group (vfio_dev_driver_allowed in drivers/vfio/vfio_main.c).
HARMLESS_DRIVERS = (None, "vfio-pci", "pci-stub", "pcieport")
# NICs whose DPDK driver works through the kernel's driver, which vfio-pci would take away.
BIFURCATED_VENDORS = {"15b3": "NVIDIA (Mellanox)"}
PCI_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
MAC_ADDRESS = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
LEAST_DESCRIPTORS, MOST_DESCRIPTORS = 64, 32768


def preflight_nics(variables: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Check the NIC of every port.

    Args:
        variables: the kit's variables with their defaults; those that are wrong or missing are left out.
        facts: `ansible_facts.router_host`.

    Returns:
        {problems: [{variable, found, expected, remedy}], notes: [text], nics: [row]}; a row is {port, device,
        nic, driver, node, group, link, at_64_bytes}, all text, for every port whose NIC was found.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    rows: list[dict[str, str]] = []
    ports = variables.get("router_ports", [])
    found = {index: find_nic(port, facts) for index, port in enumerate(ports)}
    taken = [nic["pci"] for nic in found.values() if nic]
    for index, port in enumerate(ports):
        path = f"router_ports[{port.get('name', index)}]"
        nic = found[index]
        problems += queue_problems(path, port)
        if "device" not in port:
            continue
        if nic is None:
            problems += absent(path, port, variables, facts)
            continue
        problems += duplicate(path, index, found, ports)
        problems += management(path, port, nic)
        problems += functions(path, port, nic)
        problems += forwarding_plane(path, nic, variables, taken)
        notes += nic_notes(port, nic, facts)
        rows.append(row(port, nic))
    return {"problems": problems, "notes": notes, "nics": rows}


def find_nic(port: Port, facts: Mapping[str, Any]) -> Nic | None:
    """The NIC of a port: by PCI address, by name, by the name it had before, by the port's own name."""
    device = port.get("device", "")
    for nic in facts["nics"]:
        if device.lower() == nic["pci"] or device in (nic["interface"], nic.get("former_interface")):
            return dict(nic)
    if PCI_ADDRESS.fullmatch(device.lower()):
        return None
    # A NIC that stays with the kernel has the port's name once the kit is done.
    renamed = (nic for nic in facts["nics"] if nic["interface"] and nic["interface"] == port.get("name"))
    return next((dict(nic) for nic in renamed), None)


def absent(path: str, port: Port, variables: Mapping[str, Any], facts: Mapping[str, Any]) -> list[Problem]:
    """A port whose NIC is not there, or is none."""
    device = port["device"]
    carrier = next((entry for entry in facts["management"] if entry["interface"] == device), None)
    if carrier:
        found = f"{device}, which {'; '.join(carrier['reasons'])}"
        return [
            problem(f"{path}.device", found, UNMANAGED, "choose another NIC: this one would lock you out")
        ]
    if device in facts.get("interfaces", {}):
        if variables.get("router_forwarding") == "kernel":
            return []
        expected = f"a NIC on the PCI bus: {choice(facts)}"
        return [
            problem(f"{path}.device", f"{device}, an interface that is no PCI device", expected, "take a NIC")
        ]
    names = [name for nic in facts["nics"] for name in (nic["pci"], nic["interface"]) if name]
    near = get_close_matches(device, names, n=1, cutoff=0.8)
    return [
        problem(
            f"{path}.device",
            f"{device}, which this host does not have",
            f"one of {choice(facts)}",
            (f"write {near[0]}, or " if near else "")
            + "look for it with 'lspci -D | grep -i net'; a card that is not listed is badly seated or off",
        )
    ]


UNMANAGED = "a NIC that the host is not managed through"


def management(path: str, port: Port, nic: Nic) -> list[Problem]:
    """The NIC that the operator's own connection hangs on is never taken."""
    if not nic["management"]:
        return []
    found = f"{words(nic)}, which {'; '.join(nic['management'])}"
    remedy = f"choose another NIC for {port.get('name', 'this port')}: taking this one would lock you out"
    return [problem(f"{path}.device", found, UNMANAGED, remedy)]


def duplicate(path: str, index: int, found: Mapping[int, Nic | None], ports: Sequence[Port]) -> list[Problem]:
    """One NIC of two ports."""
    earlier = [
        ports[other].get("name", other)
        for other, nic in found.items()
        if other < index and nic and found[index] and nic["pci"] == (found[index] or {})["pci"]
    ]
    if not earlier:
        return []
    expected = "a NIC of its own for each port"
    device = ports[index]["device"]
    return [
        problem(
            f"{path}.device", f"{device}, which is the NIC of {earlier[0]} too", expected, "choose another"
        )
    ]


def functions(path: str, port: Port, nic: Nic) -> list[Problem]:
    """Virtual functions that the NIC can make."""
    wanted = port.get("vfs")
    if not wanted:
        return []
    problems = []
    count, total = wanted.get("count", 0), nic["sriov_total"]
    if not 0 <= count <= total:
        remedy = "ask for fewer, or turn SR-IOV on in the firmware's setup and in the NIC's"
        problems.append(
            problem(f"{path}.vfs.count", str(count), f"at most {total}, what {words(nic)} can", remedy)
        )
    macs = [str(mac).lower() for mac in wanted.get("macs", [])]
    for index, mac in enumerate(macs):
        # The first bit on the wire says multicast (IEEE 802).
        if not MAC_ADDRESS.fullmatch(mac) or int(mac[:2], 16) & 1 or mac in macs[:index]:
            expected = 'a unicast MAC address of its own, "02:00:00:00:00:01"'
            problems.append(problem(f"{path}.vfs.macs[{index}]", repr(mac), expected, "correct it"))
    if macs and len(macs) != count:
        expected = f"none, or one for each of {count}"
        problems.append(problem(f"{path}.vfs.macs", f"{len(macs)} addresses", expected, "add or remove some"))
    return problems


def forwarding_plane(
    path: str, nic: Nic, variables: Mapping[str, Any], taken: Sequence[str]
) -> list[Problem]:
    """What VPP's drivers ask for, or the kernel's."""
    if variables.get("router_forwarding", "vpp") == "kernel":
        if nic["driver"] or nic["override"]:
            return []
        remedy = "install the NIC's firmware or the kernel's module, or choose another"
        return [
            problem(f"{path}.device", f"{words(nic)} without a driver", "a NIC the kernel can drive", remedy)
        ]
    problems = []
    vendor = BIFURCATED_VENDORS.get(nic["vendor"])
    if vendor:
        problems.append(
            problem(
                f"{path}.device",
                f"{words(nic)}: NICs of {vendor} forward through their kernel driver, not through vfio-pci",
                "a NIC that vfio-pci can drive",
                "choose another NIC, or set router_forwarding: kernel",
            )
        )
    if not variables.get("vfio_allow_no_iommu"):
        problems += shared_group(path, nic, taken)
    return problems


def shared_group(path: str, nic: Nic, taken: Sequence[str]) -> list[Problem]:
    """VFIO takes a whole IOMMU group or nothing of it (Documentation/driver-api/vfio.rst)."""
    others = [
        device
        for device in nic["group_others"]
        if device["pci"] not in taken and device["driver"] not in HARMLESS_DRIVERS
    ]
    if not others:
        return []
    shared = ", ".join(f"{other['pci']} ({other['name']}, driver {other['driver']})" for other in others)
    return [
        problem(
            f"{path}.device",
            f"{words(nic)} in IOMMU group {nic['iommu_group']} together with {shared}",
            "a group whose devices are all taken: they reach each other's memory, so VFIO takes all or none",
            "put the NIC into another slot, turn on ACS in the firmware's setup, or take the others as well",
        )
    ]


def queue_problems(path: str, port: Port) -> list[Problem]:
    """Numbers of queues and descriptors."""
    problems = [
        problem(f"{path}.{key}", str(port[key]), "1 to 128", "take it out to have it computed")
        for key in ("rx_queues", "tx_queues")
        if key in port and not 1 <= port[key] <= 128
    ]
    for key in ("rx_descriptors", "tx_descriptors"):
        count = port.get(key, LEAST_DESCRIPTORS)
        if not LEAST_DESCRIPTORS <= count <= MOST_DESCRIPTORS or count & (count - 1):
            expected = f"a power of two, {LEAST_DESCRIPTORS} to {MOST_DESCRIPTORS}"
            problems.append(problem(f"{path}.{key}", str(count), expected, "write 1024, 2048 or 4096"))
    return problems


def nic_notes(port: Port, nic: Nic, facts: Mapping[str, Any]) -> list[str]:
    """What works and is not as good as it could be."""
    notes = []
    name = f"{port.get('name', '')} ({nic['pci']})"
    if nic["interface"] and not nic["carrier"]:
        notes.append(f"{name}: no link now, or the interface is down")
    if nic["numa_node"] < 0 and len(facts["numa_nodes"]) > 1:
        notes.append(f"{name}: the firmware does not say which NUMA node it is on; the first one is assumed")
    speed = nic["speed_mbps"] or nic["rated_mbps"]
    if speed and nic["pcie_mbps"] and nic["pcie_mbps"] * PCIE_SHARE < speed:
        notes.append(
            f"{name}: its PCIe link carries {nic['pcie_mbps'] / 1000:.1f} Gbit/s, too little for its "
            f"{speed / 1000:g} Gbit/s; a wider or newer slot would help"
        )
    idle = [other["pci"] for other in nic["group_others"] if other["driver"] is None]
    if idle:
        notes.append(f"{name}: {', '.join(idle)} of its IOMMU group must stay without a driver")
    return notes


def row(port: Port, nic: Nic) -> dict[str, str]:
    """A line of the table of NICs."""
    speed = nic["speed_mbps"] or nic["rated_mbps"]
    return {
        "port": port.get("name", ""),
        "device": nic["pci"],
        "nic": nic["name"],
        "driver": nic["driver"] or "none",
        "node": str(nic["numa_node"]) if nic["numa_node"] >= 0 else "?",
        "group": "none" if nic["iommu_group"] is None else str(nic["iommu_group"]),
        "link": f"{speed / 1000:g} Gbit/s" + ("" if nic["speed_mbps"] else " (rated)") if speed else "?",
        "at_64_bytes": reach(speed, nic["ceiling_mpps"]),
    }


def reach(speed_mbps: int | None, ceiling_mpps: float | None) -> str:
    """Packets of 64 bytes a second: the least of what the wire and the NIC can."""
    if not speed_mbps:
        return "?"
    wire = speed_mbps / WIRE_BITS_OF_64_BYTES
    if ceiling_mpps and ceiling_mpps < wire:
        return f"{ceiling_mpps:.2f} Mpps (NIC; wire {wire:.2f})"
    return f"{wire:.2f} Mpps"


def words(nic: Nic) -> str:
    """A NIC for people."""
    return f"{nic['pci']} ({', '.join(filter(None, (nic['interface'], nic['name'])))})"


def choice(facts: Mapping[str, Any]) -> str:
    """NICs of the host that are free."""
    free = [words(nic) for nic in facts["nics"] if not nic["management"]]
    return ", ".join(free) or "none: every NIC of this host is used for its management"


def problem(variable: str, found: str, expected: str, remedy: str) -> Problem:
    """A line of the report."""
    return {"variable": variable, "found": found, "expected": expected, "remedy": remedy}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Filters by name."""
        return {"preflight_nics": preflight_nics}
