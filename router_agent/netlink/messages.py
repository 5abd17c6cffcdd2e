"""Netlink framing: message boundaries found by NumPy, attributes and acknowledgements in plain Python.

Formats: linux/netlink.h. ``struct nlmsghdr`` is u32 length, u16 type, u16 flags, u32 sequence, u32 port;
an attribute is u16 length (header included), u16 type, payload; both are padded to 4 bytes. All numbers
are in host order, which the column code takes to be little-endian.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from router_agent.model import I32, I64, U8, U32, U64
from router_agent.netlink import constants as c

if sys.byteorder != "little":
    raise ImportError("the netlink column codec needs a little-endian machine (amd64, arm64)")

HEADER = struct.Struct("=IHHII")
HEADER_BYTES = 16
ATTRIBUTE = struct.Struct("=HH")
U32_VALUE = struct.Struct("=I")
ERROR = struct.Struct("=i")

_RUN_WORTH = 16
"""Equal lengths in a row before the rest of the run is looked for by NumPy."""


class NetlinkDecodeError(ValueError):
    """Bytes that are not what the kernel headers say.

    Attributes:
        offset: where in the buffer, in bytes.
        found: what was there.
        expected: what should have been.
    """

    def __init__(self, offset: int, *, found: str, expected: str) -> None:
        super().__init__(f"netlink bytes at offset {offset}: found {found}, expected {expected}")
        self.offset = offset
        self.found = found
        self.expected = expected


@dataclass(slots=True)
class Messages:
    """Whole netlink messages in a buffer.

    Attributes:
        buffer: ``uint8``, every message at a multiple of 4 and padded to one.
        starts: ``int64`` byte offset of each message.
        lengths: ``int64`` nlmsg_len of each.
    """

    buffer: U8
    starts: I64
    lengths: I64

    @classmethod
    def find(cls, data: bytes | bytearray | memoryview | U8) -> Messages:
        """Find the messages in data that holds nothing else.

        Raises:
            NetlinkDecodeError: a length is impossible.
        """
        buffer = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
        starts, lengths = boundaries(buffer)
        if len(buffer) % 4:
            buffer = np.concatenate((buffer, np.zeros(-len(buffer) % 4, np.uint8)))
        return cls(buffer, starts, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def words(self) -> U32:
        """The buffer as ``uint32``."""
        return self.buffer.view(np.uint32)

    @property
    def types(self) -> U32:
        """nlmsg_type of each message."""
        types: U32 = self.words[(self.starts >> 2) + 1] & np.uint32(0xFFFF)
        return types

    @property
    def flags(self) -> U32:
        """nlmsg_flags of each message."""
        flags: U32 = self.words[(self.starts >> 2) + 1] >> np.uint32(16)
        return flags

    def part(self, first: int, last: int) -> Messages:
        """Return the messages from number `first` up to but not including `last`."""
        return Messages(self.buffer, self.starts[first:last], self.lengths[first:last])

    def message(self, number: int) -> bytes:
        """Return one message."""
        start = int(self.starts[number])
        return self.buffer[start : start + int(self.lengths[number])].tobytes()

    def body(self, number: int) -> bytes:
        """Return what follows the header of one message."""
        return self.message(number)[HEADER_BYTES:]


def boundaries(buffer: U8) -> tuple[I64, I64]:
    """Return the starts and lengths of back-to-back messages.

    Runs of one length, which is what a dump is made of, are found by comparing a strided view of the
    length words; from a true start on, equal lengths can only be true starts again.

    Raises:
        NetlinkDecodeError: a length is shorter than a header or goes past the end.
    """
    size = len(buffer)
    starts: list[I64] = []
    lengths: list[I64] = []
    walked_starts: list[int] = []
    walked_lengths: list[int] = []
    view = buffer.data
    offset, previous, equal = 0, 0, 0
    while offset < size:
        if size - offset < HEADER_BYTES:
            raise NetlinkDecodeError(
                offset, found=f"{size - offset} bytes at the end", expected="a header of 16 bytes"
            )
        (length,) = U32_VALUE.unpack_from(view, offset)
        if not HEADER_BYTES <= length <= size - offset:
            raise NetlinkDecodeError(
                offset,
                found=f"message length {length}",
                expected=f"a length from {HEADER_BYTES} to {size - offset} (the end of the data)",
            )
        stride = (length + 3) & ~3
        equal = equal + 1 if length == previous else 0
        previous = length
        if equal < _RUN_WORTH:
            walked_starts.append(offset)
            walked_lengths.append(length)
            offset += stride
            continue
        run = _run(buffer, offset, length, stride)
        starts += (np.array(walked_starts, np.int64), offset + stride * np.arange(run, dtype=np.int64))
        lengths += (np.array(walked_lengths, np.int64), np.full(run, length, np.int64))
        walked_starts, walked_lengths = [], []
        offset += run * stride
        equal = 0
    starts.append(np.array(walked_starts, np.int64))
    lengths.append(np.array(walked_lengths, np.int64))
    return np.concatenate(starts), np.concatenate(lengths)


def _run(buffer: U8, offset: int, length: int, stride: int) -> int:
    """Return how many messages of one length follow each other from a true start on (at least one)."""
    # the last one may lack its padding
    most = (len(buffer) - offset - length) // stride + 1
    known, reach = 1, 64
    while known < most:
        reach = min(reach, most)
        column: U32 = np.ndarray((reach,), np.uint32, buffer, offset, (stride,))
        differs = np.flatnonzero(column[known:] != length)
        if len(differs):
            return known + int(differs[0])
        known, reach = reach, reach * 8
    return known


def attributes(data: bytes, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (type, offset of the payload, length of the payload) of each attribute.

    Type flags (nested, byte order) are masked away. Fewer than 4 bytes at the end are padding, as for
    the kernel's ``nla_ok``.

    Raises:
        NetlinkDecodeError: an attribute is shorter than its header or goes past `end`.
    """
    while end - offset >= 4:
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if not 4 <= length <= end - offset:
            raise NetlinkDecodeError(
                offset, found=f"attribute length {length}", expected=f"a length from 4 to {end - offset}"
            )
        yield kind & c.NLA_TYPE_MASK, offset + 4, length - 4
        offset += (length + 3) & ~3


def attribute_map(data: bytes, offset: int) -> dict[int, bytes]:
    """Return the attributes from an offset to the end of data; the last of a type wins."""
    return {kind: data[at : at + length] for kind, at, length in attributes(data, offset, len(data))}


def u32_of(payload: bytes) -> int:
    """Return a 32-bit attribute payload.

    Raises:
        NetlinkDecodeError: it is not 4 bytes long.
    """
    if len(payload) != 4:
        raise NetlinkDecodeError(0, found=f"{len(payload)} bytes", expected="a 32-bit attribute")
    (value,) = U32_VALUE.unpack(payload)
    return int(value)


def attribute(kind: int, payload: bytes) -> bytes:
    """Return an attribute with its header and padding."""
    return ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """Return a message with its header and padding; the kernel fills in the port."""
    return HEADER.pack(HEADER_BYTES + len(body), kind, flags, sequence, 0) + body + bytes(-len(body) % 4)


@dataclass(slots=True)
class Acknowledgements:
    """NLMSG_ERROR messages as columns: ``uint32`` sequence numbers and ``int32`` errors (0 or -errno)."""

    sequences: U32
    errors: I32
    numbers: I64
    """Message numbers in the buffer, for `extended_text`."""


def acknowledgements(messages: Messages) -> Acknowledgements:
    """Take the NLMSG_ERROR messages out of what a writing socket received.

    Raises:
        NetlinkDecodeError: one is too short to hold the error and the header it answers.
    """
    numbers = np.flatnonzero(messages.types == c.NLMSG_ERROR)
    short = numbers[messages.lengths[numbers] < 36]
    if len(short):
        number = int(short[0])
        raise NetlinkDecodeError(
            int(messages.starts[number]),
            found=f"NLMSG_ERROR of {int(messages.lengths[number])} bytes",
            expected="at least 36",
        )
    words = messages.words
    at = messages.starts[numbers] >> 2
    return Acknowledgements(words[at + 2], words[at + 4].view(np.int32), numbers)


def extended_text(messages: Messages, number: int) -> str:
    """Return the kernel's own words about a refused request, or "" if it gave none."""
    start, length = int(messages.starts[number]), int(messages.lengths[number])
    data = messages.buffer[start : start + length].tobytes()
    _, _, flags, _, _ = HEADER.unpack_from(data)
    if not flags & c.NLM_F_ACK_TLVS:
        return ""
    echoed = HEADER_BYTES if flags & c.NLM_F_CAPPED else U32_VALUE.unpack_from(data, 20)[0]
    offset = 20 + ((echoed + 3) & ~3)
    for kind, at, size in attributes(data, offset, len(data)):
        if kind == c.NLMSGERR_ATTR_MSG:
            return data[at : at + size].rstrip(b"\0").decode(errors="replace")
    return ""


def byteswapped(words: U32) -> U32:
    """Return network-order words as host-order ``uint32``."""
    return words.byteswap()


def joined(high: U32, low: U32) -> U64:
    """Return two columns of network-order words as one column of host-order ``uint64``."""
    return (high.byteswap().astype(np.uint64) << np.uint64(32)) | low.byteswap()
