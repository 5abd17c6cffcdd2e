"""What templates/frr.conf.j2 wants, out of the inventory's router_* variables."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, TypeAlias

from ansible.errors import AnsibleFilterError

Variables: TypeAlias = dict[str, Any]

_CARRIED_OVER = ("local_preference", "communities", "prepend", "multihop")
_RESERVED_ASNS = (
    (0, 0),
    (23456, 23456),
    (64496, 131071),
    (4200000000, 4294967295),
)
"""First and last: 0 (RFC 7607); AS_TRANS (RFC 6793); documentation (RFC 5398), private use (RFC 6996), the
last number of 16 bits (RFC 7300), what IANA keeps back above it; private use and last number of 32 bits."""


def frr_peers(peers: Iterable[Mapping[str, Any]], *, asn: int, refuse_reserved_asns: bool) -> list[Variables]:
    """Return the template's `peers` for those of `router_peers` that FRR speaks to.

    A peer is directly connected unless it has `multihop`; then its packets must come with a TTL that only a
    neighbour on the link can send (GTSM, RFC 5082), and `ttl_security_hops: 0` turns that off. Paths with
    reserved AS numbers are refused unless the peer's own is one, because then all of its paths would be.

    Args:
        peers: `router_peers` of the inventory.
        asn: `router_asn`.
        refuse_reserved_asns: false where reserved AS numbers do not count.

    Raises:
        AnsibleFilterError: a peer cannot be configured so; the message names peer, key, found and expected.
    """
    mine = [peer for peer in peers if peer.get("speaker", "frr") == "frr"]
    return [_peer(peer, asn, refuse_reserved_asns) for peer in mine]


def _peer(peer: Mapping[str, Any], asn: int, refuse_reserved_asns: bool) -> Variables:
    name = peer["name"]
    if int(peer["asn"]) == asn:
        raise AnsibleFilterError(
            f"router_peers[{name}].asn: found the router's own {asn}, expected that of another network; "
            "sessions inside the AS (iBGP) are not built here"
        )
    address = ip_address(str(peer["address"]))
    variables: Variables = {
        "name": name.upper().replace("_", "-"),
        "description": _description(peer),
        "family": f"ipv{address.version}",
        "address": str(address),
        "asn": int(peer["asn"]),
        "maximum_prefixes": int(peer["maximum_prefixes"]),
        "bfd": bool(peer.get("bfd")),
        "refuse_as_paths": refuse_reserved_asns and not _reserved(int(peer["asn"])),
        "announce_all": bool(peer.get("announce_all")),
    }
    if peer.get("password"):
        variables["password"] = _password(peer)
    if peer.get("local_address"):
        variables["update_source"] = str(ip_interface(str(peer["local_address"])).ip)
    if peer.get("timers"):
        variables["timers"] = {key: int(peer["timers"][key]) for key in ("keepalive", "hold")}
    variables |= {key: peer[key] for key in _CARRIED_OVER if peer.get(key)}
    hops = _ttl_security_hops(peer)
    if hops:
        variables["ttl_security_hops"] = hops
    return variables


def _description(peer: Mapping[str, Any]) -> str:
    text = str(peer.get("description") or peer["name"])
    if not text.isprintable():
        raise AnsibleFilterError(
            f"router_peers[{peer['name']}].description: found {text!r}, expected one line of text"
        )
    return " ".join(text.split())


def _password(peer: Mapping[str, Any]) -> str:
    password = str(peer["password"])
    if any(character.isspace() or not character.isprintable() for character in password):
        raise AnsibleFilterError(
            f"router_peers[{peer['name']}].password: found a blank or a control character, expected a word"
        )
    if len(password) > 80:
        raise AnsibleFilterError(
            f"router_peers[{peer['name']}].password: found {len(password)} characters, expected 80 at most: "
            "what the kernel's TCP MD5 signatures take"
        )
    return password


def _ttl_security_hops(peer: Mapping[str, Any]) -> int:
    hops = peer.get("ttl_security_hops")
    if not peer.get("multihop"):
        return 1 if hops is None else int(hops)
    if hops:
        raise AnsibleFilterError(
            f"router_peers[{peer['name']}]: found both multihop and ttl_security_hops, expected one: FRR "
            "takes ttl_security_hops alone for a peer that is further away"
        )
    return 0


def _reserved(asn: int) -> bool:
    return any(first <= asn <= last for first, last in _RESERVED_ASNS)


def frr_reserved(reserved: Mapping[str, Sequence[str]], permitted: Iterable[str]) -> dict[str, list[str]]:
    """Return the reserved prefixes without those that are permitted: a permitted one lifts what it covers.

    Args:
        reserved: prefixes that are never accepted, by family.
        permitted: prefixes whose reservation does not count here, as in a lab on documentation prefixes.

    Raises:
        AnsibleFilterError: one is no prefix, or a permitted one is only a part of a reserved one, which would
            have to be left as it is.
    """
    lifted = [_network(text, "frr_permitted_reserved_prefixes") for text in permitted]
    kept: dict[str, list[str]] = {}
    used: set[Any] = set()
    for family in ("ipv4", "ipv6"):
        kept[family] = []
        for text in reserved[family]:
            network = _network(text, f"frr_reserved_prefixes.{family}")
            covering = {one for one in lifted if one.version == network.version and network.subnet_of(one)}
            used |= covering
            if not covering:
                kept[family].append(str(network))
    for one in lifted:
        if one not in used:
            raise AnsibleFilterError(
                f"frr_permitted_reserved_prefixes: found {one}, expected a prefix that covers one of "
                "frr_reserved_prefixes; to accept a part of one, give frr_reserved_prefixes itself"
            )
    return kept


def frr_networks(networks: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return `router_networks` as FRR writes prefixes: anything else would differ at each comparison.

    Raises:
        AnsibleFilterError: one is no prefix, or of the other family.
    """
    found: dict[str, list[str]] = {}
    for family in ("ipv4", "ipv6"):
        where = f"router_networks.{family}"
        found[family] = []
        for text in networks.get(family) or []:
            network = _network(text, where)
            if family != f"ipv{network.version}":
                raise AnsibleFilterError(f"{where}: found {network}, expected a prefix of {family}")
            found[family].append(str(network))
    return found


def frr_service_prefixes(services: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the addresses of all `router_services`, by family, each once.

    Raises:
        AnsibleFilterError: one is no prefix.
    """
    found: dict[str, list[str]] = {"ipv4": [], "ipv6": []}
    for service in services:
        for text in service["addresses"]:
            network = _network(text, f"router_services[{service['name']}].addresses")
            prefixes = found[f"ipv{network.version}"]
            if str(network) not in prefixes:
                prefixes.append(str(network))
    return found


def frr_installed(listing: str) -> dict[str, str]:
    """Return the versions of the packages that are installed, from lines of package, version and status."""
    words = (line.split() for line in listing.splitlines())
    return {line[0]: line[1] for line in words if len(line) == 3 and line[2] == "installed"}


def frr_missing(packages: Iterable[str], installed: Mapping[str, str], version: str) -> list[str]:
    """Return the packages that are not installed in the version wanted, which may have shell wildcards."""
    return [
        package
        for package in packages
        if package not in installed or not _is_version(installed[package], version)
    ]


def frr_apt_names(packages: Iterable[str], version: str) -> list[str]:
    """Return what apt-get calls the packages in that version (``frr=10.3-3``); by name alone for any."""
    return [package if version == "*" else f"{package}={version}" for package in packages]


def frr_files(files: Iterable[str], packages: Sequence[str], version: str) -> list[str]:
    """Return the .deb files to install: those of `packages` in that version, and all that are of others.

    Args:
        files: names such as ``frr_10.3-3_amd64.deb``.
        packages: FRR's own; what else is there is what they depend on.
        version: with shell wildcards.
    """
    parts = {file: file.removesuffix(".deb").split("_") for file in files}
    return [
        file
        for file, (package, *rest) in parts.items()
        if package not in packages or (rest and _is_version(rest[0], version))
    ]


def _is_version(found: str, wanted: str) -> bool:
    """Tell whether a version is the one wanted; file names have no epoch, so it plays no part."""
    return fnmatch.fnmatchcase(found.rpartition(":")[2], wanted.rpartition(":")[2])


def frr_reads_confirmations(version: str) -> bool:
    """Tell whether zebra of this version of the package can be told which routes the forwarding plane has.

    8.5 is the first that reads answers over FPM; 10.3 looks them up in the wrong table, which 10.4 mended.

    Args:
        version: of the package; one that is not installed yet (empty) is taken to be able.
    """
    match = re.match(r"(\d+)\.(\d+)", version.rpartition(":")[2])
    if not match:
        return not version
    release = (int(match[1]), int(match[2]))
    return (8, 5) <= release < (10, 3) or release >= (10, 4)


def frr_rpki_transport(version: str) -> str:
    """Return the word that FRR puts before the address of an RPKI cache: ``tcp`` from 10.1 on.

    Args:
        version: of the package; that of a recent FRR is assumed when empty, because it is not installed yet.
    """
    match = re.match(r"(\d+)\.(\d+)", version)
    if match and (int(match[1]), int(match[2])) < (10, 1):
        return ""
    return "tcp"


def _network(text: Any, variable: str) -> Any:
    try:
        return ip_network(str(text))
    except ValueError as error:
        raise AnsibleFilterError(f"{variable}: found {text!r}, expected a prefix: {error}") from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "frr_apt_names": frr_apt_names,
            "frr_files": frr_files,
            "frr_installed": frr_installed,
            "frr_missing": frr_missing,
            "frr_networks": frr_networks,
            "frr_peers": frr_peers,
            "frr_reads_confirmations": frr_reads_confirmations,
            "frr_reserved": frr_reserved,
            "frr_rpki_transport": frr_rpki_transport,
            "frr_service_prefixes": frr_service_prefixes,
        }
