"""The routes of a kernel that no routing daemon put there, for a feed that has its routes from elsewhere.

zebra tells of its own routes over FPM, but of connected ones and of those that an administrator added only
while it sends everything; what becomes of them later it does not say. So they come from the kernel, which is
also where links and neighbours come from. There are a handful of them, in a RIB of their own: what is read
from the kernel anew leaves zebra's routes untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from router_agent.feeds.feed import Sink
from router_agent.feeds.kernel import KernelFeed
from router_agent.model import ABSENT, U32, U64, Link, Neighbour, Operation, PathSet, RouteBatch
from router_agent.rib import Rib

METRIC = 0
"""These routes go before zebra's own (metric 20), as they do in zebra itself: their distance is 0."""


class SystemRoutes:
    """The `Sink` of a kernel feed that passes links and neighbours on, and the best routes as plain changes.

    Args:
        kernel: follows the protocols that count.
        path_id: gives the outer feed's id of a path set.
        sink: of the outer feed.
        read: called after each clean reading of the kernel.
        links: called with the links that the sink was told of.
    """

    def __init__(
        self,
        kernel: KernelFeed,
        path_id: Callable[[PathSet], int],
        sink: Sink,
        read: Callable[[], None],
        links: Callable[[Sequence[Link], Sequence[int]], None],
    ) -> None:
        self._kernel = kernel
        self._path_id = path_id
        self._sink = sink
        self._read = read
        self._links = links
        self._ribs = {space: Rib(space[0], kernel) for space in kernel.spaces}

    def everything(self) -> Iterator[RouteBatch]:
        """Yield every route, a batch for each family and table."""
        for (_, table), rib in self._ribs.items():
            yield self._batch(rib, table, rib.prefixes.keys(rib.prefixes.rows()))

    def snapshot_begin(self) -> None:
        """See `Sink`."""
        for rib in self._ribs.values():
            rib.snapshot_begin()

    def snapshot_end(self, *, clean: bool) -> None:
        """See `Sink`."""
        if not clean:
            return
        in_use = np.zeros(self._kernel.path_limit, np.bool_)
        for (_, table), rib in self._ribs.items():
            self._tell(rib, table, rib.snapshot_end())
            in_use |= rib.paths_in_use(len(in_use))
        self._kernel.retain(in_use)
        self._read()

    def routes(self, batch: RouteBatch) -> None:
        """See `Sink`."""
        rib = self._ribs[batch.family, batch.table]
        self._tell(rib, batch.table, rib.apply(batch))
        if rib.ambiguous:
            rib.ambiguous = False
            self._kernel.resync()

    def paths_changed(self, paths: U32) -> None:
        """See `Sink`."""
        void = np.array([p for p in paths if self._kernel.resolve(int(p)) is None], np.uint32)
        for (_, table), rib in self._ribs.items():
            self._tell(rib, table, rib.using(paths))
            self._tell(rib, table, rib.purge(void))

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> None:
        """See `Sink`."""
        self._sink.links(links, removed)
        self._links(links, removed)

    def neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None:
        """See `Sink`."""
        self._sink.neighbours(learned, removed)

    def _tell(self, rib: Rib, table: int, keys: U64) -> None:
        if len(keys):
            self._sink.routes(self._batch(rib, table, np.unique(keys, axis=0)))

    def _batch(self, rib: Rib, table: int, keys: U64) -> RouteBatch:
        best = rib.best(keys)
        paths = np.zeros(len(keys), np.uint32)
        for number in np.unique(best[best != ABSENT]):
            path_set = self._kernel.resolve(int(number))
            paths[best == number] = ABSENT if path_set is None else self._path_id(path_set)
        operations = np.where(paths == ABSENT, Operation.DELETE, Operation.SET).astype(np.uint8)
        return RouteBatch(rib.family, table, keys, np.full(len(keys), METRIC, np.uint32), paths, operations)
