"""FRR's zebra: how many of BGP's routes it has and has installed, by its own account (``route summary``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router_agent.model import Family
from router_agent.snapshot.model import BgpRoutes, Zebra
from router_agent.snapshot.sources import frr
from router_agent.snapshot.sources.router import Router

_WORDS = {Family.IPV4: "ip", Family.IPV6: "ipv6"}
_BGP = ("ebgp", "ibgp")


def read(router: Router) -> Zebra:
    """Return what zebra says.

    Raises:
        NotHereError: FRR is not installed.
        NotKnownError: zebra does not answer.
    """
    frr.require(router.vtysh, "zebra")
    return Zebra(
        routes={
            family.label: bgp_routes(frr.mapping(router.vtysh, f"show {word} route summary json"))
            for family, word in _WORDS.items()
        }
    )


def bgp_routes(summary: Mapping[str, Any]) -> BgpRoutes:
    """Return BGP's routes out of ``show ip route summary json``: {"routes": [{"type", "rib", "fib"}]}.

    Raises:
        NotKnownError: a count is not there.
    """
    rows = [row for row in summary.get("routes", ()) if row.get("type") in _BGP]
    return BgpRoutes(
        rib=sum(frr.count(row, "rib", "route summary") for row in rows),
        fib=sum(frr.count(row, "fib", "route summary") for row in rows),
    )
