"""Receives the stream as a host it is addressed to does: UDP sockets, recvmmsg, SO_REUSEPORT.

A `capture.Capture` sees what reaches a port; this sees what reaches a program. Datagrams that find the buffer
of the socket full are lost by the kernel as RcvbufErrors (udp(7), /proc/net/snmp); how many of them were this
socket's is in its SO_MEMINFO (linux/sock_diag.h). Several sockets may share a port: the kernel then deals
flows to them.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_agent.mmsg import ReceiveRing
from router_agent.model import I64
from router_agent.traffic.generators.frames import SIGNATURE_BYTES
from router_agent.traffic.generators.sockets.capture import NONE, NS, Captured

_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_DROPS = 8
"""Position of ``SK_MEMINFO_DROPS``."""

_SLOTS, _SLOT_BYTES = 1024, 64
_PAYLOADS = (42, 62)
"""Where the payload begins in a frame of IPv4 and of IPv6."""
_CHARGED = 1_152
"""Half of what the kernel charges for a full-sized frame (``skb->truesize``): it doubles what is asked."""
_MOST_BUFFER = (1 << 30) - 1


class Datagrams:
    """Datagrams of one stream that are addressed to this host and come in by one interface.

    Args:
        interface: name in the current network namespace.
        udp_port: the port they are sent to.
        tag, signature: of the stream, see `frames.Frames`.
        slots: how many frames the socket's buffer holds.

    Raises:
        OSError: the interface is missing, the UDP port is taken, or we may not enlarge buffers.
    """

    def __init__(self, interface: str, *, udp_port: int, tag: int, signature: int, slots: int) -> None:
        self._tag = tag
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, min(slots * _CHARGED, _MOST_BUFFER))
            self._bind(interface, udp_port)
        except BaseException:
            self._socket.close()
            raise
        self._ring = ReceiveRing(self._socket, _SLOTS, _SLOT_BYTES)
        self._columns = [
            (self._column(">u4", at), self._column(">u8", at + 4), at + SIGNATURE_BYTES)
            for at in (signature - payload for payload in _PAYLOADS if signature >= payload)
        ]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def waiting(self) -> Captured:
        """Return datagrams of the stream that have arrived; their time is when they were read."""
        while n := self._ring.receive():
            now = time.time_ns()
            sequence = self._sequence(n)
            if len(sequence):
                seconds, nanoseconds = (np.full(len(sequence), part, np.uint32) for part in divmod(now, NS))
                return Captured(sequence, seconds, nanoseconds, more=n == _SLOTS)
        return NONE

    def release(self, count: int) -> None:
        """Do nothing: what was read is gone from the socket's buffer."""

    def drops(self) -> int:
        """Return how many datagrams found the buffer full since the socket was opened."""
        answer = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        return int(_MEMINFO.unpack(answer)[_DROPS])

    def _sequence(self, count: int) -> I64:
        """Return the sequence numbers of those datagrams read that are of the stream, in their order."""
        sequence = np.full(count, -1, np.int64)
        for tags, numbers, least in self._columns:
            ours = (tags[:count] == self._tag) & (self._ring.lengths[:count] >= least)
            if ours.all():
                return numbers[:count].astype(np.int64)
            sequence[ours] = numbers[:count][ours]
        return sequence[sequence >= 0]

    def _column(self, kind: str, at: int) -> NDArray[Any]:
        return np.ndarray((_SLOTS,), kind, self._ring.data.data, at, (_SLOT_BYTES,))

    def _bind(self, interface: str, udp_port: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            self._socket.bind(("::", udp_port))
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise OSError(error.errno, f"there is no interface {interface!r} to receive from") from error
            if error.errno == errno.EADDRINUSE:
                words = f"UDP port {udp_port} is taken by another program: set udp_port to one that is free"
                raise OSError(error.errno, words) from error
            raise
