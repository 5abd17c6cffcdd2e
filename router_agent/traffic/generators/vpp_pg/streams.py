"""What the packet generator replays: the frames of a scenario, dealt to streams, as VPP's CLI takes them.

A stream of VPP's packet generator (src/vnet/pg/input.c) replays a capture file round and round at a rate. It
never makes up for more than one frame of 256 packets at a time: what it could not send while its thread did
not run is lost to it. So each port has several streams, that together make up for several times as much; but
not for more than a small ring holds, for a long burst would test the device's queues and not its rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from router_agent.model import I64, U8
from router_agent.traffic.generators import pcap
from router_agent.traffic.generators.frames import Frames

FRAME = 256
"""Packets VPP handles at once (``VLIB_FRAME_SIZE``)."""

STREAMS = 4
"""Streams of a port."""

FEW = 1_024
"""Few destinations are repeated up to so many frames, of which each stream replays all: shares stay exact."""

_PACKET_BYTES = 96
"""What VPP's heap takes for a frame on top of its bytes: a vector's header, the heap's, two pointers."""


_NEVER_PPS = 3e-8


@dataclass(frozen=True, eq=False)
class ReplayFrames:
    """Frames of one sending port in sending order: their heads, (n, bytes), and how long they are, (n,)."""

    heads: U8
    lengths: I64

    @classmethod
    def of(cls, frames: Frames) -> ReplayFrames:
        """Return each of these frames once, with its place as sequence number."""
        heads = np.zeros_like(frames.heads)
        frames.fill(heads, 0, 0)
        return cls(heads, frames.lengths)

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def heap_bytes(self) -> int:
        """What VPP needs to hold them."""
        return int(self.lengths.sum()) + _PACKET_BYTES * len(self)

    def write(self, path: Path, rows: I64) -> None:
        """Write some of them to a capture file."""
        pcap.capture(self.heads[rows], self.lengths[rows]).write(path)


def dealt(count: int, streams: int) -> Iterator[I64]:
    """Yield the places that each stream replays: every one of few, every so-manieth of many."""
    for number in range(streams):
        if count <= 2 * FEW:
            yield np.roll(np.arange(count), -(count * number // streams))
        else:
            yield np.arange(number, count, streams)


def shares(total: int, parts: int) -> list[int]:
    """Return a number of packets as whole parts that differ by one at most."""
    return [total // parts + (number < total % parts) for number in range(parts)]


@dataclass(frozen=True)
class Stream:
    """One stream of the packet generator.

    Attributes:
        name: VPP's name of it.
        port: position of the port it sends from.
        frame: packets it sends at once at most.
    """

    name: str
    port: int
    frame: int = FRAME

    def create(self, capture: Path, interface: str, worker: int) -> str:
        """Return the command that makes it: it sends nothing before it is configured and enabled.

        Its frames go to the output node of the interface, so that the interface counts them.
        """
        return (
            f"packet-generator new {{ name {self.name} source pg0 pcap {capture} limit 1 rate 1 "
            f"maxframe {self.frame} node {interface} worker {worker} }}"
        )

    def configure(self, rate_pps: float, packets: int) -> str:
        """Return the command that sets its rate and after how many packets it ends.

        To VPP no rate is no limit of it, and no number of packets is no end: a stream without packets gets a
        rate at which its first one would be due in a year.
        """
        if packets == 0:
            rate_pps, packets = _NEVER_PPS, 1
        return f"packet-generator configure {self.name} rate {rate_pps:.8f} limit {packets}"
