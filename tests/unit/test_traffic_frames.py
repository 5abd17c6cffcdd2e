"""Frames are what the RFCs say, byte for byte, however they are packed."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.model import Family, Prefix
from router_agent.traffic.generators.frames import Frames, build, signature_offset
from router_agent.traffic.scenario import IMIX, Destinations, FrameSizes

GATEWAY, SOURCE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
SOURCES = (IPv4Network("198.18.0.0/15"), IPv6Network("2001:2::/48"))
V4: list[Prefix] = [IPv4Network(f"192.0.{i}.0/24") for i in range(5)]
V6: list[Prefix] = [IPv6Network(f"2001:db8:{i}::/48") for i in range(4)]
TAG = 0xC0FFEE01


def frames(
    prefixes: list[Prefix], sizes: FrameSizes | int, least_rows: int = 1
) -> tuple[Destinations, Frames]:
    destinations = Destinations.of(prefixes)
    made = build(
        destinations,
        sizes=FrameSizes.of(sizes) if isinstance(sizes, int) else sizes,
        least_rows=least_rows,
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
    at = 62 if struct.pack("!I", TAG) == frame[62:66] else 42
    assert not any(frame[at + 12 :])
    tag, sequence = struct.unpack_from("!IQ", frame, at)
    return tag, sequence


@pytest.mark.parametrize(
    ("prefixes", "frame_bytes"),
    [(V4, 64), (V4, 65), (V4, 78), (V4, 512), (V6, 78), (V6, 1518), (V4 + V6, 78), (V4 + V6, 1279)],
)
def test_frames_are_well_formed(prefixes: list[Prefix], frame_bytes: int) -> None:
    destinations, made = frames(prefixes, frame_bytes)
    slots = np.zeros((3 * len(made) + 1, frame_bytes - 4), np.uint8)
    made.fill(slots, len(made) + 2, 2**40 + 1)
    for i, frame in enumerate(slots):
        prefix = destinations.prefix((i + 2) % len(made))
        assert check(frame.tobytes(), prefix) == (TAG, 2**40 + 1 + i)


@given(st.integers(0, 2**63), st.integers(1, 40))
def test_any_sequence_number_keeps_checksums_right(first: int, count: int) -> None:
    destinations, made = frames(V4 + V6, 90)
    slots = np.zeros((count, 86), np.uint8)
    made.fill(slots, 0, first)
    for i, frame in enumerate(slots):
        assert check(frame.tobytes(), destinations.prefix(i % len(made))) == (TAG, first + i)


@given(
    st.lists(st.sampled_from([*V4, *V6]), min_size=1, max_size=9, unique=True),
    st.dictionaries(st.integers(64, 9018), st.integers(1, 7), min_size=1, max_size=4),
    st.sampled_from([1, 50]),
    st.integers(0, 2**40),
)
def test_any_mix_of_sizes_is_well_formed(
    prefixes: list[Prefix], weights: dict[int, int], least_rows: int, packet: int
) -> None:
    sizes = FrameSizes(tuple(sorted(weights.items())), "mix").raised_to(78)
    destinations, made = frames(prefixes, sizes, least_rows)
    for i in range(packet, packet + len(destinations) + 1):
        frame = made.octets(i, 7 * i)
        assert check(frame, destinations.prefix(i % len(destinations))) == (TAG, 7 * i)
        assert len(frame) + 4 in dict(sizes.shares)
    assert made.lengths_of(packet, 2).tolist() == [len(made.octets(packet + i, 0)) for i in range(2)]


@pytest.mark.parametrize("count", [1, 5, 12, 200])
def test_a_mix_keeps_its_shares_and_gives_each_destination_every_size(count: int) -> None:
    prefixes: list[Prefix] = [IPv4Network(f"20.{i}.0.0/16") for i in range(count)]
    made = frames(prefixes, IMIX, least_rows=1024)[1]
    assert len(made) % (12 * count) == 0
    found = dict(zip(*np.unique(made.lengths + 4, return_counts=True), strict=True))
    unit = len(made) // 12
    assert found == {64: 7 * unit, 594: 4 * unit, 1518: unit}
    assert all(len(set(made.lengths[i::count].tolist())) == 3 for i in range(count))


def test_a_part_of_a_stream_has_the_signature_where_the_whole_has_it() -> None:
    whole = Destinations.of(V4 + V6)
    at = signature_offset(whole, FrameSizes.of(78))
    part = whole.rows(np.flatnonzero(whole.families == Family.IPV4))
    made = build(
        part,
        sizes=FrameSizes.of(78),
        signature=at,
        source_mac=SOURCE,
        gateway_mac=GATEWAY,
        sources=SOURCES,
        udp_port=9,
        tag=TAG,
        seed=3,
    )
    assert made.signature == at == 62
    assert check(made.octets(3, 99), part.prefix(3)) == (TAG, 99)


def test_the_signature_is_where_the_filter_looks() -> None:
    for prefixes, size, offset in ((V4, 64, 42), (V4, 78, 62), (V6, 78, 62), (V4 + V6, 78, 62)):
        made = frames(prefixes, size)[1]
        assert made.signature == offset
        assert (made.heads[:, offset : offset + 4].view(">u4") == TAG).all()
