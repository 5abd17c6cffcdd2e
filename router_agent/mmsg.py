"""Many datagrams a system call: recvmmsg(2) and sendmmsg(2) over NumPy buffers.

A ring is a fixed set of slots. The kernel's ``struct mmsghdr`` and ``struct iovec`` arrays (linux/socket.h,
linux/uio.h, LP64 layout) are NumPy structured arrays that point into one data buffer, laid out once. A call
touches no Python object per datagram: lengths, flags, addresses and payloads are columns when it returns.
ctypes releases the GIL for the length of the call.

Rings are not thread-safe. They hold a reference to the socket; closing it is the caller's business.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_agent.model import U8, U32, U64, Mask

Rows: TypeAlias = NDArray[Any]
"""A structured array: one row a slot, one field a column."""

IOVEC = np.dtype([("base", "u8"), ("length", "u8")])
"""``struct iovec``: 16 bytes."""

MMSGHDR = np.dtype(
    {
        "names": ["name", "name_length", "iov", "iov_count", "flags", "length"],
        "formats": ["u8", "u4", "u8", "u8", "i4", "u4"],
        "offsets": [0, 8, 16, 24, 48, 56],
        "itemsize": 64,
    }
)
"""``struct mmsghdr``: 64 bytes; no ancillary data (``msg_control`` at 32 and 40 stays zero)."""

SOCKADDR_IN = np.dtype([("family", "u2"), ("port", ">u2"), ("address", "u1", 4), ("zero", "u1", 8)])
"""``struct sockaddr_in``: 16 bytes, ip(7)."""

SOCKADDR_IN6 = np.dtype(
    [("family", "u2"), ("port", ">u2"), ("flow", ">u4"), ("address", "u1", 16), ("scope", "u4")]
)
"""``struct sockaddr_in6``: 28 bytes, ipv6(7)."""

SOCKADDR_NL = np.dtype([("family", "u2"), ("pad", "u2"), ("port", "u4"), ("groups", "u4")])
"""``struct sockaddr_nl``: 12 bytes, netlink(7). ``port`` is 0 when the kernel is the sender."""

_ALIGNMENT = 64
_CALL = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


def _libc() -> ctypes.CDLL:
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        raise ImportError("router_agent.mmsg knows struct mmsghdr of 64-bit kernels only")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sendmmsg.argtypes = _CALL
    libc.recvmmsg.argtypes = (*_CALL, ctypes.c_void_p)
    return libc


_LIBC = _libc()


class _Ring:
    """Slots of equal size, with the headers that point at them."""

    def __init__(
        self, sock: socket.socket, slots: int, slot_bytes: int, address: np.dtype[Any] | None
    ) -> None:
        if slots < 1 or slot_bytes < 1:
            raise ValueError(f"a ring needs at least one slot of one byte, not {slots} of {slot_bytes}")
        self.socket = sock
        self.slots = slots
        self.data: U8 = _aligned(slots, slot_bytes)
        """Payloads, shape (slots, slot_bytes)."""
        self._iov: Rows = np.zeros(slots, IOVEC)
        self._iov["base"] = self.data.ctypes.data + np.arange(slots, dtype=np.uint64) * np.uint64(slot_bytes)
        self._iov["length"] = slot_bytes
        self._headers: Rows = np.zeros(slots, MMSGHDR)
        self._headers["iov"] = _pointers(self._iov)
        self._headers["iov_count"] = 1
        self._base = self._headers.ctypes.data
        self._addresses: Rows | None = None
        if address is not None:
            self._addresses = np.zeros(slots, address)
            self._headers["name"] = _pointers(self._addresses)
            self._headers["name_length"] = address.itemsize

    def _address_rows(self) -> Rows:
        if self._addresses is None:
            raise TypeError("this ring was made without an address column: pass `address=` when making it")
        return self._addresses


class ReceiveRing(_Ring):
    """Receives up to `slots` datagrams a call.

    Args:
        sock: a datagram socket (UDP, netlink, packet).
        slots: datagrams a call at most.
        slot_bytes: bytes kept of each datagram; a longer one is cut and marked in `truncated`.
        address: layout of the sender's address (`SOCKADDR_IN`, ...); None leaves it out.

    Rows 0 to n - 1 of all columns are valid after `receive` returned n, until the next call.
    """

    def __init__(
        self, sock: socket.socket, slots: int, slot_bytes: int, *, address: np.dtype[Any] | None = None
    ) -> None:
        super().__init__(sock, slots, slot_bytes, address)
        self.lengths: U32 = self._headers["length"]
        """Bytes received into each slot; with ``MSG_TRUNC`` asked for, the datagram's own length."""
        self.flags: NDArray[np.int32] = self._headers["flags"]
        """``msg_flags`` of each slot."""

    @property
    def sources(self) -> Rows:
        """Sender's address of each slot."""
        return self._address_rows()

    @property
    def truncated(self) -> Mask:
        """Which slots hold only the beginning of their datagram; shape (slots,)."""
        cut: Mask = (self.flags & np.int32(socket.MSG_TRUNC)) != 0
        return cut

    def receive(self, flags: int = socket.MSG_DONTWAIT) -> int:
        """Receive what is waiting and return the number of datagrams; 0 when there is none.

        Args:
            flags: of recvmmsg(2). ``MSG_WAITFORONE`` (0x10000) blocks for the first datagram only; 0 blocks
                until every slot is full.

        Raises:
            OSError: the socket's error, with its errno. ENOBUFS on netlink means that events were lost.
        """
        if self._addresses is not None:
            self._headers["name_length"] = self._addresses.itemsize
        while True:
            count: int = _LIBC.recvmmsg(self.socket.fileno(), self._base, self.slots, flags, None)
            if count >= 0:
                return count
            number = ctypes.get_errno()
            if number == errno.EAGAIN:
                return 0
            if number != errno.EINTR:
                raise OSError(number, f"recvmmsg: {os.strerror(number)}")


class SendRing(_Ring):
    """Sends runs of prepared slots.

    Args:
        sock: a datagram socket (UDP, netlink, packet).
        slots: how many datagrams can be prepared.
        slot_bytes: bytes kept for each; `lengths` says how many of them are sent (all, at first).
        address: layout of the destination's address (`SOCKADDR_IN`, ...); None for a connected or bound
            socket.
    """

    def __init__(
        self, sock: socket.socket, slots: int, slot_bytes: int, *, address: np.dtype[Any] | None = None
    ) -> None:
        super().__init__(sock, slots, slot_bytes, address)
        self.lengths: U64 = self._iov["length"]
        """Bytes to send of each slot."""

    @property
    def destinations(self) -> Rows:
        """Destination address of each slot, to be filled by the caller."""
        return self._address_rows()

    def send(self, start: int, count: int, flags: int = socket.MSG_DONTWAIT) -> int:
        """Send slots start to start + count - 1 in order; return how many the kernel took.

        Fewer than `count` means that the next one was refused: call again from there to learn why. 0 means
        that the socket's buffer is full (EAGAIN).

        Raises:
            ValueError: the run leaves the ring.
            OSError: the first datagram of the run was refused, with its errno (ENOBUFS: the interface's
                queue is full; EMSGSIZE; ENETUNREACH; ...).
        """
        if start < 0 or count < 0 or start + count > self.slots:
            raise ValueError(f"slots {start} to {start + count - 1} are not all in a ring of {self.slots}")
        first = self._base + start * MMSGHDR.itemsize
        while True:
            sent: int = _LIBC.sendmmsg(self.socket.fileno(), first, count, flags)
            if sent >= 0:
                return sent
            number = ctypes.get_errno()
            if number == errno.EAGAIN:
                return 0
            if number != errno.EINTR:
                raise OSError(number, f"sendmmsg: {os.strerror(number)}")


def _pointers(rows: Rows) -> U64:
    """Return the address in memory of each row."""
    steps = np.arange(len(rows), dtype=np.uint64) * np.uint64(rows.strides[0])
    return steps + np.uint64(rows.ctypes.data)


def _aligned(slots: int, slot_bytes: int) -> U8:
    """Return zeros of shape (slots, slot_bytes) that begin on a cache line."""
    buffer = np.zeros(slots * slot_bytes + _ALIGNMENT, np.uint8)
    skip = -buffer.ctypes.data % _ALIGNMENT
    return buffer[skip : skip + slots * slot_bytes].reshape(slots, slot_bytes)
