"""What the routes of a source lead to in the end, read from VPP by whoever is not the agent.

For comparisons from outside (`playbooks/library/fib_comparison.py`, tests): nothing here knows what the agent
believes.
"""

from __future__ import annotations

import numpy as np

from router_agent.fibs.fib import FibError
from router_agent.model import U32, U64, Family, Interner, PathSet
from router_agent.vpp.next_hops import entry_numbers, entry_of, find_tables
from router_agent.vpp.routes import RouteCodec
from router_agent.vpp.session import VppSession


class ResolvedReader:
    """Reads routes and next-hop entries of one FIB source.

    Args:
        session: an open session.
        source: name of the source.
    """

    def __init__(self, session: VppSession, source: str) -> None:
        self._session = session
        self._source = source
        self._sets: Interner[PathSet] = Interner()
        self._codec: RouteCodec | None = None
        self._entries: dict[tuple[Family, int], int] = {}

    async def open(self) -> None:
        """Find the source and read its next-hop entries.

        Raises:
            FibError: VPP has no such source.
            FibLostError: VPP went away.
        """
        sources = {str(s.src.name): int(s.src.id) for s in await self._session.call("fib_source_dump")}
        if self._source not in sources:
            raise FibError(f"found no FIB source {self._source}, expected the agent's; see that it runs")
        tables = await find_tables(self._session, self._source)
        self._codec = RouteCodec(self._session, sources[self._source], self._sets, tables)
        for family, table in tables.items():
            for keys, paths in await self._codec.read(family, table):
                numbers = zip(entry_numbers(family, keys), paths.tolist(), strict=True)
                self._entries |= {(family, number): path for number, path in numbers}

    def __getitem__(self, number: int) -> PathSet:
        """Return a path set by the id it was read with; interfaces are sw_if_index + 1."""
        return self._sets[number]

    @property
    def entries(self) -> dict[tuple[Family, int], PathSet]:
        """Next-hop entries by family and number."""
        return {entry: self._sets[path] for entry, path in self._entries.items()}

    async def read(self, family: Family, table: int) -> list[tuple[U64, U32, U32]]:
        """Return keys, ids of what each route leads to in the end, and ids of its own paths, in chunks.

        Raises:
            FibError: a route leads through an entry that is not there.
            FibLostError: VPP went away.
        """
        assert self._codec is not None, "open() comes first"
        chunks = await self._codec.read(family, table)
        leads_to = np.arange(self._sets.limit, dtype=np.uint32)
        for number, paths in list(self._sets.items()):
            entry = entry_of(family, paths)
            if entry is not None and entry in self._entries:
                leads_to[number] = self._entries[entry]
            elif entry is not None and any((own == number).any() for _, own in chunks):
                raise FibError(f"routes lead through {family.label} next-hop entry {entry[1]}: there is none")
        return [(keys, leads_to[own], own) for keys, own in chunks]
