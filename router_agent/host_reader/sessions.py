"""BGP sessions out of FRR's ``show bgp summary json`` and ``show bfd peers json`` (seen with 8.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router_agent.host_reader.answers import Session, Sessions
from router_agent.observe import ask
from router_agent.observe.ask import NotKnownError

MOST_SESSIONS = 1_000
_ESTABLISHED = "Established"
_FAMILY = re.compile(r"(?P<afi>ipv4|ipv6|l2Vpn|ls)(?P<safi>[A-Z]\w*)")
"""``ipv4Unicast``, ``ipv6Vpn``, ``l2VpnEvpn``: keys of FRR's answer."""
_AFIS = {"ipv4": "IPv4", "ipv6": "IPv6", "l2Vpn": "L2VPN", "ls": "link-state"}


def read(vtysh: Sequence[str]) -> Sessions:
    """Ask FRR for its sessions.

    Args:
        vtysh: the command that runs vtysh.
    """
    try:
        summary = ask.json_of([*vtysh, "-c", "show bgp summary json"])
    except NotKnownError as error:
        return Sessions(problem=str(error))
    try:
        bfd = ask.json_of([*vtysh, "-c", "show bfd peers json"])
    except NotKnownError:
        bfd = []  # bfdd does not run: no session has BFD
    return sessions(summary, bfd)


def sessions(summary: Any, bfd: Any) -> Sessions:
    """Return what FRR's answers say; what is not as expected in them is left out.

    Args:
        summary: of ``show bgp summary json``: {family: {"routerId", "as", "peers": {address: {...}}}}.
        bfd: of ``show bfd peers json``: [{"peer", "status", ...}].
    """
    families = _mappings(summary)
    states = {str(peer.get("peer")): str(peer.get("status", "unknown")) for peer in _list(bfd)}
    rows = [
        _session(str(address), _family(name), peer, states.get(str(address)))
        for name, family in families
        for address, peer in _mappings(family.get("peers"))
    ]
    first = families[0][1] if families else {}
    return Sessions(
        local_as=_number(first.get("as")) or None,
        router_id=str(first["routerId"]) if "routerId" in first else None,
        rows=tuple(rows[:MOST_SESSIONS]),
        left_out=max(0, len(rows) - MOST_SESSIONS),
    )


def _session(address: str, family: str, peer: Mapping[str, Any], bfd: str | None) -> Session:
    state = str(peer.get("state", "unknown"))
    milliseconds = _number(peer.get("peerUptimeMsec"))
    return Session(
        peer=address,
        description=str(peer.get("desc", "")),
        family=family,
        remote_as=_number(peer.get("remoteAs")),
        state=state,
        established=state == _ESTABLISHED,
        since_seconds=milliseconds / 1000 if milliseconds else None,
        accepted=_number(peer.get("pfxRcd")),
        announced=_number(peer.get("pfxSnt")),
        bfd=bfd,
    )


def _family(name: str) -> str:
    found = _FAMILY.fullmatch(name)
    return f"{_AFIS[found['afi']]} {found['safi'].lower()}" if found else name


def _mappings(found: Any) -> list[tuple[str, Mapping[str, Any]]]:
    if not isinstance(found, Mapping):
        return []
    return [(name, value) for name, value in found.items() if isinstance(value, Mapping)]


def _list(found: Any) -> Iterator[Mapping[str, Any]]:
    return (entry for entry in found if isinstance(entry, Mapping)) if isinstance(found, list) else iter(())


def _number(found: Any) -> int:
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 0
