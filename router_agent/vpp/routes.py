"""Routes to and from VPP's messages, a chunk at a time.

A route request is the same for every prefix of one path set, except for context, address and length. So
vpp_papi packs one template per (path set, family, table), and NumPy copies it and patches the columns. The
other way, the path part of the dump is taken apart once for each distinct sequence of bytes.

A path may lead through an entry of a next-hop table (`router_agent.vpp.entries`): its interface is then
`THROUGH_ENTRY` and its gateway the entry's address.

Messages: ``ip_route_add_del_v2``, ``ip_route_v2_dump`` (src/vnet/ip/ip.api) and ``fib_path``
(src/vnet/fib/fib_types.api). Interfaces in path sets are sw_if_index + 1, so that 0 can mean "VPP resolves
the gateway itself", for which the API has sw_if_index ~0.

How path sets map, and what VPP makes of them:

- blackhole, unreachable, prohibit: one path of type drop, icmp-unreach, icmp-prohibit.
- a leg without gateway: an attached path. VPP turns an attached path of a host prefix (/32, /128) into one
  whose next hop is the prefix itself (``fib_table_route_path_fixup``); reading turns it back.
- labels: pushed in uniform mode, so that the time to live goes on into the labels as the kernel's does
  (net.mpls.ip_ttl_propagate) and a label switched path shows in a traceroute. The dump tells no mode.
- VPP keeps paths sorted, weights as given (u8). `normal_weights` brings the kernel's 1 to 256 into that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_agent.model import (
    I32,
    I64,
    U8,
    U32,
    U64,
    Family,
    Interner,
    Mask,
    Path,
    PathSet,
    RouteType,
    key_addresses,
    key_lengths,
    v4_keys,
    v6_keys,
)
from router_agent.vpp import layout
from router_agent.vpp.session import VppSession
from router_agent.vpp.stream import HEADER, Frames, ReplyLayout, framed

NO_INTERFACE = 0xFFFFFFFF
"""``~0``: no sw_if_index."""

THROUGH_ENTRY = -1
"""In place of the interface of a path: it leads through an entry of the next-hop table of its family."""

MOST_PATHS = 255
"""``n_paths`` is a u8."""

MOST_LABELS = 16
"""``label_stack`` has a place for each."""

HEAVIEST = 255
"""``weight`` is a u8; 0 is read as 1."""

MESSAGES: dict[str, tuple[str, ...]] = {
    "ip_route_add_del_v2": (
        "client_index",
        "context",
        "is_add",
        "is_multipath",
        "route.table_id",
        "route.prefix.address.af",
        "route.prefix.address.un.ip4",
        "route.prefix.address.un.ip6",
        "route.prefix.len",
        "route.n_paths",
        "route.src",
        "route.paths.sw_if_index",
        "route.paths.table_id",
        "route.paths.weight",
        "route.paths.preference",
        "route.paths.type",
        "route.paths.proto",
        "route.paths.nh.address",
        "route.paths.n_labels",
        "route.paths.label_stack",
    ),
    "ip_route_add_del_v2_reply": ("context", "retval"),
    "ip_route_v2_dump": ("context", "src", "table.table_id", "table.is_ip6"),
    "ip_route_v2_details": (
        "route.table_id",
        "route.prefix.address.un.ip4",
        "route.prefix.address.un.ip6",
        "route.prefix.len",
        "route.n_paths",
        "route.src",
        "route.paths",
    ),
    "control_ping": ("context",),
    "control_ping_reply": ("context",),
}
"""What the codec needs of VPP's API, for `VppSession.require`."""

_NORMAL, _DROP, _UNREACH, _PROHIBIT = "NORMAL", "DROP", "ICMP_UNREACH", "ICMP_PROHIBIT"
_TYPE_PREFIX = "FIB_API_PATH_TYPE_"
_SPECIAL = {
    RouteType.BLACKHOLE: _DROP,
    RouteType.UNREACHABLE: _UNREACH,
    RouteType.PROHIBIT: _PROHIBIT,
}
_LOCAL = "LOCAL"
_FOREIGN_TYPE = RouteType.THROW
"""What a path reads as that we never write; it equals nothing that is wanted, and so is replaced."""


def _network_masks(family: Family) -> U8:
    """Return the netmask of every prefix length, in network byte order: shape (lengths, bytes)."""
    bits = 8 * family.address_bytes
    masks = [((1 << length) - 1) << (bits - length) for length in range(bits + 1)]
    return np.array([list(mask.to_bytes(family.address_bytes, "big")) for mask in masks], np.uint8)


_NETWORK_MASKS = {family: _network_masks(family) for family in Family}


class RouteCodec:
    """Packs and unpacks routes of one FIB source.

    Args:
        session: an open session; layouts, ids and packers come from it.
        source: number of our FIB source.
        interner: path sets in VPP's terms; shared with whoever made the ids.
        next_hop_tables: VPP table id of the next-hop table of each family, where there is one.

    Raises:
        FibError: VPP's API lacks a message or a field the codec needs.
    """

    def __init__(
        self,
        session: VppSession,
        source: int,
        interner: Interner[PathSet],
        next_hop_tables: Mapping[Family, int] | None = None,
    ) -> None:
        session.require(MESSAGES)
        self._session = session
        self._source = source
        self._interner = interner
        self._next_hop_tables = dict(next_hop_tables or {})
        self._heads: dict[tuple[bool, Family, int], bytes] = {}
        self._legs: dict[tuple[Path, str, Family, int], bytes] = {}
        self._templates: dict[tuple[int, Family, int], U8] = {}
        self._known_paths: dict[tuple[Family, int, bytes], int] = {}
        request = session.message("ip_route_add_del_v2")
        reply = session.message("ip_route_add_del_v2_reply")
        details = session.message("ip_route_v2_details")
        framing = HEADER.size
        self._labels = layout.elements(request, "route.paths.label_stack")
        self._context = layout.field(request, "context", size=4).at(framing)
        self._address = _addresses(request, framing)
        self._length = layout.field(request, "route.prefix.len", size=1).at(framing).start
        self._paths_count = layout.field(request, "route.n_paths", size=1).start
        self._client = layout.field(request, "client_index", size=4).at(framing)
        self.reply = ReplyLayout(
            message_id=session.message_id("ip_route_add_del_v2_reply"),
            length=framing + layout.fixed_size(reply),
            context=layout.field(reply, "context", size=4).at(framing).start,
            retval=layout.field(reply, "retval", size=4).at(framing).start,
        )
        self._ping_reply_id = session.message_id("control_ping_reply")
        self._details_id = session.message_id("ip_route_v2_details")
        self._details_address = _addresses(details, framing)
        self._details_length = layout.field(details, "route.prefix.len", size=1).at(framing).start
        self._details_table = layout.field(details, "route.table_id", size=4).at(framing)
        self._details_paths_count = layout.field(details, "route.n_paths", size=1).at(framing).start
        self._details_paths = layout.field(details, "route.paths").at(framing).start
        self._path_size = layout.fixed_size(layout.kind(details, "route.paths"))
        path = session.message("ip_route_v2_details")
        self._next_hop = layout.field(path, "route.paths.nh.address").start + framing - self._details_paths
        self._interface = layout.field(path, "route.paths.sw_if_index", size=4).at(framing).start
        self._interface -= self._details_paths
        self._path_types = session.enumeration("vl_api_fib_path_type_t")
        self._next_hop_protocols = session.enumeration("vl_api_fib_path_nh_proto_t")
        self._type_names = {
            value: name.removeprefix(_TYPE_PREFIX) for name, value in self._path_types.items()
        }

    def forget(self) -> None:
        """Forget what path ids stand for: some were given up, and will stand for something else."""
        self._templates.clear()
        self._known_paths.clear()
        self._legs.clear()

    async def write(self, family: Family, table: int, keys: U64, paths: U32, window: int) -> I32:
        """Make VPP hold these routes; return VPP's answer to each (0, or an error number below it).

        Args:
            family: address family of the keys.
            table: VPP table id.
            keys: prefix keys, (n, family.key_width), distinct.
            paths: path ids; `ABSENT` deletes.
            window: most requests unanswered at any time.

        Raises:
            FibLostError: VPP went away; some may have been written and some not.
        """
        order = np.empty(len(keys), np.int64)

        def encode(start: int, count: int, context: int) -> memoryview:
            rows = slice(start, start + count)
            data, turn = self.encode(family, table, keys[rows], paths[rows], context)
            order[rows] = turn + start
            return data.data

        stream = self._session.stream
        async with stream.lock:
            retvals = await stream.transact(len(keys), encode, self.reply, window)
        answers = np.empty(len(keys), np.int32)
        answers[order] = retvals
        return answers

    async def read(self, family: Family, table: int) -> list[tuple[U64, U32]]:
        """Return the keys and path ids of all routes of our source in a table, in chunks.

        VPP makes a dump in one go and keeps in its heap what is not taken, so it is taken and packed as fast
        as it comes: 12 bytes an IPv4 route, 28 an IPv6 one.

        Raises:
            FibLostError: VPP went away.
        """
        chunks: list[tuple[U64, U32]] = []
        stream = self._session.stream
        async with stream.lock:
            async for frames in stream.dump(self.dump_request(family, table), self._ping_reply_id):
                ours = frames.message_ids == self._details_id
                if not ours.all():
                    stream.hand_to_foreign(Frames(frames.rows[~ours]))
                    frames = Frames(frames.rows[ours])
                if len(frames.rows):
                    chunks.append(self.decode(family, table, frames))
        return chunks

    def encode(
        self, family: Family, table: int, keys: U64, paths: U32, context: int
    ) -> tuple[NDArray[np.uint8], I64]:
        """Return framed requests that make VPP hold these routes, and the order they are in.

        Args:
            family: address family of the keys.
            table: VPP table id.
            keys: prefix keys, (n, family.key_width).
            paths: path ids; `ABSENT` deletes.
            context: context of the first request; they count up, modulo 2**32.

        Returns:
            A flat ``uint8`` array, and the row number of each request in it.
        """
        first = int(paths[0])
        if (paths == first).all():
            rows = self._patched(
                self._template(first, family, table)[None], np.zeros(len(keys), np.intp), keys
            )
            self._number(rows, context)
            return rows.reshape(-1), np.arange(len(keys))
        ids, which = np.unique(paths, return_inverse=True)
        templates = [self._template(int(number), family, table) for number in ids]
        sizes = np.array([len(template) for template in templates])
        parts, orders, done = [], [], 0
        for size in np.unique(sizes).tolist():
            group = np.flatnonzero(sizes[which] == size)
            place = np.cumsum(sizes == size) - 1
            stack = np.stack([template for template in templates if len(template) == size])
            rows = self._patched(stack, place[which[group]], keys[group])
            self._number(rows, context + done)
            done += len(group)
            parts.append(rows.reshape(-1))
            orders.append(group)
        if len(parts) == 1:
            return parts[0], orders[0]
        return np.concatenate(parts), np.concatenate(orders)

    def request(
        self, family: Family, table: int, key: U64, paths: PathSet | None, *, context: int, client: int
    ) -> bytes:
        """Return a framed request for one route that another client of VPP sends.

        Args:
            family: address family of the key.
            table: VPP table id.
            key: prefix key, shape (1, family.key_width).
            paths: what it shall lead to; None deletes.
            context: sent back with the answer, in the byte order of `ReplyLayout`.
            client: client index of the connection it is sent on.
        """
        row = np.frombuffer(framed(self._packed(paths, family, table)), np.uint8)[None].copy()
        row[:, self._address[family]] = key_addresses(key)
        row[:, self._length] = key_lengths(key)
        row[0, self._client] = np.frombuffer(client.to_bytes(4, "big"), np.uint8)
        self._number(row, context)
        return row.tobytes()

    def dump_request(self, family: Family, table: int) -> bytes:
        """Return framed requests for all routes of our source in a table, closed by a ping."""
        session = self._session
        dump = session.pack(
            "ip_route_v2_dump",
            context=1,
            src=self._source,
            table={"table_id": table, "is_ip6": family is Family.IPV6, "name": ""},
        )
        return framed(dump) + framed(session.pack("control_ping", context=1))

    def decode(self, family: Family, table: int, frames: Frames) -> tuple[U64, U32]:
        """Return keys and path ids of the routes in ``ip_route_v2_details`` messages of one length.

        The frames are altered: next hops that VPP derived from the prefix are cleared. Host bits are cleared
        too: an entry that began as an interface's address (198.51.100.1/24) keeps them for every source.
        """
        rows = frames.rows
        count = (rows.shape[1] - self._details_paths) // self._path_size
        address = self._details_address[family]
        lengths = np.ascontiguousarray(rows[:, self._details_length])
        addresses = np.ascontiguousarray(rows[:, address])
        self._clear_own_next_hops(rows, count, family, lengths, addresses)
        paths = self._path_ids(rows[:, self._details_paths_count :], family, table)
        addresses &= _NETWORK_MASKS[family][lengths]
        if family is Family.IPV4:
            return v4_keys(addresses.view(">u4")[:, 0].astype(np.uint32), lengths), paths
        halves = addresses.view(">u8").astype(np.uint64)
        return v6_keys(halves[:, 0], halves[:, 1], lengths), paths

    def _patched(self, templates: U8, which: NDArray[np.intp], keys: U64) -> U8:
        rows = templates[which]
        family = Family.IPV4 if keys.shape[1] == 1 else Family.IPV6
        rows[:, self._address[family]] = key_addresses(keys)
        rows[:, self._length] = key_lengths(keys)
        return rows

    def _number(self, rows: U8, context: int) -> None:
        contexts = np.arange(context, context + len(rows)).astype("<u4")
        rows[:, self._context] = contexts.view(np.uint8).reshape(-1, 4)

    def _template(self, number: int, family: Family, table: int) -> U8:
        """Return the framed request for a path id, with prefix and context zero."""
        found = self._templates.get((number, family, table))
        if found is not None:
            return found
        packed = self._packed(self._interner[number] if number else None, family, table)
        template = np.frombuffer(framed(packed), np.uint8)
        self._templates[number, family, table] = template
        return template

    def _packed(self, paths: PathSet | None, family: Family, table: int) -> bytes:
        """Return a request with prefix and context zero; None deletes.

        vpp_papi packs a request without paths and each leg once; a path set is put together of these. A table
        has few legs, and a leg that is lost makes new path sets of them all at once.
        """
        if paths is None:
            return self._head(False, family, table)
        special = _SPECIAL.get(paths.type)
        legs, kind = (paths.paths, _NORMAL) if special is None else ((Path(0),), special)
        request = bytearray(self._head(True, family, table))
        request[self._paths_count] = len(legs)
        for leg in legs:
            request += self._leg(leg, kind, family, table)
        return bytes(request)

    def _head(self, is_add: bool, family: Family, table: int) -> bytes:
        head = self._heads.get((is_add, family, table))
        if head is None:
            head = self._pack_route(is_add, family, table, [])
            self._heads[is_add, family, table] = head
        return head

    def _leg(self, leg: Path, kind: str, family: Family, table: int) -> bytes:
        packed = self._legs.get((leg, kind, family, table))
        if packed is None:
            request = self._pack_route(True, family, table, [self._api_path(leg, family, table, kind)])
            packed = request[len(self._head(True, family, table)) :]
            self._legs[leg, kind, family, table] = packed
        return packed

    def _pack_route(self, is_add: bool, family: Family, table: int, paths: list[dict[str, Any]]) -> bytes:
        return self._session.pack(
            "ip_route_add_del_v2",
            is_add=is_add,
            is_multipath=False,
            route={
                "table_id": table,
                "src": self._source,
                "prefix": {"address": {"af": int(family is Family.IPV6), "un": {}}, "len": 0},
                "n_paths": len(paths),
                "paths": paths,
            },
        )

    def _api_path(self, path: Path, family: Family, table: int, kind: str) -> dict[str, Any]:
        six = len(path.gateway) == Family.IPV6.address_bytes if path.gateway else family is Family.IPV6
        next_hop = {"ip6" if six else "ip4": path.gateway} if path.gateway else {}
        return {
            "sw_if_index": path.interface - 1 if path.interface > 0 else NO_INTERFACE,
            "table_id": self._looked_up_in(path, family, table),
            "weight": path.weight,
            "type": self._path_types[_TYPE_PREFIX + kind],
            "proto": self._next_hop_protocols[f"FIB_API_PATH_NH_PROTO_IP{6 if six else 4}"],
            "nh": {"address": next_hop},
            "n_labels": len(path.labels),
            "label_stack": [
                *({"is_uniform": 1, "label": label} for label in path.labels),
                *[{}] * (self._labels - len(path.labels)),
            ],
        }

    def _looked_up_in(self, path: Path, family: Family, table: int) -> int:
        if path.interface == THROUGH_ENTRY:
            return self._next_hop_tables[family]
        return 0 if path.interface else table

    def _clear_own_next_hops(self, rows: U8, count: int, family: Family, lengths: U8, addresses: U8) -> None:
        """Undo VPP's turning an attached host prefix into one with itself as next hop."""
        width = family.address_bytes
        hosts = np.flatnonzero(lengths == 8 * width)
        if not len(hosts):
            return
        own = addresses[hosts]
        for index in range(count):
            start = self._details_paths + index * self._path_size + self._next_hop
            at = slice(start, start + width)
            same = hosts[(rows[hosts, at] == own).all(axis=1)]
            rows[same, at] = 0

    def _path_ids(self, parts: U8, family: Family, table: int) -> U32:
        """Return the path id of each row; `parts` is the message from ``n_paths`` to its end."""
        varying = np.flatnonzero((parts != parts[0]).any(axis=0))
        if not len(varying):
            return np.full(len(parts), self._path_id(parts[0].tobytes(), family, table), np.uint32)
        first, inverse = _distinct(parts, varying)
        ids = [self._path_id(parts[row].tobytes(), family, table) for row in first]
        return np.array(ids, np.uint32)[inverse]

    def _path_id(self, part: bytes, family: Family, table: int) -> int:
        known = self._known_paths.get((family, table, part))
        if known is None:
            known = self._interner.id(self._parsed(part, family, table))
            self._known_paths[family, table, part] = known
        return known

    def _parsed(self, part: bytes, family: Family, table: int) -> PathSet:
        """Unpack the path part of a details message into a path set."""
        before = bytes(self._details_paths_count - HEADER.size)
        message, _ = self._session.message("ip_route_v2_details").unpack(before + part, ntc=True)
        paths = [self._parsed_path(path, family, table) for path in message.route.paths]
        types = {kind for kind, _ in paths}
        if types == {RouteType.UNICAST}:
            return PathSet.unicast(*(path for _, path in paths))
        if len(paths) == 1 and not types & {_FOREIGN_TYPE, RouteType.LOCAL}:
            return PathSet(types.pop())
        return PathSet(_FOREIGN_TYPE, tuple(sorted(path for _, path in paths)))

    def _parsed_path(self, path: Any, family: Family, table: int) -> tuple[RouteType, Path]:
        gateway = b""
        names = {value: name for name, value in self._next_hop_protocols.items()}
        protocol = names.get(int(path.proto), "")
        if protocol.endswith("IP4"):
            gateway = bytes(path.nh.address.ip4)
        elif protocol.endswith("IP6"):
            gateway = bytes(path.nh.address.ip6)
        gateway = gateway if any(gateway) else b""
        interface = 0 if path.sw_if_index == NO_INTERFACE else path.sw_if_index + 1
        if not interface and path.table_id == self._next_hop_tables.get(family):
            interface = THROUGH_ENTRY
        labels = tuple(int(entry.label) for entry in path.label_stack[: path.n_labels])
        leg = Path(interface, gateway, max(1, path.weight), labels)
        name = self._type_names.get(int(path.type), "")
        special = {kind: route for route, kind in _SPECIAL.items()}.get(name)
        if special is not None:
            return special, leg
        ordinary = name == _NORMAL and path.preference == 0
        own_table = interface or path.table_id == table
        return (RouteType.UNICAST if ordinary and own_table else _FOREIGN_TYPE), leg


def normal_weights(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return paths with legs that are the same merged and weights in lowest terms, at most `HEAVIEST`.

    Weights that do not fit are scaled down, none to less than 1. The order is that of `PathSet.unicast`.
    """
    weights: dict[Path, int] = {}
    for path in paths:
        leg = replace(path, weight=1)
        weights[leg] = weights.get(leg, 0) + path.weight
    terms = _lowest_terms(list(weights.values()))
    heaviest = max(terms, default=1)
    if heaviest > HEAVIEST:
        terms = _lowest_terms([max(1, term * HEAVIEST // heaviest) for term in terms])
    return tuple(sorted(replace(leg, weight=term) for leg, term in zip(weights, terms, strict=True)))


def _lowest_terms(weights: list[int]) -> list[int]:
    divisor = math.gcd(*weights)
    return [weight // divisor for weight in weights]


def _addresses(message: Any, framing: int) -> dict[Family, slice]:
    arms = {Family.IPV4: "ip4", Family.IPV6: "ip6"}
    return {
        family: layout.field(message, f"route.prefix.address.un.{arm}", size=family.address_bytes).at(framing)
        for family, arm in arms.items()
    }


def _distinct(parts: U8, columns: I64) -> tuple[I64, NDArray[np.intp]]:
    """Return a row number for each distinct content of some columns, and which of them each row has."""
    words = -(-len(columns) // 8)
    padded = np.zeros((len(parts), 8 * words), np.uint8)
    padded[:, : len(columns)] = parts[:, columns]
    keys: U64 = padded.view(np.uint64)
    if words == 1:
        _, first, inverse = np.unique(keys[:, 0], return_index=True, return_inverse=True)
        return first, inverse
    order = np.lexsort(keys.T)
    ordered = keys[order]
    fresh: Mask = np.ones(len(order), np.bool_)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    inverse = np.empty(len(order), np.intp)
    inverse[order] = np.cumsum(fresh) - 1
    return order[fresh], inverse
