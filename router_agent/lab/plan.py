"""The address plan: which port leads where, and who has which address.

Addresses come from the benchmarking and documentation ranges (RFC 2544, RFC 5737, RFC 3849), which no table
may contain (see `router_agent.lab.reserved`).

    upstream ─ uplink ┐           ┌ pop1 (control plane: addresses of all ports)
    tester tx ──── in ┤ pop1-fwd  │
    tester rx ─── out ┘   mirror ─┘
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface
from typing import TypeAlias

from router_agent.model import Address, Family

Interface: TypeAlias = IPv4Interface | IPv6Interface

UPSTREAM_AS = 64496
POP_AS = 64500
DOWNSTREAM_AS = 64510

ANNOUNCED = {Family.IPV4: "192.0.2.0/24", Family.IPV6: "2001:db8:ffff::/48"}
"""What the POP itself announces: its service prefixes."""


@dataclass(frozen=True, slots=True)
class Port:
    """One port of the forwarding plane and what it is wired to.

    The same name is used for the port, and for the control plane's interface that mirrors it.

    Attributes:
        name: name of the port.
        number: distinguishes addresses of ports.
        far_namespace: suffix of the namespace at the other end of the wire.
        far_name: interface at the other end.
    """

    name: str
    number: int
    far_namespace: str
    far_name: str

    @property
    def mirror(self) -> str:
        """Name of the forwarding plane's end of the wire to the control plane."""
        return f"cp-{self.name}"

    @property
    def mac(self) -> str:
        """MAC of the port and of the control plane's interface alike."""
        return f"02:00:00:00:{self.number:02x}:01"

    @property
    def far_mac(self) -> str:
        """MAC of the other end."""
        return f"02:00:00:00:{self.number:02x}:02"

    def address(self, family: Family) -> Interface:
        """Return the POP's address on this port."""
        return self._host(family, 1)

    def far_address(self, family: Family) -> Interface:
        """Return the neighbour's address."""
        return self._host(family, 2)

    def gateway(self, family: Family) -> Address:
        """Return the neighbour's address without the length: the next hop of routes that leave here."""
        return self.far_address(family).ip

    def neighbour_address(self, family: Family) -> Interface:
        """Return the address of a neighbour that no route leads to."""
        return self._host(family, 3)

    def _host(self, family: Family, host: int) -> Interface:
        if family is Family.IPV4:
            return IPv4Interface(f"198.18.{self.number}.{host}/24")
        return IPv6Interface(f"2001:db8:0:{self.number:x}::{host}/64")


UPLINK = Port("uplink", 1, "upstream", "pop1")
IN = Port("in", 2, "tester", "tx")
OUT = Port("out", 3, "tester", "rx")
PORTS = (UPLINK, IN, OUT)


def link_local(mac: str) -> IPv6Address:
    """Return the link-local address the kernel derives from a MAC (RFC 4291 appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + identifier)
