"""The BGP neighbours of the virtual POP host: two BIRDs outside of it, and what they announce.

The upstream speaks to FRR over IPv4 and IPv6, the tester's BIRD to ExaBGP. What leads where follows from the
prefix (see `announcement.expected_port`): everyone who knows a prefix knows the port it must leave by.
"""

from __future__ import annotations

import numpy as np

from router_agent.lab.announcement import expected_port, groups_of
from router_agent.lab.bird import Bird, Session
from router_agent.lab.daemon import wait_until
from router_agent.lab.errors import LabError
from router_agent.lab.plan import ANNOUNCED, POP_AS, UPSTREAM_AS
from router_agent.lab.table import Table, acceptable, generated_table
from router_agent.lab.vm.network import Network
from router_agent.lab.vm.plan import LAN, MANAGEMENT, PORTS, RECEIVING_PORTS, UPLINK
from router_agent.model import I64, U64, Family
from router_agent.traffic.scenario import Destinations, Endpoints
from router_agent.traffic.scenario import Port as TesterPort

IPV4, IPV6 = 10_000, 2_000
"""Prefixes the upstream announces."""
TESTER_IPV4 = 1_000
"""Prefixes the tester's BIRD announces to ExaBGP."""

TESTER_AS = 64497

_SPARE = 1.15
"""So much more is generated than wanted, for what is left out."""

_SESSION_SECONDS = 240.0
_COVERING = "covering"
"""BIRD's protocol for the prefix that covers the operator's address."""


class Neighbours:
    """Both BIRDs.

    Args:
        network: their namespaces; it is built before they start.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        upstream, tester = tables()
        covering = (
            f"protocol static {_COVERING} {{\n  disabled yes;\n"
            f"  ipv4 {{ import filter {{ bgp_next_hop = {LAN.gateway(Family.IPV4)}; accept; }}; }};\n"
            f"  route {MANAGEMENT.covering} blackhole;\n}}\n"
        )
        self.upstream = Bird(
            "upstream",
            directory=network.directory,
            namespace=network.namespace(UPLINK),
            router_id=str(UPLINK.gateway(Family.IPV4)),
            asn=UPSTREAM_AS,
            table=upstream,
            groups=groups_of(upstream, RECEIVING_PORTS),
            sessions=[
                Session(
                    f"pop1_v{4 if family is Family.IPV4 else 6}",
                    family,
                    local_address=UPLINK.gateway(family),
                    address=UPLINK.address(family).ip,
                    asn=POP_AS,
                    accept=(ANNOUNCED[family],),
                    ttl_security=True,
                    description=f"POP, {family.label}",
                )
                for family in Family
            ],
            further=covering,
        )
        self.tester = Bird(
            "tester",
            directory=network.directory,
            namespace=network.namespace(LAN),
            router_id=str(LAN.gateway(Family.IPV4)),
            asn=TESTER_AS,
            table=tester,
            groups=groups_of(tester, RECEIVING_PORTS),
            sessions=[
                Session(
                    "pop1_v4",
                    Family.IPV4,
                    local_address=LAN.gateway(Family.IPV4),
                    address=LAN.address(Family.IPV4).ip,
                    asn=POP_AS,
                    accept=(ANNOUNCED[Family.IPV4],),
                    # On the POP's side FRR listens, and ExaBGP connects.
                    passive=True,
                    ttl_security=True,
                    description="POP, ExaBGP",
                )
            ],
        )

    @property
    def birds(self) -> tuple[Bird, Bird]:
        """Both of them."""
        return self.upstream, self.tester

    @property
    def keys(self) -> dict[Family, U64]:
        """Every prefix that is announced, by family."""
        return {family: np.concatenate([bird.table.keys(family) for bird in self.birds]) for family in Family}

    @property
    def sizes(self) -> dict[Family, int]:
        """How many prefixes are announced, by family."""
        return {family: len(keys) for family, keys in self.keys.items()}

    def start(self) -> None:
        """Start both; sessions come up when the host answers.

        Raises:
            LabError: one refuses its configuration or does not come up.
        """
        for bird in self.birds:
            bird.configure()
            bird.start()

    def wait_established(self, *, seconds: float = _SESSION_SECONDS) -> None:
        """Wait until every session is up.

        Raises:
            LabError: one does not come up.
        """
        wait_until(
            lambda: all(bird.all_established() for bird in self.birds),
            "the BGP sessions to be established",
            seconds=seconds,
            poll_seconds=1.0,
            found=self.sessions,
        )

    def restart_sessions(self) -> None:
        """Close every session and let them come up again."""
        for bird in self.birds:
            bird.restart_sessions()

    def cover_management(self, *, announce: bool) -> None:
        """Announce, or withdraw, a prefix that covers the address ssh comes from."""
        self.upstream.command(f"{'enable' if announce else 'disable'} {_COVERING}")

    def sessions(self) -> str:
        """Return the state of all sessions, for messages."""
        return "; ".join(f"{bird.name}: {bird.sessions()}" for bird in self.birds)

    def destinations(self, count: int, *, ingress: str, only: str | None = None) -> Destinations:
        """Draw addresses within announced prefixes, each with the port it must leave by.

        Args:
            count: how many prefixes to sample.
            ingress: name of the port that sends.
            only: leave out what does not leave by this port.

        Raises:
            LabError: there is no such prefix.
        """
        table = self.keys
        ports = {family: expected_positions(keys) for family, keys in table.items()}
        keys = table
        if only is not None:
            wanted = [port.name for port in PORTS].index(only)
            keys = {family: table[family][ports[family] == wanted] for family in Family}
            ports = {family: ports[family][ports[family] == wanted] for family in Family}
        if not any(len(column) for column in keys.values()):
            raise LabError(f"found no announced prefix that leads to {only}")
        return Destinations.draw(
            keys, ports, count=count, table=table, ingress=self.endpoints.position(ingress)
        )

    @property
    def endpoints(self) -> Endpoints:
        """The tester's ports, in the order of `plan.PORTS`: both taps."""
        return tester_ports(self._network)


def tester_ports(network: Network) -> Endpoints:
    """Return the taps as ports of a traffic check, in the order of `plan.PORTS`."""
    ports = tuple(TesterPort(port.name, port.far_name, network.namespace(port), port.mac) for port in PORTS)
    return Endpoints(ports)


def expected_positions(keys: U64) -> I64:
    """Return for each prefix the position in `plan.PORTS` of the port it must leave by."""
    positions = np.array([PORTS.index(port) for port in RECEIVING_PORTS], np.int64)
    found: I64 = positions[expected_port(keys)]
    return found


def tables() -> tuple[Table, Table]:
    """Return what the upstream and what the tester's BIRD announce: disjoint, the same each time.

    Raises:
        LabError: too few prefixes are left of those generated.
    """
    wanted = {Family.IPV4: IPV4 + TESTER_IPV4, Family.IPV6: IPV6}
    whole = generated_table(*(round(wanted[family] * _SPARE) for family in Family))
    ipv4, ipv6 = (
        acceptable(family, whole.keys(family), wanted[family], MANAGEMENT.network) for family in Family
    )
    chosen = np.zeros(len(ipv4), np.bool_)
    chosen[np.arange(TESTER_IPV4) * len(ipv4) // TESTER_IPV4] = True
    origin = "generated"
    return Table(ipv4[~chosen], ipv6, origin), Table(ipv4[chosen], ipv6[:0], origin)
