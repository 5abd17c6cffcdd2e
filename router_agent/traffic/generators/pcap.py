"""Frames as a pcap capture, for generators that replay one.

The classic format (pcap-savefile(5); draft-ietf-opsawg-pcap): a header of 24 bytes, then for each frame a
header of 16 (seconds, microseconds, bytes kept, bytes on the wire) and the frame without its FCS. All is in
this host's byte order, which the magic number tells a reader. Time stamps are zero: who replays a capture has
a schedule of his own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from router_agent.model import I64, U8
from router_agent.traffic.generators.frames import Frames

_MAGIC = 0xA1B2C3D4
_VERSION = 2, 4
_LONGEST = 262_144
"""Bytes kept of a frame at most: what libpcap takes (``MAXIMUM_SNAPLEN``)."""
_ETHERNET = 1
"""``LINKTYPE_ETHERNET`` (tcpdump.org/linktypes.html)."""

HEADER = struct.pack("=IHHiIII", _MAGIC, *_VERSION, 0, 0, _LONGEST, _ETHERNET)
RECORD_BYTES = 16

_ROWS = 1 << 14
"""Frames that are written at once: an index of each of their bytes is needed meanwhile."""


@dataclass(frozen=True, eq=False)
class Capture:
    """Frames with their record headers, one after the other, without the file's header.

    Attributes:
        octets: ``uint8`` (bytes,).
        offsets: where each record begins, and where the last one ends, (n + 1,).
    """

    octets: U8
    offsets: I64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def write(self, path: Path) -> None:
        """Write a capture file."""
        with path.open("wb") as file:
            file.write(HEADER)
            file.write(self.octets.data)


def capture(heads: U8, lengths: I64) -> Capture:
    """Return frames as a capture: each begins with its head, and all that follows is zero.

    Args:
        heads: ``uint8`` (n, bytes).
        lengths: bytes of each frame without its FCS, (n,); none is less than the width of `heads`.
    """
    n, width = heads.shape
    if n and int(lengths.min()) < width:
        raise ValueError(f"a frame of {int(lengths.min())} bytes is shorter than its head of {width}")
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(lengths + RECORD_BYTES, out=offsets[1:])
    octets = np.zeros(int(offsets[-1]), np.uint8)
    columns = np.arange(RECORD_BYTES + width)
    for first in range(0, n, _ROWS):
        rows = slice(first, min(n, first + _ROWS))
        headers = np.zeros((rows.stop - first, 4), np.uint32)
        headers[:, 2:] = lengths[rows, None]
        at = offsets[rows, None] + columns
        octets[at] = np.concatenate((headers.view(np.uint8), heads[rows]), axis=1)
    return Capture(octets, offsets)


def size_of(frames: Frames) -> int:
    """Return the bytes of one round of a stream as a capture."""
    return int(frames.lengths.sum()) + RECORD_BYTES * len(frames)


def of_stream(frames: Frames) -> Capture:
    """Return one round of a stream, with sequence numbers from 0 on."""
    heads = np.empty_like(frames.heads)
    frames.fill(heads, 0, 0)
    return capture(heads, frames.lengths)
