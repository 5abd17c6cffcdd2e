"""FRR's bgpd: its sessions with what each carries, and the size of its own table.

Of the table itself nothing is read: ``summary`` and ``statistics`` are counts. FRR's ``pfxRcd`` counts what
passed the policy; what came before it is kept, and counted here, for neighbours with
``soft-reconfiguration inbound`` only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from router_agent.model import Family
from router_agent.observe.ask import NotKnownError
from router_agent.snapshot.model import ESTABLISHED, Bgp, Prefixes, Session
from router_agent.snapshot.sources import frr
from router_agent.snapshot.sources.router import Router

_AFIS = {Family.IPV4: "ipv4", Family.IPV6: "ipv6"}
_COMMANDS = {"ipv4Unicast": "ipv4 unicast", "ipv6Unicast": "ipv6 unicast"}
"""FRR's name of a family in JSON to its words in commands."""
_ADJ_IN = "Adj-in"


def read(router: Router) -> Bgp:
    """Return what bgpd says.

    Raises:
        NotHereError: FRR is not installed.
        NotKnownError: bgpd does not answer.
    """
    vtysh = router.vtysh
    frr.require(vtysh, "bgpd")
    summary = frr.mapping(vtysh, "show bgp vrf all summary json")
    found = [*sessions(summary)]
    kept = keeps_received(frr.mapping(vtysh, "show bgp vrf all neighbors json"))
    return Bgp(
        version=frr.version(vtysh),
        graceful_shutdown=graceful_shutdown(frr.text(vtysh, "show running-config bgpd")),
        sessions=tuple(_with_received(router, session, kept) for session in found),
        prefixes={family.label: _table_size(router, family) for family in Family},
    )


def sessions(summary: Mapping[str, Any]) -> Iterator[Session]:
    """Yield the sessions of every VRF.

    Args:
        summary: of ``show bgp vrf all summary json``: {vrf: {family: {"peers": {peer: {...}}}}}.

    Raises:
        NotKnownError: a count is not there.
    """
    for vrf, families in summary.items():
        peers: dict[str, dict[str, Any]] = {}
        carried: dict[str, dict[str, Prefixes]] = {}
        for family, content in families.items() if isinstance(families, Mapping) else ():
            for peer, row in content.get("peers", {}).items() if isinstance(content, Mapping) else ():
                peers.setdefault(peer, {}).update(row)
                where = f"session with {peer}"
                carried.setdefault(peer, {})[family] = Prefixes(
                    accepted=frr.count(row, "pfxRcd", where), advertised=frr.count(row, "pfxSnt", where)
                )
        for peer, row in peers.items():
            yield _session(vrf, peer, row, carried[peer])


def _session(vrf: str, peer: str, row: Mapping[str, Any], families: Mapping[str, Prefixes]) -> Session:
    state = str(row.get("state", "unknown"))
    up = state == ESTABLISHED
    return Session(
        peer=peer,
        vrf=vrf,
        description=str(row.get("desc", "")),
        remote_as=frr.count(row, "remoteAs", f"session with {peer}"),
        state=state,
        uptime_seconds=frr.count(row, "peerUptimeMsec", f"session with {peer}") / 1000 if up else None,
        drops=frr.count(row, "connectionsDropped", f"session with {peer}"),
        families=families,
    )


def keeps_received(neighbours: Mapping[str, Any]) -> frozenset[tuple[str, str, str]]:
    """Return (VRF, peer, family) of those of which FRR keeps what they sent before its policy.

    Args:
        neighbours: of ``show bgp vrf all neighbors json``: {vrf: {peer: {"addressFamilyInfo": {...}}}}.
    """
    return frozenset(
        (vrf, peer, family)
        for vrf, peers in neighbours.items()
        if isinstance(peers, Mapping)
        for peer, row in peers.items()
        if isinstance(row, Mapping)
        for family, info in row.get("addressFamilyInfo", {}).items()
        if info.get("inboundSoftConfigPermit")
    )


def graceful_shutdown(configuration: str) -> bool:
    """Return whether a running configuration has graceful shutdown, for all of BGP or for an instance."""
    return any(line.strip() == "bgp graceful-shutdown" for line in configuration.splitlines())


def _with_received(router: Router, session: Session, kept: frozenset[tuple[str, str, str]]) -> Session:
    families = dict(session.families)
    for family, prefixes in session.families.items():
        if session.established and (session.vrf, session.peer, family) in kept and family in _COMMANDS:
            vrf = "" if session.vrf == "default" else f"vrf {session.vrf} "
            command = f"show bgp {vrf}{_COMMANDS[family]} neighbors {session.peer} prefix-counts json"
            received = received_prefixes(frr.mapping(router.vtysh, command), session.peer)
            families[family] = prefixes.model_copy(update={"received": received})
    return session.model_copy(update={"families": families})


def received_prefixes(counts: Mapping[str, Any], peer: str) -> int:
    """Return the size of a neighbour's Adj-RIB-In out of ``... prefix-counts json``.

    Raises:
        NotKnownError: it is not there.
    """
    breakdown = counts.get("ribTableWalkCounters")
    if not isinstance(breakdown, Mapping):
        raise NotKnownError(f"FRR's prefix counts of {peer}: found {sorted(counts)}, expected a breakdown")
    return frr.count(breakdown, _ADJ_IN, f"prefix counts of {peer}")


def _table_size(router: Router, family: Family) -> int:
    command = f"show bgp {_AFIS[family]} unicast statistics json"
    return table_size(frr.mapping(router.vtysh, command), family)


def table_size(statistics: Mapping[str, Any], family: Family) -> int:
    """Return how many prefixes BGP's table of the default VRF has, 0 without an instance.

    Args:
        statistics: of ``show bgp ... statistics json``: {family: [{"instance", "totalPrefixes", ...}]}.
        family: of the table.

    Raises:
        NotKnownError: the count is not there.
    """
    instances = statistics.get(f"{_AFIS[family]}Unicast") or ()
    default = [found for found in instances if str(found.get("instance")).endswith("default")]
    return frr.count(default[0], "totalPrefixes", f"statistics of {family.label}") if default else 0
