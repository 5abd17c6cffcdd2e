"""Neighbours: linux/neighbour.h."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from router_agent.model import Family, Neighbour
from router_agent.netlink import constants as c
from router_agent.netlink.messages import NetlinkDecodeError, attribute, attribute_map

_NDMSG = struct.Struct("=B3xiHBB")  # family, ifindex, state, flags, type
_USABLE = c.NUD_REACHABLE | c.NUD_STALE | c.NUD_DELAY | c.NUD_PROBE | c.NUD_PERMANENT

REQUEST = _NDMSG.pack(0, 0, 0, 0, 0)
"""Body of an RTM_GETNEIGH dump of both families."""


@dataclass(frozen=True, slots=True)
class NeighbourState:
    """A neighbour as the kernel tells of it.

    Attributes:
        neighbour: interface, address, MAC (empty if not known).
        usable: packets can be sent to it.
        protocol: who wrote it (``NDA_PROTOCOL``), 0 for the kernel itself.
    """

    neighbour: Neighbour
    usable: bool
    protocol: int


def parse_neighbour(body: bytes) -> NeighbourState | None:
    """Return the neighbour of an RTM_NEWNEIGH or RTM_DELNEIGH, None for proxies and bridge entries.

    Raises:
        NetlinkDecodeError: the body is not what neighbour.h says.
    """
    if len(body) < _NDMSG.size:
        raise NetlinkDecodeError(0, found=f"a neighbour body of {len(body)} bytes", expected="at least 12")
    family, index, state, flags, _ = _NDMSG.unpack_from(body)
    if family not in (Family.IPV4, Family.IPV6) or flags & c.NTF_PROXY:
        return None
    found = attribute_map(body, _NDMSG.size)
    address, mac = found.get(c.NDA_DST, b""), found.get(c.NDA_LLADDR, b"")
    if len(address) != Family(family).address_bytes:
        raise NetlinkDecodeError(
            _NDMSG.size,
            found=f"a neighbour address of {len(address)} bytes",
            expected=f"{Family(family).address_bytes} bytes",
        )
    # The kernel keeps the groups it sends to as NOARP entries; an operator's own are neighbours.
    usable = _USABLE if _is_multicast(address) else _USABLE | c.NUD_NOARP
    protocol = found.get(c.NDA_PROTOCOL, b"\0")[:1]
    return NeighbourState(
        Neighbour(index, address, mac),
        usable=bool(state & usable) and len(mac) == 6,
        protocol=protocol[0] if protocol else 0,
    )


def encode_neighbour(neighbour: Neighbour, *, protocol: int, permanent: bool = True) -> bytes:
    """Return the body of an RTM_NEWNEIGH or RTM_DELNEIGH."""
    family = Family.IPV4 if len(neighbour.address) == 4 else Family.IPV6
    body = _NDMSG.pack(family, neighbour.interface, c.NUD_PERMANENT if permanent else 0, 0, 0)
    body += attribute(c.NDA_DST, neighbour.address)
    if permanent:
        body += attribute(c.NDA_LLADDR, neighbour.mac)
        body += attribute(c.NDA_PROTOCOL, bytes((protocol,)))
    return body


def encode_use(interface: int, address: bytes) -> bytes:
    """Return the body of an RTM_NEWNEIGH that has the kernel resolve an address, as a packet for it would."""
    family = Family.IPV4 if len(address) == 4 else Family.IPV6
    return _NDMSG.pack(family, interface, 0, c.NTF_USE, 0) + attribute(c.NDA_DST, address)


def _is_multicast(address: bytes) -> bool:
    """Tell whether an address is a group's; the limited broadcast counts as one."""
    if len(address) == Family.IPV4.address_bytes:
        return address[0] >= 0xE0
    return address[:1] == b"\xff"
