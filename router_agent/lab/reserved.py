"""Address space that no neighbour has any business announcing.

The special-purpose registries of IANA (RFC 6890 and successors), multicast and unallocated space. The same
list is rendered into the routers' import policy.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_network
from typing import TypeAlias

import numpy as np

from router_agent.model import U64, Family, Mask, Prefix

_Range: TypeAlias = tuple[int, int]

RESERVED: dict[Family, tuple[Prefix, ...]] = {
    Family.IPV4: tuple(
        ip_network(text)
        for text in (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        )
    ),
    Family.IPV6: tuple(
        ip_network(text)
        for text in (
            "::/3",
            "2001:2::/48",
            "2001:10::/28",
            "2001:20::/28",
            "2001:db8::/32",
            "3ffe::/16",
            "3fff::/20",
            "4000::/2",
            "8000::/1",
        )
    ),
}
"""Prefixes that must not be announced, nor any part of them."""


def reserved(family: Family, keys: U64) -> Mask:
    """Return which keys lie inside reserved space. A default route does not."""
    inside = np.zeros(len(keys), np.bool_)
    lengths = keys[:, -1] & np.uint64(0xFF)
    for prefix in RESERVED[family]:
        first, last = _words(prefix)
        words = keys[:, 0] >> np.uint64(8) if family is Family.IPV4 else keys[:, 0]
        inside |= (words >= first) & (words <= last) & (lengths >= prefix.prefixlen)
    return inside


def touches_reserved(family: Family, keys: U64) -> Mask:
    """Return which keys lie inside reserved space or cover some of it."""
    touching = reserved(family, keys)
    words = keys[:, 0] >> np.uint64(8) if family is Family.IPV4 else keys[:, 0]
    lengths = keys[:, -1] & np.uint64(0xFF)
    bits = np.uint64(32 if family is Family.IPV4 else 64)
    lasts = words + (np.uint64(1) << (bits - np.minimum(lengths, bits))) - np.uint64(1)
    for prefix in RESERVED[family]:
        first, _ = _words(prefix)
        touching |= (words <= first) & (lasts >= first)
    return touching


def _words(prefix: Prefix) -> tuple[np.uint64, np.uint64]:
    """Return the first and last address, of IPv6 the high halves; no reserved prefix is longer than /64."""
    shift = 64 if isinstance(prefix.network_address, IPv6Address) else 0
    return np.uint64(int(prefix.network_address) >> shift), np.uint64(int(prefix.broadcast_address) >> shift)
