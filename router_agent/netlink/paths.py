"""What a kernel route points at, and small numbers for it.

A full table has a million routes but a few hundred distinct values here, so a column of ids does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from router_agent.model import Family, Interner, Mask, Path, PathSet, RouteType
from router_agent.netlink import constants as c
from router_agent.netlink.messages import NetlinkDecodeError, attributes, u32_of
from router_agent.netlink.tunnels import parse_tunnel

_RTNEXTHOP = struct.Struct("=HBBi")  # linux/rtnetlink.h struct rtnexthop: length, flags, hops, ifindex


@dataclass(frozen=True, slots=True, order=True)
class Leg:
    """One next hop of a kernel route.

    Attributes:
        interface: ifindex, 0 if the message named none.
        gateway: 4 or 16 bytes in network order (an IPv4 route may have an IPv6 gateway), or empty.
        weight: 1 to 256.
        dead: the kernel holds it but does not use it (``RTNH_F_DEAD``), or its interface has gone.
        labels: MPLS labels that are pushed, outermost first.
        tunnel: name of an encapsulation that is none of labels.
    """

    interface: int
    gateway: bytes = b""
    weight: int = 1
    dead: bool = False
    labels: tuple[int, ...] = ()
    tunnel: str = ""

    def path(self) -> Path:
        """Return where this leg leads."""
        return Path(self.interface, self.gateway, self.weight, self.labels, self.tunnel)


@dataclass(frozen=True, slots=True)
class KernelPath:
    """Everything in a route message that says where packets go.

    Attributes:
        family: of the route; the kernel drops paths of one family and keeps equal ones of the other.
        type: route type.
        legs: sorted; empty for types that drop, and for routes through a known next-hop object.
        nexthop: id of a next-hop object, 0 for none.
        protocol: route protocol where it is needed to tell the sender what became of the route, else 0.
    """

    family: Family
    type: RouteType = RouteType.UNICAST
    legs: tuple[Leg, ...] = ()
    nexthop: int = 0
    protocol: int = 0


def path_set_of(path: KernelPath) -> PathSet | None:
    """Return the live legs of a path as a path set, or None if it leads nowhere.

    A next-hop object is not followed here.
    """
    if path.type is not RouteType.UNICAST:
        return PathSet(path.type)
    return unicast([leg.path() for leg in path.legs if not leg.dead])


def kernel_path(path_set: PathSet) -> KernelPath:
    """Return a path that leads where a path set does."""
    legs = tuple(
        sorted(
            Leg(p.interface, p.gateway, p.weight, labels=p.labels, tunnel=p.tunnel) for p in path_set.paths
        )
    )
    ipv4 = any(len(leg.gateway) == 4 for leg in legs)
    return KernelPath(Family.IPV4 if ipv4 else Family.IPV6, path_set.type, legs)


def unicast(legs: list[Path]) -> PathSet | None:
    """Return a unicast path set in its simplest form, or None without legs.

    Equal legs are added up (at most 256), and a single leg has weight 1, for a share of one is no share.
    """
    if not legs:
        return None
    weights: dict[Path, int] = {}
    for leg in legs:
        hop = replace(leg, weight=1)
        weights[hop] = min(256, weights.get(hop, 0) + leg.weight)
    if len(weights) == 1:
        return PathSet.unicast(*weights)
    return PathSet.unicast(*(replace(hop, weight=weight) for hop, weight in weights.items()))


def parse_path(
    message: bytes, places: dict[int, tuple[int, int]], knows_nexthop: Callable[[int], bool]
) -> KernelPath:
    """Return the path of one RTM_NEWROUTE or RTM_DELROUTE.

    Args:
        message: the whole message, header included.
        places: offset and length of the payload of each attribute, by type.
        knows_nexthop: says whether a next-hop object is known; its legs are then left to it.

    Raises:
        NetlinkDecodeError: an attribute does not have the shape rtnetlink.h gives it.
    """
    family, kind = Family(message[16]), RouteType(message[23])

    def value(attribute: int) -> bytes:
        at, size = places.get(attribute, (0, 0))
        return message[at : at + size]

    nexthop = u32_of(value(c.RTA_NH_ID)) if c.RTA_NH_ID in places else 0
    if nexthop and knows_nexthop(nexthop):
        return KernelPath(family, nexthop=nexthop)
    if kind is not RouteType.UNICAST:
        return KernelPath(family, kind, nexthop=nexthop)
    legs: list[Leg] = []
    # a deletion names legs that are gone by now: that they are dead is no news
    dead_flag = 0 if message[4] == c.RTM_DELROUTE else c.RTNH_F_DEAD
    if c.RTA_MULTIPATH in places:
        at, size = places[c.RTA_MULTIPATH]
        legs.extend(_parse_multipath(message, at, at + size, dead_flag))
    elif c.RTA_OIF in places or c.RTA_GATEWAY in places or c.RTA_VIA in places:
        interface = u32_of(value(c.RTA_OIF)) if c.RTA_OIF in places else 0
        gateway = _gateway(value(c.RTA_GATEWAY), value(c.RTA_VIA))
        tunnel = parse_tunnel(value(c.RTA_ENCAP_TYPE), value(c.RTA_ENCAP))
        legs.append(Leg(interface, gateway, 1, bool(message[24] & dead_flag), *tunnel))
    return KernelPath(family, kind, tuple(sorted(legs)), nexthop)


def _gateway(gateway: bytes, via: bytes) -> bytes:
    # struct rtvia: u16 family, then the address
    found = via[2:] or gateway
    if len(found) not in (0, 4, 16):
        raise NetlinkDecodeError(0, found=f"a gateway of {len(found)} bytes", expected="4 or 16 bytes")
    return found


def _parse_multipath(message: bytes, offset: int, end: int, dead_flag: int) -> Iterator[Leg]:
    while end - offset >= _RTNEXTHOP.size:
        length, flags, hops, interface = _RTNEXTHOP.unpack_from(message, offset)
        if not _RTNEXTHOP.size <= length <= end - offset:
            raise NetlinkDecodeError(
                offset, found=f"rtnexthop length {length}", expected=f"a length from 8 to {end - offset}"
            )
        inner = {
            kind: message[at : at + size]
            for kind, at, size in attributes(message, offset + _RTNEXTHOP.size, offset + length)
        }
        gateway = _gateway(inner.get(c.RTA_GATEWAY, b""), inner.get(c.RTA_VIA, b""))
        tunnel = parse_tunnel(inner.get(c.RTA_ENCAP_TYPE, b""), inner.get(c.RTA_ENCAP, b""))
        yield Leg(interface, gateway, hops + 1, bool(flags & dead_flag), *tunnel)
        offset += (length + 3) & ~3


class PathIds(Interner[KernelPath]):
    """Ids of kernel paths, which may end.

    An id may be *retired*: it keeps a (lesser) value for the routes that have it, while the same path seen
    again later gets a new id. So a link that went and came back does not bring routes back to life that the
    kernel dropped meanwhile. Ids that nobody uses any more are released and given out again.
    """

    _noun = "path id"

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0
        """Changes whenever an id known for some message bytes may have ended."""

    def retire(self, number: int, value: KernelPath) -> None:
        """Let an id stand for a lesser path from now on; its old path gets a new id when seen again."""
        old = self[number]
        if self._ids.get(old) == number:
            del self._ids[old]
        self._values[number] = value
        self.epoch += 1

    def release(self, in_use: Mask) -> int:
        """See `Interner`."""
        released = super().release(in_use)
        if released:
            self.epoch += 1
        return released
