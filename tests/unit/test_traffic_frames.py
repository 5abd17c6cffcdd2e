"""Frames are what the RFCs say, byte for byte, however they are packed."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.model import Prefix
from router_agent.traffic.generators.frames import Frames, build
from router_agent.traffic.scenario import Destinations, FrameSizes

GATEWAY, SOURCE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
SOURCES = (IPv4Network("198.18.0.0/15"), IPv6Network("2001:2::/48"))
V4: list[Prefix] = [IPv4Network(f"192.0.{i}.0/24") for i in range(5)]
V6: list[Prefix] = [IPv6Network(f"2001:db8:{i}::/48") for i in range(4)]
TAG = 0xC0FFEE01


def frames(prefixes: list[Prefix], frame_bytes: int) -> tuple[Destinations, Frames]:
    destinations = Destinations.of(prefixes)
    made = build(
        destinations,
        sizes=FrameSizes.of(frame_bytes),
        source_mac=SOURCE,
        gateway_mac=GATEWAY,
        sources=SOURCES,
        udp_port=9,
        tag=TAG,
        seed=3,
    )
    return destinations, made


def checksum(octets: bytes) -> int:
    """RFC 1071, slowly."""
    total: int = sum(struct.unpack(f"!{(len(octets) + 1) // 2}H", octets + b"\0" * (len(octets) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def check(frame: bytes, prefix: Prefix) -> tuple[int, int]:
    """Check one frame; return its tag and sequence number."""
    assert (frame[:6], frame[6:12]) == (GATEWAY, SOURCE)
    packet = frame[14:]
    if prefix.version == 4:
        assert frame[12:14] == b"\x08\x00"
        assert (packet[0], packet[8], packet[9]) == (0x45, 64, 17)
        assert struct.unpack_from("!H", packet, 2)[0] == len(packet)
        assert checksum(packet[:20]) == 0xFFFF
        assert IPv4Address(packet[12:16]) in SOURCES[0]
        assert IPv4Address(packet[16:20]) in prefix
        udp = packet[20:]
        assert udp[6:8] == b"\0\0", "IPv4 test packets carry no UDP checksum (RFC 768)"
    else:
        assert frame[12:14] == b"\x86\xdd"
        assert (packet[0] >> 4, packet[6], packet[7]) == (6, 17, 64)
        assert struct.unpack_from("!H", packet, 4)[0] == len(packet) - 40
        assert IPv6Address(packet[8:24]) in SOURCES[1]
        assert IPv6Address(packet[24:40]) in prefix
        udp = packet[40:]
        assert checksum(packet[8:40] + struct.pack("!IHBB", len(udp), 0, 0, 17) + udp) == 0xFFFF
        assert udp[6:8] != b"\0\0"
    port, length = struct.unpack_from("!HH", udp, 2)
    assert (port, length) == (9, len(udp))
    at = 62 if prefix.version == 6 or len(frame) >= 74 else 42
    tag, sequence = struct.unpack_from("!IQ", frame, at)
    return tag, sequence


@pytest.mark.parametrize(
    ("prefixes", "frame_bytes"),
    [(V4, 64), (V4, 65), (V4, 78), (V4, 512), (V6, 78), (V6, 1518), (V4 + V6, 78), (V4 + V6, 1279)],
)
def test_frames_are_well_formed(prefixes: list[Prefix], frame_bytes: int) -> None:
    destinations, made = frames(prefixes, frame_bytes)
    slots = np.full((3 * len(made) + 1, frame_bytes - 4), 0xAA, np.uint8)
    first = 2**40 + 1 - (2**40 + 1) % len(made) + 2
    made.fill(slots, first)
    for i, frame in enumerate(slots):
        prefix = destinations.prefix((first + i) % len(made))
        assert check(frame.tobytes(), prefix) == (TAG, first + i)


@given(st.integers(0, 2**63), st.integers(1, 40))
def test_any_sequence_number_keeps_checksums_right(first: int, count: int) -> None:
    destinations, made = frames(V4 + V6, 90)
    slots = np.zeros((count, 86), np.uint8)
    made.fill(slots, first)
    for i, frame in enumerate(slots):
        assert check(frame.tobytes(), destinations.prefix((first + i) % len(made))) == (TAG, first + i)


def test_the_signature_is_where_the_filter_looks() -> None:
    for prefixes, size, offset in ((V4, 64, 42), (V4, 78, 62), (V6, 78, 62), (V4 + V6, 78, 62)):
        made = frames(prefixes, size)[1]
        assert made.signature == offset
        assert (made.data[:, offset : offset + 4].view(">u4") == TAG).all()
