"""Test frames, built once for all destinations, and the signature that tells them from anything else.

A frame is Ethernet, IPv4 (RFC 791) or IPv6 (RFC 8200), UDP (RFC 768), then the signature: 4 bytes tag (one
random number a stream) and 8 bytes sequence number, both big-endian, at one offset for the whole stream.
Packet with sequence number s goes to destination s mod d, so a receiver that knows s knows the prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

import numpy as np
from numpy.typing import NDArray

from router_agent.model import I64, U8, Family, Mask
from router_agent.traffic.scenario import FCS_BYTES, Destinations, FrameSizes

ETHERNET_BYTES = 14
UDP_BYTES = 8
SIGNATURE_BYTES = 12
HOP_LIMIT = 64

_IP_BYTES = {Family.IPV4: 20, Family.IPV6: 40}
_ETHERTYPE = {Family.IPV4: (0x08, 0x00), Family.IPV6: (0x86, 0xDD)}
_PROTOCOL_UDP = 17
_LAST_V4_ONLY = ETHERNET_BYTES + _IP_BYTES[Family.IPV4] + UDP_BYTES
_OFFSET_BOTH = ETHERNET_BYTES + _IP_BYTES[Family.IPV6] + UDP_BYTES
_UDP6_CHECKSUM = ETHERNET_BYTES + _IP_BYTES[Family.IPV6] + 6


@dataclass(eq=False)
class Frames:
    """Frames of one size to d destinations, in sending order.

    Attributes:
        data: the frames without their FCS and with sequence number 0, ``uint8`` (d, bytes).
        signature: offset of the signature in each.
        tag: the stream's tag.
        ipv6: which rows are IPv6 and so must carry a UDP checksum (RFC 8200 8.1), (d,).
        sums: one's complement sum of what the UDP checksum covers, sequence number left out, (d,).
    """

    data: U8
    signature: int
    tag: int
    ipv6: Mask
    sums: I64

    def __len__(self) -> int:
        return len(self.data)

    def fill(self, slots: U8, sequence: int) -> None:
        """Write the frames with sequence numbers from `sequence` on into slots, (n, bytes)."""
        n, d = len(slots), len(self)
        first = sequence % d
        done = 0
        while done < n:
            run = min(n - done, d - first)
            slots[done : done + run] = self.data[first : first + run]
            done, first = done + run, 0
        numbers = np.arange(sequence, sequence + n, dtype=np.uint64)
        at = self.signature + 4
        slots[:, at : at + 8] = numbers.astype(">u8").view(np.uint8).reshape(n, 8)
        if self.ipv6.any():
            self._checksum(slots, numbers)

    def _checksum(self, slots: U8, numbers: NDArray[np.uint64]) -> None:
        index = (numbers % np.uint64(len(self))).astype(np.int64)
        rows = np.flatnonzero(self.ipv6[index])
        words = numbers[rows].astype(">u8").view(">u2").reshape(-1, 4).astype(np.int64).sum(axis=1)
        checksums = ~_folded(self.sums[index[rows]] + words) & 0xFFFF
        checksums[checksums == 0] = 0xFFFF
        slots[rows, _UDP6_CHECKSUM : _UDP6_CHECKSUM + 2] = (
            checksums.astype(">u2").view(np.uint8).reshape(-1, 2)
        )


def build(
    destinations: Destinations,
    *,
    sizes: FrameSizes,
    source_mac: bytes,
    gateway_mac: bytes,
    sources: tuple[IPv4Network, IPv6Network],
    udp_port: int,
    tag: int,
    seed: int,
) -> Frames:
    """Return the frames of a stream; its sizes count the FCS."""
    size = sizes.largest - FCS_BYTES
    n = len(destinations)
    rng = np.random.default_rng(seed)
    both = destinations.has_ipv6 or size >= _OFFSET_BOTH + SIGNATURE_BYTES
    signature = _OFFSET_BOTH if both else _LAST_V4_ONLY
    data = np.zeros((n, size), np.uint8)
    data[:, 0:6] = np.frombuffer(gateway_mac, np.uint8)
    data[:, 6:12] = np.frombuffer(source_mac, np.uint8)
    data[:, signature : signature + 4] = np.frombuffer(tag.to_bytes(4, "big"), np.uint8)
    ipv6: Mask = destinations.families == Family.IPV6
    ports = rng.integers(1024, 65_536, n)
    for family, rows in ((Family.IPV4, np.flatnonzero(~ipv6)), (Family.IPV6, np.flatnonzero(ipv6))):
        frames = data[rows]
        frames[:, 12:14] = _ETHERTYPE[family]
        write = _ipv4_header if family is Family.IPV4 else _ipv6_header
        source = _sources(sources[family is Family.IPV6], len(rows), rng)
        write(frames[:, ETHERNET_BYTES:], source, destinations.addresses[rows])
        udp = frames[:, ETHERNET_BYTES + _IP_BYTES[family] :]
        _put16(udp, 0, ports[rows])
        _put16(udp, 2, udp_port)
        _put16(udp, 4, udp.shape[1])
        data[rows] = frames
    return Frames(data, signature, tag, ipv6, _udp6_sums(data))


def _ipv4_header(ip: U8, source: U8, destination: U8) -> None:
    ip[:, 0] = 0x45
    _put16(ip, 2, ip.shape[1])
    _put16(ip, 6, 0x4000)
    ip[:, 8], ip[:, 9] = HOP_LIMIT, _PROTOCOL_UDP
    ip[:, 12:16] = source
    ip[:, 16:20] = destination[:, :4]
    _put16(ip, 10, ~_folded(_words(ip[:, :20])) & 0xFFFF)


def _ipv6_header(ip: U8, source: U8, destination: U8) -> None:
    ip[:, 0] = 0x60
    _put16(ip, 4, ip.shape[1] - _IP_BYTES[Family.IPV6])
    ip[:, 6], ip[:, 7] = _PROTOCOL_UDP, HOP_LIMIT
    ip[:, 8:24] = source
    ip[:, 24:40] = destination


def _udp6_sums(data: U8) -> I64:
    """Return the sums over pseudo-header and UDP of IPv6 frames; those of IPv4 rows mean nothing."""
    udp_bytes = data.shape[1] - _OFFSET_BOTH + UDP_BYTES
    sums: I64 = _words(data[:, ETHERNET_BYTES + 8 :]) + (udp_bytes + _PROTOCOL_UDP)
    return sums


def _sources(prefix: IPv4Network | IPv6Network, n: int, rng: np.random.Generator) -> U8:
    """Return host addresses of a prefix at random; never its first address."""
    width = prefix.max_prefixlen // 8
    base = np.frombuffer(prefix.network_address.packed, np.uint8)
    host = np.frombuffer(prefix.hostmask.packed, np.uint8)
    addresses = base | (rng.integers(0, 256, (n, width), dtype=np.uint8) & host)
    if host.any():
        addresses[:, -1] |= 1
    return addresses


def _words(octets: U8) -> I64:
    """Return the sum of big-endian 16-bit words of each row, an odd last byte padded with zero."""
    high = octets[:, 0::2].sum(axis=1, dtype=np.int64)
    low = octets[:, 1::2].sum(axis=1, dtype=np.int64)
    return np.asarray((high << 8) + low, np.int64)


def _folded(sums: I64) -> I64:
    """Fold carries into 16 bits (RFC 1071)."""
    for _ in range(3):
        sums = (sums & 0xFFFF) + (sums >> 16)
    return sums


def _put16(octets: U8, at: int, values: I64 | int) -> None:
    octets[:, at], octets[:, at + 1] = np.right_shift(values, 8) & 0xFF, np.bitwise_and(values, 0xFF)
