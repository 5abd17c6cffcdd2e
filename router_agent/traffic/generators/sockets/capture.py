"""Captures the frames of one stream from a port, through a packet socket's memory-mapped ring.

TPACKET_V2 (packet(7), linux/if_packet.h): a ring of fixed slots shared with the kernel, which is a NumPy
array of shape (slots, 256) here; a slot belongs to us while bit 0 of its status word is set. A filter in the
kernel (classic BPF) lets through nothing but frames with the stream's tag and cuts them after the signature.
Measured against recvmmsg on the same socket it costs the same CPU time, but no system call, carries the
kernel's time stamp of every frame, and counts what it had to drop.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from router_agent.model import I64, U8, U64
from router_agent.traffic.generators.frames import SIGNATURE_BYTES

_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_VERSION = 10
_PACKET_IGNORE_OUTGOING = 23
_TPACKET_V2 = 1
_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_STATUS_USER = 1

_SLOT = 256
_BLOCK_SLOTS = 4096
_STATUS, _MAC, _SECONDS = 0, 12, 16
"""Offsets in ``struct tpacket2_hdr``: ``tp_status``, ``tp_mac``, ``tp_sec`` (``tp_nsec`` follows it)."""

_LD_W_ABS, _JEQ, _RET = 0x20, 0x15, 0x06
"""Classic BPF operations of linux/filter.h."""


@dataclass(frozen=True, eq=False)
class Captured:
    """Frames taken from the ring: sequence numbers and arrival times (CLOCK_REALTIME, nanoseconds)."""

    sequence: U64
    arrived_ns: I64

    def __len__(self) -> int:
        return len(self.sequence)


class Capture:
    """Frames of one stream at one port.

    Args:
        interface: name in the current network namespace.
        tag, signature: of the stream, see `frames.Frames`.
        slots: how many frames the ring holds.

    Raises:
        OSError: the interface is missing, or we may not open packet sockets.
    """

    def __init__(self, interface: str, *, tag: int, signature: int, slots: int) -> None:
        self._signature = signature
        self._head = 0
        per_block = min(_BLOCK_SLOTS, 1 << (slots.bit_length() - 1))
        blocks = slots // per_block
        self._slots = per_block * blocks
        self._drops = 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self._attach_filter(tag)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            shape = struct.pack("=4I", per_block * _SLOT, blocks, _SLOT, self._slots)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, shape)
            self._memory = mmap.mmap(self._socket.fileno(), self._slots * _SLOT)
            self._bind(interface)
        except BaseException:
            self._socket.close()
            raise
        self._ring: U8 = np.frombuffer(self._memory, np.uint8).reshape(self._slots, _SLOT)
        self._status = self._ring[:, _STATUS : _STATUS + 4].view(np.uint32)[:, 0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket and give the ring back."""
        del self._ring, self._status
        self._memory.close()
        self._socket.close()

    def take(self, limit: int = 4096) -> Captured:
        """Return the frames that have arrived, at most `limit`, and give their slots back."""
        waiting = self._status[self._head : self._head + limit]
        ours = (waiting & np.uint32(_STATUS_USER)) != 0
        n = len(ours) if ours.all() else int(np.argmin(ours))
        if not n:
            return Captured(np.empty(0, np.uint64), np.empty(0, np.int64))
        frames = self._ring[self._head : self._head + n]
        seconds = frames[:, _SECONDS : _SECONDS + 8].copy().view(np.uint32).astype(np.int64)
        sequence = np.empty((n, 8), np.uint8)
        starts = frames[:, _MAC : _MAC + 2].copy().view(np.uint16)[:, 0]
        for start in np.unique(starts):
            rows = starts == start
            at = int(start) + self._signature + 4
            sequence[rows] = frames[rows, at : at + 8]
        waiting[:n] = 0
        self._head = (self._head + n) % self._slots
        return Captured(
            sequence.view(">u8")[:, 0].astype(np.uint64), seconds[:, 0] * 1_000_000_000 + seconds[:, 1]
        )

    def drops(self) -> int:
        """Return how many frames of the stream found the ring full since it was opened."""
        answer = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self._drops += struct.unpack("=II", answer)[1]
        return self._drops

    def _bind(self, interface: str) -> None:
        try:
            self._socket.bind((interface, _ETH_P_ALL))
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise OSError(error.errno, f"there is no interface {interface!r} to capture from") from error
            raise

    def _attach_filter(self, tag: int) -> None:
        keep = self._signature + SIGNATURE_BYTES
        program = b"".join(
            struct.pack("=HBBI", *instruction)
            for instruction in (
                (_LD_W_ABS, 0, 0, self._signature),
                (_JEQ, 0, 1, tag),
                (_RET, 0, 0, keep),
                (_RET, 0, 0, 0),
            )
        )
        text = ctypes.create_string_buffer(program)
        filter_ = struct.pack("HL", len(program) // 8, ctypes.addressof(text))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
