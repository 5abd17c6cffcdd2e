"""Routes of MPLS labels (AF_MPLS): what becomes of a packet that comes with a label.

There are some thousands of these, not a million, so each is parsed by itself. Formats: linux/rtnetlink.h
(RTA_DST and RTA_NEWDST are label stacks, RTA_VIA a struct rtvia), net/mpls/af_mpls.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from router_agent.netlink import constants as c
from router_agent.netlink.messages import NetlinkDecodeError, attribute_map, attributes, u32_of
from router_agent.netlink.tunnels import parse_labels

AF_MPLS = 28
"""linux/socket.h"""

_RTMSG = struct.Struct("=BBBBBBBBI")
_RTNEXTHOP = struct.Struct("=HBBi")
_RTVIA = struct.Struct("=H")
_ADDRESS_BYTES = {2: 4, 10: 16}

REQUEST = _RTMSG.pack(AF_MPLS, 0, 0, 0, 0, 0, 0, 0, 0)
"""Body of an RTM_GETROUTE dump, for a kernel that has MPLS: another takes it for a dump of everything."""


@dataclass(frozen=True, slots=True, order=True)
class LabelLeg:
    """Where one leg of a route of a label leads.

    Attributes:
        interface: ifindex; that of a VRF device or of ``lo`` where what is below the label is looked up anew.
        gateway: 4 or 16 bytes; empty for none.
        labels: put in place of the label, outermost first; none pops it.
        weight: from 1.
        reachable: not dead, and by IP; the kernel also has next hops given by MAC address.
    """

    interface: int
    gateway: bytes = b""
    labels: tuple[int, ...] = ()
    weight: int = 1
    reachable: bool = True


@dataclass(frozen=True, slots=True)
class LabelRoute:
    """A route of a label, with its legs in sorted order."""

    label: int
    legs: tuple[LabelLeg, ...]


def parse_label_route(body: bytes) -> LabelRoute | None:
    """Return the route of an RTM_NEWROUTE's body; None for one of another family.

    Raises:
        NetlinkDecodeError: it is not what rtnetlink.h says.
    """
    if len(body) < _RTMSG.size:
        raise NetlinkDecodeError(0, found=f"a route body of {len(body)} bytes", expected="at least 12")
    if body[0] != AF_MPLS:
        return None
    flags = _RTMSG.unpack_from(body)[8]
    found = attribute_map(body, _RTMSG.size)
    (label,) = parse_labels(found.get(c.RTA_DST, b""))[:1]
    if c.RTA_MULTIPATH in found:
        legs = list(_legs(found[c.RTA_MULTIPATH]))
    else:
        interface = u32_of(found[c.RTA_OIF]) if c.RTA_OIF in found else 0
        legs = [_leg(interface, found, 1, flags)]
    return LabelRoute(label, tuple(sorted(legs)))


def _legs(payload: bytes) -> Iterator[LabelLeg]:
    offset = 0
    while len(payload) - offset >= _RTNEXTHOP.size:
        length, flags, hops, interface = _RTNEXTHOP.unpack_from(payload, offset)
        if not _RTNEXTHOP.size <= length <= len(payload) - offset:
            raise NetlinkDecodeError(
                offset, found=f"rtnexthop length {length}", expected=f"8 to {len(payload) - offset}"
            )
        inner = {
            kind: payload[at : at + size]
            for kind, at, size in attributes(payload, offset + _RTNEXTHOP.size, offset + length)
        }
        yield _leg(interface, inner, hops + 1, flags)
        offset += (length + 3) & ~3


def _leg(interface: int, found: dict[int, bytes], weight: int, flags: int) -> LabelLeg:
    labels = parse_labels(found[c.RTA_NEWDST]) if c.RTA_NEWDST in found else ()
    gateway, by_ip = b"", True
    via = found.get(c.RTA_VIA, b"")
    if via:
        family = _RTVIA.unpack_from(via)[0] if len(via) >= _RTVIA.size else 0
        gateway = via[_RTVIA.size :]
        by_ip = _ADDRESS_BYTES.get(family) == len(gateway)
    dead = flags & (c.RTNH_F_DEAD | c.RTNH_F_LINKDOWN)
    return LabelLeg(interface, gateway if by_ip else b"", labels, weight, by_ip and not dead)
