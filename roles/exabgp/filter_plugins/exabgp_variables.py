"""What templates/exabgp.conf.j2 wants, out of the inventory's router_* variables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, TypeAlias

from ansible.errors import AnsibleFilterError

Variables: TypeAlias = dict[str, Any]

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_LARGEST_TTL = 255
_MD5_CHARACTERS = 80
"""What the kernel's TCP MD5 signatures take."""

_NOT_EXABGP = {
    "announce_all": "ExaBGP announces services alone",
    "bfd": "ExaBGP knows no BFD",
    "local_preference": "router-agent chooses between ExaBGP's peers by path and MED, not by preference",
}


def exabgp_peers(peers: Iterable[Mapping[str, Any]], *, asn: int) -> list[Variables]:
    """Return the template's `peers` for those of `router_peers` that ExaBGP speaks to.

    A peer is directly connected unless it has `multihop`; then its packets must come with a TTL that only a
    neighbour on the link can send (GTSM, RFC 5082), and `ttl_security_hops: 0` turns that off.

    Args:
        peers: `router_peers` of the inventory.
        asn: `router_asn`.

    Raises:
        AnsibleFilterError: a peer cannot be configured so; the message names peer, key, found and expected.
    """
    return [_peer(peer, asn) for peer in peers if peer.get("speaker") == "exabgp"]


def _peer(peer: Mapping[str, Any], asn: int) -> Variables:
    where = f"router_peers[{peer['name']}]"
    if int(peer["asn"]) == asn:
        raise AnsibleFilterError(
            f"{where}.asn: found the router's own {asn}, expected that of another network; "
            "sessions inside the AS (iBGP) are not built here"
        )
    for key, why in _NOT_EXABGP.items():
        if peer.get(key):
            raise AnsibleFilterError(
                f"{where}.{key}: found {peer[key]}, expected none with speaker exabgp: {why}"
            )
    if not peer.get("local_address"):
        raise AnsibleFilterError(f"{where}.local_address: found none, expected our address: ExaBGP needs it")
    address = ip_address(str(peer["address"]))
    variables: Variables = {
        "description": _quotable(str(peer.get("description") or peer["name"]), f"{where}.description"),
        "family": f"ipv{address.version}",
        "address": str(address),
        "local_address": str(ip_interface(str(peer["local_address"])).ip),
        "asn": int(peer["asn"]),
    }
    if peer.get("password"):
        variables["password"] = _password(peer, where)
    if peer.get("timers"):
        variables["hold_seconds"] = int(peer["timers"]["hold"])
    if peer.get("communities"):
        variables["communities"] = [str(community) for community in peer["communities"]]
    if peer.get("prepend"):
        variables["prepend"] = int(peer["prepend"])
    return variables | _ttl(peer, where)


def _ttl(peer: Mapping[str, Any], where: str) -> Variables:
    hops, multihop = peer.get("ttl_security_hops"), peer.get("multihop")
    if hops and multihop:
        raise AnsibleFilterError(
            f"{where}: found both multihop and ttl_security_hops, expected one: the latter alone is right "
            "for a peer that is further away and sends with TTL 255"
        )
    if multihop:
        return {"outgoing_ttl": int(multihop)}
    hops = 1 if hops is None else int(hops)
    return {"incoming_ttl": _LARGEST_TTL + 1 - hops} if hops else {}


def _password(peer: Mapping[str, Any], where: str) -> str:
    password = str(peer["password"])
    if len(password) > _MD5_CHARACTERS:
        raise AnsibleFilterError(
            f"{where}.password: found {len(password)} characters, expected {_MD5_CHARACTERS} at most"
        )
    return _quotable(password, f"{where}.password", secret=True)


def exabgp_graceful_shutdown(
    peers: Iterable[Mapping[str, Any]],
    announce: Mapping[str, Iterable[str]],
    *,
    asn: int,
    command: str,
    source: str,
) -> Variables | None:
    """Return the template's `graceful_shutdown`; None when nothing is announced to anybody.

    The name of the process ends with a digest of what it does, for the same reason as those of services.

    Args:
        peers: the template's.
        announce: prefixes by family, that each neighbour of the family is told.
        asn: `router_asn`.
        command: that runs the process, with the mark and the file it writes.
        source: its program, whose change starts it anew, too.
    """
    words = [word for peer in peers for word in _announced(peer, list(announce[peer["family"]]), asn)]
    if not words:
        return None
    run = " ".join([command, *words])
    digest = hashlib.sha256(f"{run}\0{source}".encode()).hexdigest()[:8]
    return {"process": f"graceful-shutdown-{digest}", "run": run}


def _announced(peer: Mapping[str, Any], prefixes: list[str], asn: int) -> list[str]:
    if not prefixes:
        return []
    words = [peer["address"], f"prefixes={'+'.join(prefixes)}"]
    if peer.get("communities"):
        words.append(f"communities={'+'.join(peer['communities'])}")
    if peer.get("prepend"):
        words.append(f"as-path={'+'.join([str(asn)] * (peer['prepend'] + 1))}")
    return words


def exabgp_services(
    services: Iterable[Mapping[str, Any]],
    *,
    neighbors: Mapping[str, str],
    next_hops: Mapping[str, str],
    checks: str,
    drain: str,
) -> list[Variables]:
    """Return the template's `services`: a process of the health check for each service and family.

    One process announces with one next hop, so a service with addresses of both families is checked once for
    each. The name of a process ends with a digest of its options: ExaBGP, told to read its configuration
    again, starts processes whose names are new, ends those whose names are gone, and leaves the others alone.

    Args:
        services: `router_services` of the inventory.
        neighbors: whom to announce to, by family.
        next_hops: of what is announced, by family.
        checks: script that runs the check of the service it is told.
        drain: directory of the files, one by service, that withdraw it while they exist.

    Raises:
        AnsibleFilterError: a service cannot be configured so; the message names it.
    """
    return [
        _service(
            service,
            family,
            [
                *("--neighbor", neighbors[family]),
                *(word for prefix in prefixes for word in ("--ip", prefix)),
                *("--next-hop", next_hops[family]),
            ],
            checks,
            drain,
        )
        for service in services
        for family, prefixes in _prefixes(service).items()
        if prefixes
    ]


def _service(
    service: Mapping[str, Any], family: str, announcement: list[str], checks: str, drain: str
) -> Variables:
    name = str(service["name"])
    if not _NAME.fullmatch(name):
        raise AnsibleFilterError(
            f"router_services[{name}].name: found {name!r}, expected letters, digits, '_' and '-'"
        )
    interval = str(int(service.get("interval") or 5))
    words = ["--silent", "--no-ip-setup", "--withdraw-on-down", "--debounce", "--up-metric", "0"]
    words += ["--name", f"{name}-{family}", *announcement]
    words += ["--interval", interval, "--fast-interval", "1", "--timeout", interval]
    words += ["--rise", str(int(service.get("rise") or 2)), "--fall", str(int(service.get("fall") or 3))]
    words += ["--disable", f"{drain}/{name}", "--command", f'"{checks} {name}"']
    arguments = " ".join(words)
    digest = hashlib.sha256(arguments.encode()).hexdigest()[:8]
    return {"process": f"{_process_prefix(family)}{name}-{digest}", "arguments": arguments}


def exabgp_services_sessions(
    services: Iterable[Mapping[str, Any]],
    *,
    neighbors: Mapping[str, str],
    addresses: Mapping[str, str],
    hold_seconds: int,
) -> list[Variables]:
    """Return the template's `services_sessions`: with FRR on this host, one for each family with services.

    Args:
        services: `router_services` of the inventory.
        neighbors: FRR's addresses, by family.
        addresses: addresses ExaBGP speaks from, by family; that of IPv4 is its router id for both.
        hold_seconds: hold time of the sessions.
    """
    services = list(services)
    return [
        {
            "family": family,
            "address": neighbors[family],
            "local_address": addresses[family],
            "router_id": addresses["ipv4"],
            "hold_seconds": int(hold_seconds),
            "processes": f"^{_process_prefix(family)}",
        }
        for family in ("ipv4", "ipv6")
        if any(_prefixes(service)[family] for service in services)
    ]


def _process_prefix(family: str) -> str:
    return f"service-{family}-"


def _prefixes(service: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"ipv4": [], "ipv6": []}
    for text in service["addresses"]:
        try:
            network = ip_network(str(text))
        except ValueError as error:
            raise AnsibleFilterError(
                f"router_services[{service['name']}].addresses: found {text!r}, expected a prefix: {error}"
            ) from error
        found[f"ipv{network.version}"].append(str(network))
    return found


def _quotable(text: str, variable: str, *, secret: bool = False) -> str:
    """Return a word that goes between the quotes of the template, whichever they are."""
    if not text.isprintable() or set(text) & {'"', "'", "\\"}:
        found = "a quote, a backslash or a control character" if secret else repr(text)
        raise AnsibleFilterError(f"{variable}: found {found}, expected text without quotes and backslashes")
    return text


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "exabgp_graceful_shutdown": exabgp_graceful_shutdown,
            "exabgp_peers": exabgp_peers,
            "exabgp_services": exabgp_services,
            "exabgp_services_sessions": exabgp_services_sessions,
        }
