"""Two POPs of one network, what is around them, and who has which address.

                            the Internet (BIRD, AS 64496)
              uplink │           uplink │               uplink │
                    a1                 a2                     b1            routers, AS 64500
                 lan │    bridge    lan │                  lan │
                     └──── servers ─────┘                  servers          (BIRD, AS 64511, AS 64512)
                           of POP a                        of POP b

What is behind a POP's routers learns the whole table from each of them and shares traffic between those
that are equally good, as the Internet does with the POP's own prefix; both take a router that shuts down
gracefully (RFC 8326) as their last choice. Each router has two sessions with the Internet: FRR's, and
ExaBGP's for some prefixes that the agent carries into the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from router_agent.lab.containers.wires import End, Wire
from router_agent.lab.plan import Interface
from router_agent.model import Family

AS = 64500
INTERNET_AS = 64496
TRANSIT_AS = 64497

INTERNET = "internet"
TESTER = "tester"

LAN = "lan"
UPLINK = "uplink"

SERVERS = 8
"""Addresses of servers in each POP, from `Pop.server` on."""


@dataclass(frozen=True, slots=True)
class Pop:
    """A POP.

    Attributes:
        name: of it.
        network: what it announces, by family.
        asn: of what is behind its routers.
    """

    name: str
    network: dict[Family, IPv4Network | IPv6Network]
    asn: int

    @property
    def room(self) -> str:
        """Namespace of the servers behind its routers."""
        return f"servers-{self.name}"

    def lan(self, family: Family, host: int) -> Interface:
        """Return an address on the network between routers and servers, a part of what is announced."""
        network = self.network[family]
        if isinstance(network, IPv4Network):
            return IPv4Interface((network[host], network.prefixlen + 1))
        return IPv6Interface((network[host], 64))

    def servers(self, family: Family) -> list[Interface]:
        """Return the servers' addresses."""
        return [self.lan(family, 10 + number) for number in range(SERVERS)]


POP_A = Pop(
    "a", {Family.IPV4: IPv4Network("203.0.113.0/24"), Family.IPV6: IPv6Network("2001:db8:a::/48")}, 64511
)
POP_B = Pop(
    "b", {Family.IPV4: IPv4Network("198.51.100.0/24"), Family.IPV6: IPv6Network("2001:db8:b::/48")}, 64512
)
POPS = (POP_A, POP_B)


@dataclass(frozen=True, slots=True)
class Router:
    """A router of a POP.

    Attributes:
        name: in the inventory.
        pop: where it is.
        number: distinguishes its uplink from others'.
        host: and it from others on its lan.
    """

    name: str
    pop: Pop
    number: int
    host: int

    @property
    def far_uplink(self) -> str:
        """What its uplink is called in the Internet."""
        return f"to-{self.name}"

    def uplink(self, family: Family, host: int = 1) -> Interface:
        """Return an address on its uplink: 1 is its own, 2 the Internet's, 3 that of the second session."""
        if family is Family.IPV4:
            return IPv4Interface(f"198.18.{self.number}.{host}/24")
        return IPv6Interface(f"2001:db8:0:{self.number:x}::{host}/64")

    def lan(self, family: Family) -> Interface:
        """Return its address on the lan."""
        return self.pop.lan(family, self.host)


A1 = Router("a1", POP_A, 1, 1)
A2 = Router("a2", POP_A, 2, 2)
B1 = Router("b1", POP_B, 3, 1)
ROUTERS = (A1, A2, B1)

ROOMS = (INTERNET, TESTER, *(pop.room for pop in POPS))

TESTER_MAC = "02:00:00:00:fe:01"
"""Of every interface that the tester sends to; each is a wire of its own."""


def router_wires(router: Router) -> list[Wire]:
    """Return a router's cables: both ends keep their names when it reboots."""
    return [
        Wire(End(router.name, UPLINK), End(INTERNET, router.far_uplink)),
        Wire(End(router.name, LAN), End(router.pop.room, router.name)),
    ]


WIRES = (
    *(wire for router in ROUTERS for wire in router_wires(router)),
    *(Wire(End(TESTER, room), End(room, TESTER, TESTER_MAC)) for room in ROOMS if room != TESTER),
)
