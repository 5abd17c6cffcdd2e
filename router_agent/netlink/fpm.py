"""FPM frames: how zebra's dplane_fpm_nl packs netlink messages into a byte stream, and its answers.

A frame is u8 version (1), u8 type (1: netlink), u16 length in network order with these four bytes counted,
then whole netlink messages (FRR, fpm/fpm.h). Everything in it is padded to 4 bytes, so messages stand at
multiples of 4 throughout the stream.

zebra reads one message of each frame that it receives and passes over the rest of it (zebra/dplane_fpm_nl.c,
fpm_read), so every answer has a frame of its own. Of an answer it uses family, table, prefix, protocol and
the offload flags (netlink_route_read_unicast_ctx, rib_process_dplane_notify); releases up to 10.2 also
compare next hops, if the answer names any, with those of the route, which therefore are the route's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from router_agent.model import I64, U8, U32, Family, Outcomes, PathSet
from router_agent.netlink import constants as c
from router_agent.netlink.encode import Writer, fill
from router_agent.netlink.messages import Messages, NetlinkDecodeError, attribute
from router_agent.netlink.paths import KernelPath

HEADER_BYTES = 4
FRAME_BYTES = 0xFFFF
"""Longest frame: the length has 16 bits."""

METRIC = 20
"""Metric of every route zebra installs (``ROUTE_INSTALLATION_METRIC`` of zebra/rt_netlink.c)."""

_VERSION_AND_TYPE = 0x0101
_RUN_WORTH = 4
_FLAGS_AT = 24
"""Offset of rtm_flags in a route message."""


def split(data: U8) -> tuple[Messages, int]:
    """Find the netlink messages of all whole frames.

    Args:
        data: what came from the stream since the end of the last whole frame; ``uint8``, a multiple of 4
            bytes into its buffer.

    Returns:
        The messages, in their order, and how many bytes the whole frames have. What is behind them is the
        beginning of a frame.

    Raises:
        NetlinkDecodeError: this is not an FPM stream.
    """
    starts, ends = _frames(data)
    if not len(starts):
        none = np.empty(0, np.int64)
        return Messages(data[:0], none, none), 0
    used = int(ends[-1])
    whole = data[:used]
    words = whole.view(np.uint32)
    found: list[I64] = []
    lengths: list[I64] = []
    at, ends = starts + HEADER_BYTES, ends
    while len(at):
        size = words[at >> 2].astype(np.int64)
        wrong = np.flatnonzero((size < 16) | (at + size > ends))
        if len(wrong):
            row = int(wrong[0])
            raise NetlinkDecodeError(
                int(at[row]),
                found=f"message length {int(size[row])} in an FPM frame",
                expected=f"a length from 16 to {int(ends[row] - at[row])} (the end of the frame)",
            )
        found.append(at)
        lengths.append(size)
        at = at + ((size + 3) & ~3)
        more = np.flatnonzero(at < ends)
        at, ends = at[more], ends[more]
    if len(found) == 1:
        return Messages(whole, found[0], lengths[0]), used
    places = np.concatenate(found)
    order = np.argsort(places, kind="stable")
    return Messages(whole, places[order], np.concatenate(lengths)[order]), used


def _frames(data: U8) -> tuple[I64, I64]:
    """Return where each whole frame begins and ends; runs of one length are found by NumPy."""
    size = len(data)
    starts: list[I64] = []
    ends: list[I64] = []
    view = data.data
    offset, previous, equal = 0, 0, 0
    while size - offset >= HEADER_BYTES:
        length = _frame_length(view, offset)
        if length > size - offset:
            break
        equal = equal + 1 if length == previous else 0
        previous = length
        run = _run(data, offset, length) if equal >= _RUN_WORTH else 1
        begins = offset + length * np.arange(run, dtype=np.int64)
        starts.append(begins)
        ends.append(begins + length)
        offset += run * length
    if not starts:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return np.concatenate(starts), np.concatenate(ends)


def _frame_length(view: memoryview, offset: int) -> int:
    described, length = view[offset] << 8 | view[offset + 1], view[offset + 2] << 8 | view[offset + 3]
    if described != _VERSION_AND_TYPE:
        raise NetlinkDecodeError(
            offset,
            found=f"FPM version {view[offset]}, type {view[offset + 1]}",
            expected="version 1, type 1 (netlink): zebra's module dplane_fpm_nl, not fpm with protobuf",
        )
    if length < HEADER_BYTES + 16 or length % 4:
        raise NetlinkDecodeError(
            offset, found=f"FPM frame length {length}", expected="a multiple of 4 from 20 to 65,532"
        )
    return length


def _run(data: U8, offset: int, length: int) -> int:
    """Return how many whole frames with the header of the one at `offset` follow each other."""
    most = (len(data) - offset) // length
    known, reach = 1, 64
    header = data[offset : offset + HEADER_BYTES].view(np.uint32)[0]
    while known < most:
        reach = min(reach, most)
        column: U32 = np.ndarray((reach,), np.uint32, data, offset, (length,))
        differs = np.flatnonzero(column[known:] != header)
        if len(differs):
            return known + int(differs[0])
        known, reach = reach, reach * 8
    return known


def encode(outcomes: Outcomes, path_of: Callable[[int], KernelPath | None]) -> Iterator[U8]:
    """Yield answers to zebra, one frame for each route, in blocks of equal frames; shape (bytes,) each.

    Args:
        outcomes: what became of routes.
        path_of: gives the path of an id as zebra sent it, None for a route that is not zebra's.
    """
    if not len(outcomes):
        return
    kinds = outcomes.paths.astype(np.int64) * 2 + outcomes.in_fib
    order = np.argsort(kinds, kind="stable")
    ordered = kinds[order]
    edges = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1], [True])))
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        number, in_fib = divmod(int(ordered[begin]), 2)
        path = path_of(number)
        if path is None:
            continue
        template = _answer(outcomes.family, outcomes.table, path, in_fib=bool(in_fib))
        yield _framed(fill(template, outcomes.keys[order[begin:end]], 0), len(template))


def _answer(family: Family, table: int, path: KernelPath, *, in_fib: bool) -> bytes:
    """Return an answer with a zero destination: the route as zebra sent it, and what became of it."""
    writer = Writer(path.protocol, METRIC)
    if path.nexthop:
        route = writer.route(family, table, PathSet(path.type), flags=c.NLM_F_REQUEST)
        route += attribute(c.RTA_NH_ID, path.nexthop.to_bytes(4, "little"))
    else:
        legs = tuple(leg.path() for leg in path.legs)
        route = writer.route(family, table, PathSet(path.type, legs), flags=c.NLM_F_REQUEST)
    answer = bytearray(route)
    answer[:4] = len(answer).to_bytes(4, "little")
    flag = c.RTM_F_OFFLOAD if in_fib else c.RTM_F_OFFLOAD_FAILED
    answer[_FLAGS_AT : _FLAGS_AT + 4] = flag.to_bytes(4, "little")
    return bytes(answer)


def _framed(messages: U8, length: int) -> U8:
    """Put a header before each of the messages, which all have this length."""
    rows = messages.reshape(-1, length)
    framed: U8 = np.empty((len(rows), HEADER_BYTES + length), np.uint8)
    framed[:, 0] = framed[:, 1] = 1
    framed[:, 2:4] = np.frombuffer((HEADER_BYTES + length).to_bytes(2, "big"), np.uint8)
    framed[:, HEADER_BYTES:] = rows
    return framed.reshape(-1)
