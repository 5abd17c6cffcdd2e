"""The BGP speakers around the routers: BIRDs that choose as real networks do, and forward as they chose."""

from __future__ import annotations

from ipaddress import ip_interface

import numpy as np

from router_agent.lab.announcement import groups_of
from router_agent.lab.bird import Bird, Session
from router_agent.lab.commands import inside, ip_batch, run
from router_agent.lab.containers.hosts import Containers
from router_agent.lab.containers.wires import MANAGEMENT_NETWORK
from router_agent.lab.daemon import wait_until
from router_agent.lab.table import Table, acceptable, generated_table
from router_agent.model import Family

from .plan import AS, INTERNET, INTERNET_AS, LAN, POPS, ROOMS, ROUTERS, TESTER, TRANSIT_AS, Pop

IPV4, IPV6 = 4_000, 1_000
TRANSIT_IPV4 = 200
"""Prefixes that only ExaBGP's session has."""

_SPARE = 1.2
_SESSION_SECONDS = 120.0

_EVERYTHING = {Family.IPV4: "0.0.0.0/0+", Family.IPV6: "::/0+"}

_INTO_THE_KERNEL = "".join(
    f"protocol kernel into_{channel} {{\n  merge paths yes;\n"
    f"  {channel} {{ import none; export where source = RTS_BGP; }};\n}}\n"
    for channel in ("ipv4", "ipv6")
)
"""What was learned is what is forwarded by; equally good ways share the traffic."""

_FORWARDS = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv4.fib_multipath_hash_policy=1",
    "net.ipv4.conf.all.send_redirects=0",
    "net.ipv4.conf.default.send_redirects=0",
)


def tables() -> tuple[Table, Table]:
    """Return what FRR's and what ExaBGP's session announces: disjoint, the same each time."""
    wanted = {Family.IPV4: IPV4 + TRANSIT_IPV4, Family.IPV6: IPV6}
    whole = generated_table(*(round(wanted[family] * _SPARE) for family in Family))
    ipv4, ipv6 = (
        acceptable(family, whole.keys(family), wanted[family], MANAGEMENT_NETWORK) for family in Family
    )
    chosen = np.zeros(len(ipv4), np.bool_)
    chosen[np.arange(TRANSIT_IPV4) * len(ipv4) // TRANSIT_IPV4] = True
    return Table(ipv4[~chosen], ipv6, whole.origin), Table(ipv4[chosen], ipv6[:0], whole.origin)


class Neighbours:
    """The Internet, its second speaker, and what is behind each POP.

    Args:
        lab: has the rooms; it is up.
    """

    def __init__(self, lab: Containers) -> None:
        self._lab = lab
        table, transit = tables()
        own = {router.name: {f: (str(router.pop.network[f]),) for f in Family} for router in ROUTERS}
        self.internet = self._bird(
            INTERNET,
            INTERNET,
            INTERNET_AS,
            table,
            [
                Session(
                    f"{router.name}_{_short(family)}",
                    family,
                    local_address=router.uplink(family, 2).ip,
                    address=router.uplink(family).ip,
                    asn=AS,
                    accept=own[router.name][family],
                    ttl_security=True,
                    graceful_shutdown=True,
                    own_socket=True,
                    description=f"{router.name}, FRR",
                )
                for router in ROUTERS
                for family in Family
            ],
            further=_INTO_THE_KERNEL,
        )
        # It forwards nothing: the Internet's kernel has one writer.
        self.transit = self._bird(
            "transit",
            INTERNET,
            TRANSIT_AS,
            transit,
            [
                Session(
                    f"{router.name}_v4",
                    Family.IPV4,
                    local_address=router.uplink(Family.IPV4, 3).ip,
                    address=router.uplink(Family.IPV4).ip,
                    asn=AS,
                    accept=own[router.name][Family.IPV4],
                    # On the router's side FRR listens, and ExaBGP connects.
                    passive=True,
                    ttl_security=True,
                    graceful_shutdown=True,
                    own_socket=True,
                    description=f"{router.name}, ExaBGP",
                )
                for router in ROUTERS
            ],
        )
        self.servers = {pop.name: self._servers(pop) for pop in POPS}

    @property
    def birds(self) -> list[Bird]:
        """All of them."""
        return [self.internet, self.transit, *self.servers.values()]

    def start(self) -> None:
        """Bring up the rooms and start the speakers; sessions come up when the routers do."""
        wiring = self._lab.wiring
        for room in ROOMS:
            if room != TESTER:
                run(inside(wiring.namespace(room), "sysctl", "-q", "-w", *_FORWARDS))
        uplinks = {
            router.far_uplink: [router.uplink(f, host) for f in Family for host in (2, 3)]
            for router in ROUTERS
        }
        wiring.bring_up(INTERNET, uplinks | {TESTER: []})
        # Packets that have come so far are counted; nobody is told that they go no further.
        ip_batch(["route add blackhole default"], namespace=wiring.namespace(INTERNET))
        for pop in POPS:
            self._bridge(pop)
        wiring.bring_up(TESTER, {room: [] for room in ROOMS if room != TESTER})
        for bird in self.birds:
            bird.configure()
            bird.start()

    def wait_established(self, *, seconds: float = _SESSION_SECONDS) -> None:
        """Wait until every session is up."""
        wait_until(
            lambda: all(bird.all_established() for bird in self.birds),
            "the BGP sessions to be established",
            seconds=seconds,
            poll_seconds=0.5,
            found=self.sessions,
        )

    def sessions(self) -> str:
        """Return the state of all sessions, for messages."""
        return "\n".join(f"{bird.name}:\n{bird.command('show protocols')}" for bird in self.birds)

    def ways(self, pop: Pop) -> dict[str, int]:
        """Return how many IPv4 prefixes the servers of a POP send by each of its routers, by its name.

        A prefix that several carry counts for each.
        """
        by_address = {str(r.lan(Family.IPV4).ip): r.name for r in ROUTERS if r.pop is pop}
        routes = run(
            ["ip", "-n", self._lab.wiring.namespace(pop.room), "-4", "route", "show", "proto", "bird"]
        ).split()
        gateways = [routes[at + 1] for at, word in enumerate(routes[:-1]) if word == "via"]
        return {name: gateways.count(address) for address, name in by_address.items()}

    def _servers(self, pop: Pop) -> Bird:
        return self._bird(
            pop.room,
            pop.room,
            pop.asn,
            generated_table(0, 0),
            [
                Session(
                    f"{router.name}_{_short(family)}",
                    family,
                    local_address=pop.servers(family)[0].ip,
                    address=router.lan(family).ip,
                    asn=AS,
                    accept=(_EVERYTHING[family],),
                    ttl_security=True,
                    graceful_shutdown=True,
                    description=f"{router.name}, FRR",
                )
                for router in ROUTERS
                if router.pop is pop
                for family in Family
            ],
            further=_INTO_THE_KERNEL,
        )

    def _bird(
        self, name: str, room: str, asn: int, table: Table, sessions: list[Session], *, further: str = ""
    ) -> Bird:
        return Bird(
            name,
            directory=self._lab.runtime,
            namespace=self._lab.wiring.namespace(room),
            router_id=str(sessions[0].local_address),
            asn=asn,
            table=table,
            groups=groups_of(table, ()),
            sessions=sessions,
            further=further,
        )

    def _bridge(self, pop: Pop) -> None:
        namespace = self._lab.wiring.namespace(pop.room)
        members = [router.name for router in ROUTERS if router.pop is pop]
        ip_batch(
            [
                f"link add name {LAN} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                *(f"link set dev {member} master {LAN} up" for member in members),
            ],
            namespace=namespace,
        )
        addresses = [ip_interface(str(address)) for f in Family for address in pop.servers(f)]
        self._lab.wiring.bring_up(pop.room, {LAN: addresses, TESTER: []})


def _short(family: Family) -> str:
    return "v4" if family is Family.IPV4 else "v6"
