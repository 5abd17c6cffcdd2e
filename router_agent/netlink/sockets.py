"""Routing sockets: one for events, one for each dump, one for writes. They never share a receive queue.

An overrun of the event queue is an error (``NETLINK_NO_ENOBUFS`` stays off), so that no event is ever lost
unnoticed. Requests are checked strictly by the kernel (``NETLINK_GET_STRICT_CHK``), so that a filter that
it does not know is refused and not ignored.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncGenerator, Collection, Sequence
from pathlib import Path

import numpy as np

from router_agent.mmsg import ReceiveRing
from router_agent.model import U8
from router_agent.namespaces import inside
from router_agent.netlink import constants as c
from router_agent.netlink import event_filter
from router_agent.netlink.messages import (
    Acknowledgements,
    Messages,
    acknowledgements,
    extended_text,
    message,
)

EVENT_BUFFER_BYTES = 64 << 20
"""Kernel memory for events not read yet; about 80,000 route events (each costs some 770 bytes there)."""

_DATAGRAM_BYTES = 64 << 10
"""Longer than any datagram of a dump (at most 32 KiB)."""

_EVENT_SLOTS = 128
_EVENT_SLOT_BYTES = 32 << 10
_ANSWER_SLOTS = 64
_ANSWER_SLOT_BYTES = 4 << 10


class NetlinkError(Exception):
    """The kernel refused a request or the socket failed.

    Attributes:
        number: errno, positive.
    """

    def __init__(self, what: str, number: int, detail: str = "") -> None:
        said = f"{os.strerror(number)} ({errno.errorcode.get(number, str(number))})"
        super().__init__(f"{what}: {said}{'; ' + detail if detail else ''}")
        self.number = number


class EventsLostError(Exception):
    """Events were dropped before they could be read: what is known must be read again."""


class DumpInterruptedError(Exception):
    """What was dumped changed meanwhile (``NLM_F_DUMP_INTR``): rows may be missing or doubled."""


def open_socket(namespace: str | None, *, receive_bytes: int, send_bytes: int = 0) -> socket.socket:
    """Return a non-blocking routing socket in a namespace, with buffers beyond the system's limits.

    Raises:
        NamespaceError: the namespace cannot be entered.
        NetlinkError: CAP_NET_ADMIN is missing, or the kernel is older than 4.20.
    """
    with inside(namespace):
        sock = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            c.NETLINK_ROUTE,
        )
    try:
        sock.bind((0, 0))
        for option in (c.NETLINK_CAP_ACK, c.NETLINK_EXT_ACK, c.NETLINK_GET_STRICT_CHK):
            sock.setsockopt(c.SOL_NETLINK, option, 1)
        sock.setsockopt(socket.SOL_SOCKET, c.SO_RCVBUFFORCE, receive_bytes)
        if send_bytes:
            sock.setsockopt(socket.SOL_SOCKET, c.SO_SNDBUFFORCE, send_bytes)
    except OSError as error:
        sock.close()
        advice = {
            errno.EPERM: "CAP_NET_ADMIN is needed: run as root or give the service AmbientCapabilities",
            errno.ENOPROTOOPT: "a kernel of 4.20 or later is needed",
        }.get(error.errno or 0, "")
        raise NetlinkError("cannot prepare a routing socket", error.errno or 0, advice) from None
    return sock


def drops(sock: socket.socket, namespace: str | None) -> int:
    """Return how many messages the kernel dropped for want of buffer on a socket of a namespace."""
    inode = str(os.fstat(sock.fileno()).st_ino)
    with inside(namespace):
        text = Path("/proc/thread-self/net/netlink").read_text()
    # columns: sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    for line in text.splitlines()[1:]:
        columns = line.split()
        if len(columns) >= 10 and columns[9] == inode:
            return int(columns[8])
    return 0


class EventSocket:
    """Receives multicast events.

    Args:
        namespace: where to listen.
        groups: RTNLGRP_* numbers.
        buffer_bytes: kernel memory for what is not read yet.
        protocols: whose route events are wanted, None for all; see `event_filter`.
    """

    def __init__(
        self,
        namespace: str | None,
        groups: Sequence[int],
        *,
        buffer_bytes: int = EVENT_BUFFER_BYTES,
        protocols: Collection[int] | None = None,
    ) -> None:
        self._namespace = namespace
        self._socket = open_socket(namespace, receive_bytes=buffer_bytes)
        if protocols is not None and len(protocols) <= event_filter.MOST:
            try:
                event_filter.attach(self._socket, protocols)
            except OSError as error:
                self._socket.close()
                raise NetlinkError("attaching a filter of route events", error.errno or 0) from None
        try:
            for group in groups:
                self._socket.setsockopt(c.SOL_NETLINK, c.NETLINK_ADD_MEMBERSHIP, group)
        except OSError as error:
            self._socket.close()
            raise NetlinkError(f"cannot join routing group {group}", error.errno or 0) from None
        self._ring = ReceiveRing(self._socket, _EVENT_SLOTS, _EVENT_SLOT_BYTES)

    def fileno(self) -> int:
        """Return the descriptor, for an event loop."""
        return self._socket.fileno()

    def receive(self) -> U8:
        """Return the bytes of some waiting events, whole messages back to back; empty if there are none.

        Raises:
            EventsLostError: the kernel had to drop events, or one was longer than a slot.
        """
        try:
            count = self._ring.receive()
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise EventsLostError("the kernel's event queue ran over") from None
            raise NetlinkError("reading routing events", error.errno or 0) from None
        if self._ring.truncated[:count].any():
            raise EventsLostError(f"an event is longer than {_EVENT_SLOT_BYTES} bytes")
        if count == 1:
            return self._ring.data[0, : int(self._ring.lengths[0])].copy()
        lengths = (self._ring.lengths[:count].astype(np.int64) + 3) & ~3
        if not count or (lengths == lengths[0]).all():
            return self._ring.data[:count, : int(lengths[0]) if count else 0].reshape(-1)
        words = lengths >> 2
        ends = np.cumsum(words)
        slots = np.arange(count) * (_EVENT_SLOT_BYTES // 4)
        index = np.arange(int(ends[-1])) + np.repeat(slots - (ends - words), words)
        gathered: U8 = self._ring.data.reshape(-1).view(np.uint32)[index].view(np.uint8)
        return gathered

    def drops(self) -> int:
        """Return how many events the kernel has dropped on this socket since it was opened."""
        return drops(self._socket, self._namespace)

    def close(self) -> None:
        """Leave the groups."""
        self._socket.close()


class DumpSocket:
    """Reads dumps, one after the other. After one that was left unfinished, close it.

    Args:
        namespace: whose tables are dumped.
    """

    def __init__(self, namespace: str | None) -> None:
        self._socket = open_socket(namespace, receive_bytes=1 << 20)
        self._sequence = 0

    async def dump(
        self, kind: int, body: bytes, *, chunk_bytes: int = 1 << 20
    ) -> AsyncGenerator[Messages, None]:
        """Yield the messages of a dump, about `chunk_bytes` at a time; other tasks run in between.

        A chunk is good until the next is asked for: the buffer is used again.

        Args:
            kind: RTM_GET*.
            body: the request after its header: family structure and filter attributes.
            chunk_bytes: how much to read before yielding.

        Raises:
            NetlinkError: the kernel refused, or failed on the way.
            DumpInterruptedError: the dump is not consistent.
            NetlinkDecodeError: the bytes are not netlink messages.
        """
        self._sequence += 1
        request = message(kind, c.NLM_F_REQUEST | c.NLM_F_DUMP, self._sequence, body)
        try:
            self._socket.send(request)
        except OSError as error:
            raise NetlinkError(f"asking for dump {kind}", error.errno or 0) from None
        buffer = np.empty(chunk_bytes + _DATAGRAM_BYTES, np.uint8)
        view = buffer.data
        done = False
        while not done:
            filled = await self._fill(view, chunk_bytes)
            found = Messages.find(buffer[:filled])
            done = self._finish(found, kind)
            found = found.part(0, len(found) - 1) if done else found
            if len(found):
                yield found
            await asyncio.sleep(0)

    async def _fill(self, view: memoryview, wanted: int) -> int:
        """Receive until `wanted` bytes are there or nothing more is waiting; at least one datagram."""
        filled = 0
        while filled < wanted:
            try:
                size, _, flags, _ = self._socket.recvmsg_into([view[filled:]])
            except BlockingIOError:
                if filled:
                    break
                await _readable(self._socket)
                continue
            except OSError as error:
                raise NetlinkError("reading a dump", error.errno or 0) from None
            if flags & socket.MSG_TRUNC:
                raise NetlinkError("reading a dump", errno.EMSGSIZE, f"more than {_DATAGRAM_BYTES} bytes")
            filled += (size + 3) & ~3
        return filled

    def _finish(self, found: Messages, kind: int) -> bool:
        """Check flags and control messages; return whether the dump has ended."""
        if (found.flags & np.uint32(c.NLM_F_DUMP_INTR)).any():
            raise DumpInterruptedError(f"dump {kind} changed while it was read")
        last = int(found.types[-1])
        if last == c.NLMSG_DONE:
            code = int.from_bytes(found.body(len(found) - 1)[:4], "little", signed=True)
            if code < 0:
                raise NetlinkError(f"dump {kind} ended", -code)
            return True
        if last == c.NLMSG_ERROR:
            answer = acknowledgements(found)
            detail = extended_text(found, int(answer.numbers[-1]))
            raise NetlinkError(f"dump {kind} was refused", -int(answer.errors[-1]), detail)
        return False

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, wake)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


class WriteSocket:
    """Sends requests in bulk. The kernel works through a batch before the send returns.

    Args:
        namespace: whose tables are written.
        batch_bytes: longest batch.
    """

    def __init__(self, namespace: str | None, *, batch_bytes: int = 1 << 20) -> None:
        # room for an answer to each of a batch's messages, of which 36 bytes is the shortest
        self._socket = open_socket(namespace, receive_bytes=16 << 20, send_bytes=2 * batch_bytes + 4096)
        self._ring = ReceiveRing(self._socket, _ANSWER_SLOTS, _ANSWER_SLOT_BYTES)
        self.batch_bytes = batch_bytes

    def exchange(self, batch: bytes | U8, last: int) -> list[tuple[Acknowledgements, Messages]]:
        """Send a batch and return every answer to it.

        The kernel answers each message that fails, each with ``NLM_F_ACK``, and it answers in order: once
        the last message is acknowledged, one without an answer has been carried out.

        Args:
            batch: whole messages, at most `batch_bytes`; the last has ``NLM_F_ACK``.
            last: sequence number of the last.

        Raises:
            NetlinkError: the batch could not be sent, or its end was not acknowledged.
        """
        try:
            self._socket.send(batch if isinstance(batch, bytes) else batch.data)
        except OSError as error:
            raise NetlinkError("writing to the routing socket", error.errno or 0) from None
        answers: list[tuple[Acknowledgements, Messages]] = []
        while True:
            found = self._receive()
            answer = acknowledgements(found)
            answers.append((answer, found))
            if len(answer.sequences) and int(answer.sequences[-1]) == last:
                return answers

    def request(self, kind: int, flags: int, body: bytes, sequence: int) -> tuple[int, Messages]:
        """Send one request and return (0 or errno, everything the kernel said)."""
        whole = message(kind, flags | c.NLM_F_REQUEST | c.NLM_F_ACK, sequence, body)
        answers = self.exchange(whole, sequence)
        return -int(answers[-1][0].errors[-1]), answers[0][1]

    def _receive(self) -> Messages:
        try:
            count = self._ring.receive()
        except OSError as error:
            # ENOBUFS: an answer was dropped, so some request's fate is unknown
            raise NetlinkError("reading the kernel's answers", error.errno or 0) from None
        if not count:
            raise NetlinkError("the kernel did not acknowledge the end of a batch", errno.ENODATA)
        if self._ring.truncated[:count].any():
            raise NetlinkError("reading the kernel's answers", errno.EMSGSIZE)
        rows = [self._ring.data[i, : int(self._ring.lengths[i])] for i in range(count)]
        return Messages.find(np.concatenate(rows))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
