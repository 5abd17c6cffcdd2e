"""What VPP forwards by, whoever wrote it: of each prefix the best source, of its paths the preferred ones.

Messages: ``ip_route_v2_dump`` and ``ip_route_lookup_v2`` (src/vnet/ip/ip.api), without naming a source. Of
the paths of an entry those with the lowest preference are used (src/vnet/fib/fib_path_list.c), which is where
linux-nl puts the kernel's metric. A path through an entry of another table leads where that entry does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from router_agent.fibs.fib import FibError
from router_agent.model import (
    U8,
    U32,
    U64,
    Family,
    Interner,
    Path,
    PathSet,
    RouteType,
    key_addresses,
    key_lengths,
    v4_keys,
    v6_keys,
)
from router_agent.vpp import layout
from router_agent.vpp.routes import NO_INTERFACE
from router_agent.vpp.session import VppSession
from router_agent.vpp.stream import HEADER, Frames, framed

from .routes import Routes, empty, lowest_terms

_SPECIAL = {
    "DROP": RouteType.BLACKHOLE,
    "ICMP_UNREACH": RouteType.UNREACHABLE,
    "ICMP_PROHIBIT": RouteType.PROHIBIT,
}
_OTHER = RouteType.LOCAL
"""What a path reads as that no route of a routing daemon leads to."""


class Forwarding:
    """Reads a running VPP.

    Args:
        session: an open session.
        ports: sw_if_index to port number.
        ids: where ids of path sets come from.
    """

    def __init__(self, session: VppSession, ports: Mapping[int, int], ids: Interner[PathSet]) -> None:
        self._session = session
        self._ports = dict(ports)
        self._ids = ids
        details = session.message("ip_route_v2_details")
        self._address = {
            Family.IPV4: layout.field(details, "route.prefix.address.un.ip4", size=4).at(HEADER.size),
            Family.IPV6: layout.field(details, "route.prefix.address.un.ip6", size=16).at(HEADER.size),
        }
        self._length = layout.field(details, "route.prefix.len", size=1).at(HEADER.size).start
        self._paths_at = layout.field(details, "route.n_paths", size=1).at(HEADER.size).start
        self._types = {
            value: name.removeprefix("FIB_API_PATH_TYPE_")
            for name, value in session.enumeration("vl_api_fib_path_type_t").items()
        }
        self._six = session.enumeration("vl_api_fib_path_nh_proto_t")["FIB_API_PATH_NH_PROTO_IP6"]
        self._known: dict[bytes, int] = {}
        self._entries: dict[tuple[int, bytes], PathSet] = {}
        """Where the entries of other tables lead, by table and address."""

    async def refresh(self) -> None:
        """Read the other tables, through whose entries routes of the default one may lead."""
        self._entries.clear()
        self._known.clear()
        for entry in await self._session.call("ip_table_dump"):
            family, table = Family.IPV6 if entry.table.is_ip6 else Family.IPV4, int(entry.table.table_id)
            if table == 0:
                continue
            found = await self._read(family, table)
            for address, number in zip(key_addresses(found.keys), found.paths.tolist(), strict=True):
                self._entries[table, address.tobytes()] = self._ids[number]

    async def read(self, family: Family) -> Routes:
        """Return all entries of the default table."""
        await self.refresh()
        return await self._read(family, 0)

    async def _read(self, family: Family, number: int) -> Routes:
        session = self._session
        table = {"table_id": number, "is_ip6": family is Family.IPV6, "name": ""}
        request = framed(session.pack("ip_route_v2_dump", context=1, src=0, table=table))
        request += framed(session.pack("control_ping", context=1))
        details, end = session.message_id("ip_route_v2_details"), session.message_id("control_ping_reply")
        parts: list[Routes] = []
        async with session.stream.lock:
            async for frames in session.stream.dump(request, end):
                rows = Frames(frames.rows[frames.message_ids == details]).rows
                if len(rows):
                    parts.append(self._decode(family, rows))
        if not parts:
            return empty(family)
        return Routes(np.concatenate([p.keys for p in parts]), np.concatenate([p.paths for p in parts]))

    async def look_up(self, family: Family, key: U64) -> PathSet | None:
        """Return where one prefix leads, None where VPP has no entry of exactly it."""
        address = key_addresses(key[None])[0].tobytes()
        prefix = {
            "address": {
                "af": int(family is Family.IPV6),
                "un": {"ip6" if family is Family.IPV6 else "ip4": address},
            },
            "len": int(key_lengths(key[None])[0]),
        }
        try:
            answer = await self._session.call("ip_route_lookup_v2", table_id=0, exact=1, prefix=prefix)
        except FibError as error:
            if "no such entry" in str(error):
                return None
            raise
        return self._where(answer.route.paths)

    def _decode(self, family: Family, rows: U8) -> Routes:
        lengths = rows[:, self._length].copy()
        addresses = np.ascontiguousarray(rows[:, self._address[family]])
        paths = self._path_ids(np.ascontiguousarray(rows[:, self._paths_at :]))
        if family is Family.IPV4:
            return Routes(v4_keys(addresses.view(">u4")[:, 0].astype(np.uint32), lengths), paths)
        halves = addresses.view(">u8").astype(np.uint64)
        return Routes(v6_keys(halves[:, 0], halves[:, 1], lengths), paths)

    def _path_ids(self, parts: U8) -> U32:
        """Return the path id of each row; `parts` is the message from ``n_paths`` to its end."""
        whole = parts.view(np.dtype((np.void, parts.shape[1])))[:, 0]
        distinct, inverse = np.unique(whole, return_inverse=True)
        return np.array([self._path_id(part.tobytes()) for part in distinct], np.uint32)[inverse]

    def _path_id(self, part: bytes) -> int:
        known = self._known.get(part)
        if known is None:
            before = bytes(self._paths_at - HEADER.size)
            message, _ = self._session.message("ip_route_v2_details").unpack(before + part, ntc=True)
            known = self._known[part] = self._ids.id(self._where(message.route.paths))
        return known

    def _where(self, paths: Any) -> PathSet:
        best = min((int(path.preference) for path in paths), default=0)
        used = [path for path in paths if int(path.preference) == best]
        names = {self._types.get(int(path.type), "") for path in used}
        if names == {"NORMAL"}:
            through = self._entries.get((int(used[0].table_id), self._gateway(used[0])))
            if through is not None and len(used) == 1 and used[0].sw_if_index == NO_INTERFACE:
                return through
            return lowest_terms(PathSet.unicast(*(self._leg(path) for path in used)))
        return PathSet(_SPECIAL.get(names.pop(), _OTHER) if len(names) == 1 else _OTHER)

    def _leg(self, path: Any) -> Path:
        gateway = self._gateway(path)
        port = self._ports.get(int(path.sw_if_index), -1)
        labels = tuple(int(entry.label) for entry in path.label_stack[: path.n_labels])
        return Path(port, gateway if any(gateway) else b"", max(1, int(path.weight)), labels)

    def _gateway(self, path: Any) -> bytes:
        address = path.nh.address
        return _bytes(address.ip6 if int(path.proto) == self._six else address.ip4)


def _bytes(address: Any) -> bytes:
    """Return an address of a message that vpp_papi has or has not converted."""
    packed: bytes = address.packed if hasattr(address, "packed") else bytes(address)
    return packed
