# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filters: the interfaces that forward, out of the inventory, as the templates want them."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DEFAULT_MTU = 1500
#: Least MTU of IPv6 (RFC 8200, 5) and the most that NICs and VPP take.
MTUS = (1280, 9216)
#: Length of an interface's name in Linux: IFNAMSIZ - 1 (linux/if.h).
NAME_LENGTH = 15
#: VPP names its own interfaces so.
VPP_NAMES = re.compile(r"(loop|tap|local|vxlan_tunnel|BondEthernet)\d+")
NAME = re.compile(r"[a-z][a-z0-9_-]*")


def forwarding_links(
    ports: Sequence[Mapping[str, Any]],
    bonds: Sequence[Mapping[str, Any]] = (),
    loopbacks: Sequence[Mapping[str, Any]] = (),
    facts: Mapping[str, Any] | None = None,
    hostname: str = "",
) -> dict[str, list[dict[str, Any]]]:
    """Every interface that forwards, with its defaults, addresses in their one form, and members of bonds.

    Args:
        ports: `router_ports`.
        bonds: `router_bonds`.
        loopbacks: `router_loopbacks`.
        facts: `ansible_facts.router_host`, to find a NIC by its name; None where that does not matter.
        hostname: seed of the MAC addresses of bonds.

    Returns:
        {ports: [{name, device, pci, mtu, addresses, vlans, bond, rx_queues, rx_descriptors, tx_descriptors}],
        bonds: [{name, instance, mode, members, mac, mtu, addresses, vlans}],
        loopbacks: [{name, instance, mtu, addresses}]}; a vlan is {id, name, mtu, addresses}, `pci` and
        `bond` may be None, as may what a port does not say.

    Raises:
        AnsibleFilterError: the inventory is wrong; the message names variable, found and expected.
    """
    links: dict[str, list[dict[str, Any]]] = {
        "ports": [_port(port, f"router_ports[{index}]", facts) for index, port in enumerate(ports)],
        "bonds": [_bond(bond, f"router_bonds[{index}]", ports, hostname) for index, bond in enumerate(bonds)],
        "loopbacks": [
            _loopback(entry, f"router_loopbacks[{index}]") for index, entry in enumerate(loopbacks)
        ],
    }
    for kind in ("bonds", "loopbacks"):
        for link, instance in zip(links[kind], _instances(link["name"] for link in links[kind]), strict=True):
            link["instance"] = instance
    _refuse_strangers(links)
    _refuse_duplicates(links)
    return links


def interface_names(links: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Names of all interfaces in Linux, VLANs after what they are on.

    Args:
        links: what `forwarding_links` returned.
    """
    names = []
    for link in (*links["ports"], *links["bonds"]):
        names.append(str(link["name"]))
        names += [str(vlan["name"]) for vlan in link["vlans"]]
    return names + [str(link["name"]) for link in links["loopbacks"]]


def interface_addresses(links: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[str]]:
    """Addresses of each interface that has some, by its name in Linux.

    Args:
        links: what `forwarding_links` returned.
    """
    found = {}
    for link in (*links["ports"], *links["bonds"], *links["loopbacks"]):
        for one in (link, *link.get("vlans", ())):
            if one["addresses"]:
                found[str(one["name"])] = list(one["addresses"])
    return found


def network_files(
    links: Mapping[str, Sequence[Mapping[str, Any]]], forwarding: str, unmanaged: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The files of systemd-networkd and udev, each with the template it is made from.

    When the kernel forwards, they name the ports, make VLANs, bonds and loopbacks and configure them. When
    VPP forwards, they keep systemd-networkd away from the mirrors that VPP makes under the same names.

    Args:
        links: what `forwarding_links` returned.
        forwarding: `router_forwarding`.
        unmanaged: management interfaces that systemd-networkd is to leave alone.

    Returns:
        [{name, template, variables}] in the order of the inventory; `name` is that of the file.
    """
    files = [_file(name, "network", "management.network", {"name": name}) for name in unmanaged]
    if forwarding != "kernel":
        return files + [
            _file(name, "network", "port.network", {"link": {"name": name}, "managed": False})
            for name in interface_names(links)
        ]
    files += [_file(port["name"], "link", "port.link", {"link": port}) for port in links["ports"]]
    for kind, device in _devices(links):
        files.append(_file(device["name"], "netdev", "port.netdev", {"device": {**device, "kind": kind}}))
    everything = [
        (link, link.get("vlans", [])) for key in ("ports", "bonds", "loopbacks") for link in links[key]
    ]
    everything += [(vlan, []) for _, vlans in list(everything) for vlan in vlans]
    for link, vlans in everything:
        variables = {"link": {"bond": None, **link, "vlans": vlans}, "managed": True}
        files.append(_file(link["name"], "network", "port.network", variables))
    return files


def _file(name: str, suffix: str, template: str, variables: dict[str, Any]) -> dict[str, Any]:
    return {"name": f"{name}.{suffix}", "template": f"{template}.j2", "variables": variables}


def _devices(links: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[tuple[str, Mapping[str, Any]]]:
    devices: list[tuple[str, Mapping[str, Any]]] = [("bond", bond) for bond in links["bonds"]]
    devices += [("vlan", vlan) for link in (*links["ports"], *links["bonds"]) for vlan in link["vlans"]]
    return devices + [("dummy", loopback) for loopback in links["loopbacks"]]


def _port(port: Mapping[str, Any], variable: str, facts: Mapping[str, Any] | None) -> dict[str, Any]:
    link = _link(port, variable)
    device = str(port["device"])
    link |= {
        "device": device,
        "pci": _pci(device, str(port["name"]), facts),
        "bond": port.get("bond") or None,
    }
    link |= {key: port.get(key) for key in ("rx_queues", "rx_descriptors", "tx_descriptors")}
    if link["bond"] and (link["addresses"] or link["vlans"]):
        raise AnsibleFilterError(
            f"{variable}: found addresses or vlans on a member of bond {link['bond']}, expected them in "
            "router_bonds"
        )
    return link


def _bond(
    bond: Mapping[str, Any], variable: str, ports: Sequence[Mapping[str, Any]], hostname: str
) -> dict[str, Any]:
    link = _link(bond, variable)
    members = [str(port["name"]) for port in ports if port.get("bond") == bond["name"]]
    if not members:
        raise AnsibleFilterError(
            f"{variable}: found no port with bond: {bond['name']}, expected one at least in router_ports"
        )
    for port in ports:
        if port["name"] in members and int(port.get("mtu") or DEFAULT_MTU) != link["mtu"]:
            raise AnsibleFilterError(
                f"{variable}.mtu: found {link['mtu']}, expected that of its member {port['name']}, "
                f"{port.get('mtu') or DEFAULT_MTU}"
            )
    return link | {
        "mode": bond.get("mode") or "lacp",
        "members": members,
        "mac": _mac(hostname, str(bond["name"])),
    }


def _loopback(loopback: Mapping[str, Any], variable: str) -> dict[str, Any]:
    link = _link(loopback, variable)
    del link["vlans"]
    return link


def _link(link: Mapping[str, Any], variable: str) -> dict[str, Any]:
    name = _name(str(link["name"]), f"{variable}.name")
    mtu = _mtu(link.get("mtu"), DEFAULT_MTU, f"{variable}.mtu")
    vlans = [
        _vlan(vlan, name, mtu, f"{variable}.vlans[{index}]")
        for index, vlan in enumerate(link.get("vlans") or [])
    ]
    addresses = _addresses(link.get("addresses") or [], f"{variable}.addresses")
    return {"name": name, "mtu": mtu, "addresses": addresses, "vlans": vlans}


def _vlan(vlan: Mapping[str, Any], parent: str, most: int, variable: str) -> dict[str, Any]:
    number = int(vlan["id"])
    if not 1 <= number <= 4094:
        raise AnsibleFilterError(f"{variable}.id: found {number}, expected 1 to 4094")
    name = f"{parent}.{number}"
    if len(name) > NAME_LENGTH:
        raise AnsibleFilterError(
            f"{variable}: found the name {name} of {len(name)} characters, expected "
            f"{NAME_LENGTH} at most: give "
            "the port a shorter name"
        )
    mtu = _mtu(vlan.get("mtu"), most, f"{variable}.mtu")
    if mtu > most:
        raise AnsibleFilterError(f"{variable}.mtu: found {mtu}, expected that of {parent}, {most}, at most")
    addresses = _addresses(vlan.get("addresses") or [], f"{variable}.addresses")
    return {"id": number, "name": name, "mtu": mtu, "addresses": addresses}


def _name(name: str, variable: str) -> str:
    if len(name) > NAME_LENGTH or not NAME.fullmatch(name):
        raise AnsibleFilterError(
            f"{variable}: found {name!r}, expected at most {NAME_LENGTH} of a-z, 0-9, _ and -, a letter first"
        )
    if VPP_NAMES.fullmatch(name):
        raise AnsibleFilterError(f"{variable}: found {name!r}, which VPP gives itself, expected another name")
    return name


def _mtu(mtu: Any, default: int, variable: str) -> int:
    least, most = MTUS
    if mtu is None:
        return default
    if not least <= int(mtu) <= most:
        raise AnsibleFilterError(f"{variable}: found {mtu}, expected {least} to {most}")
    return int(mtu)


def _addresses(addresses: Iterable[Any], variable: str) -> list[str]:
    found = []
    for address in addresses:
        try:
            interface = ipaddress.ip_interface(str(address))
        except ValueError as error:
            raise AnsibleFilterError(
                f"{variable}: found {address!r}, expected an address: {error}"
            ) from error
        if "/" not in str(address):
            raise AnsibleFilterError(f"{variable}: found {address!r}, expected its prefix length with it")
        found.append(str(interface))
    return found


def _pci(device: str, name: str, facts: Mapping[str, Any] | None) -> str | None:
    if re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", device, re.IGNORECASE):
        return device.lower()
    known: dict[str, str] = {}
    for nic in (facts or {}).get("nics", []):
        for key in ("interface", "former_interface"):
            if nic.get(key):
                known.setdefault(nic[key], nic["pci"])
    return known.get(device) or known.get(name)


def _mac(hostname: str, name: str) -> str:
    """A locally administered MAC address that is the same in every run.

    VPP takes that of the first member otherwise, and does not tell the mirror in Linux.
    """
    digest = hashlib.sha256(f"{hostname}/{name}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def _instances(names: Iterable[str]) -> list[int]:
    """Numbers of VPP's interfaces: those the names end with, else their places in the list.

    A number out of the name stays when another one is removed.
    """
    names = list(names)
    digits = [re.search(r"(\d{1,3})$", name) for name in names]
    numbers = [int(found[1]) for found in digits if found]
    if len(set(numbers)) == len(names):
        return numbers
    return list(range(len(names)))


def _refuse_strangers(links: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    bonds = [bond["name"] for bond in links["bonds"]]
    for index, port in enumerate(links["ports"]):
        if port["bond"] and port["bond"] not in bonds:
            raise AnsibleFilterError(
                f"router_ports[{index}].bond: found {port['bond']!r}, expected one of router_bonds: "
                f"{', '.join(bonds) or 'there is none'}"
            )


def _refuse_duplicates(links: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    names = interface_names(links)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise AnsibleFilterError(
            f"router_ports, router_bonds, router_loopbacks: found {', '.join(twice)} twice, expected "
            "each name once"
        )
    where: dict[str, str] = {}
    for name, addresses in interface_addresses(links).items():
        for address in addresses:
            host = address.split("/")[0]
            if host in where:
                raise AnsibleFilterError(
                    f"router_ports, router_bonds, router_loopbacks: found {host} on {where[host]} and on "
                    f"{name}, expected each address once"
                )
            where[host] = name


class FilterModule:
    """Filters of role interfaces."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name of each filter and its function."""
        return {
            "forwarding_links": forwarding_links,
            "interface_names": interface_names,
            "interface_addresses": interface_addresses,
            "network_files": network_files,
        }
