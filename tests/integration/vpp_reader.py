"""What a VPP holds of one FIB source, read over a session of a test's own and followed through entries."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from router_agent.model import Family, PathSet, prefixes_of
from router_agent.vpp.next_hops import entry_of
from router_agent.vpp.resolved import ResolvedReader
from router_agent.vpp.session import VppSession


@dataclass
class Held:
    """What was read.

    Attributes:
        routes: what each prefix leads to in the end.
        recursive: prefixes that lead there through an entry.
        entries: next-hop entries by family and number.
        names: VPP's names of the interface numbers in path sets.
    """

    routes: dict[str, PathSet] = field(default_factory=dict)
    recursive: set[str] = field(default_factory=set)
    entries: dict[tuple[Family, int], PathSet] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def legs(self, prefix: str) -> set[tuple[str, bytes]]:
        """Return the interface names and gateways a prefix leads to."""
        return {(self.names[leg.interface], leg.gateway) for leg in self.routes[prefix].paths}


async def read(api_socket: Path, source: str, table: int = 0) -> Held:
    """Read routes and entries; a route through an entry that is not there fails."""
    session = VppSession(api_socket=api_socket, name="test-reader")
    await session.open()
    try:
        reader = ResolvedReader(session, source)
        await reader.open()
        dump = await session.call("sw_interface_dump")
        held = Held(
            entries=reader.entries,
            names={int(entry.sw_if_index) + 1: str(entry.interface_name) for entry in dump},
        )
        for family in Family:
            for keys, paths, own in await reader.read(family, table):
                for prefix, path, itself in zip(prefixes_of(keys), paths.tolist(), own.tolist(), strict=True):
                    held.routes[str(prefix)] = reader[path]
                    if entry_of(family, reader[itself]) is not None:
                        held.recursive.add(str(prefix))
        return held
    finally:
        await session.close()
