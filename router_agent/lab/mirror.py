"""Ports mirrored into the control plane the way linux-cp does it, with nothing but tc u32 and mirred.

What arrives at a port is for the control plane when it is ARP or neighbour discovery, or goes to an address
of the router or a link-local multicast group; everything else stays for the forwarding plane. Whatever the
control plane sends leaves by the port untouched. The port itself has no address: its MAC is the control
plane's, so neighbours see one router.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from router_agent.lab.plan import Port
from router_agent.model import Address

_NEIGHBOUR_DISCOVERY = ((0x85, 0xFF), (0x86, 0xFE), (0x88, 0xFE))
"""ICMPv6 types 133 to 137 as value and mask (RFC 4861)."""

_TO_CONTROL_PLANE_4 = ("224.0.0.0/24",)
_TO_CONTROL_PLANE_6 = ("fe80::/10", "ff02::/16")


def mirror_rules(port: Port, local: Sequence[Address]) -> Iterator[str]:
    """Yield the ``tc`` commands that mirror a port; run them in the forwarding plane's namespace.

    Args:
        port: port and wire to the control plane; both interfaces exist.
        local: the router's own addresses, of all ports.
    """
    name = port.name
    redirect = f"action mirred egress redirect dev {port.mirror}"
    yield f"qdisc add dev {name} clsact"
    yield f"filter add dev {name} ingress protocol arp prio 1 u32 match u32 0 0 {redirect}"
    for value, mask in _NEIGHBOUR_DISCOVERY:
        match = f"match ip6 protocol 58 0xff match u8 {value:#x} {mask:#x} at 40"
        yield f"filter add dev {name} ingress protocol ipv6 prio 2 u32 {match} {redirect}"
    for network in (*(f"{a}/128" for a in local if a.version == 6), *_TO_CONTROL_PLANE_6):
        yield f"filter add dev {name} ingress protocol ipv6 prio 2 u32 match ip6 dst {network} {redirect}"
    for network in (*(f"{a}/32" for a in local if a.version == 4), *_TO_CONTROL_PLANE_4):
        yield f"filter add dev {name} ingress protocol ip prio 3 u32 match ip dst {network} {redirect}"
    yield f"qdisc add dev {port.mirror} clsact"
    outwards = f"action mirred egress redirect dev {name}"
    yield f"filter add dev {port.mirror} ingress protocol all prio 1 u32 match u32 0 0 {outwards}"
