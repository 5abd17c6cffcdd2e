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

import numpy as np

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
        self._tag = np.frombuffer(tag.to_bytes(4, "big"), np.uint8)
        self._at = [signature - payload for payload in _PAYLOADS if signature >= payload]
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

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def waiting(self) -> Captured:
        """Return datagrams of the stream that have arrived; their time is when they were read."""
        while n := self._ring.receive():
            now = time.time_ns()
            rows, sequence = self._ours(n)
            if len(rows):
                seconds, rest = divmod(now, NS)
                columns = (np.full(len(rows), part, np.uint32) for part in (seconds, rest))
                return Captured(sequence, *columns)
        return NONE

    def release(self, count: int) -> None:
        """Do nothing: what was read is gone from the socket's buffer."""

    def drops(self) -> int:
        """Return how many datagrams found the buffer full since the socket was opened."""
        answer = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        return int(_MEMINFO.unpack(answer)[_DROPS])

    def _ours(self, count: int) -> tuple[I64, I64]:
        """Return which of the datagrams read are of the stream, and their sequence numbers, both (n,)."""
        data, lengths = self._ring.data[:count], self._ring.lengths[:count]
        start = np.full(count, -1, np.int64)
        for at in self._at:
            found = (data[:, at : at + 4] == self._tag).all(axis=1) & (lengths >= at + SIGNATURE_BYTES)
            start[found & (start < 0)] = at + 4
        rows = np.flatnonzero(start >= 0)
        octets = data[rows[:, None], start[rows, None] + np.arange(8)]
        return rows, np.ascontiguousarray(octets).view(">u8")[:, 0].astype(np.int64)

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
