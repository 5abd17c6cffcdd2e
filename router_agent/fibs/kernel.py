"""A kernel as a FIB: routes of one protocol id, in this or another network namespace.

Only routes of that protocol id and metric are read, and only they are replaced or deleted. An addition is
exclusive: where somebody else holds the prefix with the same metric the kernel refuses it (EEXIST).

With an interface map the namespace is a forwarding plane whose ports mirror the control plane's, have no
addresses and learn no neighbours: gateways are written as on-link, and neighbours are copied. Without, it is
the control plane's own namespace and the indexes are the same.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from ipaddress import ip_address

import numpy as np

from router_agent.events import Event, about
from router_agent.fibs.fib import FibError, FibLostError, FibRoutes, Forwarding, Load, LookedUp
from router_agent.model import (
    ABSENT,
    I32,
    I64,
    U32,
    U64,
    Changes,
    Failures,
    Family,
    Interner,
    Link,
    Mask,
    Neighbour,
    Path,
    PathSet,
    Reason,
    RouteType,
)
from router_agent.namespaces import NamespaceError, Watch, identity
from router_agent.netlink import constants as c
from router_agent.netlink.encode import Batch, Writer, encode
from router_agent.netlink.links import LINK_REQUEST, LinkState, address_request, parse_address, parse_link
from router_agent.netlink.messages import Messages, NetlinkDecodeError, attribute, extended_text
from router_agent.netlink.neighbours import REQUEST as NEIGHBOUR_REQUEST
from router_agent.netlink.neighbours import encode_neighbour, parse_neighbour
from router_agent.netlink.paths import PathIds, parse_path, path_set_of, unicast
from router_agent.netlink.routes import RouteDecoder, route_places
from router_agent.netlink.sockets import (
    DumpInterruptedError,
    DumpSocket,
    EventsLostError,
    EventSocket,
    NetlinkError,
    WriteSocket,
)
from router_agent.prefix_table import PrefixTable

_log = logging.getLogger(__name__)

_RTMSG = struct.Struct("=BBBBBBBBI")
_RESERVED = {c.RTPROT_UNSPEC, c.RTPROT_REDIRECT, c.RTPROT_KERNEL, c.RTPROT_BOOT, c.RTPROT_STATIC}
_BATCH_MESSAGES = 1000
_MOST_LEGS = 1024
"""What surely fits RTA_MULTIPATH, whose length has 16 bits."""
_DUMP_TRIES = 5
_TEXTS_KEPT = 8
_NO_ROUTE = {errno.ESRCH, errno.ENOENT}
"""What a delete answers when the route has gone already: it is as it should be."""


class KernelFib:
    """Routes of one protocol in one namespace.

    Keyword Args:
        namespace: as in ``ip netns``, or a path; None is the process's own.
        protocol: our route protocol id, 5 to 255; those that rtnetlink.h gives to a daemon only with
            `shared_protocol`.
        metric: route priority of everything we write, from 1.
        interfaces: control-plane interface name to name in the namespace; None when it is the same one.
        on_link: write gateways as reachable over their interface whatever the addresses say; None means
            so with an interface map and not so without.
        window: most unanswered requests; a batch is at most this long, and never above 1,000 routes.
        shared_protocol: the protocol id may be one that belongs to a daemon.

    Attributes:
        refusals: the kernel's own words about the first few routes it refused in the last write.
    """

    cheap_to_read = True
    capacity = None

    def __init__(
        self,
        *,
        namespace: str | None = None,
        protocol: int,
        metric: int,
        interfaces: Mapping[str, str] | None = None,
        on_link: bool | None = None,
        window: int = 1000,
        shared_protocol: bool = False,
    ) -> None:
        _check_protocol(protocol, shared=shared_protocol)
        if not 1 <= metric <= 0xFFFFFFFF:
            raise ValueError(f"metric {metric}: expected 1 to {0xFFFFFFFF} (IPv6 has no metric 0)")
        if window < 1:
            raise ValueError(f"window {window}: expected at least 1")
        self._namespace = namespace
        self._interfaces = dict(interfaces) if interfaces is not None else None
        self._writer = Writer(protocol, metric, interfaces is not None if on_link is None else on_link)
        # a batch holds the event loop for as long as the kernel works on it: 4 ms for 1,000 routes
        self._batch_messages = min(window, _BATCH_MESSAGES)
        self._sets: Interner[PathSet] = Interner()
        self._control: dict[int, str] = {}
        self._links: dict[int, LinkState] = {}
        self._by_name: dict[str, int] = {}
        self._addresses: set[tuple[int, bytes, int]] = set()
        self._neighbours: dict[tuple[int, bytes], bytes] = {}
        self._socket: WriteSocket | None = None
        self._events: EventSocket | None = None
        self._identity: tuple[int, int] | None = None
        self._sequence = 0
        self._readers = 0
        """Readings under way, which know path sets by ids that no route of ours may have."""
        self.refusals: list[str] = []

    # -- opening ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """See `Fib`."""
        await self.close()
        try:
            self._identity = identity(self._namespace) if self._namespace else None
            groups = [c.RTNLGRP_LINK]
            if self._interfaces is None:
                # a gateway may become reachable, or stop being so
                groups += [c.RTNLGRP_IPV4_IFADDR, c.RTNLGRP_IPV6_IFADDR]
            self._events = EventSocket(self._namespace, groups, buffer_bytes=1 << 20)
            self._socket = WriteSocket(self._namespace)
            await self._read_interfaces()
            await self._read_neighbours()
        except (NetlinkError, NamespaceError, NetlinkDecodeError, DumpInterruptedError) as error:
            await self.close()
            raise FibError(f"cannot open the kernel FIB{self._where}: {error}") from error

    @property
    def load(self) -> Load:
        """See `Fib`. The kernel answers a batch before the write of it returns."""
        return Load(window=self._batch_messages)

    async def close(self) -> None:
        """See `Fib`."""
        for sock in (self._socket, self._events):
            if sock is not None:
                sock.close()
        self._socket = self._events = None

    @property
    def _where(self) -> str:
        return f" of namespace {self._namespace!r}" if self._namespace else ""

    async def _read_interfaces(self) -> None:
        bodies = await self._dump(c.RTM_GETLINK, LINK_REQUEST)
        self._links = {state.link.index: state for body in bodies if (state := parse_link(body))}
        self._by_name = {state.link.name: index for index, state in self._links.items()}
        self._addresses = set()
        for family in Family:
            bodies = await self._dump(c.RTM_GETADDR, address_request(family))
            self._addresses.update(parse_address(body) for body in bodies)
        missing = [n for n in (self._interfaces or {}).values() if n not in self._by_name]
        if missing:
            _log.warning(
                "interfaces %s do not exist%s: routes over them wait for them",
                *(", ".join(sorted(missing)), self._where),
                extra=about(Event.INTERFACE_MISSING, interfaces=sorted(missing)),
            )

    async def _read_neighbours(self) -> None:
        """Learn which neighbours an earlier run of ours left behind."""
        self._neighbours = {}
        if self._interfaces is None:
            return
        for body in await self._dump(c.RTM_GETNEIGH, NEIGHBOUR_REQUEST):
            state = parse_neighbour(body)
            if state and state.protocol == self._writer.protocol:
                neighbour = state.neighbour
                self._neighbours[neighbour.interface, neighbour.address] = neighbour.mac

    async def _dump(self, kind: int, request: bytes) -> list[bytes]:
        for attempt in range(1, _DUMP_TRIES + 1):
            dumps = DumpSocket(self._namespace)
            bodies: list[bytes] = []
            try:
                async for messages in dumps.dump(kind, request):
                    bodies += [messages.body(number) for number in range(len(messages))]
            except DumpInterruptedError:
                if attempt == _DUMP_TRIES:
                    raise
                continue
            finally:
                dumps.close()
            return bodies
        raise AssertionError("unreachable")

    # -- reading ---------------------------------------------------------------------------------

    async def read(self, family: Family, table: int) -> AsyncIterator[FibRoutes]:
        """See `Fib`."""
        self._check_there()
        paths = PathIds()
        decoder = RouteDecoder(tables=(table,), protocols=frozenset({self._writer.protocol}), paths=paths)
        ids: U32 = np.zeros(1, np.uint32)
        request = _RTMSG.pack(
            family, 0, 0, 0, table if table < 256 else 0, self._writer.protocol, 0, 0, 0
        ) + attribute(c.RTA_TABLE, table.to_bytes(4, "little"))
        try:
            dumps = DumpSocket(self._namespace)
        except (NetlinkError, NamespaceError) as error:
            raise FibLostError(f"reading the kernel FIB{self._where}: {error}") from error
        last: U64 = np.empty((0, family.key_width), np.uint64)
        self._readers += 1
        try:
            async with aclosing(dumps.dump(c.RTM_GETROUTE, request)) as chunks:
                async for messages in chunks:
                    for batch in decoder.decode(messages):
                        ids = self._translate(paths, ids)
                        ours = batch.metrics == self._writer.metric
                        keys, held = batch.keys[ours], ids[batch.paths[ours]]
                        # of several with one prefix, which stand together, the kernel uses the first
                        first = _differs_from_previous(keys, last)
                        last = keys[-1:] if len(keys) else last
                        if first.any():
                            yield FibRoutes(family, table, keys[first], held[first])
        except NetlinkError as error:
            # a table nobody has written to does not exist yet
            if error.number != errno.ENOENT:
                raise FibLostError(f"reading the kernel FIB{self._where}: {error}") from error
        except (NetlinkDecodeError, DumpInterruptedError) as error:
            raise FibLostError(f"reading the kernel FIB{self._where}: {error}") from error
        finally:
            self._readers -= 1
            dumps.close()

    def _translate(self, paths: PathIds, ids: U32) -> U32:
        """Return our ids by kernel path id, for the paths that `ids` does not reach yet."""
        fresh = [
            self._sets.id(path_set_of(paths[number]) or PathSet(RouteType.UNICAST))
            for number in range(len(ids), paths.limit)
        ]
        return np.concatenate((ids, np.array(fresh, np.uint32))) if fresh else ids

    async def look_up(self, family: Family, table: int, keys: U64) -> LookedUp:
        """See `Fib`. The kernel has no exact look-up: its answer to an address follows rules and metrics."""
        found = PrefixTable(family.key_width, {"path": np.uint32})
        async for routes in self.read(family, table):
            shown = found.find_or_insert(routes.keys)
            found["path"][shown] = routes.paths
        rows = found.find(keys)
        paths: U32 = np.where(rows >= 0, found["path"][rows], np.uint32(ABSENT)).astype(np.uint32)
        return LookedUp(paths, np.zeros(len(keys), np.bool_), np.full(len(keys), -1, np.int64))

    async def forwarding(self, family: Family, table: int, key: U64) -> Forwarding:
        """See `Fib`. How the kernel resolves it is told by ``ip route get``, to whoever asks."""
        return Forwarding(path=int((await self.look_up(family, table, key)).paths[0]))

    async def check_shared(self, *, repair: bool) -> int:  # noqa: ARG002 - nothing is shared
        """See `Fib`. Every route of a kernel FIB names its legs itself."""
        return 0

    async def entries(self, family: Family, table: int) -> I64 | None:  # noqa: ARG002 - nobody counts
        """See `Fib`."""
        return None

    async def covered_paths(self, family: Family, table: int, keys: U64) -> U32:  # noqa: ARG002
        """See `Fib`. A kernel shows every route of ours, best or not."""
        return np.zeros(len(keys), np.uint32)

    # -- writing ---------------------------------------------------------------------------------

    async def write(self, changes: Changes) -> Failures:
        """See `Fib`."""
        batch_bytes = self._check_there().batch_bytes
        self.refusals = []
        wrong = self._unwritable(changes)
        rows, codes = [wrong], [np.full(len(wrong), -errno.EAFNOSUPPORT, np.int32)]
        kept = np.delete(np.arange(len(changes)), wrong) if len(wrong) else None
        if kept is not None:
            changes = Changes(
                changes.family, changes.table, changes.keys[kept], changes.paths[kept], changes.held[kept]
            )
        batches = encode(
            changes, self._writer, self._sets.__getitem__, first=self._sequence + 1,
            batch_messages=self._batch_messages, batch_bytes=batch_bytes,
        )  # fmt: skip
        for batch in batches:
            refused, why = self._send(batch, changes)
            rows.append(refused if kept is None else kept[refused])
            codes.append(why)
            await asyncio.sleep(0)
        return Failures(np.concatenate(rows), np.concatenate(codes))

    def _send(self, batch: Batch, changes: Changes) -> tuple[I64, I32]:
        """Send one batch; return the rows that the kernel refused, and its errors."""
        if self._socket is None:
            raise FibLostError(f"the kernel FIB{self._where} is closed")
        last = (batch.first + len(batch.rows) - 1) & 0xFFFFFFFF
        self._sequence = last
        try:
            answers = self._socket.exchange(batch.data, last)
        except (NetlinkError, NetlinkDecodeError) as error:
            raise FibLostError(f"writing to the kernel FIB{self._where}: {error}") from error
        rows: list[I64] = []
        codes: list[I32] = []
        for answer, messages in answers:
            failed = np.flatnonzero(answer.errors != 0)
            if not len(failed):
                continue
            position = (answer.sequences[failed].astype(np.int64) - batch.first) & 0xFFFFFFFF
            failed_rows, errors = batch.rows[position], answer.errors[failed]
            gone = (changes.paths[failed_rows] == ABSENT) & np.isin(-errors, list(_NO_ROUTE))
            rows.append(failed_rows[~gone])
            codes.append(errors[~gone])
            self._keep_texts(messages, answer.numbers[failed[~gone]])
        if not rows:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        return np.concatenate(rows), np.concatenate(codes)

    def _keep_texts(self, messages: Messages, numbers: I64) -> None:
        for number in numbers[: _TEXTS_KEPT - len(self.refusals)]:
            if text := extended_text(messages, int(number)):
                self.refusals.append(text)

    def _unwritable(self, changes: Changes) -> I64:
        """Return the rows that this family cannot express, which the kernel would store as something else.

        IPv6 stores several legs without gateway as several routes, and has no IPv4 gateways.
        """
        if changes.family is Family.IPV4:
            return np.empty(0, np.int64)
        wrong = [
            int(number)
            for number in np.unique(changes.paths)
            if number != ABSENT and not _fits_ipv6(self._sets[int(number)])
        ]
        return np.flatnonzero(np.isin(changes.paths, wrong)) if wrong else np.empty(0, np.int64)

    # -- paths and interfaces --------------------------------------------------------------------

    def repoint(self, number: int, wanted: PathSet) -> bool:
        """See `Fib`. Routes have their paths themselves here, so they have to be written."""
        del number, wanted
        return False

    async def retain_paths(self, in_use: Mask) -> None:
        """See `Fib`. Not while somebody reads: the next time will do."""
        if not self._readers:
            self._sets.release(in_use)

    def path_id(self, wanted: PathSet, current: int = ABSENT) -> int | Reason:
        """See `Fib`. A path without interface gets the one that the kernel reaches its gateway by."""
        del current  # an id stands for the same as long as it is in use here
        if wanted.type is not RouteType.UNICAST:
            return self._sets.id(PathSet(wanted.type))
        legs: list[Path] = []
        for path in wanted.paths:
            interface = self._interface(path)
            if isinstance(interface, Reason):
                return interface
            if path.labels or path.tunnel:
                return Reason.UNSUPPORTED_ENCAPSULATION
            legs.append(Path(interface, path.gateway, path.weight))
        if len(legs) > _MOST_LEGS:
            return Reason.OVER_CAPACITY
        simplest = unicast(legs)
        return self._sets.id(simplest) if simplest else Reason.UNRESOLVED_NEXT_HOP

    @property
    def path_limit(self) -> int:
        """See `Fib`."""
        return self._sets.limit

    def path_set(self, number: int) -> PathSet:
        """See `Fib`."""
        return self._sets[number]

    def interface_name(self, interface: int) -> str:
        """See `Fib`."""
        state = self._links.get(interface)
        return state.link.name if state else f"#{interface}"

    def counterpart(self, interface: int) -> str | None:
        """See `Fib`."""
        if self._interfaces is None:
            state = self._links.get(interface)
            return state.link.name if state else None
        return self._interfaces.get(self._control.get(interface, ""))

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> bool:
        """See `Fib`."""
        before = dict(self._control)
        for link in links:
            self._control[link.index] = link.name
        for index in removed:
            self._control.pop(index, None)
        return self._interfaces is not None and self._control != before

    def _interface(self, path: Path) -> int | Reason:
        if not path.interface:
            return self._interface_towards(path.gateway)
        if self._interfaces is None:
            return path.interface
        name = self._interfaces.get(self._control.get(path.interface, ""))
        return self._by_name.get(name or "", Reason.UNRESOLVED_INTERFACE)

    def _interface_towards(self, gateway: bytes) -> int | Reason:
        """Ask the kernel which interface a gateway is directly reachable by."""
        if not gateway or self._socket is None:
            return Reason.UNRESOLVED_NEXT_HOP
        if ip_address(gateway).is_link_local:
            return Reason.UNRESOLVED_INTERFACE
        family = Family.IPV4 if len(gateway) == 4 else Family.IPV6
        body = _RTMSG.pack(family, 8 * len(gateway), 0, 0, 0, 0, 0, 0, 0) + attribute(c.RTA_DST, gateway)
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        try:
            error, answer = self._socket.request(c.RTM_GETROUTE, 0, body, self._sequence)
            if error or not len(answer) or int(answer.types[0]) != c.RTM_NEWROUTE:
                return Reason.UNRESOLVED_NEXT_HOP
            route = answer.message(0)
            found = parse_path(route, route_places(route), lambda _: False)
        except (NetlinkError, NetlinkDecodeError) as problem:
            _log.warning(
                "cannot ask the kernel%s for the way to a next hop, its routes wait: %s",
                *(self._where, problem),
                extra=about(Event.NEXT_HOP_REFUSED, problem=str(problem)),
            )
            return Reason.UNRESOLVED_NEXT_HOP
        # a kernel's next hop must be a neighbour: a gateway to the gateway is refused by it, too
        direct = found.type is RouteType.UNICAST and len(found.legs) == 1 and not found.legs[0].gateway
        return found.legs[0].interface if direct else Reason.UNRESOLVED_NEXT_HOP

    # -- neighbours ------------------------------------------------------------------------------

    def on_change(self, changed: Callable[[], None]) -> None:
        """See `Fib`: nothing but `links` changes what a path means here."""

    def neighbours_lost(self, lost: Sequence[Neighbour]) -> None:
        """See `Fib`. The kernel looks at its neighbours itself."""

    async def write_neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None:
        """See `Fib`. Written as permanent and marked with our protocol id; without interface map, none."""
        if self._interfaces is None:
            return
        self._check_there()
        for neighbour in learned:
            interface = self._interface(Path(neighbour.interface))
            if isinstance(interface, Reason):
                continue
            key = (interface, neighbour.address)
            if self._neighbours.get(key) == neighbour.mac:
                continue
            mirrored = Neighbour(interface, neighbour.address, neighbour.mac)
            if self._request_neighbour(c.RTM_NEWNEIGH, c.NLM_F_CREATE | c.NLM_F_REPLACE, mirrored):
                self._neighbours[key] = neighbour.mac
        for neighbour in removed:
            interface = self._interface(Path(neighbour.interface))
            if not isinstance(interface, Reason):
                self._remove_neighbour((interface, neighbour.address))

    async def retain_neighbours(self, current: Sequence[Neighbour]) -> None:
        """Remove those of our neighbours that are not among `current` (control-plane interfaces)."""
        if self._interfaces is None:
            return
        self._check_there()
        kept = {(self._interface(Path(n.interface)), n.address) for n in current}
        for key in [key for key in self._neighbours if key not in kept]:
            self._remove_neighbour(key)

    def _remove_neighbour(self, key: tuple[int, bytes]) -> None:
        # entries that we did not write are not ours to remove
        if self._neighbours.pop(key, None) is not None:
            self._request_neighbour(c.RTM_DELNEIGH, 0, Neighbour(*key, b""))

    def _request_neighbour(self, kind: int, flags: int, neighbour: Neighbour) -> bool:
        if self._socket is None:
            raise FibLostError(f"the kernel FIB{self._where} is closed")
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        body = encode_neighbour(neighbour, protocol=self._writer.protocol, permanent=kind == c.RTM_NEWNEIGH)
        try:
            error, _ = self._socket.request(kind, flags, body, self._sequence)
        except (NetlinkError, NetlinkDecodeError) as problem:
            raise FibLostError(f"writing neighbours{self._where}: {problem}") from problem
        if error and error not in _NO_ROUTE:
            _log.warning(
                "the kernel%s refused neighbour %s: %s; what is sent there waits or is dropped",
                *(self._where, ip_address(neighbour.address), errno.errorcode.get(error)),
                extra=about(
                    Event.NEIGHBOUR_REFUSED,
                    neighbour=str(ip_address(neighbour.address)),
                    problem=errno.errorcode.get(error, str(error)),
                ),
            )
        return not error

    # -- being lost ------------------------------------------------------------------------------

    def _check_there(self) -> WriteSocket:
        if self._socket is None:
            raise FibLostError(f"the kernel FIB{self._where} is closed")
        # our own socket keeps a namespace alive that was deleted: only its name tells
        if self._namespace and identity(self._namespace) != self._identity:
            raise FibLostError(f"network namespace {self._namespace!r} was removed or made anew")
        return self._socket

    async def wait_lost(self) -> None:
        """See `Fib`. Link or address changes after which routes may be missing or gateways resolve."""
        if self._events is None:
            return
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[None] = loop.create_future()
        events = self._events
        try:
            watch = Watch(self._namespace) if self._namespace else None
        except NamespaceError as error:
            raise FibLostError(str(error)) from error

        def check() -> None:
            if not lost.done() and ((watch and watch.gone()) or self._changed(events)):
                lost.set_result(None)

        watched = [events.fileno(), *([watch.fileno()] if watch else [])]
        for descriptor in watched:
            loop.add_reader(descriptor, check)
        try:
            check()
            await lost
        finally:
            for descriptor in watched:
                with suppress(ValueError, OSError):
                    loop.remove_reader(descriptor)
            if watch:
                watch.close()

    def _changed(self, events: EventSocket) -> bool:
        """Read the link and address events; return whether one of them matters."""
        while True:
            try:
                data = events.receive()
                if not len(data):
                    return False
                messages = Messages.find(data)
                kinds = messages.types
                for number in range(len(messages)):
                    if self._matters(int(kinds[number]), messages.body(number)):
                        return True
            except (EventsLostError, NetlinkError, NetlinkDecodeError) as error:
                _log.info(
                    "watching the kernel FIB%s: %s; it is read again",
                    *(self._where, error),
                    extra=about(Event.READING_UNCLEAN, problem=str(error)),
                )
                return True

    def _matters(self, kind: int, body: bytes) -> bool:
        if kind in (c.RTM_NEWADDR, c.RTM_DELADDR):
            # the kernel tells of an address again whenever its lifetime is renewed
            return (parse_address(body) in self._addresses) == (kind == c.RTM_DELADDR)
        if kind not in (c.RTM_NEWLINK, c.RTM_DELLINK) or (state := parse_link(body)) is None:
            return False
        names = set((self._interfaces or {}).values())
        before = self._links.get(state.link.index)
        if self._interfaces is not None and not names & {state.link.name, before.link.name if before else ""}:
            return False
        if kind == c.RTM_DELLINK or before is None:
            return before is not None or self._interfaces is not None
        return (state.link.up, state.link.name) != (before.link.up, before.link.name)


def _differs_from_previous(keys: U64, before: U64) -> Mask:
    """Return which rows differ from the row above them; `before` holds the one above the first, or none."""
    differs: Mask = np.ones(len(keys), np.bool_)
    differs[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    if len(keys) and len(before):
        differs[0] = bool((keys[0] != before[0]).any())
    return differs


def _check_protocol(protocol: int, *, shared: bool) -> None:
    if not 1 <= protocol <= 255 or protocol in _RESERVED:
        raise ValueError(
            f"route protocol {protocol}: expected 5 to 255 (0 to 4 are the kernel's and the administrator's)"
        )
    owner = c.DAEMON_PROTOCOLS.get(protocol)
    if owner and not shared:
        raise ValueError(
            f"route protocol {protocol} belongs to {owner} (linux/rtnetlink.h), whose routes would be taken "
            "for ours and deleted: choose a number of its own, or say that the number is shared"
        )


def _fits_ipv6(paths: PathSet) -> bool:
    if any(len(path.gateway) == 4 for path in paths.paths):
        return False
    return len(paths.paths) < 2 or all(path.gateway for path in paths.paths)
