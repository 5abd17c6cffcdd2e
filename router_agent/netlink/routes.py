"""RTM_NEWROUTE and RTM_DELROUTE to columns, a million in tenths of a second.

Messages of one length whose attribute headers stand in the same places with the same contents have one
*layout*; in it every field is a column of a (messages, words) array. What says where packets go (type,
gateway, interface, next hops, next-hop object, tunnel) is compared with the values seen before, by a hash
that picks a slot and an exact comparison with what the slot holds. Only a value never seen is parsed, in
plain Python, once.

Formats: linux/rtnetlink.h (struct rtmsg, RTA_*).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router_agent.model import (
    ABSENT,
    FORWARDED_TYPES,
    I64,
    U8,
    U32,
    U64,
    Family,
    Mask,
    Operation,
    RouteBatch,
    RouteType,
)
from router_agent.netlink import constants as c
from router_agent.netlink.messages import Messages, NetlinkDecodeError, attributes, byteswapped, joined
from router_agent.netlink.paths import PathIds, parse_path

_RTMSG_END = 28
"""nlmsghdr (16) and rtmsg (12): where the attributes begin."""

_MOST_SLOT_BITS, _FEWEST_SLOT_BITS = 12, 4
_SLOT_WORDS = 1 << 16
"""Words of path values kept of one layout: 256 KiB, so that wide next-hop groups get fewer slots."""

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_LAYOUTS_KEPT = 128
_CONSTANT_VALUES = 3
"""Message type, route type (with the protocol from zebra) and flags: compared beside the path words."""
_KIND_BITS = np.uint32(0xFFFF)
_TYPE_BITS = np.uint32(0xFF000000)
_PROTOCOL_BITS = np.uint32(0xFF00)
_FLAG_BITS = np.uint32(c.RTNH_F_DEAD)
_PATH_ATTRIBUTES = (
    c.RTA_OIF, c.RTA_GATEWAY, c.RTA_VIA, c.RTA_MULTIPATH, c.RTA_NH_ID, c.RTA_ENCAP_TYPE, c.RTA_ENCAP,
    c.RTA_NEWDST,
)  # fmt: skip
_GATEWAYS = frozenset({c.RTA_GATEWAY, c.RTA_VIA, c.RTA_MULTIPATH, c.RTA_NH_ID})
_MEANT_FOR_FIB = np.zeros(256, np.bool_)
_MEANT_FOR_FIB[list(FORWARDED_TYPES)] = True
_V4_MASKS = np.array([(0xFFFFFFFF << (32 - n)) & 0xFFFFFFFF for n in range(33)], np.uint32)
_V6_HIGH_MASKS = np.array([(((1 << 128) - (1 << (128 - n))) >> 64) for n in range(129)], np.uint64)
_V6_LOW_MASKS = np.array([((1 << 128) - (1 << (128 - n))) & (2**64 - 1) for n in range(129)], np.uint64)


@dataclass(slots=True)
class _Layout:
    """Where things are in messages of one length, and the path ids of the values seen there."""

    family: Family
    words: I64
    """Word numbers of the attribute headers, and what they must hold."""
    held: U32
    places: dict[int, tuple[int, int]]
    path_words: list[int]
    slot_shift: np.uint64
    slot_ids: U32
    slot_values: NDArray[np.uint32]
    epoch: int

    def word(self, attribute: int) -> int | None:
        """Return the word number of an attribute's payload, None where there is none."""
        place = self.places.get(attribute)
        return place[0] >> 2 if place else None


@dataclass(slots=True)
class _Columns:
    """Decoded rows of one family; `numbers` are the message numbers they came from."""

    numbers: I64
    tables: U32
    keys: U64
    metrics: U32
    paths: U32
    operations: U8


class RouteDecoder:
    """Decodes route messages of the followed tables and protocols.

    Keyword Args:
        tables: tables to follow.
        protocols: route protocols to follow, None for all.
        ignored: route protocols never to follow.
        paths: where path ids come from.
        knows_nexthop: whether a next-hop object's id is known (its own table says what it leads to).
        from_zebra: the messages are zebra's own, not a kernel's (its FPM): it has one route of a prefix, so
            that every RTM_NEWROUTE sets and every RTM_DELROUTE, which has no route type, deletes; paths keep
            their protocol, and a delete has the path `ABSENT`.

    Attributes:
        skipped: routes of followed tables and protocols that were passed over, by reason.
    """

    def __init__(
        self,
        *,
        tables: Collection[int],
        protocols: frozenset[int] | None,
        ignored: frozenset[int] = frozenset(),
        paths: PathIds,
        knows_nexthop: Callable[[int], bool] = lambda _: False,
        from_zebra: bool = False,
    ) -> None:
        self.skipped: Counter[str] = Counter()
        self._tables = np.array(sorted(tables), np.uint32)
        self._followed = np.full(256, protocols is None)
        self._followed[list(protocols or ())] = True
        self._followed[list(ignored)] = False
        self._paths = paths
        self._knows_nexthop = knows_nexthop
        self._from_zebra = from_zebra
        self._value_bits = _TYPE_BITS | (_PROTOCOL_BITS if from_zebra else np.uint32(0))
        self._layouts: dict[bytes, _Layout] = {}

    def decode(self, messages: Messages) -> list[RouteBatch]:
        """Return the routes, one batch per family and table, each in the order of the messages.

        A route of ours that was replaced by one that is not followed is a DELETE with the path `ABSENT`:
        whatever was held under that prefix and metric has gone.

        Raises:
            NetlinkDecodeError: the bytes are not route messages as rtnetlink.h defines them.
        """
        parts = {Family.IPV4: [], Family.IPV6: []}  # type: dict[Family, list[_Columns]]
        lengths = messages.lengths
        if not len(lengths):
            return []
        if lengths.min() == lengths.max():
            self._decode_length(messages, np.arange(len(lengths)), parts)
        else:
            for length in np.unique(lengths):
                self._decode_length(messages, np.flatnonzero(lengths == length), parts)
        batches: list[RouteBatch] = []
        for family, columns in parts.items():
            batches += _batches(family, columns)
        return batches

    def _decode_length(self, messages: Messages, numbers: I64, parts: dict[Family, list[_Columns]]) -> None:
        first = int(messages.starts[numbers[0]])
        length = int(messages.lengths[numbers[0]])
        if length < _RTMSG_END:
            raise NetlinkDecodeError(
                first, found=f"a route message of {length} bytes", expected="at least 28"
            )
        matrix = _matrix(messages, numbers, (length + 3) & ~3)
        while len(numbers):
            layout = self._layout(matrix[0], first, length)
            same = matrix[:, layout.words[0]] == layout.held[0]
            for word, held in zip(layout.words[1:], layout.held[1:], strict=True):
                same &= matrix[:, word] == held
            same &= (matrix[:, 4] & np.uint32(0xFF)) == layout.family
            if same.all():
                self._decode_layout(layout, matrix, numbers, parts[layout.family])
                return
            self._decode_layout(layout, matrix[same], numbers[same], parts[layout.family])
            matrix, numbers = matrix[~same], numbers[~same]
            first = int(messages.starts[numbers[0]])

    def _layout(self, row: U32, offset: int, length: int) -> _Layout:
        """Return the layout of a message, learning it if it is new."""
        data = row.tobytes()
        places: dict[int, tuple[int, int]] = {}
        words = [0]
        try:
            for kind, at, size in attributes(data, _RTMSG_END, length):
                places[kind] = (at, size)
                words.append((at >> 2) - 1)
        except NetlinkDecodeError as error:
            raise NetlinkDecodeError(
                offset + error.offset, found=error.found, expected=error.expected
            ) from None
        index = np.array(words, np.int64)
        held: U32 = row[index]
        key = bytes((data[16],)) + index.tobytes() + held.tobytes()
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._learn(data, offset, places, index, held)
            if len(self._layouts) >= _LAYOUTS_KEPT:
                self._layouts.clear()
            self._layouts[key] = layout
        if layout.epoch != self._paths.epoch:
            layout.slot_ids[:] = ABSENT
            layout.epoch = self._paths.epoch
        return layout

    def _learn(
        self, data: bytes, offset: int, places: dict[int, tuple[int, int]], index: I64, held: U32
    ) -> _Layout:
        if data[16] not in (Family.IPV4, Family.IPV6):
            raise NetlinkDecodeError(
                offset + 16, found=f"route family {data[16]}", expected="AF_INET (2) or AF_INET6 (10)"
            )
        family = Family(data[16])
        sizes = {
            c.RTA_DST: family.address_bytes,
            c.RTA_TABLE: 4,
            c.RTA_PRIORITY: 4,
            c.RTA_OIF: 4,
            c.RTA_NH_ID: 4,
        }
        for kind, size in sizes.items():
            at, found = places.get(kind, (0, size))
            if found != size:
                raise NetlinkDecodeError(
                    offset + at, found=f"attribute {kind} of {found} bytes", expected=f"{size} bytes"
                )
        path_words = [
            word
            for kind in _PATH_ATTRIBUTES
            if kind in places
            for word in range(places[kind][0] >> 2, (places[kind][0] + places[kind][1] + 3) >> 2)
        ]
        width = _CONSTANT_VALUES + len(path_words)
        bits = max(_FEWEST_SLOT_BITS, min(_MOST_SLOT_BITS, (_SLOT_WORDS // width).bit_length() - 1))
        return _Layout(
            family,
            index,
            held,
            places,
            path_words,
            slot_shift=np.uint64(64 - bits),
            slot_ids=np.zeros(1 << bits, np.uint32),
            slot_values=np.zeros((1 << bits, width), np.uint32),
            epoch=self._paths.epoch,
        )

    def _decode_layout(
        self, layout: _Layout, matrix: NDArray[np.uint32], numbers: I64, parts: list[_Columns]
    ) -> None:
        kinds, described, flags = matrix[:, 4], matrix[:, 5], matrix[:, 6]
        types, deleted = matrix[:, 1], (matrix[:, 1] & np.uint32(0xFFFF)) == c.RTM_DELROUTE
        tables = matrix[:, at] if (at := layout.word(c.RTA_TABLE)) else described & np.uint32(0xFF)
        relevant = np.isin(tables, self._tables) if len(self._tables) != 1 else tables == self._tables[0]
        followed = self._followed[(described >> np.uint32(8)) & np.uint32(0xFF)]
        forwarded = _MEANT_FOR_FIB[described >> np.uint32(24)]
        if self._from_zebra:
            forwarded = forwarded | deleted
        cloned = (flags & np.uint32(c.RTM_F_CLONED)) != 0
        plain = (kinds & np.uint32(0xFFFF0000)) == 0
        keys = _keys(layout, matrix, kinds)
        local = _link_scope(layout, keys)
        kept = relevant & followed & forwarded & ~cloned & plain & ~local
        # a replacement by something we do not hold is the end of what we held
        ended = (
            relevant & ~deleted & ~(followed & forwarded) & ~cloned & plain & ~local
            & ((types >> np.uint32(16) & np.uint32(c.NLM_F_REPLACE)) != 0)
        )  # fmt: skip
        everything = bool(kept.all())
        if not everything:
            self._count_skipped(relevant & followed, described, forwarded, cloned, kinds, local)
            chosen = np.flatnonzero(kept | ended)
            if not len(chosen):
                return
            matrix, numbers, keys = matrix[chosen], numbers[chosen], keys[chosen]
            tables, deleted, ended = tables[chosen], deleted[chosen], ended[chosen]
        metrics = (
            matrix[:, at].copy() if (at := layout.word(c.RTA_PRIORITY)) else np.zeros(len(matrix), np.uint32)
        )
        operations = (
            np.full(len(matrix), Operation.SET, np.uint8) if self._from_zebra else _operations(layout, matrix)
        )
        operations[deleted | ended] = Operation.DELETE
        pathless = deleted | ended if self._from_zebra else ended
        if pathless.any():
            paths = np.full(len(matrix), ABSENT, np.uint32)
            live = np.flatnonzero(~pathless)
            paths[live] = self._path_ids(layout, matrix[live])
        else:
            paths = self._path_ids(layout, matrix)
        parts.append(_Columns(numbers, np.ascontiguousarray(tables), keys, metrics, paths, operations))

    def _path_ids(self, layout: _Layout, matrix: NDArray[np.uint32]) -> U32:
        """Return the path id of each row; see the module's text for how."""
        values = [matrix[:, 1] & _KIND_BITS, matrix[:, 5] & self._value_bits, matrix[:, 6] & _FLAG_BITS]
        values += [matrix[:, word] for word in layout.path_words]
        mixed = np.zeros(len(matrix), np.uint64)
        for value in values:
            mixed ^= value
            mixed *= _PRIME
            mixed ^= mixed >> np.uint64(32)
        slots = (mixed * _PRIME) >> layout.slot_shift
        found, hit = _look_up(layout, slots, values)
        if hit.all():
            return found
        ids = np.zeros(len(matrix), np.uint32)
        waiting = np.arange(len(matrix))
        while True:
            found, hit = _look_up(layout, slots[waiting], [value[waiting] for value in values])
            ids[waiting[hit]] = found[hit]
            waiting = waiting[~hit]
            if not len(waiting):
                return ids
            self._fill_slots(layout, matrix, slots, values, waiting)

    def _fill_slots(
        self,
        layout: _Layout,
        matrix: NDArray[np.uint32],
        slots: U64,
        values: list[U32],
        waiting: I64,
    ) -> None:
        """Put one waiting value into each slot that is wanted."""
        _, first = np.unique(slots[waiting], return_index=True)
        for row in waiting[first]:
            path = parse_path(matrix[row].tobytes(), layout.places, self._knows_nexthop)
            if self._from_zebra:
                path = replace(path, protocol=int(matrix[row, 5] >> np.uint32(8)) & 0xFF)
            slot = slots[row]
            layout.slot_ids[slot] = self._paths.id(path)
            layout.slot_values[slot] = [value[row] for value in values]

    def _count_skipped(
        self, ours: Mask, described: U32, forwarded: Mask, cloned: Mask, kinds: U32, local: Mask
    ) -> None:
        reasons = {
            "cloned": cloned,
            "tos": (kinds >> np.uint32(24)) != 0,
            "source-prefix": (kinds & np.uint32(0xFF0000)) != 0,
            "link-scope": local,
        }
        left = ours.copy()
        for reason, mask in reasons.items():
            number = int(np.count_nonzero(left & mask))
            if number:
                self.skipped[reason] += number
            left &= ~mask
        for number in described[left & ~forwarded] >> np.uint32(24):
            self.skipped[f"type-{_type_name(int(number))}"] += 1


def _look_up(layout: _Layout, slots: U64, values: list[U32]) -> tuple[U32, Mask]:
    """Return the ids in some slots, and whether each slot holds exactly the row's value."""
    found: U32 = layout.slot_ids[slots]
    hit: Mask = found != ABSENT
    for number, value in enumerate(values):
        hit &= layout.slot_values[slots, number] == value
    return found, hit


def route_places(message: bytes) -> dict[int, tuple[int, int]]:
    """Return offset and length of the payload of each attribute of one route message, by type.

    Raises:
        NetlinkDecodeError: it is shorter than a route message, or an attribute's length is impossible.
    """
    if len(message) < _RTMSG_END:
        raise NetlinkDecodeError(0, found=f"a route message of {len(message)} bytes", expected="at least 28")
    return {kind: (at, size) for kind, at, size in attributes(message, _RTMSG_END, len(message))}


def _type_name(number: int) -> str:
    try:
        return RouteType(number).name.lower()
    except ValueError:
        return str(number)


def _matrix(messages: Messages, numbers: I64, stride: int) -> NDArray[np.uint32]:
    """Return messages of one length as rows of words: a view if they follow each other, else a copy."""
    first, last = int(messages.starts[numbers[0]]), int(messages.starts[numbers[-1]])
    if last - first == stride * (len(numbers) - 1):
        view: NDArray[np.uint32] = np.ndarray(
            (len(numbers), stride // 4), np.uint32, messages.buffer, first, (stride, 4)
        )
        return view
    index = (messages.starts[numbers] >> 2)[:, None] + np.arange(stride // 4)
    rows: NDArray[np.uint32] = messages.words[index]
    return rows


def _keys(layout: _Layout, matrix: NDArray[np.uint32], kinds: U32) -> U64:
    """Return prefix keys, refusing lengths and host bits that no kernel sends."""
    lengths = (kinds >> np.uint32(8)) & np.uint32(0xFF)
    longest = 8 * layout.family.address_bytes
    at = layout.word(c.RTA_DST)
    if at is None:
        wrong = lengths != 0
        keys: U64 = np.zeros((len(matrix), layout.family.key_width), np.uint64)
    elif layout.family is Family.IPV4:
        address = byteswapped(matrix[:, at])
        wrong = lengths > longest
        wrong |= (address & ~_V4_MASKS[np.minimum(lengths, longest)]) != 0
        keys = ((address.astype(np.uint64) << np.uint64(8)) | lengths)[:, None]
    else:
        high = joined(matrix[:, at], matrix[:, at + 1])
        low = joined(matrix[:, at + 2], matrix[:, at + 3])
        wrong = lengths > longest
        shown = np.minimum(lengths, longest)
        wrong |= ((high & ~_V6_HIGH_MASKS[shown]) | (low & ~_V6_LOW_MASKS[shown])) != 0
        keys = np.stack((high, low, lengths.astype(np.uint64)), axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise NetlinkDecodeError(
            17,
            found=f"an {layout.family.label} prefix of length {int(lengths[row])} (message row {row})"
            + ("" if at else " without a destination"),
            expected=f"a length up to {longest} and no bits beyond it",
        )
    return keys


def _link_scope(layout: _Layout, keys: U64) -> Mask:
    """Return which rows are link-local or multicast IPv6 (fe80::/10, ff00::/8): the host's own business."""
    if layout.family is Family.IPV4:
        return np.zeros(len(keys), np.bool_)
    top = keys[:, 0] >> np.uint64(48)
    local: Mask = ((top & np.uint64(0xFFC0)) == 0xFE80) & (keys[:, 2] >= 10)
    local |= ((top & np.uint64(0xFF00)) == 0xFF00) & (keys[:, 2] >= 8)
    return local


def _operations(layout: _Layout, matrix: NDArray[np.uint32]) -> U8:
    """Return what each RTM_NEWROUTE says of the other routes of its prefix and metric.

    IPv4 marks a route that nothing was beside (EXCL), one put behind others (APPEND), one that replaced the
    first (REPLACE), and leaves the one put before others bare. IPv6 gathers routes with gateways into one
    and reports the whole; those without gateway stay apart, the first is in use, and only REPLACE is marked.
    """
    flags = matrix[:, 1] >> np.uint32(16)
    operations = np.full(len(matrix), Operation.SET, np.uint8)
    replaced = (flags & np.uint32(c.NLM_F_REPLACE)) != 0
    if layout.family is Family.IPV4:
        bare = (flags & np.uint32(c.NLM_F_CREATE | c.NLM_F_EXCL)) == c.NLM_F_CREATE
        operations[bare & ~replaced] = Operation.PREPEND
        operations[(flags & np.uint32(c.NLM_F_APPEND)) != 0] = Operation.APPEND
    elif not layout.places.keys() & _GATEWAYS:
        unicast = (matrix[:, 5] >> np.uint32(24)) == RouteType.UNICAST
        operations[unicast & ~replaced] = Operation.APPEND
    operations[(flags & np.uint32(c.NLM_F_MULTI)) != 0] = Operation.FOUND
    return operations


def _batches(family: Family, parts: list[_Columns]) -> list[RouteBatch]:
    """Put the rows of all layouts back into the order of their messages, one batch per table."""
    if not parts:
        return []
    whole = parts[0]
    if len(parts) > 1:
        numbers = np.concatenate([p.numbers for p in parts])
        order = np.argsort(numbers, kind="stable")
        whole = _Columns(
            numbers[order],
            np.concatenate([p.tables for p in parts])[order],
            np.concatenate([p.keys for p in parts])[order],
            np.concatenate([p.metrics for p in parts])[order],
            np.concatenate([p.paths for p in parts])[order],
            np.concatenate([p.operations for p in parts])[order],
        )
    batches: list[RouteBatch] = []
    for table in np.unique(whole.tables):
        rows: Mask | slice = whole.tables == table
        if isinstance(rows, np.ndarray) and rows.all():
            rows = slice(None)
        batches.append(
            RouteBatch(
                family,
                int(table),
                whole.keys[rows],
                whole.metrics[rows],
                whole.paths[rows],
                whole.operations[rows],
            )
        )
    return batches
