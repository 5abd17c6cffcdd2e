"""The upstream: a BIRD that announces the table to the POP over IPv4 and IPv6 sessions."""

from __future__ import annotations

from router_agent.lab.announcement import groups_of
from router_agent.lab.bird import Bird, Session
from router_agent.lab.plan import ANNOUNCED, POP_AS, UPLINK, UPSTREAM_AS
from router_agent.lab.table import Table
from router_agent.lab.topology import Topology
from router_agent.model import Family

_SESSIONS = {Family.IPV4: "pop1_v4", Family.IPV6: "pop1_v6"}


class Upstream(Bird):
    """BIRD in the upstream namespace.

    Args:
        topology: of a lab that is built.
        table: what to announce.
    """

    def __init__(self, topology: Topology, table: Table) -> None:
        super().__init__(
            "upstream",
            directory=topology.directory,
            namespace=topology.upstream,
            router_id=str(UPLINK.gateway(Family.IPV4)),
            asn=UPSTREAM_AS,
            table=table,
            groups=groups_of(table),
            sessions=[
                Session(
                    name,
                    family,
                    local_address=UPLINK.gateway(family),
                    address=UPLINK.address(family).ip,
                    asn=POP_AS,
                    accept=(ANNOUNCED[family],),
                    description=f"POP, {family.label}",
                )
                for family, name in _SESSIONS.items()
            ],
        )

    def established(self, family: Family) -> bool:
        """Return whether the session of a family is up."""
        return self.session_established(_SESSIONS[family])

    def exported(self, family: Family) -> int:
        """Return how many prefixes BIRD has announced to the POP."""
        return self.exported_to(_SESSIONS[family])

    def imported(self, family: Family) -> int:
        """Return how many prefixes BIRD has taken from the POP."""
        return self.imported_from(_SESSIONS[family])
