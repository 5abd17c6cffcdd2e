"""Lightweight tunnels of kernel routes: what is put around a packet before it leaves (linux/lwtunnel.h).

Of these MPLS is what FIBs here can hold: a stack of labels that is pushed (linux/mpls_iptunnel.h; its entries
as in RFC 3032, 2.1). The others are known by name, so that it can be said why a route is not there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from router_agent.netlink import constants as c
from router_agent.netlink.messages import NetlinkDecodeError, attribute, attribute_map

_MPLS = 1
_NAMES = {
    2: "ip", 3: "ila", 4: "ip6", 5: "seg6", 6: "bpf", 7: "seg6local", 8: "rpl", 9: "ioam6", 10: "xfrm",
}  # fmt: skip
"""``LWTUNNEL_ENCAP_*``, by the names that iproute2 gives them."""

_MPLS_IPTUNNEL_DST = 1
_TYPE = struct.Struct("=H")
_ENTRY = struct.Struct(">I")
_BOTTOM_OF_STACK = 1 << 8
_LABEL_SHIFT = 12


def parse_tunnel(kind: bytes, encapsulation: bytes) -> tuple[tuple[int, ...], str]:
    """Return the labels that are pushed, outermost first, and the name of a tunnel that is none of labels.

    Args:
        kind: payload of RTA_ENCAP_TYPE or NHA_ENCAP_TYPE, 2 bytes; empty for none.
        encapsulation: payload of RTA_ENCAP or NHA_ENCAP.

    Raises:
        NetlinkDecodeError: the type is no number of 2 bytes, or the label stack is not what RFC 3032 says.
    """
    if not kind and not encapsulation:
        return (), ""
    if len(kind) != _TYPE.size:
        raise NetlinkDecodeError(0, found=f"a tunnel type of {len(kind)} bytes", expected="2 bytes")
    (number,) = _TYPE.unpack(kind)
    if number != _MPLS:
        return (), _NAMES.get(number, f"type {number}")
    return parse_labels(attribute_map(encapsulation, 0).get(_MPLS_IPTUNNEL_DST, b"")), ""


def parse_labels(stack: bytes) -> tuple[int, ...]:
    """Return the labels of a stack, outermost first.

    Raises:
        NetlinkDecodeError: it does not consist of entries of 4 bytes, of which the last is marked so.
    """
    entries = [entry for (entry,) in _ENTRY.iter_unpack(stack)] if len(stack) % _ENTRY.size == 0 else []
    marks = [bool(entry & _BOTTOM_OF_STACK) for entry in entries]
    if not entries or marks != [False] * (len(entries) - 1) + [True]:
        raise NetlinkDecodeError(
            0, found=f"a label stack {stack.hex()!r}", expected="entries of 4 bytes, the last marked as such"
        )
    return tuple(entry >> _LABEL_SHIFT for entry in entries)


def encode_labels(labels: Iterable[int]) -> bytes:
    """Return a stack of labels, outermost first, with traffic class and time to live 0."""
    numbers = list(labels)
    last = len(numbers) - 1
    return b"".join(
        _ENTRY.pack(label << _LABEL_SHIFT | (_BOTTOM_OF_STACK if place == last else 0))
        for place, label in enumerate(numbers)
    )


def encode_mpls(labels: Iterable[int]) -> bytes:
    """Return the attributes RTA_ENCAP_TYPE and RTA_ENCAP of a route that pushes labels."""
    inner = attribute(_MPLS_IPTUNNEL_DST, encode_labels(labels))
    return attribute(c.RTA_ENCAP_TYPE, _TYPE.pack(_MPLS)) + attribute(c.RTA_ENCAP, inner)
