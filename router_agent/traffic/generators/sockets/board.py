"""Counters that a worker process writes and the coordinator reads while it runs: plain shared memory.

A board is an anonymous file (memfd_create(2)) of eight 64-bit counters, a column per interval and a byte
per port and sequence number. Pages nobody writes to take no memory.
"""

from __future__ import annotations

import mmap
import os
from typing import Self

import numpy as np

from router_agent.model import I64, U8

_COUNTERS = 8
MOST_PACKETS = 1 << 31
"""Packets in one stream at most: a byte each at every port."""


class Board:
    """Shared counters.

    Attributes:
        counters: eight ``int64``, meaning given by the worker that writes them.
        intervals: packets in each interval, ``int64``.
        seen: 1 where a packet was seen, ``uint8`` of shape (ports, packets).
    """

    def __init__(self, descriptor: int, intervals: int, ports: int, packets: int) -> None:
        self.shape = (intervals, ports, packets)
        self.descriptor = descriptor
        head = 8 * (_COUNTERS + intervals)
        self._memory = mmap.mmap(descriptor, head + ports * packets)
        words = np.frombuffer(self._memory, np.int64, _COUNTERS + intervals)
        self.counters: I64 = words[:_COUNTERS]
        self.intervals: I64 = words[_COUNTERS:]
        octets = np.frombuffer(self._memory, np.uint8)
        self.seen: U8 = octets[head:].reshape(ports, packets)

    @classmethod
    def create(cls, name: str, intervals: int, ports: int = 0, packets: int = 0) -> Self:
        """Return a board of zeros.

        Raises:
            ValueError: the stream has too many packets to follow each of them.
        """
        if packets > MOST_PACKETS:
            raise ValueError(
                f"a stream of {packets} packets is too long to follow each; the most is {MOST_PACKETS}"
            )
        descriptor = os.memfd_create(name)
        os.ftruncate(descriptor, 8 * (_COUNTERS + intervals) + ports * packets)
        return cls(descriptor, intervals, ports, packets)

    def close(self) -> None:
        """Close the descriptor; the memory goes with the last array that refers to it."""
        os.close(self.descriptor)
