# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filters: which PCI devices VFIO gets, which it must not, and how the IOMMU is turned on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PCI_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def pci_of(facts: Mapping[str, Any], device: str) -> str:
    """PCI address of a device given by address or interface name; unchanged when this host has none such."""
    for nic in facts["nics"]:
        if device in (nic["pci"], nic["interface"], nic.get("former_interface")):
            return str(nic["pci"])
    return device.lower()


def port_pci(facts: Mapping[str, Any], port: Mapping[str, Any]) -> str:
    """PCI address of a port's NIC; the kernel knows it by the port's name where it forwarded before VPP."""
    device = pci_of(facts, str(port["device"]))
    renamed = pci_of(facts, str(port["name"]))
    return renamed if unresolved([device]) and not unresolved([renamed]) else device


def vfio_devices(
    facts: Mapping[str, Any],
    ports: Sequence[Mapping[str, Any]],
    *,
    forwarding: str = "vpp",
    functions: Sequence[Mapping[str, Any]] = (),
    driver: str = "vfio-pci",
) -> list[str]:
    """PCI addresses that VFIO is to have: VPP's ports, and virtual functions to be bound.

    Args:
        facts: `ansible_facts.router_host`.
        ports: `router_ports`.
        forwarding: `router_forwarding`.
        functions: `sriov_functions`; virtual functions that are not there yet are left out.
        driver: driver that VFIO's devices are bound to.
    """
    wanted = [port_pci(facts, port) for port in ports] if forwarding == "vpp" else []
    for function in functions:
        if function.get("driver") == driver:
            parent = pci_of(facts, str(function["device"]))
            wanted += sorted(str(nic["pci"]) for nic in facts["nics"] if nic["physical_function"] == parent)
    return list(dict.fromkeys(wanted))


def to_come(
    facts: Mapping[str, Any], functions: Sequence[Mapping[str, Any]] = (), *, driver: str = "vfio-pci"
) -> int:
    """How many virtual functions that VFIO is to have are not there yet: `vfio_devices` cannot name them."""
    count = 0
    for function in functions:
        if function.get("driver") == driver:
            parent = pci_of(facts, str(function["device"]))
            there = sum(nic["physical_function"] == parent for nic in facts["nics"])
            count += max(0, int(function["count"]) - there)
    return count


def unresolved(devices: Sequence[str]) -> list[str]:
    """Devices that are no PCI address: names of interfaces that this host does not have."""
    return [device for device in devices if not PCI_ADDRESS.fullmatch(device)]


def protected(facts: Mapping[str, Any], further: Sequence[str] = ()) -> dict[str, str]:
    """Reasons by PCI address of NICs that must not be taken; `further` are interfaces the operator names."""
    reasons = {}
    for nic in facts["nics"]:
        found = list(nic["management"])
        if not found and {nic["interface"], nic["pci"]} & set(further):
            found = ["is listed in router_management_interfaces"]
        if found:
            name = f" ({nic['interface']})" if nic["interface"] else ""
            reasons[str(nic["pci"])] = f"{' and '.join(found)}{name}"
    return reasons


def to_take(facts: Mapping[str, Any], devices: Sequence[str], driver: str) -> list[str]:
    """Wanted devices that are not yet bound, or not for good."""
    bound = {nic["pci"] for nic in facts["nics"] if nic["driver"] == driver and nic["override"] == driver}
    return [device for device in devices if device not in bound]


def to_give_back(facts: Mapping[str, Any], devices: Sequence[str], driver: str) -> list[str]:
    """NICs with an override nobody wants; the record on the host tells whether they are ours."""
    return [
        str(nic["pci"]) for nic in facts["nics"] if nic["override"] == driver and nic["pci"] not in devices
    ]


def iommu_arguments(facts: Mapping[str, Any]) -> list[str]:
    """Kernel arguments that turn the IOMMU on, and leave devices of the kernel untranslated (iommu=pt).

    By the firmware's table: DMAR is Intel's VT-d, IVRS is AMD-Vi, which the kernel turns on by itself; a
    virtual CPU's vendor says nothing. Documentation/admin-guide/kernel-parameters.rst.
    """
    tables = facts["iommu"]["tables"]
    if "DMAR" in tables:
        return ["intel_iommu=on", "iommu=pt"]
    if "IVRS" in tables:
        return ["iommu=pt"]
    return []


class FilterModule:
    """Filters of role vfio."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name of each filter and its function."""
        return {
            "vfio_devices": vfio_devices,
            "vfio_to_come": to_come,
            "vfio_unresolved": unresolved,
            "vfio_protected": protected,
            "vfio_to_take": to_take,
            "vfio_to_give_back": to_give_back,
            "vfio_iommu_arguments": iommu_arguments,
        }
