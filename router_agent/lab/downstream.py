"""The downstream: a BIRD behind the POP that is told all the POP holds, to see what it announces and when."""

from __future__ import annotations

import numpy as np

from router_agent.lab.bird import Bird, Session
from router_agent.lab.commands import ip_batch
from router_agent.lab.plan import DOWNSTREAM_AS, IN, POP_AS
from router_agent.lab.table import Table
from router_agent.lab.topology import Topology
from router_agent.model import Family

_SESSIONS = {Family.IPV4: "pop1_v4", Family.IPV6: "pop1_v6"}
_EVERYTHING = {Family.IPV4: "0.0.0.0/0+", Family.IPV6: "::/0+"}


class Downstream(Bird):
    """BIRD in the tester's namespace, announcing nothing.

    Args:
        topology: of a lab that is built.
    """

    def __init__(self, topology: Topology) -> None:
        self.namespace = topology.tester
        nothing = Table(np.empty((0, 1), np.uint64), np.empty((0, 3), np.uint64), "nothing")
        super().__init__(
            "downstream",
            directory=topology.directory,
            namespace=topology.tester,
            router_id=str(IN.neighbour_address(Family.IPV4).ip),
            asn=DOWNSTREAM_AS,
            table=nothing,
            groups=[],
            sessions=[
                Session(
                    name,
                    family,
                    local_address=IN.neighbour_address(family).ip,
                    address=IN.address(family).ip,
                    asn=POP_AS,
                    accept=(_EVERYTHING[family],),
                    description=f"POP, {family.label}",
                )
                for family, name in _SESSIONS.items()
            ],
        )

    def configure(self) -> None:
        """See `Bird`; gives the tester's port the address that BIRD speaks from.

        It is not the one that routes lead to: a neighbour is not told of routes through itself.

        Raises:
            LabError: a template is broken, or the kernel refuses the address.
        """
        super().configure()
        ip_batch(
            [f"address replace {IN.neighbour_address(family)} dev {IN.far_name}" for family in Family],
            namespace=self.namespace,
        )

    def heard(self) -> dict[Family, int]:
        """Return how many prefixes of each family the POP has announced and not withdrawn."""
        return {family: self.imported_from(name) for family, name in _SESSIONS.items()}

    def updates(self) -> dict[Family, tuple[int, int]]:
        """Return how many announcements and withdrawals of each family have come since BIRD started."""
        return {family: self.received_from(name) for family, name in _SESSIONS.items()}
