"""The FIB of a VPP, whoever wrote it, dumped over the binary API (ip_route_v2_dump without a source).

VPP's main thread is busy with it for a second at a million routes: it is read before a check, never during
one.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from router_agent.fibs.fib import FibError
from router_agent.model import I32, U32, U64, Family, Interner, Mask, PathSet, RouteType
from router_agent.traffic.tables.kernel import best
from router_agent.traffic.tables.live import UNKNOWN, LiveTable, TableError
from router_agent.vpp.next_hops import TABLE_SUFFIX, entry_numbers, entry_of
from router_agent.vpp.routes import RouteCodec
from router_agent.vpp.session import VppSession

_ANY_SOURCE = 0
"""``ip_route_v2_dump`` shows what every source has (vnet/ip/ip_api.c)."""


def read_vpp_table(api_socket: Path, table: int = 0) -> LiveTable:
    """Return a FIB of a VPP.

    Raises:
        TableError: it cannot be read.
    """
    try:
        return asyncio.run(_read(api_socket, table))
    except FibError as error:
        raise TableError(f"FIB {table} of VPP at {api_socket} cannot be read: {error}") from error


async def _read(api_socket: Path, table: int) -> LiveTable:
    session = VppSession(api_socket=api_socket, name="router-agent-traffic")
    await session.open()
    try:
        return await _Reader(session, table).read(f"FIB {table} of VPP at {api_socket}")
    finally:
        await session.close()


class _Reader:
    """Reads one FIB over an open session."""

    def __init__(self, session: VppSession, table: int) -> None:
        self._session = session
        self._table = table
        self._sets: Interner[PathSet] = Interner()
        self._positions: dict[int, int] = {}

    async def read(self, origin: str) -> LiveTable:
        """Return the FIB, followed through the agent's next-hop entries where there are any."""
        entry_tables: dict[Family, int] = {}
        for found in await self._session.call("ip_table_dump"):
            if str(found.table.name).endswith(TABLE_SUFFIX):
                family = Family.IPV6 if found.table.is_ip6 else Family.IPV4
                entry_tables[family] = int(found.table.table_id)
        codec = RouteCodec(self._session, _ANY_SOURCE, self._sets, entry_tables)
        entries: dict[tuple[Family, int], int] = {}
        for family, number in entry_tables.items():
            for keys, paths in await codec.read(family, number):
                numbers = zip(entry_numbers(family, keys), paths.tolist(), strict=True)
                entries |= {(family, entry): path for entry, path in numbers}
        dump = await self._session.call("sw_interface_dump")
        self._positions = {int(row.sw_if_index) + 1: position for position, row in enumerate(dump)}
        chunks = {family: await codec.read(family, self._table) for family in Family}
        leaves_by, forwards = self._meaning(entries)
        columns = {family: _joined(family, chunks[family], leaves_by, forwards) for family in Family}
        return LiveTable(
            keys={family: column[0] for family, column in columns.items()},
            leaves_by={family: column[1] for family, column in columns.items()},
            others={family: column[2] for family, column in columns.items()},
            interfaces=tuple(str(row.interface_name) for row in dump),
            origin=origin,
        )

    def _meaning(self, entries: dict[tuple[Family, int], int]) -> tuple[I32, Mask]:
        """Return, by path id, the position of the interface and whether it leads to a next hop."""
        leaves_by = np.full(self._sets.limit, UNKNOWN, np.int32)
        forwards = np.zeros(self._sets.limit, np.bool_)
        for number, own in list(self._sets.items()):
            paths = own
            for family in Family:
                entry = entry_of(family, own)
                if entry is not None and entry in entries:
                    paths = self._sets[entries[entry]]
            if paths.type is RouteType.UNICAST and all(leg.gateway and not leg.labels for leg in paths.paths):
                interfaces = {leg.interface for leg in paths.paths}
                known = len(interfaces) == 1
                leaves_by[number] = self._positions.get(next(iter(interfaces)), UNKNOWN) if known else UNKNOWN
                forwards[number] = True
        return leaves_by, forwards


def _joined(
    family: Family, chunks: list[tuple[U64, U32]], leaves_by: I32, forwards: Mask
) -> tuple[U64, I32, U64]:
    keys = np.concatenate([np.empty((0, family.key_width), np.uint64), *(chunk for chunk, _ in chunks)])
    numbers = np.concatenate([np.empty(0, np.uint32), *(paths for _, paths in chunks)])
    return best(keys, numbers, np.zeros(len(keys), np.uint32), leaves_by, forwards)
