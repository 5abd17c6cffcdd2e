# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filters: which NICs make how many virtual functions, and with which settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def find_nic(facts: Mapping[str, Any], device: str) -> Mapping[str, Any] | None:
    """NIC given by PCI address or interface name, None where this host has no such one."""
    for nic in facts["nics"]:
        if device in (nic["pci"], nic["interface"], nic.get("former_interface")):
            return dict(nic)
    return None


def functions_of_ports(
    facts: Mapping[str, Any], ports: Sequence[Mapping[str, Any]], forwarding: str = "vpp"
) -> list[dict[str, Any]]:
    """What the ports' `vfs` ask for, by NIC, with PCI address and driver."""
    functions = []
    for port in ports:
        if not port.get("vfs"):
            continue
        # A NIC that stays with the kernel has the port's name once role interfaces is done.
        nic = find_nic(facts, str(port["device"])) or find_nic(facts, str(port["name"]))
        driver = port["vfs"].get("driver") or ("vfio-pci" if forwarding == "vpp" else "")
        functions.append({**port["vfs"], "device": nic["pci"] if nic else port["device"], "driver": driver})
    return functions


def settings(function: Mapping[str, Any], index: int) -> str:
    """Settings of a virtual function for `ip link set dev NAME vf INDEX` (ip-link(8)), after a blank."""
    macs = function.get("macs") or []
    words = ["mac", str(macs[index]).lower()] if index < len(macs) else []
    words += ["vlan", str(function.get("vlan") or 0)]
    words += ["spoofchk", "on" if function.get("spoof_check", True) else "off"]
    words += ["trust", "on" if function.get("trust", False) else "off"]
    return " " + " ".join(words)


def problems(
    facts: Mapping[str, Any],
    functions: Sequence[Mapping[str, Any]],
    ports: Sequence[Mapping[str, Any]] = (),
    forwarding: str = "vpp",
) -> list[str]:
    """What is wrong with the virtual functions asked for; empty when nothing is."""
    found = []
    forwarded = {
        nic["pci"] for port in ports if forwarding == "vpp" and (nic := find_nic(facts, str(port["device"])))
    }
    for function in functions:
        device, count = str(function["device"]), int(function["count"])
        nic = find_nic(facts, device)
        if nic is None:
            found.append(f"sriov_functions: found no NIC {device} on this host, expected its PCI address")
            continue
        total = int(nic["sriov_total"])
        if count > total:
            found.append(
                f"sriov_functions: found {count} virtual functions of {device} ({nic['name']}), expected at "
                f"most {total}, "
                "which is what the NIC and its driver offer (sriov_totalvfs): ask for fewer, or turn SR-IOV "
                "on in the BIOS"
            )
        if nic["management"]:
            found.append(
                f"sriov_functions: {device} ({nic['interface']}) must not be touched: it "
                f"{' and '.join(nic['management'])}"
            )
        if nic["pci"] in forwarded and count:
            found.append(
                f"sriov_functions: {device} is a port that VPP drives, expected the kernel's driver for a "
                "NIC that makes "
                "virtual functions: list the NIC in sriov_functions only, and make one of its virtual "
                "functions the port"
            )
        if len(function.get("macs") or []) > count:
            found.append(
                f"sriov_functions: found {len(function['macs'])} MAC addresses for {count} virtual "
                f"functions of {device}"
            )
    return found


def left_over(facts: Mapping[str, Any], functions: Sequence[Mapping[str, Any]]) -> list[str]:
    """NICs with virtual functions that nobody asks for; the rules on the host tell whether they are ours."""
    wanted = {str(function["device"]) for function in functions}
    return [str(nic["pci"]) for nic in facts["nics"] if nic["sriov_count"] and nic["pci"] not in wanted]


class FilterModule:
    """Filters of role sriov."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name of each filter and its function."""
        return {
            "sriov_functions": functions_of_ports,
            "sriov_settings": settings,
            "sriov_problems": problems,
            "sriov_left_over": left_over,
        }
