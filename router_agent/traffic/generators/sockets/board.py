"""Counters that a worker process writes and the coordinator reads while it runs: plain shared memory.

A board is an anonymous file (memfd_create(2)): eight 64-bit counters, a column per interval, a time per
sampled packet and a byte per port and packet. Pages nobody writes to take no memory.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import Self

import numpy as np

from router_agent.model import I64, U8

_COUNTERS = 8
MOST_PACKETS = 1 << 31
"""Packets in one stream at most: a byte each at every port."""


@dataclass(frozen=True)
class Layout:
    """How many intervals, sampled packets, ports and packets a board has room for."""

    intervals: int
    samples: int = 0
    ports: int = 0
    packets: int = 0

    @property
    def words(self) -> int:
        """64-bit words before the marks."""
        return _COUNTERS + self.intervals + self.samples

    @property
    def octets(self) -> int:
        """Bytes in all."""
        return 8 * self.words + self.ports * self.packets


class Board:
    """Shared counters.

    Attributes:
        counters: eight ``int64``, meaning given by the worker that writes them.
        intervals: packets in each interval, ``int64``.
        times: CLOCK_REALTIME in nanoseconds of each sampled packet, 0 for none, ``int64``.
        seen: 1 where a packet was seen, ``uint8`` of shape (ports, packets).
    """

    def __init__(self, descriptor: int, layout: Layout) -> None:
        self.layout = layout
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, layout.octets)
        words = np.frombuffer(self._memory, np.int64, layout.words)
        self.counters: I64 = words[:_COUNTERS]
        self.intervals: I64 = words[_COUNTERS : _COUNTERS + layout.intervals]
        self.times: I64 = words[_COUNTERS + layout.intervals :]
        octets = np.frombuffer(self._memory, np.uint8)
        self.seen: U8 = octets[8 * layout.words :].reshape(layout.ports, layout.packets)

    @classmethod
    def create(cls, name: str, layout: Layout) -> Self:
        """Return a board of zeros."""
        descriptor = os.memfd_create(name)
        os.ftruncate(descriptor, layout.octets)
        return cls(descriptor, layout)

    def close(self) -> None:
        """Close the descriptor; the memory goes with the last array that refers to it."""
        os.close(self.descriptor)
