"""Ansible filter: whether the BGP variables are complete, valid and consistent with the interfaces."""

# Copyright: the authors. Apache License 2.0 (see LICENSE).
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import (
    IPv4Address,
    IPv6Address,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any

Problem = dict[str, str]
Address = IPv4Address | IPv6Address

LARGEST_ASN = 4294967295
# Never an AS's own: RFC 7607, AS_TRANS of RFC 6793, RFC 7300.
IMPOSSIBLE_ASNS = (0, 23456, 65535, LARGEST_ASN)
DOCUMENTATION_ASNS = (range(64496, 64512), range(65536, 65552))  # RFC 5398
PRIVATE_ASNS = (range(64512, 65535), range(4200000000, LARGEST_ASN))  # RFC 6996
PEER_NAME = re.compile(r"[a-z][a-z0-9_]*")
SERVICE_NAME = re.compile(r"[a-z][a-z0-9_-]*")
LARGEST_UINT32 = 4294967295
# The kernel takes keys of 80 bytes (TCP_MD5SIG_MAXKEYLEN of linux/tcp.h).
LONGEST_PASSWORD = 80
PLACEHOLDER = re.compile(
    r"(change|replace|fill|set)[ _-]?(me|it|this|in)|todo|fixme|tbd|xxx+|\.\.\.|password|secret|example|"
    r"<.*>|.*\{\{.*|.*\}\}.*|vault_\w+|\$ANSIBLE_VAULT.*",
    re.IGNORECASE,
)
WELL_KNOWN_COMMUNITIES = (
    "accept-own",
    "blackhole",
    "graceful-shutdown",
    "internet",
    "local-AS",
    "no-advertise",
    "no-export",
    "no-peer",
)
# The longest prefixes that other networks accept from each other.
LONGEST_ANNOUNCED = {"ipv4": 24, "ipv6": 48}


def preflight_bgp(
    variables: Mapping[str, Any], router_ids: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Check AS number, router id, own networks, peers, services and RPKI caches.

    Args:
        variables: the kit's variables with their defaults; those that are wrong or missing are left out.
        router_ids: {host: router id} of the other routers.

    Returns:
        {problems: [{variable, found, expected, remedy}], notes: [text]}.
    """
    peers = variables.get("router_peers", [])
    connected = subnets(variables)
    problems = [
        *own_asn(variables),
        *router_id(variables, router_ids or {}),
        *networks(variables.get("router_networks", {})),
        *duplicates(peers),
        *services(variables),
        *caches(variables.get("router_rpki_caches", [])),
    ]
    for index, peer in enumerate(peers):
        path = f"router_peers[{peer.get('name', index)}]"
        problems += [
            *peer_problems(path, peer, variables),
            *session(path, peer, connected),
            *speaker(path, peer),
        ]
    return {"problems": problems, "notes": notes(variables)}


def own_asn(variables: Mapping[str, Any]) -> Iterator[Problem]:
    """The network's own AS number."""
    asn = variables.get("router_asn")
    if asn is not None:
        yield from asn_problem("router_asn", asn)


def asn_problem(path: str, asn: int) -> Iterator[Problem]:
    """A number that no AS has."""
    if not 0 <= asn <= LARGEST_ASN or asn in IMPOSSIBLE_ASNS:
        expected = f"1 to {LARGEST_ASN - 1}, without 23456 and 65535, which are reserved"
        yield problem(path, str(asn), expected, "write the number the registry assigned")


def router_id(variables: Mapping[str, Any], others: Mapping[str, str]) -> Iterator[Problem]:
    """An id that is written as IPv4 address and nobody else's."""
    text = variables.get("router_id")
    if text is None:
        return
    try:
        address = IPv4Address(text)
    except ValueError:
        expected = "an IPv4 address, 192.0.2.1"
        yield problem("router_id", repr(text), expected, "write the address of the router's loopback")
        return
    if (
        address.is_unspecified
        or address.is_multicast
        or address.is_loopback
        or address == IPv4Address(2**32 - 1)
    ):
        yield problem("router_id", text, "a unicast address", "write the address of the router's loopback")
    same = [host for host, other in others.items() if other == text]
    if same:
        found = f"{text}, which {', '.join(same)} has too"
        yield problem("router_id", found, "an id of its own for each router", "correct one of them")


def networks(own: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """The network's own prefixes."""
    for family, prefixes in own.items():
        for index, text in enumerate(prefixes):
            path = f"router_networks.{family}[{index}]"
            try:
                prefix = ip_network(text)
            except ValueError as error:
                yield problem(
                    path, f"{text!r}: {error}", "a prefix, 192.0.2.0/24 or 2001:db8::/48", "correct it"
                )
                continue
            if f"ipv{prefix.version}" != family:
                yield problem(
                    path, text, f"a prefix of {family}", f"move it to router_networks.ipv{prefix.version}"
                )
            if prefix.prefixlen == 0:
                yield problem(path, text, "a prefix of your own", "announce no default route: take it out")
            if text in prefixes[:index]:
                yield problem(path, f"{text} twice", "each prefix once", "take one out")


def duplicates(peers: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """Names and addresses that two peers share."""
    for key in ("name", "address"):
        seen: set[Any] = set()
        for index, peer in enumerate(peers):
            value = same_address(peer.get(key)) if key == "address" else peer.get(key)
            if value is not None and value in seen:
                found = f"{peer[key]}, which an earlier peer has too"
                yield problem(
                    f"router_peers[{index}].{key}", found, f"each {key} once", "correct one of them"
                )
            seen.add(value)


def same_address(text: str | None) -> Address | str | None:
    """An address, so that two ways to write it are one; as it is when it is none."""
    return (parse(text) or text) if text else None


def peer_problems(path: str, peer: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[Problem]:
    """Values of one peer that stand for themselves."""
    name = peer.get("name")
    if name is not None and not PEER_NAME.fullmatch(name):
        yield problem(
            f"{path}.name", repr(name), "a-z, 0-9 and _, beginning with a letter", "choose another name"
        )
    asn = peer.get("asn")
    if asn is not None:
        yield from asn_problem(f"{path}.asn", asn)
        if asn == variables.get("router_asn"):
            expected = "the number of another network: sessions inside the AS (iBGP) are not built here"
            yield problem(f"{path}.asn", f"{asn}, the router's own", expected, "write the neighbour's number")
    yield from limits(path, peer)
    yield from password(path, peer)
    yield from timers(path, peer.get("timers"))
    for index, community in enumerate(peer.get("communities", [])):
        if not is_community(community):
            expected = f'"64500:100" (each part up to 65535) or one of {", ".join(WELL_KNOWN_COMMUNITIES)}'
            yield problem(f"{path}.communities[{index}]", repr(community), expected, "correct it")
    text = peer.get("description", "")
    if not text.isprintable():
        yield problem(
            f"{path}.description", repr(text), "one line of text", "take out what cannot be printed"
        )


def limits(path: str, peer: Mapping[str, Any]) -> Iterator[Problem]:
    """Numbers in their ranges."""
    ranges = {
        "maximum_prefixes": (1, LARGEST_UINT32, "a little more than the neighbour announces today"),
        "ttl_security_hops": (0, 254, "1 for a neighbour on the link"),
        "multihop": (2, 255, "the number of hops; leave it out for a neighbour on the link"),
        "local_preference": (0, LARGEST_UINT32, "100 is the default, more is better"),
        "prepend": (1, 10, "leave it out for none"),
    }
    for key, (least, most, advice) in ranges.items():
        value = peer.get(key)
        if value is not None and not least <= value <= most:
            yield problem(f"{path}.{key}", str(value), f"{least} to {most}", advice)
    if peer.get("multihop") and peer.get("ttl_security_hops"):
        found = f"{peer['ttl_security_hops']} together with multihop {peer['multihop']}"
        expected = "one of the two: FRR takes a TTL from afar or only from near"
        yield problem(f"{path}.ttl_security_hops", found, expected, "take one out")


def password(path: str, peer: Mapping[str, Any]) -> Iterator[Problem]:
    """A password that was never filled in, or that a daemon cannot take. It is never shown."""
    value = peer.get("password")
    if value is None:
        return
    remedy = (
        "put the agreed password into the encrypted file (ansible-vault edit) and name that variable here"
    )
    if not value or PLACEHOLDER.fullmatch(value):
        found = "an empty text" if not value else "a placeholder, not a password"
        yield problem(f"{path}.password", found, "the password agreed with the neighbour", remedy)
    elif not value.isascii() or not value.isprintable() or any(mark in value for mark in " '\"\\"):
        expected = "printable ASCII without blanks, quotes and backslashes, which the daemons' files can hold"
        yield problem(f"{path}.password", "other characters", expected, "agree on another password")
    elif len(value) > LONGEST_PASSWORD:
        expected = f"at most {LONGEST_PASSWORD} characters, which is all that the kernel takes"
        yield problem(f"{path}.password", f"{len(value)} characters", expected, "agree on a shorter password")


def timers(path: str, values: Mapping[str, int] | None) -> Iterator[Problem]:
    """Hold time 0 or from 3 s, three keepalives within it (RFC 4271, 4.2 and 4.4)."""
    if not values or not {"keepalive", "hold"} <= set(values):
        return
    keepalive, hold = values["keepalive"], values["hold"]
    if hold < 3 or hold > 65535:
        yield problem(f"{path}.timers.hold", str(hold), "3 to 65535 seconds", "write 90, or leave timers out")
    elif keepalive < 1 or keepalive * 3 > hold:
        expected = f"1 to {hold // 3} seconds, a third of hold"
        yield problem(f"{path}.timers.keepalive", str(keepalive), expected, f"write {hold // 3}")


def is_community(text: str) -> bool:
    """Whether FRR's `set community` takes it."""
    parts = text.split(":")
    numeric = len(parts) == 2 and all(part.isdigit() and int(part) <= 65535 for part in parts)
    return numeric or text in WELL_KNOWN_COMMUNITIES


def session(path: str, peer: Mapping[str, Any], connected: Mapping[str, Sequence[Any]]) -> Iterator[Problem]:
    """Addresses of both ends, and a link between them."""
    text = peer.get("address")
    if text is None:
        return
    address = parse(text)
    if address is None:
        expected = "an address without prefix length, 198.51.100.1 or 2001:db8::1"
        yield problem(f"{path}.address", repr(text), expected, "correct it")
        return
    if address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local:
        yield problem(f"{path}.address", text, "the neighbour's unicast address", "correct it")
        return
    every = [entry for entries in connected.values() for entry in entries]
    if address in {entry.ip for entry in every}:
        yield problem(
            f"{path}.address", f"{text}, an address of this router", "the neighbour's address", "correct it"
        )
        return
    links = [entry for entry in every if address in entry.network]
    afar = peer.get("multihop") or peer.get("ttl_security_hops", 1) > 1
    if not links and not afar:
        known = ", ".join(
            f"{entry.network} ({name})" for name, entries in connected.items() for entry in entries
        )
        expected = f"an address in the subnet of a port: {known or 'no port has an address'}"
        remedy = "correct the address or the port's, or give the peer multihop if it is on no link of ours"
        yield problem(f"{path}.address", text, expected, remedy)
    yield from local_end(path, peer, address, [] if afar else links, every)


def local_end(
    path: str, peer: Mapping[str, Any], address: Address, links: Sequence[Any], every: Sequence[Any]
) -> Iterator[Problem]:
    """Our own address of the session."""
    text = peer.get("local_address")
    if text is None:
        if peer.get("speaker") == "exabgp":
            near = f"write {links[0].ip}" if links else "write our address of that link"
            expected = "our address of the session, which ExaBGP needs"
            yield problem(f"{path}.local_address", "nothing", expected, near)
        return
    local = parse(text)
    if local is None or local.version != address.version:
        expected = f"an IPv{address.version} address without prefix length, as the neighbour's"
        yield problem(f"{path}.local_address", repr(text), expected, "correct it")
        return
    if local not in {entry.ip for entry in every}:
        ours = ", ".join(str(entry.ip) for entry in every if entry.version == address.version)
        expected = f"an address of this router: {ours or 'it has none of that family'}"
        yield problem(f"{path}.local_address", text, expected, "correct it, or put it on a port or loopback")
    elif links and local not in {link.ip for link in links}:
        expected = f"our address in the neighbour's subnet: {', '.join(str(link.ip) for link in links)}"
        yield problem(f"{path}.local_address", text, expected, "correct it, or take it out")


def speaker(path: str, peer: Mapping[str, Any]) -> Iterator[Problem]:
    """What only FRR can do."""
    if peer.get("speaker") != "exabgp":
        return
    remedy = "or give the session to FRR (speaker: frr)"
    if peer.get("bfd"):
        yield problem(f"{path}.bfd", "true with ExaBGP", "false: ExaBGP has no BFD", f"take it out, {remedy}")
    if "local_preference" in peer:
        found = f"{peer['local_preference']} with ExaBGP"
        expected = "nothing: router-agent chooses between ExaBGP's peers by path and MED"
        yield problem(f"{path}.local_preference", found, expected, f"take it out, {remedy}")


def services(variables: Mapping[str, Any]) -> Iterator[Problem]:
    """Anycast services: host routes, each once, checks that make sense."""
    names: set[str] = set()
    seen: set[str] = set()
    for index, service in enumerate(variables.get("router_services", [])):
        name = service.get("name")
        path = f"router_services[{name or index}]"
        if name is not None and not SERVICE_NAME.fullmatch(name):
            yield problem(
                f"{path}.name", repr(name), "a-z, 0-9, _ and -, beginning with a letter", "rename it"
            )
        if name in names:
            yield problem(f"router_services[{index}].name", f"{name} twice", "each name once", "rename one")
        names.add(name or "")
        for key in ("interval", "fall", "rise"):
            if service.get(key, 1) < 1:
                yield problem(f"{path}.{key}", str(service[key]), "1 or more", "correct it")
        for number, text in enumerate(service.get("addresses", [])):
            where = f"{path}.addresses[{number}]"
            try:
                prefix = ip_network(text)
            except ValueError as error:
                yield problem(where, f"{text!r}: {error}", "an address with /32 or /128", "correct it")
                continue
            if prefix.num_addresses != 1 or "/" not in text:
                yield problem(
                    where, text, f"one address, with /{prefix.max_prefixlen}", "correct the prefix length"
                )
            if text in seen:
                yield problem(where, f"{text} twice", "each address in one service", "take one out")
            seen.add(text)


def caches(entries: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """RPKI caches."""
    seen: set[tuple[Any, Any]] = set()
    for index, cache in enumerate(entries):
        path = f"router_rpki_caches[{index}]"
        text, port = cache.get("address"), cache.get("port", 3323)
        if text is not None and parse(text) is None:
            yield problem(
                f"{path}.address", repr(text), "an address, 192.0.2.10", "write the cache's address"
            )
        if not 1 <= port <= 65535:
            yield problem(f"{path}.port", str(port), "1 to 65535", "3323 is the usual one")
        if text is not None and (text, port) in seen:
            yield problem(f"{path}.address", f"{text}, port {port}, twice", "each cache once", "take one out")
        seen.add((text, port))


def notes(variables: Mapping[str, Any]) -> list[str]:
    """What works and may not be meant."""
    found = []
    asn = variables.get("router_asn", 1)
    if any(asn in numbers for numbers in DOCUMENTATION_ASNS):
        found.append(
            f"router_asn {asn} is for documentation (RFC 5398): no neighbour on the Internet takes it"
        )
    if any(asn in numbers for numbers in PRIVATE_ASNS):
        found.append(f"router_asn {asn} is for private use (RFC 6996): a neighbour has to replace it")
    own = variables.get("router_networks", {})
    if not any(own.values()):
        found.append("router_networks is empty: nothing is announced")
    for family, prefixes in own.items():
        for text in prefixes:
            length = text.partition("/")[2]
            longest = LONGEST_ANNOUNCED.get(family, 128)
            if length.isdigit() and int(length) > longest:
                found.append(
                    f"router_networks.{family}: {text} is longer than /{longest}, few networks accept it"
                )
    if not variables.get("router_peers"):
        found.append("router_peers is empty: the router speaks to nobody")
    covered = [prefix for prefixes in own.values() for prefix in map(network_or_none, prefixes) if prefix]
    for service in variables.get("router_services", []):
        for prefix in filter(None, map(network_or_none, service.get("addresses", []))):
            inside = any(prefix.version == mine.version and prefix.subnet_of(mine) for mine in covered)
            if not inside:
                found.append(
                    f"router_services: {prefix} of {service.get('name')} is in none of router_networks"
                )
    return found


def subnets(variables: Mapping[str, Any]) -> dict[str, list[Any]]:
    """{interface: its valid addresses}, loopbacks last."""
    found: dict[str, list[Any]] = {}
    for kind in ("router_ports", "router_bonds", "router_loopbacks"):
        for settings in variables.get(kind, []):
            name = settings.get("name", "")
            found.setdefault(name, []).extend(usable(settings))
            for vlan in settings.get("vlans", []):
                found.setdefault(f"{name}.{vlan.get('id')}", []).extend(usable(vlan))
    return found


def usable(settings: Mapping[str, Any]) -> list[Any]:
    """Addresses that can be read; preflight_addresses speaks of the others."""
    entries = []
    for text in settings.get("addresses", []):
        try:
            entries.append(ip_interface(text))
        except ValueError:
            continue
    return entries


def parse(text: str) -> Address | None:
    """An address, None when it is none."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def network_or_none(text: str) -> Any:
    """A prefix, None when it is none."""
    try:
        return ip_network(text)
    except ValueError:
        return None


def problem(variable: str, found: str, expected: str, remedy: str) -> Problem:
    """A line of the report."""
    return {"variable": variable, "found": found, "expected": expected, "remedy": remedy}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Filters by name."""
        return {"preflight_bgp": preflight_bgp}
