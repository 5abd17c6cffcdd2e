"""What zebra tells over FPM: routes, and the next-hop groups that they lead through.

A route that zebra has and that leads nowhere (its group is unknown or cannot be used) is still zebra's: it
has no legs then, which no FIB takes, so it is reported and not forgotten.

zebra tells of a link that went down a group or a route at a time. Until it does, legs over such a link are
left out of the paths that have others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np

from router_agent.feeds.feed import Sink
from router_agent.feeds.solicit import Hop, hops_of
from router_agent.model import U8, U32, Family, Link, PathSet, RouteBatch
from router_agent.netlink import constants as c
from router_agent.netlink.messages import Messages
from router_agent.netlink.nexthops import NexthopTable, parse_nexthop
from router_agent.netlink.paths import KernelPath, PathIds, path_set_of, unicast
from router_agent.netlink.routes import RouteDecoder

_FAMILY_AT = 16
"""Offset of rtm_family in a message."""
_NOWHERE = PathSet()


class _Kind(IntEnum):
    """Sorts of messages."""

    OTHER = 0
    ROUTE = 1
    NEXTHOP = 2


class ZebraRoutes:
    """Turns zebra's messages into what a `Sink` takes.

    Args:
        tables: kernel table ids.
        taken: called with each batch before the sink has it.

    Attributes:
        paths: ids of zebra's paths, which have a protocol, and of others that share the numbers.
        received: route messages since `begin`.
        ignored: messages passed over, by what they are.
    """

    def __init__(self, tables: Sequence[int], taken: Callable[[RouteBatch], None]) -> None:
        self.paths = PathIds()
        self.received = 0
        self.ignored: Counter[str] = Counter()
        self._taken = taken
        self._nexthops = NexthopTable()
        self._down: set[int] = set()
        self._seen: set[int] = set()
        self._decoder = RouteDecoder(
            tables=tables,
            protocols=c.ZEBRA_PROTOCOLS,
            paths=self.paths,
            knows_nexthop=lambda _: True,
            from_zebra=True,
        )

    @property
    def skipped(self) -> Counter[str]:
        """Routes passed over, by reason."""
        return self._decoder.skipped

    def resolve(self, path: int) -> PathSet | None:
        """Return what a path id leads to; see `Feed.resolve`."""
        if path == 0:
            return None
        found = self.paths[path]
        if not found.protocol:
            return path_set_of(found)
        return self._without_dead_legs(self._whole(found))

    def _without_dead_legs(self, leads: PathSet) -> PathSet:
        live = [leg for leg in leads.paths if leg.interface not in self._down]
        if not live or len(live) == len(leads.paths):
            return leads
        return unicast(live) or leads

    def links(self, links: Sequence[Link], removed: Sequence[int], sink: Sink) -> None:
        """Take note of links, and tell of paths that have legs over those that went down or came up."""
        down = self._down | {link.index for link in links if not (link.up and link.carrier)} | {*removed}
        down -= {link.index for link in links if link.up and link.carrier}
        changed, self._down = down ^ self._down, down
        concerned = [
            number
            for number, path in self.paths.items()
            if path.protocol and any(leg.interface in changed for leg in self._whole(path).paths)
        ]
        if concerned:
            sink.paths_changed(np.array(concerned, np.uint32))

    def _whole(self, path: KernelPath) -> PathSet:
        """Return where a path leads, legs over dead links included."""
        leads = self._nexthops.resolve(path.nexthop) if path.nexthop else path_set_of(path)
        return _NOWHERE if leads is None else leads

    def hops(self) -> set[Hop]:
        """Return the next hops of all paths."""
        found = set[Hop]()
        for number in range(1, self.paths.limit):
            found |= hops_of(self.resolve(number) if self.paths.get(number) else None)
        return found

    def told_path(self, number: int) -> KernelPath | None:
        """Return a path as zebra told it; None when it is not zebra's or no more."""
        found = self.paths.get(number)
        return found if found is not None and found.protocol else None

    def begin(self) -> None:
        """Everything will be told from its beginning."""
        self.received = 0
        self._seen.clear()

    def end(self, sink: Sink) -> None:
        """Everything has been told: forget the next-hop groups that were not."""
        gone: set[int] = set()
        for number in self._nexthops.ids() - self._seen:
            gone |= self._nexthop_gone(number)
        self._tell_changed(gone, sink)

    def apply(self, messages: Messages, sink: Sink) -> None:
        """Apply messages in their order; runs of route messages are decoded together.

        Raises:
            NetlinkDecodeError: a message is not what the kernel's headers say.
        """
        if not len(messages):
            return
        kinds = self._kinds(messages)
        edges = np.flatnonzero(np.concatenate(([True], kinds[1:] != kinds[:-1], [True])))
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            part = messages.part(begin, end)
            match int(kinds[begin]):
                case _Kind.ROUTE:
                    self._routes(part, sink)
                case _Kind.NEXTHOP:
                    self._nexthop_messages(part, sink)
                case _:
                    for kind, count in Counter(part.types.tolist()).items():
                        self.ignored[f"message type {kind}"] += count

    def _kinds(self, messages: Messages) -> U8:
        types = messages.types
        kinds = np.full(len(types), _Kind.OTHER, np.uint8)
        kinds[(types == c.RTM_NEWNEXTHOP) | (types == c.RTM_DELNEXTHOP)] = _Kind.NEXTHOP
        routes = np.flatnonzero((types == c.RTM_NEWROUTE) | (types == c.RTM_DELROUTE))
        # Labelled paths are routes of AF_MPLS; a message too short for a family is left to the decoder.
        whole = routes[messages.lengths[routes] > _FAMILY_AT]
        families = messages.buffer[messages.starts[whole] + _FAMILY_AT]
        kinds[routes] = _Kind.ROUTE
        kinds[whole[(families != Family.IPV4) & (families != Family.IPV6)]] = _Kind.OTHER
        return kinds

    def _routes(self, messages: Messages, sink: Sink) -> None:
        self.received += len(messages)
        for batch in self._decoder.decode(messages):
            self._taken(batch)
            sink.routes(batch)

    def _nexthop_messages(self, messages: Messages, sink: Sink) -> None:
        changed: set[int] = set()
        for number, kind in enumerate(messages.types.tolist()):
            nexthop = parse_nexthop(messages.body(number))
            if kind == c.RTM_NEWNEXTHOP:
                self._seen.add(nexthop.id)
                changed |= self._nexthops.put(nexthop)
            else:
                changed |= self._nexthop_gone(nexthop.id)
        self._tell_changed(changed, sink)

    def _nexthop_gone(self, number: int) -> set[int]:
        gone, changed = self._nexthops.remove(number)
        return gone | changed

    def _tell_changed(self, nexthops: set[int], sink: Sink) -> None:
        if not nexthops:
            return
        changed: U32 = np.fromiter(
            (n for n, path in self.paths.items() if path.protocol and path.nexthop in nexthops), np.uint32
        )
        if len(changed):
            sink.paths_changed(changed)
