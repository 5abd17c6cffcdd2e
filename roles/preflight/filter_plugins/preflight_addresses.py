"""Ansible filter: whether ports, bonds, VLANs and loopbacks fit together: names, MTU, addresses, subnets."""

# Copyright: the authors. Apache License 2.0 (see LICENSE).
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any, NamedTuple

Problem = dict[str, str]
Interface = IPv4Interface | IPv6Interface

# IFNAMSIZ of linux/if.h, without the closing zero.
LONGEST_NAME = 15
NAME = re.compile(r"[a-z][a-z0-9_-]*")
# Names that Linux or VPP use themselves; sysctl reads "all" and "default" as every interface.
RESERVED_NAMES = ("lo", "all", "default", "local0")
# RFC 8200 wants 1280 for IPv6; no NIC takes more than 9216.
LEAST_MTU, MOST_MTU = 1280, 9216
VLAN_IDS = range(1, 4095)


class Subject(NamedTuple):
    """An interface of the inventory: path of its definition, name, settings, and what a VLAN is on."""

    path: str
    name: str
    settings: Mapping[str, Any]
    loopback: bool = False
    parent: str = ""


def preflight_addresses(variables: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Check the interfaces of the inventory.

    Args:
        variables: the kit's variables with their defaults; those that are wrong or missing are left out.
        facts: `ansible_facts.router_host`.

    Returns:
        {problems: [{variable, found, expected, remedy}], notes: [text]}.
    """
    subjects = list(interfaces(variables))
    problems = [
        *names(subjects, variables, facts),
        *bonds(variables),
        *vlans(variables),
        *mtus(subjects),
        *addresses(subjects, facts),
    ]
    return {"problems": problems, "notes": []}


def interfaces(variables: Mapping[str, Any]) -> Iterator[Subject]:
    """Every interface of the inventory, VLANs after what they are on."""
    for kind in ("router_ports", "router_bonds"):
        for index, settings in enumerate(variables.get(kind, [])):
            name = settings.get("name", "")
            path = f"{kind}[{name or index}]"
            yield Subject(path, name, settings)
            for vlan in settings.get("vlans", []):
                number = vlan.get("id", "?")
                yield Subject(f"{path}.vlans[{number}]", f"{name}.{number}", vlan, parent=name)
    for index, settings in enumerate(variables.get("router_loopbacks", [])):
        name = settings.get("name", "")
        yield Subject(f"router_loopbacks[{name or index}]", name, settings, loopback=True)


def names(
    subjects: Sequence[Subject], variables: Mapping[str, Any], facts: Mapping[str, Any]
) -> Iterator[Problem]:
    """Names that Linux and VPP take, each used once."""
    ours = {port.get("device") for port in variables.get("router_ports", [])}
    foreign = {
        nic["interface"]: nic["pci"]
        for nic in facts["nics"]
        if nic["interface"] and not ours & {nic["pci"], nic["interface"], nic.get("former_interface")}
    }
    foreign |= {entry["interface"]: entry["pci"] or "management" for entry in facts["management"]}
    seen: dict[str, str] = {}
    for subject in subjects:
        name = subject.name
        if not name:
            continue
        if len(name) > LONGEST_NAME:
            expected = f"at most {LONGEST_NAME} characters, which is all that Linux keeps"
            yield problem(f"{subject.path}.name", f"{name!r}, {len(name)} characters", expected, "shorten it")
        if not subject.parent and (not NAME.fullmatch(name) or name in RESERVED_NAMES):
            expected = f"a-z, 0-9, _ and -, beginning with a letter, and none of {', '.join(RESERVED_NAMES)}"
            yield problem(f"{subject.path}.name", repr(name), expected, "choose another name")
        if name in foreign:
            found = f"{name}, the name of an interface that is no port ({foreign[name]})"
            yield problem(f"{subject.path}.name", found, "a name of its own", "choose another name")
        if name in seen:
            found = f"{name}, which {seen[name]} has too"
            yield problem(f"{subject.path}.name", found, "a name of its own for each interface", "rename one")
        seen.setdefault(name, subject.path)


def bonds(variables: Mapping[str, Any]) -> Iterator[Problem]:
    """Members that exist, and have nothing of their own."""
    known = {bond.get("name") for bond in variables.get("router_bonds", [])}
    used = set()
    for index, port in enumerate(variables.get("router_ports", [])):
        path = f"router_ports[{port.get('name', index)}]"
        bond = port.get("bond")
        if bond is None:
            continue
        used.add(bond)
        if bond not in known:
            expected = f"one of router_bonds: {', '.join(sorted(filter(None, known))) or 'there is none'}"
            yield problem(f"{path}.bond", bond, expected, "add it to router_bonds, or correct the name")
        for key in ("addresses", "vlans"):
            if port.get(key):
                expected = f"none: the port is a member of {bond}"
                yield problem(
                    f"{path}.{key}", f"{len(port[key])}", expected, f"move them to {bond} in router_bonds"
                )
    for name in sorted(filter(None, known - used)):
        expected = "a port or more whose bond it is"
        yield problem(
            f"router_bonds[{name}]", "no member", expected, f"give a port of router_ports bond: {name}"
        )


def vlans(variables: Mapping[str, Any]) -> Iterator[Problem]:
    """Ids of VLANs in their range, each once on an interface."""
    for kind in ("router_ports", "router_bonds"):
        for index, parent in enumerate(variables.get(kind, [])):
            ids = [vlan["id"] for vlan in parent.get("vlans", []) if "id" in vlan]
            path = f"{kind}[{parent.get('name', index)}].vlans"
            for number in sorted(set(ids)):
                if number not in VLAN_IDS:
                    yield problem(
                        f"{path}[{number}].id", str(number), "1 to 4094 (IEEE 802.1Q)", "correct it"
                    )
                if ids.count(number) > 1:
                    found = f"VLAN {number}, {ids.count(number)} times"
                    yield problem(
                        f"{path}[{number}].id", found, "each VLAN once", "put their addresses together"
                    )


def mtus(subjects: Sequence[Subject]) -> Iterator[Problem]:
    """MTU in range, and a VLAN's not above that of what it is on."""
    parents = {subject.name: subject.settings for subject in subjects}
    for subject in subjects:
        mtu = subject.settings.get("mtu")
        if mtu is None:
            continue
        if not LEAST_MTU <= mtu <= MOST_MTU:
            expected = f"{LEAST_MTU} to {MOST_MTU} bytes"
            yield problem(
                f"{subject.path}.mtu", str(mtu), expected, "write 1500, or 9000 on a link with jumbo frames"
            )
        limit = parents.get(subject.parent, {}).get("mtu")
        if limit and mtu > limit:
            remedy = f"lower it, or raise the mtu of {subject.parent}"
            expected = f"at most {limit}, the MTU of {subject.parent}"
            yield problem(f"{subject.path}.mtu", str(mtu), expected, remedy)


def addresses(subjects: Sequence[Subject], facts: Mapping[str, Any]) -> Iterator[Problem]:
    """Addresses that can be put on, each once, in subnets that do not overlap."""
    placed: list[tuple[str, str, Interface]] = []
    for entry in facts["management"]:
        for text in facts.get("interfaces", {}).get(entry["interface"], []):
            address = ip_interface(text)
            if not address.is_link_local and not address.is_loopback:
                placed.append((f"the management interface {entry['interface']}", entry["interface"], address))
    for subject in subjects:
        for index, text in enumerate(subject.settings.get("addresses", [])):
            path = f"{subject.path}.addresses[{index}]"
            wrong = unusable(path, text, subject.loopback)
            if wrong:
                yield wrong
                continue
            address = ip_interface(text)
            yield from clash(path, subject, address, placed)
            placed.append((path, subject.name, address))


def unusable(path: str, text: str, loopback: bool) -> Problem | None:
    """An address that no interface can have."""
    expected = 'an address with its prefix length, 198.51.100.2/30 or "2001:db8::2/64"'
    try:
        address = ip_interface(text)
    except ValueError as error:
        return problem(path, f"{text!r}: {error}", expected, "correct it")
    if "/" not in text:
        return problem(path, f"{text!r}, without a prefix length", expected, f"write {text}/LENGTH")
    ip, network = address.ip, address.network
    if ip.is_multicast or ip.is_unspecified or ip.is_loopback or ip.is_link_local:
        return problem(
            path, text, "a unicast address that others can reach", "use an address of the link's subnet"
        )
    ends = (network.network_address, network.broadcast_address)
    if network.version == 4 and network.prefixlen < 31 and ip in ends:
        return problem(
            path, f"{text}, the network's or broadcast address of {network}", "a host's address", "correct it"
        )
    if network.version == 6 and network.prefixlen < 127 and ip == network.network_address:
        expected = "a host's address: this one is every router's of the subnet (RFC 4291, 2.6.1)"
        return problem(path, text, expected, "correct it")
    if loopback and network.num_addresses != 1:
        expected = f"{ip}/{network.max_prefixlen}: nobody else is on a loopback's subnet"
        return problem(path, text, expected, "correct the prefix length")
    return None


def clash(
    path: str, subject: Subject, address: Interface, placed: Sequence[tuple[str, str, Interface]]
) -> Iterator[Problem]:
    """The same address or an overlapping subnet elsewhere."""
    for other_path, other_name, other in placed:
        if other.version != address.version or not address.network.overlaps(other.network):
            continue
        if other.ip == address.ip:
            found = f"{address.ip}, which {other_path} has too"
            yield problem(path, found, "each address once", "correct one of them")
        elif other_name != subject.name:
            found = f"{address}, whose subnet overlaps {other} of {other_path}"
            yield problem(
                path, found, "a subnet of its own for each interface", "correct an address or prefix length"
            )


def problem(variable: str, found: str, expected: str, remedy: str) -> Problem:
    """A line of the report."""
    return {"variable": variable, "found": found, "expected": expected, "remedy": remedy}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Filters by name."""
        return {"preflight_addresses": preflight_addresses}
