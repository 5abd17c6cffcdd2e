"""Links and addresses: linux/if_link.h, linux/if_addr.h.

Written out here and not taken from pyroute2, whose import alone costs 20 MB of resident memory and 0.1 s.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from router_agent.model import Link
from router_agent.netlink import constants as c
from router_agent.netlink.messages import NetlinkDecodeError, attribute_map, u32_of

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change mask
_VLAN = struct.Struct("=H")
_DOT1Q = b"\x81\x00"
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index

LINK_REQUEST = _IFINFOMSG.pack(0, 0, 0, 0, 0)
"""Body of an RTM_GETLINK dump."""


def address_request(family: int) -> bytes:
    """Return the body of an RTM_GETADDR dump."""
    return _IFADDRMSG.pack(family, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class LinkState:
    """A link and what decides over its routes.

    Attributes:
        link: the link.
        running: has carrier or is operational; the kernel drops next-hop objects of a link that is neither.
        master: ifindex of the bridge, bond or VRF it belongs to; 0 for none.
        lower: ifindex of the interface it is above, in its own namespace; 0 for none.
        vlan: VLAN id of an 802.1Q device; None for other links.
        vrf_table: table of a VRF device; 0 for other links.
    """

    link: Link
    running: bool
    master: int
    lower: int = 0
    vlan: int | None = None
    vrf_table: int = 0


def parse_link(body: bytes) -> LinkState | None:
    """Return the link of an RTM_NEWLINK or RTM_DELLINK, or None if it is about a bridge port.

    Raises:
        NetlinkDecodeError: the body is not what if_link.h says.
    """
    if len(body) < _IFINFOMSG.size:
        raise NetlinkDecodeError(0, found=f"a link body of {len(body)} bytes", expected="at least 16")
    family, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
    if family != 0:
        return None
    found = attribute_map(body, _IFINFOMSG.size)
    link = Link(
        index=index,
        name=found.get(c.IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        up=bool(flags & c.IFF_UP),
        carrier=bool(flags & c.IFF_LOWER_UP),
        mac=found.get(c.IFLA_ADDRESS, b"") if len(found.get(c.IFLA_ADDRESS, b"")) == 6 else b"",
        mtu=u32_of(found[c.IFLA_MTU]) if c.IFLA_MTU in found else 0,
    )
    master = u32_of(found[c.IFLA_MASTER]) if c.IFLA_MASTER in found else 0
    lower = u32_of(found[c.IFLA_LINK]) if c.IFLA_LINK in found and c.IFLA_LINK_NETNSID not in found else 0
    running = bool(flags & (c.IFF_RUNNING | c.IFF_LOWER_UP))
    return LinkState(link, running, master, lower, *_parse_kind(found.get(c.IFLA_LINKINFO, b"")))


def _parse_kind(info: bytes) -> tuple[int | None, int]:
    """Return the VLAN id and the VRF table of a link's IFLA_LINKINFO, None and 0 for other kinds."""
    found = attribute_map(info, 0)
    kind = found.get(c.IFLA_INFO_KIND, b"").rstrip(b"\0")
    if kind not in (b"vlan", b"vrf"):
        return None, 0
    data = attribute_map(found.get(c.IFLA_INFO_DATA, b""), 0)
    if kind == b"vrf":
        return None, u32_of(data[c.IFLA_VRF_TABLE]) if c.IFLA_VRF_TABLE in data else 0
    if data.get(c.IFLA_VLAN_PROTOCOL, _DOT1Q) != _DOT1Q or len(data.get(c.IFLA_VLAN_ID, b"")) != 2:
        return None, 0
    return int(_VLAN.unpack(data[c.IFLA_VLAN_ID])[0]), 0


def parse_address(body: bytes) -> tuple[int, bytes, int]:
    """Return (ifindex, address, prefix length) of an RTM_NEWADDR or RTM_DELADDR.

    Raises:
        NetlinkDecodeError: the body is not what if_addr.h says.
    """
    if len(body) < _IFADDRMSG.size:
        raise NetlinkDecodeError(0, found=f"an address body of {len(body)} bytes", expected="at least 8")
    _, length, _, _, index = _IFADDRMSG.unpack_from(body)
    found = attribute_map(body, _IFADDRMSG.size)
    return index, found.get(c.IFA_LOCAL, found.get(c.IFA_ADDRESS, b"")), length
