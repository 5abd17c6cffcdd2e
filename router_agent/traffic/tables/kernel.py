"""A kernel's table, dumped over rtnetlink (linux/rtnetlink.h)."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from errno import ENOENT, EOPNOTSUPP

import numpy as np

from router_agent.model import I32, MAIN_TABLE, U32, U64, Family, Mask, PathSet, RouteType
from router_agent.namespaces import NamespaceError
from router_agent.netlink import constants as c
from router_agent.netlink import dumps
from router_agent.netlink.messages import NetlinkDecodeError, attribute
from router_agent.netlink.nexthops import REQUEST as NEXTHOP_REQUEST
from router_agent.netlink.nexthops import NexthopTable, parse_nexthop
from router_agent.netlink.paths import PathIds, path_set_of
from router_agent.netlink.routes import RouteDecoder
from router_agent.netlink.sockets import DumpInterruptedError, DumpSocket, NetlinkError
from router_agent.traffic.tables.live import UNKNOWN, LiveTable, TableError

_TRIES = 5
_RTMSG_BYTES = 12


def read_kernel_table(namespace: str | None, table: int = MAIN_TABLE) -> LiveTable:
    """Return a table of the kernel of a namespace.

    Raises:
        TableError: it cannot be read.
    """
    where = f"kernel table {table}" + (f" of namespace {namespace}" if namespace else "")
    try:
        return asyncio.run(_Reader(namespace, table, where).read())
    except (NetlinkError, NetlinkDecodeError, NamespaceError, DumpInterruptedError) as error:
        raise TableError(f"{where} cannot be read: {error}") from error


class _Reader:
    """Reads one table."""

    def __init__(self, namespace: str | None, table: int, where: str) -> None:
        self._namespace = namespace
        self._table = table
        self._where = where
        self._names: dict[int, int] = {}
        self._nexthops = NexthopTable()

    async def read(self) -> LiveTable:
        """Return the table; a dump during which it changed is made again."""
        names = {state.link.index: state.link.name for state in await dumps.links(self._namespace)}
        self._names = {index: position for position, index in enumerate(names)}
        try:
            found = await dumps.bodies(self._namespace, c.RTM_GETNEXTHOP, NEXTHOP_REQUEST)
        except NetlinkError as error:
            if error.number != EOPNOTSUPP:  # a kernel before 5.3 has none
                raise
            found = []
        self._nexthops.replace_all(parse_nexthop(body) for body in found)
        columns = {family: await self._family(family) for family in Family}
        return LiveTable(
            keys={family: column[0] for family, column in columns.items()},
            leaves_by={family: column[1] for family, column in columns.items()},
            others={family: column[2] for family, column in columns.items()},
            interfaces=tuple(names.values()),
            origin=self._where,
        )

    async def _family(self, family: Family) -> tuple[U64, I32, U64]:
        for attempt in range(1, _TRIES + 1):
            try:
                return await self._family_once(family)
            except DumpInterruptedError:
                if attempt == _TRIES:
                    raise
        raise AssertionError("unreachable")

    async def _family_once(self, family: Family) -> tuple[U64, I32, U64]:
        paths = PathIds()
        decoder = RouteDecoder(
            tables=(self._table,), protocols=None, paths=paths, knows_nexthop=self._nexthops.__contains__
        )
        low = self._table if self._table < 256 else 0
        request = bytes((family, 0, 0, 0, low)) + bytes(_RTMSG_BYTES - 5)
        request += attribute(c.RTA_TABLE, self._table.to_bytes(4, "little"))
        keys = [np.empty((0, family.key_width), np.uint64)]
        numbers, metrics = [np.empty(0, np.uint32)], [np.empty(0, np.uint32)]
        sock = DumpSocket(self._namespace)
        try:
            async with aclosing(sock.dump(c.RTM_GETROUTE, request)) as chunks:
                async for messages in chunks:
                    for batch in decoder.decode(messages):
                        keys.append(batch.keys)
                        numbers.append(batch.paths)
                        metrics.append(batch.metrics)
        except NetlinkError as error:
            if error.number != ENOENT:  # a table nobody has written to does not exist yet
                raise
        finally:
            sock.close()
        leaves_by, forwards = self._meaning(paths)
        return best(
            np.concatenate(keys), np.concatenate(numbers), np.concatenate(metrics), leaves_by, forwards
        )

    def _meaning(self, paths: PathIds) -> tuple[I32, Mask]:
        """Return, by path id, the position of the interface and whether it leads to a next hop."""
        leaves_by = np.full(paths.limit, UNKNOWN, np.int32)
        forwards = np.zeros(paths.limit, np.bool_)
        for number, path in paths.items():
            led = self._nexthops.resolve(path.nexthop) if path.nexthop else None
            found = led or path_set_of(path)
            if found is not None:
                leaves_by[number], forwards[number] = self._leg(found)
        return leaves_by, forwards

    def _leg(self, paths: PathSet) -> tuple[int, bool]:
        plain = all(leg.gateway and not leg.labels and not leg.tunnel for leg in paths.paths)
        if paths.type is not RouteType.UNICAST or not plain:
            return UNKNOWN, False
        interfaces = {leg.interface for leg in paths.paths}
        position = self._names.get(next(iter(interfaces)), UNKNOWN) if len(interfaces) == 1 else UNKNOWN
        return position, True


def best(keys: U64, numbers: U32, metrics: U32, leaves_by: I32, forwards: Mask) -> tuple[U64, I32, U64]:
    """Return prefixes that lead to next hops, the interface of each, and the other prefixes.

    Of several routes of a prefix the one with the least metric counts. Equal ones (IPv6 multipath of old
    kernels) are legs of one route: by different interfaces, nobody knows which.

    Args:
        keys: with duplicates, (n, width).
        numbers: path id of each.
        metrics: of each.
        leaves_by: by path id.
        forwards: by path id, whether it leads to a next hop.
    """
    order = np.lexsort((metrics, *keys.T[::-1]))
    keys, numbers, metrics = keys[order], numbers[order], metrics[order]
    first = np.ones(len(keys), np.bool_)
    first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    group = np.cumsum(first) - 1
    starts = np.flatnonzero(first)
    equal = metrics == metrics[starts][group] if len(keys) else first
    port = leaves_by[numbers]
    differs = equal & (port != port[starts][group]) if len(keys) else first
    unsure = np.zeros(len(starts), np.bool_)
    unsure[group[differs]] = True
    ports = np.where(unsure, np.int32(UNKNOWN), port[starts]).astype(np.int32)
    leads = forwards[numbers[starts]]
    return keys[starts][leads], ports[leads], keys[starts][~leads]
