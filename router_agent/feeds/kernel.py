"""The routes of a kernel, by rtnetlink: a dump first, then every change, and a dump again on doubt.

What the kernel does not say
    It sends no RTM_DELROUTE for IPv4 routes that go with a link, with the last address of a link or with a
    next-hop object, and none for next-hop objects that go with a link or its carrier. So a path id is
    *retired* at such an event: what it leads to loses the legs concerned at once (`Sink.paths_changed`), a
    route that is really there later comes with a new id, and a dump that settles the rest is asked for.

Order
    Events are subscribed to before the first dump. Those that arrive while a dump runs wait, in a buffer of
    bounded size, and are applied after its rows and before its end: a route added meanwhile survives the
    sweep at the end, one deleted meanwhile does not come back.

Doubt
    A lost event, an interrupted dump or an overfull buffer end the snapshot as not clean, which deletes
    nothing, and lead to another dump; dumps keep a distance in time, growing while they fail.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import struct
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, closing, suppress
from dataclasses import replace

import numpy as np

from router_agent.events import Event, about
from router_agent.feeds.feed import FeedError, Sink
from router_agent.feeds.solicit import Hop, Solicitor, hops_of
from router_agent.model import U8, U32, Family, Mask, Neighbour, PathSet, RouteBatch
from router_agent.namespaces import NamespaceError, Watch
from router_agent.netlink import constants as c
from router_agent.netlink.links import LINK_REQUEST, LinkState, address_request, parse_address, parse_link
from router_agent.netlink.messages import Messages, NetlinkDecodeError, attribute
from router_agent.netlink.neighbours import REQUEST as NEIGHBOUR_REQUEST
from router_agent.netlink.neighbours import parse_neighbour
from router_agent.netlink.nexthops import REQUEST as NEXTHOP_REQUEST
from router_agent.netlink.nexthops import Nexthop, NexthopTable, parse_nexthop
from router_agent.netlink.paths import KernelPath, PathIds, kernel_path, path_set_of
from router_agent.netlink.routes import RouteDecoder
from router_agent.netlink.sockets import (
    EVENT_BUFFER_BYTES,
    DumpInterruptedError,
    DumpSocket,
    EventsLostError,
    EventSocket,
    NetlinkError,
)

_log = logging.getLogger(__name__)

_GROUPS = (
    c.RTNLGRP_LINK,
    c.RTNLGRP_IPV4_IFADDR,
    c.RTNLGRP_IPV6_IFADDR,
    c.RTNLGRP_NEXTHOP,
    c.RTNLGRP_NEIGH,
    c.RTNLGRP_IPV4_ROUTE,
    c.RTNLGRP_IPV6_ROUTE,
)
_RTMSG = struct.Struct("=BBBBBBBBI")
_ROUTES = (c.RTM_NEWROUTE, c.RTM_DELROUTE)
_SMALL_DUMP_TRIES = 5
_MOST_FILTERED_DUMPS = 8
"""A dump that the kernel filters by protocol costs it a walk of the table, but sends only what is wanted."""
_MOST_BURSTS = 64
_BURST_READS = 16
"""Reads of up to 128 events before other tasks get a turn."""
_BACKOFF_SECONDS = (0.05, 0.2, 1.0, 5.0)


class KernelFeed:
    """Follows tables of one network namespace.

    Keyword Args:
        namespace: as in ``ip netns``, or a path; None is the process's own.
        tables: kernel table ids.
        protocols: route protocol ids to follow, None for all.
        ignore_protocols: route protocol ids never to follow (a FIB's own in the same tables).
        resync_interval_seconds: least time from one full dump to the next.
        event_buffer_bytes: kernel memory for events that wait to be read.
        backlog_bytes: memory for events that arrive while a dump runs.
        chunk_bytes: how much of a dump is decoded at a time.
        solicit: have the kernel resolve next hops that have no neighbour.
        further_hops: returns next hops to resolve besides those of the routes that are followed.

    Attributes:
        resyncs: dumps asked for, by reason.
        events: event messages read.
        dumps: full dumps that ended clean.
    """

    def __init__(
        self,
        *,
        namespace: str | None = None,
        tables: Sequence[int] = (c.RT_TABLE_MAIN,),
        protocols: frozenset[int] | None = None,
        ignore_protocols: frozenset[int] = frozenset(),
        resync_interval_seconds: float = 2.0,
        event_buffer_bytes: int = EVENT_BUFFER_BYTES,
        backlog_bytes: int = 32 << 20,
        chunk_bytes: int = 1 << 20,
        solicit: bool = False,
        further_hops: Callable[[], Iterable[Hop]] = tuple,
    ) -> None:
        if not tables:
            raise ValueError("a kernel feed needs at least one table")
        self._namespace = namespace
        self._tables = tuple(sorted(set(tables)))
        self._protocols = protocols
        self._interval = resync_interval_seconds
        self._event_buffer_bytes = event_buffer_bytes
        self._backlog_bytes = backlog_bytes
        self._chunk_bytes = chunk_bytes
        self._paths = PathIds()
        self._nexthops = NexthopTable()
        self._ignored = ignore_protocols
        self._decoder = self._new_decoder()
        self._links: dict[int, LinkState] = {}
        self._addresses: dict[int, set[bytes]] = {}
        self._neighbours: dict[tuple[int, bytes], bytes] = {}
        self._backlog: deque[U8] | None = None
        self._backlog_held = 0
        self._doubt: str | None = None
        self._wanted = asyncio.Event()
        self._failure: BaseException | None = None
        self._broken = asyncio.Event()
        self._overruns = 0
        self._events_socket: EventSocket | None = None
        self._sink: Sink | None = None
        self._further_hops = further_hops
        self._solicitor = Solicitor(namespace, self._unresolved_hops) if solicit else None
        self.resyncs: Counter[str] = Counter()
        self.events = 0
        self.dumps = 0

    # -- Feed ------------------------------------------------------------------------------------

    @property
    def spaces(self) -> Sequence[tuple[Family, int]]:
        """See `Feed`."""
        return [(family, table) for table in self._tables for family in Family]

    @property
    def path_limit(self) -> int:
        """See `Feed`."""
        return self._paths.limit

    @property
    def paths_kept(self) -> int:
        """See `Feed`."""
        return len(self._paths)

    @property
    def overruns(self) -> int:
        """See `Feed`."""
        return self._overruns

    @property
    def problem(self) -> str | None:
        """See `Feed`."""
        return None

    @property
    def passed_over(self) -> Counter[str]:
        """See `Feed`."""
        return self._decoder.skipped

    def _new_decoder(self) -> RouteDecoder:
        return RouteDecoder(
            tables=self._tables,
            protocols=self._protocols,
            ignored=self._ignored,
            paths=self._paths,
            knows_nexthop=self._nexthops.__contains__,
        )

    def drops(self) -> int:
        """Return how many events the kernel has dropped since `run` began."""
        return self._events_socket.drops() if self._events_socket else 0

    def resolve(self, path: int) -> PathSet | None:
        """See `Feed`."""
        if path == 0:
            return None
        found = self._paths[path]
        if found.nexthop and found.nexthop in self._nexthops:
            return self._nexthops.resolve(found.nexthop)
        return path_set_of(found)

    def path_id(self, path_set: PathSet) -> int:
        """See `Feed`."""
        return self._paths.id(kernel_path(path_set))

    def retain(self, in_use: Mask) -> None:
        """See `Feed`."""
        self._paths.release(in_use)

    def resync(self) -> None:
        """See `Feed`."""
        self._want("asked for")

    async def reread(self, take: Callable[[RouteBatch], None], *, pause_seconds: float) -> bool:
        """See `Rereadable`. A kernel waits with the rest of a dump until it is asked for."""
        decoder, dumps = self._new_decoder(), DumpSocket(self._namespace)
        try:
            for family, table in self.spaces:
                for only in self._dumped_protocols:
                    async with aclosing(self._dumped(dumps, decoder, family, table, only)) as batches:
                        async for batch in batches:
                            take(batch)
                            await asyncio.sleep(pause_seconds)
        except (DumpInterruptedError, NetlinkError, NetlinkDecodeError) as error:
            _log.info(
                "comparing with the kernel's own table broke off, it begins anew: %s",
                error,
                extra=about(Event.AUDIT_BROKEN_OFF, problem=str(error)),
            )
            return False
        finally:
            dumps.close()
        return self._backlog is None

    def read_waiting_events(self) -> None:
        """See `Rereadable`."""
        if self._events_socket is None or self._sink is None or self._backlog is not None:
            return
        for _ in range(_MOST_BURSTS):
            if not self._read_events(self._events_socket, self._sink):
                return

    async def run(self, sink: Sink) -> None:
        """See `Feed`."""
        try:
            await self._follow(sink)
        except (NetlinkError, NamespaceError, NetlinkDecodeError) as error:
            where = f"namespace {self._namespace!r}" if self._namespace else "this namespace"
            raise FeedError(f"cannot follow the kernel's routes in {where}: {error}") from error

    # -- following -------------------------------------------------------------------------------

    async def _follow(self, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        self._backlog = None
        self._failure = None
        self._broken.clear()

        def guarded(step: Callable[[], object], descriptor: int) -> Callable[[], None]:
            def call() -> None:
                try:
                    step()
                except Exception as error:  # noqa: BLE001 - handed to run(), which raises it
                    self._failure = error
                    loop.remove_reader(descriptor)
                    self._broken.set()
                    self._wanted.set()

            return call

        with ExitStack() as stack:
            events = stack.enter_context(
                closing(
                    EventSocket(
                        self._namespace,
                        _GROUPS,
                        buffer_bytes=self._event_buffer_bytes,
                        protocols=self._protocols,
                    )
                )
            )
            steps: dict[int, Callable[[], object]] = {
                events.fileno(): lambda: self._read_events(events, sink)
            }
            if self._namespace:
                watch = stack.enter_context(closing(Watch(self._namespace)))
                steps[watch.fileno()] = lambda: self._check_namespace(watch)
            for descriptor, step in steps.items():
                loop.add_reader(descriptor, guarded(step, descriptor))
                stack.callback(loop.remove_reader, descriptor)
            self._events_socket, self._sink = events, sink
            try:
                async with self._soliciting():
                    await self._keep_reading(events, sink)
            finally:
                self._events_socket = self._sink = None
                self._backlog = None

    @asynccontextmanager
    async def _soliciting(self) -> AsyncIterator[None]:
        if self._solicitor is None:
            yield
            return
        task = asyncio.create_task(self._solicitor.run(), name="solicit next hops")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _unresolved_hops(self) -> set[Hop]:
        """Return the next hops that have no usable neighbour, on links that could have one."""
        found = set(self._further_hops())
        for number in range(1, self._paths.limit):
            paths = self.resolve(number) if self._paths.get(number) else None
            found |= hops_of(paths)
        return {hop for hop in found - self._neighbours.keys() if self._can_resolve(hop[0])}

    def _can_resolve(self, interface: int) -> bool:
        state = self._links.get(interface)
        return state is not None and state.link.up and state.running and bool(state.link.mac)

    def look_for_hops(self) -> None:
        """See whether another next hop has to be resolved."""
        if self._solicitor is not None:
            self._solicitor.look()

    def _check_namespace(self, watch: Watch) -> None:
        if watch.gone():
            raise NamespaceError(f"network namespace {self._namespace!r} was removed or made anew")

    async def _keep_reading(self, events: EventSocket, sink: Sink) -> None:
        """Take a snapshot now, and again whenever one is wanted, not too often."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            self._wanted.clear()
            clean = await self._snapshot(events, sink)
            failures = 0 if clean else failures + 1
            if clean:
                await self._wanted.wait()
            pause = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS)) - 1] if failures else 0.0
            with suppress(TimeoutError):
                await asyncio.wait_for(self._broken.wait(), max(pause, began + self._interval - loop.time()))
            if self._failure:
                raise self._failure

    async def _snapshot(self, events: EventSocket, sink: Sink) -> bool:
        """Read everything once; return whether it was clean."""
        await self._catch_up(events, sink)
        self._backlog, self._backlog_held = deque(), 0
        dumps = DumpSocket(self._namespace)
        began = False
        try:
            await self._read_small(dumps, sink)
            self._decoder.skipped.clear()
            sink.snapshot_begin()
            began = True
            for family, table in self.spaces:
                await self._dump_routes(dumps, sink, family, table)
        except (DumpInterruptedError, EventsLostError, NetlinkError) as error:
            if isinstance(error, NetlinkError) and not began:
                raise
            self._doubt = self._doubt or str(error)
        except NetlinkDecodeError:
            if began:
                sink.snapshot_end(clean=False)
            raise
        finally:
            dumps.close()
        # events are true even when the dump is not
        await self._replay(events, sink)
        clean = self._doubt is None and self._failure is None
        if began:
            sink.snapshot_end(clean=clean)
        if clean:
            self.dumps += 1
        else:
            _log.info(
                "the kernel's routes changed too much while they were read, nothing is removed on that; "
                "they are read again: %s",
                self._doubt,
                extra=about(Event.READING_UNCLEAN, problem=self._doubt),
            )
            self.resyncs["unclean dump"] += 1
        self.look_for_hops()
        return clean

    async def _catch_up(self, events: EventSocket, sink: Sink) -> None:
        """Apply every event that waits already, before a dump begins.

        After an overrun the socket still holds what came before the loss. Applied after the dump, it would
        bring back routes whose deletion is among what was lost.
        """
        while self._read_events(events, sink) and not self._failure:
            await asyncio.sleep(0)
        self._doubt = None
        self._wanted.clear()

    async def _dump_routes(self, dumps: DumpSocket, sink: Sink, family: Family, table: int) -> None:
        for only in self._dumped_protocols:
            await self._dump_protocol(dumps, sink, family, table, only)

    @property
    def _dumped_protocols(self) -> Sequence[int]:
        """Protocols that a dump is made of each, because the kernel filters by one; 0 is all."""
        if self._protocols is None or len(self._protocols) > _MOST_FILTERED_DUMPS:
            return (0,)
        return sorted(self._protocols)

    async def _dump_protocol(
        self, dumps: DumpSocket, sink: Sink, family: Family, table: int, only: int
    ) -> None:
        async with aclosing(self._dumped(dumps, self._decoder, family, table, only)) as batches:
            async for batch in batches:
                sink.routes(batch)
                if self._doubt:
                    raise EventsLostError(self._doubt)

    async def _dumped(
        self, dumps: DumpSocket, decoder: RouteDecoder, family: Family, table: int, only: int
    ) -> AsyncGenerator[RouteBatch, None]:
        body = _RTMSG.pack(family, 0, 0, 0, table if table < 256 else 0, only, 0, 0, 0)
        body += attribute(c.RTA_TABLE, table.to_bytes(4, "little"))
        try:
            async with aclosing(dumps.dump(c.RTM_GETROUTE, body, chunk_bytes=self._chunk_bytes)) as chunks:
                async for messages in chunks:
                    _check_types(messages, c.RTM_NEWROUTE)
                    for batch in decoder.decode(messages):
                        yield batch
        except NetlinkError as error:
            # a table nobody has written to does not exist yet
            if error.number != errno.ENOENT:
                raise

    async def _replay(self, events: EventSocket, sink: Sink) -> None:
        """Apply the events that waited; go live in the same step that finds none left to read."""
        while not self._failure:
            # a loss that happened before the end of the dump must be known before the end is told
            self._read_events(events, sink)
            if not self._backlog:
                break
            while self._backlog:
                data = self._backlog.popleft()
                self._backlog_held -= len(data)
                self._apply(data, sink)
                await asyncio.sleep(0)
        self._backlog = None

    def _read_events(self, events: EventSocket, sink: Sink) -> bool:
        """Read what is waiting, up to a burst, and apply it at once or keep it while a dump runs.

        Returns:
            Whether there was anything.
        """
        burst: list[U8] = []
        for _ in range(_BURST_READS):
            try:
                data = events.receive()
            except EventsLostError as error:
                self._note_overrun(str(error))
                self._want("events lost")
                continue
            if not len(data):
                break
            burst.append(data)
        if not burst:
            return False
        data = np.concatenate(burst) if len(burst) > 1 else burst[0]
        if self._backlog is None:
            self._apply(data, sink)
        elif self._backlog_held + len(data) <= self._backlog_bytes:
            self._backlog.append(data)
            self._backlog_held += len(data)
        elif self._doubt is None:
            self._note_overrun(f"more than {self._backlog_bytes} bytes of events while a dump ran")
        return True

    def _note_overrun(self, doubt: str) -> None:
        self._overruns += 1
        self._doubt = doubt
        _log.warning(
            "events of the kernel came faster than they were read (%s): all routes are read again, none is "
            "missed, changes come later. If it repeats, the agent gets too little processor time",
            doubt,
            extra=about(Event.OVERRUN, overruns=self._overruns),
        )

    def _want(self, reason: str) -> None:
        self.resyncs[reason] += 1
        self._wanted.set()

    # -- events ----------------------------------------------------------------------------------

    def _apply(self, data: U8, sink: Sink) -> None:
        """Apply event messages in their order; runs of route messages are decoded together."""
        messages = Messages.find(data)
        self.events += len(messages)
        types = messages.types
        is_route = (types == c.RTM_NEWROUTE) | (types == c.RTM_DELROUTE)
        if is_route.all():
            self._apply_routes(messages, sink)
            return
        self.look_for_hops()
        edges = np.flatnonzero(np.concatenate(([True], is_route[1:] != is_route[:-1], [True])))
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if is_route[begin]:
                self._apply_routes(messages.part(begin, end), sink)
                continue
            for number in range(begin, end):
                self._apply_other(int(types[number]), messages.body(number), sink)

    def _apply_routes(self, messages: Messages, sink: Sink) -> None:
        known = len(self._paths)
        for batch in self._decoder.decode(messages):
            sink.routes(batch)
        if len(self._paths) != known:
            self.look_for_hops()

    def _apply_other(self, kind: int, body: bytes, sink: Sink) -> None:
        match kind:
            case c.RTM_NEWLINK | c.RTM_DELLINK:
                if state := parse_link(body):
                    self._link_event(state, kind == c.RTM_DELLINK, sink)
            case c.RTM_NEWADDR | c.RTM_DELADDR:
                index, address, length = parse_address(body)
                self._address_event(index, address + bytes((length,)), kind == c.RTM_DELADDR, sink)
            case c.RTM_NEWNEXTHOP:
                self._nexthops_changed(self._nexthops.put(parse_nexthop(body)), sink)
            case c.RTM_DELNEXTHOP:
                self._nexthop_gone(parse_nexthop(body).id, sink)
            case c.RTM_NEWNEIGH | c.RTM_DELNEIGH:
                self._neighbour_event(kind == c.RTM_DELNEIGH, body, sink)

    def _link_event(self, state: LinkState, removed: bool, sink: Sink) -> None:
        index = state.link.index
        before = self._links.get(index)
        if removed:
            self._links.pop(index, None)
            self._addresses.pop(index, None)
            sink.links((), (index,))
        elif before != state:
            self._links[index] = state
            sink.links((state.link,), ())
        if before is None:
            return
        if removed:
            self._forget_neighbours(index, sink)
        if removed or not (state.running and state.link.up):
            for number in self._nexthops.on_interface(index):
                self._nexthop_gone(number, sink)
        if removed or (before.link.up and not state.link.up):
            # with the interface itself go even IPv4 routes that have other legs
            self._retire_legs(sink, index, (Family.IPV4,), whole=removed)
            self._retire_legs(sink, index, (Family.IPV6,))
        shape = (state.link.up, state.link.carrier, state.running, state.master)
        if removed or shape != (before.link.up, before.link.carrier, before.running, before.master):
            self._want("link changed")

    def _address_event(self, index: int, address: bytes, removed: bool, sink: Sink) -> None:
        held = self._addresses.setdefault(index, set())
        if not removed:
            held.add(address)
            return
        held.discard(address)
        if len(address) != 5:
            return
        # routes with this preferred source go, and the last address takes all IPv4 routes of the link along
        self._want("address removed")
        if not any(len(left) == 5 for left in held):
            self._retire_legs(sink, index, (Family.IPV4,))

    def _nexthops_changed(self, changed: set[int], sink: Sink) -> None:
        if changed:
            self._tell(sink, (n for n, path in self._paths.items() if path.nexthop in changed))

    def _nexthop_gone(self, number: int, sink: Sink) -> None:
        gone, changed = self._nexthops.remove(number)
        if gone:
            self._retire_nexthops(gone, sink)
            self._want("next hop removed")
        self._nexthops_changed(changed, sink)

    def _retire_nexthops(self, gone: set[int], sink: Sink) -> None:
        ended = [n for n, path in self._paths.items() if path.nexthop in gone]
        for number in ended:
            self._paths.retire(number, KernelPath(self._paths[number].family))
        self._tell(sink, ended)

    def _retire_legs(
        self, sink: Sink, index: int, families: Iterable[Family], *, whole: bool = False
    ) -> None:
        """End the legs over an interface, or the whole of the paths that have one, of today's path ids.

        Paths through a next-hop object follow the object.
        """
        ended = []
        for number, path in tuple(self._paths.items()):
            if (
                path.family not in families
                or path.nexthop
                or not any(leg.interface == index for leg in path.legs)
            ):
                continue
            legs = tuple(replace(leg, dead=leg.dead or leg.interface == index) for leg in path.legs)
            left = replace(path, legs=() if whole else legs)
            if left != path:
                self._paths.retire(number, left)
                ended.append(number)
        self._tell(sink, ended)

    def _tell(self, sink: Sink, numbers: Iterable[int]) -> None:
        changed: U32 = np.fromiter(numbers, np.uint32)
        if len(changed):
            sink.paths_changed(changed)

    def _neighbour_event(self, removed: bool, body: bytes, sink: Sink) -> None:
        state = parse_neighbour(body)
        if state is None:
            return
        neighbour = state.neighbour
        key = (neighbour.interface, neighbour.address)
        held = self._neighbours.get(key)
        if state.usable and not removed:
            if held != neighbour.mac:
                self._neighbours[key] = neighbour.mac
                sink.neighbours((neighbour,), ())
        elif held is not None:
            del self._neighbours[key]
            sink.neighbours((), (Neighbour(*key, held),))

    def _forget_neighbours(self, index: int, sink: Sink) -> None:
        gone = [Neighbour(*key, mac) for key, mac in self._neighbours.items() if key[0] == index]
        for neighbour in gone:
            del self._neighbours[neighbour.interface, neighbour.address]
        if gone:
            sink.neighbours((), gone)

    # -- small tables ----------------------------------------------------------------------------

    async def _read_small(self, dumps: DumpSocket, sink: Sink) -> None:
        """Read links, addresses, next hops and neighbours, and tell what is not as it was known."""
        self._take_links(await self._small_dump(dumps, c.RTM_GETLINK, LINK_REQUEST, c.RTM_NEWLINK), sink)
        addresses: dict[int, set[bytes]] = {}
        for family in Family:
            request = address_request(family)
            for body in await self._small_dump(dumps, c.RTM_GETADDR, request, c.RTM_NEWADDR):
                index, address, length = parse_address(body)
                addresses.setdefault(index, set()).add(address + bytes((length,)))
        self._addresses = addresses
        self._take_nexthops(
            [
                parse_nexthop(body)
                for body in await self._small_dump(dumps, c.RTM_GETNEXTHOP, NEXTHOP_REQUEST, c.RTM_NEWNEXTHOP)
            ],
            sink,
        )
        self._take_neighbours(
            await self._small_dump(dumps, c.RTM_GETNEIGH, NEIGHBOUR_REQUEST, c.RTM_NEWNEIGH), sink
        )

    async def _small_dump(self, dumps: DumpSocket, kind: int, body: bytes, expected: int) -> list[bytes]:
        """Return the bodies of a dump that fits in memory, trying again when it was interrupted."""
        for _ in range(_SMALL_DUMP_TRIES - 1):
            try:
                return await self._small_dump_once(dumps, kind, body, expected)
            except DumpInterruptedError:
                continue
        return await self._small_dump_once(dumps, kind, body, expected)

    async def _small_dump_once(self, dumps: DumpSocket, kind: int, body: bytes, expected: int) -> list[bytes]:
        bodies: list[bytes] = []
        async for messages in dumps.dump(kind, body):
            _check_types(messages, expected)
            bodies += [messages.body(number) for number in range(len(messages))]
        return bodies

    def _take_links(self, bodies: list[bytes], sink: Sink) -> None:
        fresh = {state.link.index: state for body in bodies if (state := parse_link(body))}
        removed = [index for index in self._links if index not in fresh]
        self._links = fresh
        sink.links([state.link for state in fresh.values()], removed)

    def _take_nexthops(self, nexthops: list[Nexthop], sink: Sink) -> None:
        gone, changed = self._nexthops.replace_all(nexthops)
        if gone:
            self._retire_nexthops(gone, sink)
        self._nexthops_changed(changed, sink)

    def _take_neighbours(self, bodies: list[bytes], sink: Sink) -> None:
        states = [state for body in bodies if (state := parse_neighbour(body)) and state.usable]
        fresh = {(s.neighbour.interface, s.neighbour.address): s.neighbour.mac for s in states}
        learned = [Neighbour(*key, mac) for key, mac in fresh.items() if self._neighbours.get(key) != mac]
        removed = [Neighbour(*key, mac) for key, mac in self._neighbours.items() if key not in fresh]
        self._neighbours = fresh
        if learned or removed:
            sink.neighbours(learned, removed)


def _check_types(messages: Messages, expected: int) -> None:
    wrong = np.flatnonzero(messages.types != expected)
    if len(wrong):
        number = int(wrong[0])
        raise NetlinkDecodeError(
            int(messages.starts[number]) + 4,
            found=f"message type {int(messages.types[number])}",
            expected=f"type {expected} in this dump",
        )
