"""Test frames, built once for all destinations, and the signature that tells them from anything else.

A frame is Ethernet, IPv4 (RFC 791) or IPv6 (RFC 8200), UDP (RFC 768), then the signature: 4 bytes tag (one
random number a stream) and 8 bytes sequence number, both big-endian, at one offset for the whole stream.
What follows the signature is zero, so only the beginning of each frame is kept.
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
    """Frames to d destinations in sending order, in n rows: packet k of a stream is row k mod n.

    Row r goes to destination r mod d. Of a mix of sizes each destination gets every size in turn when there
    are several rows for it; of many destinations each has one size.

    Attributes:
        heads: the frames up to the end of the signature, with sequence number 0, ``uint8`` (n, bytes).
        lengths: bytes of each frame without its FCS, (n,); all that follows the head is zero.
        signature: offset of the signature in each.
        tag: the stream's tag.
        ipv6: which rows are IPv6 and so must carry a UDP checksum (RFC 8200 8.1), (n,).
        sums: one's complement sum of what the UDP checksum covers, sequence number left out, (n,).
    """

    heads: U8
    lengths: I64
    signature: int
    tag: int
    ipv6: Mask
    sums: I64

    def __post_init__(self) -> None:
        self.largest = int(self.lengths.max())
        self.mixed = bool((self.lengths != self.largest).any())
        self._any_ipv6 = bool(self.ipv6.any())

    def __len__(self) -> int:
        return len(self.heads)

    def fill(self, slots: U8, packet: int, sequence: int) -> None:
        """Write the heads of packets `packet` on, with sequence numbers `sequence` on, into (n, bytes)."""
        n, width = len(slots), self.heads.shape[1]
        first = packet % len(self)
        done = 0
        while done < n:
            run = min(n - done, len(self) - first)
            slots[done : done + run, :width] = self.heads[first : first + run]
            done, first = done + run, 0
        numbers = np.arange(sequence, sequence + n, dtype=np.uint64)
        at = self.signature + 4
        slots[:, at : at + 8] = numbers.astype(">u8").view(np.uint8).reshape(n, 8)
        if self._any_ipv6:
            self._checksum(slots, packet, numbers)

    def lengths_of(self, packet: int, count: int) -> I64:
        """Return the lengths of packets `packet` on, (count,)."""
        return self.lengths[np.arange(packet, packet + count) % len(self)]

    def unnumbered(self) -> U8:
        """Return all heads with sequence number 0 and with the checksums that go with it."""
        heads = self.heads.copy()
        if self._any_ipv6:
            self._checksum(heads, 0, np.zeros(len(self), np.uint64))
        return heads

    def octets(self, packet: int, sequence: int) -> bytes:
        """Return one whole frame, without its FCS."""
        frame = np.zeros((1, int(self.lengths[packet % len(self)])), np.uint8)
        self.fill(frame, packet, sequence)
        return frame.tobytes()

    def _checksum(self, slots: U8, packet: int, numbers: NDArray[np.uint64]) -> None:
        index = np.arange(packet, packet + len(slots)) % len(self)
        rows = np.flatnonzero(self.ipv6[index])
        words = numbers[rows].astype(">u8").view(">u2").reshape(-1, 4).astype(np.int64).sum(axis=1)
        checksums = ~_folded(self.sums[index[rows]] + words) & 0xFFFF
        checksums[checksums == 0] = 0xFFFF
        slots[rows, _UDP6_CHECKSUM : _UDP6_CHECKSUM + 2] = (
            checksums.astype(">u2").view(np.uint8).reshape(-1, 2)
        )


def signature_offset(destinations: Destinations, sizes: FrameSizes) -> int:
    """Return the offset of the signature in the frames of a stream."""
    both = destinations.has_ipv6 or sizes.shares[0][0] - FCS_BYTES >= _OFFSET_BOTH + SIGNATURE_BYTES
    return _OFFSET_BOTH if both else _LAST_V4_ONLY


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
    signature: int | None = None,
    least_rows: int = 1,
) -> Frames:
    """Return the frames of a stream.

    Args:
        destinations: where they go, in sending order.
        sizes: with FCS.
        source_mac: 6 bytes.
        gateway_mac: 6 bytes.
        sources: source prefix by family.
        udp_port: destination port.
        tag: the stream's tag.
        seed: the same seed gives the same sources.
        signature: offset of the signature, when these are a part of a stream's destinations.
        least_rows: repeat few destinations up to so many rows or some more. Bursts are then copied in one
            piece, and the shares of a mix are exact.
    """
    if signature is None:
        signature = signature_offset(destinations, sizes)
    lengths = _sizes(sizes, len(destinations), least_rows) - FCS_BYTES
    heads = _heads(destinations, signature + SIGNATURE_BYTES, sources, seed)
    heads = np.tile(heads, (len(lengths) // len(destinations), 1))
    heads[:, 0:6] = np.frombuffer(gateway_mac, np.uint8)
    heads[:, 6:12] = np.frombuffer(source_mac, np.uint8)
    heads[:, signature : signature + 4] = np.frombuffer(tag.to_bytes(4, "big"), np.uint8)
    ipv6: Mask = np.resize(destinations.families == Family.IPV6, len(lengths))
    udp_bytes = np.empty(len(lengths), np.int64)
    for family, rows in _by_family(ipv6):
        ip_bytes = lengths[rows] - ETHERNET_BYTES
        udp_bytes[rows] = ip_bytes - _IP_BYTES[family]
        frames = heads[rows]
        finish = _finish_ipv4 if family is Family.IPV4 else _finish_ipv6
        finish(frames[:, ETHERNET_BYTES:], ip_bytes)
        udp = frames[:, ETHERNET_BYTES + _IP_BYTES[family] :]
        _put16(udp, 2, udp_port)
        _put16(udp, 4, udp_bytes[rows])
        heads[rows] = frames
    sums: I64 = _words(heads[:, ETHERNET_BYTES + 8 :]) + udp_bytes + _PROTOCOL_UDP
    return Frames(heads, lengths, signature, tag, ipv6, sums)


def _sizes(sizes: FrameSizes, destinations: int, least_rows: int) -> I64:
    """Return the size of each row; a round of destinations begins one further in the mix than the last."""
    cycle = sizes.assigned(sum(weight for _, weight in sizes.shares))
    rounds = -(-least_rows // destinations)
    if rounds > 1:
        rounds = -(-rounds // len(cycle)) * len(cycle)
    position = np.arange(destinations)[None, :] + np.arange(rounds)[:, None]
    return np.asarray(cycle[position.ravel() % len(cycle)], np.int64)


def _heads(destinations: Destinations, width: int, sources: tuple[IPv4Network, IPv6Network], seed: int) -> U8:
    """Return what does not depend on the frame's size, one row a destination: one flow to each."""
    rng = np.random.default_rng(seed)
    heads = np.zeros((len(destinations), width), np.uint8)
    ipv6: Mask = destinations.families == Family.IPV6
    ports = rng.integers(1024, 65_536, len(destinations))
    for family, rows in _by_family(ipv6):
        frames = heads[rows]
        frames[:, 12:14] = _ETHERTYPE[family]
        write = _ipv4_header if family is Family.IPV4 else _ipv6_header
        source = _sources(sources[family is Family.IPV6], len(rows), rng)
        write(frames[:, ETHERNET_BYTES:], source, destinations.addresses[rows])
        _put16(frames, ETHERNET_BYTES + _IP_BYTES[family], ports[rows])
        heads[rows] = frames
    return heads


def _by_family(ipv6: Mask) -> list[tuple[Family, I64]]:
    """Return the rows of each family that there is."""
    parts = ((Family.IPV4, np.flatnonzero(~ipv6)), (Family.IPV6, np.flatnonzero(ipv6)))
    return [(family, rows) for family, rows in parts if len(rows)]


def _ipv4_header(ip: U8, source: U8, destination: U8) -> None:
    ip[:, 0] = 0x45
    _put16(ip, 6, 0x4000)
    ip[:, 8], ip[:, 9] = HOP_LIMIT, _PROTOCOL_UDP
    ip[:, 12:16] = source
    ip[:, 16:20] = destination[:, :4]


def _finish_ipv4(ip: U8, ip_bytes: I64) -> None:
    _put16(ip, 2, ip_bytes)
    _put16(ip, 10, ~_folded(_words(ip[:, :20])) & 0xFFFF)


def _ipv6_header(ip: U8, source: U8, destination: U8) -> None:
    ip[:, 0] = 0x60
    ip[:, 6], ip[:, 7] = _PROTOCOL_UDP, HOP_LIMIT
    ip[:, 8:24] = source
    ip[:, 24:40] = destination


def _finish_ipv6(ip: U8, ip_bytes: I64) -> None:
    _put16(ip, 4, ip_bytes - _IP_BYTES[Family.IPV6])


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
    """Return the sum of big-endian 16-bit words of each row; rows have an even length."""
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
