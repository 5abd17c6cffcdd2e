"""Captures that generators replay: what a reader of the format finds in them."""

from __future__ import annotations

import struct
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.model import Prefix
from router_agent.traffic.generators import pcap
from router_agent.traffic.generators.frames import build
from router_agent.traffic.scenario import Destinations, FrameSizes


def read(octets: bytes) -> list[bytes]:
    """Return the frames of a capture as pcap-savefile(5) has them."""
    magic, major, minor, zone, figures, longest, link = struct.unpack_from("=IHHiIII", octets)
    assert (magic, major, minor, zone, figures, link) == (0xA1B2C3D4, 2, 4, 0, 0, 1)
    frames, at = [], 24
    while at < len(octets):
        seconds, micros, kept, length = struct.unpack_from("=IIII", octets, at)
        assert (seconds, micros) == (0, 0)
        assert kept == length <= longest
        frames.append(octets[at + 16 : at + 16 + kept])
        at += 16 + kept
    assert at == len(octets)
    return frames


@given(st.integers(1, 40), st.lists(st.integers(0, 200), max_size=30), st.randoms(use_true_random=False))
def test_heads_are_padded_with_zeros_to_their_lengths(width: int, more: list[int], rng: object) -> None:
    heads = np.random.default_rng(len(more)).integers(1, 256, (len(more), width), dtype=np.uint8)
    lengths = width + np.array(more, np.int64)
    made = pcap.capture(heads, lengths)
    frames = read(pcap.HEADER + made.octets.tobytes())
    assert frames == [head.tobytes() + bytes(n) for head, n in zip(heads, more, strict=True)]
    assert len(made) == len(more)
    assert made.offsets.tolist() == [0, *np.cumsum(lengths + 16).tolist()]


def test_a_frame_shorter_than_its_head_is_refused() -> None:
    with pytest.raises(ValueError, match="59 bytes is shorter than its head of 60"):
        pcap.capture(np.zeros((2, 60), np.uint8), np.array([60, 59]))


def test_more_frames_than_are_written_at_once(tmp_path: Path) -> None:
    n = 40_000
    heads = np.zeros((n, 8), np.uint8)
    heads.view(np.int64)[:, 0] = np.arange(n)
    made = pcap.capture(heads, np.full(n, 60))
    made.write(tmp_path / "frames.pcap")
    frames = read((tmp_path / "frames.pcap").read_bytes())
    assert [int.from_bytes(frame[:8], "little") for frame in frames] == list(range(n))


def test_one_round_of_a_stream_goes_to_every_destination() -> None:
    prefixes: list[Prefix] = [
        *(IPv4Network(f"20.{i}.0.0/16") for i in range(3)),
        IPv6Network("2001:db8::/32"),
    ]
    destinations = Destinations.of(prefixes)
    frames = build(
        destinations,
        sizes=FrameSizes.of(128),
        source_mac=bytes(range(6)),
        gateway_mac=bytes(range(6, 12)),
        sources=(IPv4Network("198.18.0.0/15"), IPv6Network("2001:2::/48")),
        udp_port=9,
        tag=7,
        seed=1,
    )
    found = read(pcap.HEADER + pcap.of_stream(frames).octets.tobytes())
    assert {len(frame) for frame in found} == {124}
    addresses = {frame[30:34] if frame[12:14] == b"\x08\x00" else frame[38:54] for frame in found}
    assert addresses == {
        destinations.addresses[row].tobytes()[: len(destinations.prefix(row).network_address.packed)]
        for row in range(len(destinations))
    }
