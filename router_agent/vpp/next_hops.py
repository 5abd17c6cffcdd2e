"""The next-hop tables of a VPP: entries written on the express connection, ahead of every route.

One private table a family, which no interface is in, holds an entry for each path set that routes recurse
through (`entries`). The addresses of entries mean nothing outside the table and can be nobody's gateway: IPv4
entries are in 0.0.0.0/8 ("this network", RFC 791), IPv6 entries in 100::/64 (discard-only, RFC 6666).

An entry is written in one request. What changes while it is unanswered is written when the answer is there,
so there is never more than one request an entry under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from router_agent.events import Event, about
from router_agent.fibs.fib import FibLostError
from router_agent.model import ABSENT, U32, U64, Family, Interner, Path, PathSet, RouteType
from router_agent.vpp.entries import Entries, Entry
from router_agent.vpp.routes import THROUGH_ENTRY, RouteCodec
from router_agent.vpp.session import VppSession, error_name
from router_agent.vpp.stream import HEADER, Stream

log = logging.getLogger(__name__)

DEFAULT_TABLE = 4_000_000_000
"""VPP table id of the next-hop tables: far from those that people and VRFs use."""

TABLE_SUFFIX = ":next-hops"
"""What the name of the next-hop tables ends in; it begins with that of our FIB source."""

_IPV6_ENTRIES = 0x0100 << 112
_UNANSWERED_SECONDS = 30.0


@dataclass(slots=True)
class _Request:
    """An entry's request under way: what it writes, None for a removal."""

    entry: Entry
    paths: PathSet | None


class NextHopTables:
    """The entries as VPP holds them.

    Args:
        session: an open session.
        source: number of our FIB source.
        entries: decides what they are.
        tables: VPP table id by family, of the families that have a table.
        on_refused: called when VPP refuses to change an entry that routes may lead through.
    """

    def __init__(
        self,
        session: VppSession,
        source: int,
        entries: Entries,
        tables: Mapping[Family, int],
        on_refused: Callable[[], None],
    ) -> None:
        self._session = session
        self._source = source
        self._entries = entries
        self._tables = dict(tables)
        self._on_refused = on_refused
        self._codec = RouteCodec(session, source, Interner())
        self._express: Stream | None = None
        self._client = 0
        self._reply_id = session.message_id("ip_route_add_del_v2_reply")
        self._context = 1
        self._requests: dict[int, _Request] = {}
        self._busy: set[Entry] = set()
        self._refused: dict[Entry, tuple[PathSet, int]] = {}
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.writes = 0
        """Requests sent since the session began."""

    async def connect(self) -> None:
        """Open the express connection; it ends with the session.

        Raises:
            FibError: VPP does not take it.
        """
        self._express, self._client = await self._session.open_side_stream(self._answered)

    @property
    def tables(self) -> Mapping[Family, int]:
        """VPP table id by family."""
        return self._tables

    async def read(self, family: Family) -> None:
        """Take note of what VPP's next-hop table of one family holds of ours.

        Raises:
            FibLostError: VPP went away.
        """
        if family not in self._tables:
            return
        before = self.writes
        doubtful = set(self._busy)
        sets: Interner[PathSet] = Interner()
        codec = RouteCodec(self._session, self._source, sets)
        found: dict[int, PathSet] = {}
        for keys, paths in await codec.read(family, self._tables[family]):
            numbers = entry_numbers(family, keys)
            found |= {n: sets[p] for n, p in zip(numbers, paths.tolist(), strict=True)}
        if self.writes != before:
            doubtful |= {entry for entry in self._busy if entry[0] is family}
        self._entries.found(family, found, doubtful)

    async def take_off(self, dead: Iterable[tuple[Entry, PathSet]]) -> None:
        """Write what is left of entries that hang on a deleted interface, and wait until VPP has.

        Raises:
            FibLostError: VPP went away.
        """
        for entry, left in dead:
            self._write(entry, left if left.paths else PathSet(RouteType.BLACKHOLE))
        await self.settled()

    def post(self, number: int = ABSENT) -> int:
        """Write every entry that is not as it should be, at once. VPP's going away shows elsewhere.

        Args:
            number: look at the entries of this path id alone.

        Returns:
            How many are written.
        """
        count = 0
        with contextlib.suppress(FibLostError):
            for entry, paths in list(self._entries.due(number)):
                if entry not in self._busy and self._refused.get(entry, (None, 0))[0] != paths:
                    self._write(entry, paths)
                    count += 1
        return count

    async def prepare(self, family: Family, paths: U32) -> dict[int, int]:
        """See to it that every path id has its entry, before routes are written that lead through it.

        Args:
            family: of the routes.
            paths: path ids, any order, repeats allowed.

        Returns:
            VPP's error number by path id, for those it refuses.

        Raises:
            FibLostError: VPP went away.
        """
        recursed = [n for n in _distinct(paths) if n != ABSENT and self._entries.is_recursed(n)]
        entries = {number: (family, self._entries.entry(family, number)) for number in recursed}
        if any(e in self._busy or self._entries.due_at(e) is not None for e in entries.values()):
            self.post()
            await self.settled()
        return {number: self._refusal(e) for number, e in entries.items() if self._refusal(e)}

    async def remove(self, entries: Iterable[Entry]) -> None:
        """Remove entries that no route leads through.

        Raises:
            FibLostError: VPP went away.
        """
        for entry in entries:
            self._write(entry, None)
        await self.settled()

    async def settled(self) -> None:
        """Wait until every request is answered.

        Raises:
            FibLostError: VPP went away, or owes answers for too long.
        """
        quiet = asyncio.ensure_future(self._quiet.wait())
        express = self._open_express()
        lost = asyncio.ensure_future(asyncio.shield(express.lost))
        both: list[asyncio.Future[Any]] = [quiet, lost]
        try:
            await asyncio.wait(both, timeout=_UNANSWERED_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            quiet.cancel()
            lost.cancel()
        express.check()
        if self._requests:
            express.close(f"VPP owes answers for {_UNANSWERED_SECONDS:.0f} s")
            express.check()

    async def remove_tables(self) -> None:
        """Remove the tables, which nothing leads through any more.

        Raises:
            FibLostError: VPP went away.
        """
        for family, table in self._tables.items():
            await self._session.call(
                "ip_table_add_del_v2",
                table={"table_id": table, "is_ip6": family is Family.IPV6, "name": ""},
                is_add=False,
                create_mfib=False,
            )
        self._tables.clear()

    def _open_express(self) -> Stream:
        if self._express is None:
            raise FibLostError("no express connection with VPP; open the FIB first")
        return self._express

    def _write(self, entry: Entry, paths: PathSet | None) -> None:
        family, number = entry
        context, self._context = self._context, (self._context + 1) & 0xFFFFFFFF or 1
        request = self._codec.request(
            family,
            self._tables[family],
            entry_key(family, number),
            paths,
            context=context,
            client=self._client,
        )
        self._requests[context] = _Request(entry, paths)
        self._busy.add(entry)
        self._quiet.clear()
        self.writes += 1
        self._open_express().post(request)

    def _answered(self, number: int, message: bytes) -> None:
        if number != self._reply_id:
            log.debug(
                "message %d of %d bytes on the express connection was not asked for", number, len(message)
            )
            return
        reply = self._codec.reply
        at = reply.context - HEADER.size
        request = self._requests.pop(int.from_bytes(message[at : at + 4], "little"), None)
        if request is None:
            self._open_express().close("VPP sent an answer to no request of ours")
            return
        at = reply.retval - HEADER.size
        self._done(request, int.from_bytes(message[at : at + 4], "big", signed=True))
        if not self._requests:
            self._quiet.set()

    def _done(self, request: _Request, retval: int) -> None:
        entry, paths = request.entry, request.paths
        self._busy.discard(entry)
        self._refused.pop(entry, None)
        if retval and paths is not None:
            self._note_refusal(entry, paths, retval)
        elif paths is None:
            self._entries.removed(entry)
        else:
            self._entries.written(entry, paths)
        wanted = self._entries.due_at(entry)
        if wanted is not None and wanted != paths:
            self._write(entry, wanted)

    def _note_refusal(self, entry: Entry, paths: PathSet, retval: int) -> None:
        self._refused[entry] = (paths, retval)
        log.error(
            "VPP refused entry %d of the %s next-hop table, and with it the routes that lead through it: %s",
            *(entry[1], entry[0].label, error_name(retval)),
            extra=about(Event.ENTRY_REFUSED, problem=error_name(retval)),
        )
        if entry in self._entries.held():
            self._on_refused()

    def _refusal(self, entry: Entry) -> int:
        """Return VPP's error number for what an entry should be now, 0 when it did not refuse it."""
        paths, retval = self._refused.get(entry, (None, 0))
        return retval if paths is not None and paths == self._entries.due_at(entry) else 0


def entry_address(family: Family, number: int) -> bytes:
    """Return the address of an entry, in network byte order."""
    if family is Family.IPV4:
        return number.to_bytes(4, "big")
    return (_IPV6_ENTRIES + number).to_bytes(16, "big")


def entry_key(family: Family, number: int) -> U64:
    """Return the prefix key of an entry, shape (1, family.key_width)."""
    if family is Family.IPV4:
        return np.array([[number << 8 | 32]], np.uint64)
    return np.array([[_IPV6_ENTRIES >> 64, number, 128]], np.uint64)


def entry_numbers(family: Family, keys: U64) -> list[int]:
    """Return the numbers of entries by their prefix keys."""
    if family is Family.IPV4:
        return [int(n) for n in keys[:, 0] >> np.uint64(8)]
    return [int(n) for n in keys[:, 1]]


def through(family: Family, number: int) -> PathSet:
    """Return the paths of a route that leads through an entry, for `RouteCodec`."""
    return PathSet.unicast(Path(THROUGH_ENTRY, entry_address(family, number)))


def entry_of(family: Family, paths: PathSet) -> Entry | None:
    """Return the entry of a family that a route leads through, by its paths as read; None when by none."""
    if len(paths.paths) != 1 or paths.paths[0].interface != THROUGH_ENTRY:
        return None
    address = paths.paths[0].gateway
    # Both families number theirs from 1.
    if len(address) != len(entry_address(family, 0)):
        return None
    return family, int.from_bytes(address, "big") & (1 << 64) - 1


async def find_tables(session: VppSession, name: str) -> dict[Family, int]:
    """Return the VPP table ids of the next-hop tables a source has, by family.

    Raises:
        FibLostError: VPP went away.
    """
    found: dict[Family, int] = {}
    for entry in await session.call("ip_table_dump"):
        if str(entry.table.name) == name + TABLE_SUFFIX:
            found[Family.IPV6 if entry.table.is_ip6 else Family.IPV4] = int(entry.table.table_id)
    return found


async def make_tables(session: VppSession, name: str, table: int) -> dict[Family, int]:
    """Find the next-hop tables of a source by name, or create them; return their VPP table ids by family.

    Args:
        session: an open session.
        name: of the source.
        table: VPP table id of new ones; the next free one where it is taken.

    Raises:
        FibLostError: VPP went away.
    """
    found = await find_tables(session, name)
    taken = {(entry.table.is_ip6, entry.table.table_id) for entry in await session.call("ip_table_dump")}
    for family in Family:
        if family in found:
            continue
        six = family is Family.IPV6
        found[family] = next(number for number in itertools.count(table) if (six, number) not in taken)
        await session.call(
            "ip_table_add_del_v2",
            table={"table_id": found[family], "is_ip6": six, "name": name + TABLE_SUFFIX},
            is_add=True,
            create_mfib=False,
        )
        log.info(
            "created %s table %d in VPP for next hops",
            *(family.label, found[family]),
            extra=about(Event.TABLE_MADE, family=family.label, table=found[family]),
        )
    return found


def _distinct(paths: U32) -> list[int]:
    return [int(paths[0])] if len(paths) == 1 else [int(number) for number in np.unique(paths)]
