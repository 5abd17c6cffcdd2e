"""A second API client of a VPP that writes under the agent's own source, as no other program should."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path as FilePath

import numpy as np

from router_agent.fibs.vpp import DEFAULT_SOURCE
from router_agent.model import ABSENT, U32, Family, Interner, PathSet, keys_of, prefixes_of
from router_agent.vpp.routes import RouteCodec
from router_agent.vpp.session import VppSession


class Intruder:
    """A second API client that writes under the agent's source."""

    def __init__(self, api_socket: FilePath, source: str = DEFAULT_SOURCE) -> None:
        self.session = VppSession(api_socket=api_socket, name="intruder")
        self._source = source
        self._sets: Interner[PathSet] = Interner()

    async def __aenter__(self) -> Intruder:
        await self.session.open()
        sources = {s.src.name: int(s.src.id) for s in await self.session.call("fib_source_dump")}
        self._codec = RouteCodec(self.session, sources[self._source], self._sets)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def put(self, prefixes: list[str], paths: PathSet | None, table: int = 0) -> None:
        keys = keys_of([ip_network(p) for p in prefixes])
        family = Family.IPV4 if keys.shape[1] == 1 else Family.IPV6
        number = ABSENT if paths is None else self._sets.id(paths)
        ids: U32 = np.full(len(keys), number, np.uint32)
        assert not (await self._codec.write(family, table, keys, ids, 1000)).any()

    async def routes(self, table: int = 0) -> dict[str, PathSet]:
        found = {}
        for family in Family:
            for keys, paths in await self._codec.read(family, table):
                for p, number in zip(prefixes_of(keys), paths.tolist(), strict=True):
                    found[str(p)] = self._sets[number]
        return found
