"""RTM_NEWROUTE and RTM_DELROUTE in bulk: one template per path set, prefixes patched in by NumPy.

Format: linux/rtnetlink.h. Every template begins with the destination, so that prefix, length and sequence
number stand in the same words whatever follows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from router_agent.model import ABSENT, I64, U8, U32, U64, Changes, Family, Path, PathSet, RouteType
from router_agent.netlink import constants as c
from router_agent.netlink.messages import attribute, message

_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_RTNEXTHOP = struct.Struct("=HBBi")
_U32 = struct.Struct("=I")
_WITHDRAWAL = np.iinfo(np.int64).max
_SEQUENCE_WORD, _KIND_WORD, _DESTINATION_WORD = 2, 4, 8

ADD = c.NLM_F_REQUEST | c.NLM_F_CREATE | c.NLM_F_EXCL
"""A prefix that is not held must not be anybody else's either: the kernel refuses with EEXIST."""

REPLACE = c.NLM_F_REQUEST | c.NLM_F_CREATE | c.NLM_F_REPLACE


@dataclass(frozen=True, slots=True)
class Writer:
    """Whose routes are written, and how.

    Attributes:
        protocol: route protocol id of ours.
        metric: route priority of ours.
        on_link: the gateway is reached over its interface though no address says so (RTNH_F_ONLINK).
    """

    protocol: int
    metric: int
    on_link: bool = False

    def route(self, family: Family, table: int, paths: PathSet, *, flags: int) -> bytes:
        """Return an RTM_NEWROUTE with a zero destination and sequence number."""
        single = paths.paths[0] if len(paths.paths) == 1 else None
        body = self._head(family, table, _scope(family, paths), paths.type, self._hop_flags(single))
        if single:
            if single.interface:
                body += attribute(c.RTA_OIF, _U32.pack(single.interface))
            body += _gateway(family, single)
        elif paths.paths:
            body += attribute(c.RTA_MULTIPATH, b"".join(self._hop(family, p) for p in paths.paths))
        return message(c.RTM_NEWROUTE, flags, 0, body)

    def withdrawal(self, family: Family, table: int) -> bytes:
        """Return an RTM_DELROUTE of ours, whatever its paths, with a zero destination and number."""
        # type 0 and scope nowhere match any; protocol and metric keep it to our own
        scope = c.RT_SCOPE_NOWHERE if family is Family.IPV4 else c.RT_SCOPE_UNIVERSE
        return message(c.RTM_DELROUTE, c.NLM_F_REQUEST, 0, self._head(family, table, scope, 0, 0))

    def _head(self, family: Family, table: int, scope: int, kind: int, flags: int) -> bytes:
        short_table = table if table < 256 else c.RT_TABLE_UNSPEC
        body = _RTMSG.pack(family, 0, 0, 0, short_table, self.protocol, scope, kind, flags)
        body += attribute(c.RTA_DST, bytes(family.address_bytes))
        body += attribute(c.RTA_TABLE, _U32.pack(table))
        return body + attribute(c.RTA_PRIORITY, _U32.pack(self.metric))

    def _hop_flags(self, path: Path | None) -> int:
        return c.RTNH_F_ONLINK if self.on_link and path and path.gateway and path.interface else 0

    def _hop(self, family: Family, path: Path) -> bytes:
        gateway = _gateway(family, path)
        flags = self._hop_flags(path)
        return _RTNEXTHOP.pack(8 + len(gateway), flags, path.weight - 1, path.interface) + gateway


def _scope(family: Family, paths: PathSet) -> int:
    """Return the scope: link for IPv4 routes without any gateway, as ip(8) chooses it."""
    direct = paths.type is RouteType.UNICAST and not any(p.gateway for p in paths.paths)
    return c.RT_SCOPE_LINK if family is Family.IPV4 and direct else c.RT_SCOPE_UNIVERSE


def _gateway(family: Family, path: Path) -> bytes:
    if not path.gateway:
        return b""
    if len(path.gateway) == family.address_bytes:
        return attribute(c.RTA_GATEWAY, path.gateway)
    via = Family.IPV4 if len(path.gateway) == 4 else Family.IPV6
    return attribute(c.RTA_VIA, via.to_bytes(2, "little") + path.gateway)


@dataclass(slots=True)
class Batch:
    """Messages to send at once.

    Attributes:
        data: the bytes; the last message asks for an acknowledgement.
        rows: row of the `Changes` of each message; its sequence number is `first` plus its position.
        first: sequence number of the first message.
    """

    data: U8
    rows: I64
    first: int


def encode(
    changes: Changes,
    writer: Writer,
    path_set: Callable[[int], PathSet],
    *,
    first: int,
    batch_messages: int = 1000,
    batch_bytes: int = 1 << 20,
) -> Iterator[Batch]:
    """Yield the changes as batches, routes of one path set side by side.

    Args:
        changes: what to write; rows are reordered, which distinct keys allow, withdrawals last.
        writer: whose routes they are.
        path_set: returns a path set by its id.
        first: sequence number of the first message; the others count on from it, modulo 2^32.
        batch_messages: messages in a batch at most.
        batch_bytes: bytes in a batch at most.

    Raises:
        ValueError: a single message is longer than a batch may be.
    """
    # a replacement and an addition differ in their flags, so each path id has two templates;
    # withdrawals come last, so that a prefix that moves to a longer or shorter one is never without route
    kinds = changes.paths.astype(np.int64) * 2 + (changes.held != ABSENT)
    kinds[changes.paths == ABSENT] = _WITHDRAWAL
    order = np.argsort(kinds, kind="stable")
    ordered = kinds[order]
    edges = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1], [True])))
    blocks: list[U8] = []
    rows: list[I64] = []
    count = size = 0
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        template = _template(changes, writer, path_set, int(ordered[begin]))
        if len(template) > batch_bytes:
            raise ValueError(f"a route message of {len(template)} bytes, expected at most {batch_bytes}")
        while begin < end:
            room = min(batch_messages - count, (batch_bytes - size) // len(template))
            if room <= 0:
                yield _batch(blocks, rows, first)
                first += count
                blocks, rows, count, size = [], [], 0, 0
                continue
            taken = order[begin : begin + min(room, end - begin)]
            blocks.append(fill(template, changes.keys[taken], first + count))
            rows.append(taken)
            count += len(taken)
            size += len(template) * len(taken)
            begin += len(taken)
    if count:
        yield _batch(blocks, rows, first)


def _template(changes: Changes, writer: Writer, path_set: Callable[[int], PathSet], kind: int) -> bytes:
    number, replaces = divmod(kind, 2)
    if kind == _WITHDRAWAL:
        return writer.withdrawal(changes.family, changes.table)
    flags = REPLACE if replaces else ADD
    return writer.route(changes.family, changes.table, path_set(number), flags=flags)


def fill(template: bytes, keys: U64, first: int) -> U8:
    """Return a copy of a template for each key, with consecutive sequence numbers; shape (bytes,)."""
    words: U32 = np.empty((len(keys), len(template) // 4), np.uint32)
    words[:] = np.frombuffer(template, np.uint32)
    words[:, _SEQUENCE_WORD] = ((first + np.arange(len(keys))) & 0xFFFFFFFF).astype(np.uint32)
    words[:, _KIND_WORD] |= (keys[:, -1] & np.uint64(0xFF)).astype(np.uint32) << np.uint32(8)
    if keys.shape[1] == 1:
        words[:, _DESTINATION_WORD] = (keys[:, 0] >> np.uint64(8)).astype(np.uint32).byteswap()
    else:
        halves = np.ascontiguousarray(keys[:, :2]).byteswap().view(np.uint32)
        words[:, _DESTINATION_WORD : _DESTINATION_WORD + 4] = halves
    flat: U8 = words.reshape(-1).view(np.uint8)
    return flat


def _batch(blocks: list[U8], rows: list[I64], first: int) -> Batch:
    data = np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
    # all blocks are of the lengths of their templates: the last message begins where its template would
    last = len(data) - len(blocks[-1]) // len(rows[-1])
    data[last + 6] |= c.NLM_F_ACK
    return Batch(data, np.concatenate(rows) if len(rows) > 1 else rows[0], first)
