"""VPP as a FIB: routes under a source of our own, neighbours copied, interfaces matched by name.

Route ownership. VPP keeps, for one prefix, what each source says and forwards by the best one. The agent adds
a source by name (``fib_source_add``) with a priority between interface routes (3) and API routes (128), and
reads and writes only that. Sources outlive the client that made them, so after a restart the same name finds
the former routes. ``ip_route_v2_dump`` shows a source's routes only where it is the best of its prefix: a
route of ours under an address VPP itself has on an interface is there, but is not shown.

Interfaces. Path sets of the control plane name kernel interfaces; the constructor's ``interfaces``, or pairs
of linux-cp, say which VPP interface stands for each (`router_agent.vpp.interfaces`). In path sets of this FIB
an interface is its sw_if_index + 1.

Recursion. With ``recursion`` routes with gateways lead through entries of next-hop tables of our own, one a
path set (`router_agent.vpp.entries`): what a path set leads to is then changed by one request, sent ahead of
everything else.

Forwarding without addresses. A mirrored port has its addresses in the control plane, not in VPP, and VPP
drops IP packets on an interface that IP is not enabled on; `router_agent.vpp.ports` says how it is enabled.
Routes need no address either: their paths are attached next hops (sw_if_index and gateway), and the rewrite
comes from the static neighbours the agent copies (`router_agent.vpp.neighbours`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from router_agent.events import Event, about
from router_agent.fibs.fib import FibError, FibRoutes, Forwarding, Load, LookedUp
from router_agent.model import (
    ABSENT,
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
    prefixes_of,
)
from router_agent.vpp.capacity import VppCapacity
from router_agent.vpp.entries import Entries
from router_agent.vpp.interfaces import MESSAGES as INTERFACE_MESSAGES
from router_agent.vpp.interfaces import Interfaces
from router_agent.vpp.legs import LegsInUse
from router_agent.vpp.lookups import (
    RouteLookups,
    beneath,
    entries_by_length,
    forwarding_lines,
    forwarding_problem,
)
from router_agent.vpp.neighbours import Connected, Entry, Refused, VppNeighbours
from router_agent.vpp.next_hops import DEFAULT_TABLE, NextHopTables, find_tables, make_tables
from router_agent.vpp.numbering import Numbering
from router_agent.vpp.ownership import Ownership
from router_agent.vpp.routes import MOST_LABELS, MOST_PATHS, RouteCodec, normal_weights
from router_agent.vpp.session import VppSession

log = logging.getLogger(__name__)

DEFAULT_API_SOCKET = FilePath("/run/vpp/api.sock")
DEFAULT_SOURCE = "router-agent"
DEFAULT_PRIORITY = 64
DEFAULT_WINDOW = 16_384

HOSTS_SUFFIX = ":hosts"
"""What the name of the source of neighbours' host routes ends in."""

INTERFACE_PRIORITY = 3
"""``FIB_SOURCE_INTERFACE`` of src/vnet/fib/fib_source.h: lower is better."""
API_PRIORITY = 128
"""``FIB_SOURCE_API``."""

_NAME_BYTES = 63
ANY_ATTACHED = -1
"""Stands for the interface of a path without gateway, where VPP does not name it."""
_DEAD_PATH = re.compile(
    r"weight=\d+ pref=\d+ (attached-nexthop|attached):\s+oper-flags:[^\n]*\bdrop,[^\n]*\n[^\n]*if_index:(\d+)"
)
_MESSAGES: dict[str, tuple[str, ...]] = {
    "fib_source_dump": (),
    "fib_source_details": ("src.priority", "src.id", "src.name"),
    "fib_source_add": ("src.priority", "src.name"),
    **INTERFACE_MESSAGES,
    "ip_table_dump": (),
    "ip_table_details": ("table.table_id", "table.is_ip6"),
    "ip_table_add_del_v2": ("table.table_id", "table.is_ip6", "table.name", "is_add"),
    "cli_inband": ("cmd",),
}


class VppFib:
    """A running VPP, written under one FIB source (and a second one for neighbours' host routes).

    Args:
        interfaces: control-plane interface name to VPP interface name; None takes linux-cp's pairs.
        namespace: network namespace of the control plane, to tell its pairs; None is the agent's own.
        api_socket: VPP's API socket.
        source_name: name of our FIB source, short enough for 63 bytes with `HOSTS_SUFFIX`.
        source_priority: its priority; must lie between interface and API sources, as must the next one.
        window: most requests unanswered at any time.
        tables: (family, VPP table id) pairs the routes go to; created where they do not exist.
        recursion: whether routes lead through entries of next-hop tables. What was written the other way is
            understood, and rewritten as it is wanted.
        recursion_table: VPP table id of the next-hop tables; the next free one where it is taken.
        stats_socket: VPP's stats segment; ``stats.sock`` beside the API socket when None.

    Raises:
        FibError: an argument is out of range.
    """

    cheap_to_read = False

    def __init__(
        self,
        *,
        interfaces: Mapping[str, str] | None,
        namespace: str | None = None,
        api_socket: FilePath = DEFAULT_API_SOCKET,
        source_name: str = DEFAULT_SOURCE,
        source_priority: int = DEFAULT_PRIORITY,
        window: int = DEFAULT_WINDOW,
        tables: Sequence[tuple[Family, int]] = ((Family.IPV4, 0), (Family.IPV6, 0)),
        recursion: bool = True,
        recursion_table: int = DEFAULT_TABLE,
        stats_socket: FilePath | None = None,
    ) -> None:
        _check_arguments(source_name, source_priority, window)
        self._source_name = source_name
        self._source_priority = source_priority
        self._interfaces = Interfaces(interfaces, namespace)
        self._window = window
        self._tables = tuple(tables)
        self._ownership = Ownership(api_socket, source_name)
        name = f"router-agent:{source_name}"[:_NAME_BYTES]
        self._session = VppSession(api_socket=api_socket, name=name, on_event=self._on_event)
        self._recursion_table = recursion_table
        self._legs = LegsInUse()
        self._entries = Entries(recursion=recursion, in_use=self._legs.of)
        self._next_hops: NextHopTables | None = None
        self._sets: Interner[PathSet] = Interner()
        """The paths that routes themselves have in VPP."""
        self._numbering = Numbering(self._entries, self._sets)
        self.capacity = VppCapacity(stats_socket or api_socket.with_name("stats.sock"))
        self._codec: RouteCodec | None = None
        self._lookups: RouteLookups | None = None
        self._neighbour_fib: VppNeighbours | None = None
        self._connected = Connected(self._sets)
        self._neighbours: dict[tuple[int, bytes], bytes] = {}
        """Wanted: (control-plane ifindex, address) to MAC."""
        self._neighbours_settled = True
        self._looking_up = 0
        """Look-ups under way, which know path sets by the codec's ids."""
        self._dead: set[int] = set()
        """sw_if_index of deleted interfaces that paths hung on when we connected; see `dead_interfaces`."""
        self._revived: set[tuple[Family, int]] = set()
        self._interfaces_changed = asyncio.Event()
        self._pairs_doubtful = asyncio.Event()
        self._pairs_watch: asyncio.Task[None] | None = None
        self._learned_ports: frozenset[int] = frozenset()
        self._changed: Callable[[], None] = lambda: None

    async def open(self) -> None:
        """Connect, refuse a second writer, find or add our sources, learn interfaces and neighbours.

        Creates configured tables that do not exist. Nothing else in VPP is changed.

        Raises:
            FibError: with what to do about it.
        """
        await self._session.open()
        try:
            self._session.require(_MESSAGES)
            refuse_linux_nl(await self._session.cli("show plugins"))
            self._ownership.take()
            await self._create_tables()
            await self._take_sources()
            await self._open_side_stream()
            await self.capacity.open()
            self._interfaces_changed.clear()
            await self._session.call("want_interface_events", enable_disable=1, pid=os.getpid())
            self._pairs_doubtful.clear()
            await self._interfaces.learn(self._session)
            self._revived.clear()
            self._dead = dead_interfaces(await self._session.cli("show fib paths"))
            await self._learn_neighbours()
            await self._learn_entries()
            if self._interfaces.paired:
                self._pairs_watch = asyncio.create_task(self._watch_pairs(), name="linux-cp pairs")
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect. What VPP holds stays and keeps forwarding."""
        watch, self._pairs_watch = self._pairs_watch, None
        if watch is not None:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        self.capacity.close()
        await self._session.close()
        self._ownership.give_up()

    @property
    def version(self) -> str:
        """VPP's version, such as ``26.06-release``; empty before `open`."""
        return self._session.version

    @property
    def highest_unanswered(self) -> int:
        """The most requests that were unanswered at one time since `open`."""
        return self._session.stream.highest_unanswered

    @property
    def load(self) -> Load:
        """See `Fib`."""
        stream = self._session.open_stream
        return Load(
            unanswered=stream.unanswered if stream else 0,
            highest_unanswered=stream.highest_unanswered if stream else 0,
            window=self._window,
            entries=len(self._entries.held()) if self._entries.recursion else None,
            refused_neighbours=len(self._neighbour_fib.refused) if self._neighbour_fib else 0,
        )

    @property
    def refused_neighbours(self) -> Sequence[Refused]:
        """Neighbours VPP refused the last time it was asked, in VPP's interface numbers."""
        return tuple(self._open_neighbours().refused.values())

    async def read(self, family: Family, table: int) -> AsyncIterator[FibRoutes]:
        """Yield every route of our source in a table; 12 bytes an IPv4 route, 28 an IPv6 one.

        Routes that hang on a deleted interface are taken off it first: they keep what other legs they have,
        or go, and are yielded so.

        Raises:
            FibLostError: VPP went away; nothing was yielded.
        """
        await self._open_next_hops().read(family)
        chunks = await self._open_codec().read(family, table)
        if self._dead and (family, table) not in self._revived:
            chunks = await self._revive(family, table, chunks)
            self._revived.add((family, table))
        if not chunks:
            return
        # In one piece: who takes it knows the size, and makes room once.
        keys, paths = (np.concatenate(column) for column in zip(*chunks, strict=True))
        chunks.clear()
        if self._connected.note(family, table, keys, paths):
            self._neighbours_settled = False
        yield FibRoutes(family, table, keys, self._numbering.from_codec(family, paths))

    async def look_up(self, family: Family, table: int, keys: U64) -> LookedUp:
        """Return what VPP holds for these keys; see `Fib` and `router_agent.vpp.lookups`.

        Raises:
            FibLostError: VPP went away.
        """
        self._looking_up += 1
        try:
            found = await self._open_lookups().look_up(family, table, keys)
        finally:
            self._looking_up -= 1
        found.paths = self._numbering.from_codec(family, found.paths)
        return found

    async def check_shared(self, *, repair: bool) -> int:
        """Read the next-hop tables, which are small; see `Fib`.

        Raises:
            FibLostError: VPP went away.
        """
        next_hops = self._open_next_hops()
        await next_hops.settled()
        for family in next_hops.tables:
            await next_hops.read(family)
        wrong = len(list(self._entries.due()))
        if wrong and repair:
            next_hops.post()
            await next_hops.settled()
        return wrong

    async def entries(self, family: Family, table: int) -> I64:
        """Return VPP's own count of entries by prefix length, which it keeps: no table is walked for it.

        Raises:
            FibLostError: VPP went away.
        """
        await self._open_next_hops().read(family)
        summary = await self._session.cli(f"show {_cli_family(family)} fib table {table} summary")
        return entries_by_length(summary, family)

    async def covered_paths(self, family: Family, table: int, keys: U64) -> U32:
        """Return what lies beneath entries of better sources, from the debug CLI, one prefix at a time.

        Raises:
            FibLostError: VPP went away.
        """
        interfaces = {name: index + 1 for index, name in self._interfaces.names.items()}
        paths = np.zeros(len(keys), np.uint32)
        for row, prefix in enumerate(prefixes_of(keys)):
            listing = await self._session.cli(f"show {_cli_family(family)} fib table {table} {prefix}")
            found = beneath(listing, self._source_name, interfaces)
            if found is not None:
                paths[row] = self._entries.id_of_direct(found)
        return paths

    async def forwarding(self, family: Family, table: int, key: U64) -> Forwarding:
        """Return what VPP does with one prefix; how it is resolved is told by its debug CLI alone.

        Raises:
            FibLostError: VPP went away.
        """
        seen = await self.look_up(family, table, key)
        path = int(seen.paths[0])
        drops = path != ABSENT and self._entries.paths(path).type is not RouteType.UNICAST
        (prefix,) = prefixes_of(key)
        listing = await self._session.cli(f"show {_cli_family(family)} fib table {table} {prefix}")
        resolved = forwarding_lines(listing)
        return Forwarding(
            path=path,
            covered=bool(seen.covered[0]),
            counted=self.capacity.counter(int(seen.counters[0])),
            resolved=resolved,
            problem=None if drops else forwarding_problem(resolved),
        )

    async def write(self, changes: Changes) -> Failures:
        """Make VPP hold these changes; return when every one was answered.

        Raises:
            FibLostError: some changes may have been made and some not.
        """
        if not len(changes):
            return Failures()
        family, table = changes.family, changes.table
        refused = await self._open_next_hops().prepare(family, changes.paths)
        if refused:
            return await self._write_rest(changes, refused)
        paths = self._numbering.to_codec(family, changes.paths)
        answers = await self._open_codec().write(family, table, changes.keys, paths, self._window)
        rows = np.flatnonzero(answers)
        taken = answers == 0
        if self._connected.note(family, table, changes.keys[taken], paths[taken]):
            self._neighbours_settled = False
        await self._settle_neighbours()
        return Failures(rows=rows, codes=answers[rows])

    def path_id(self, wanted: PathSet, current: int = ABSENT) -> int | Reason:
        """Translate a path set of the control plane, or say why VPP cannot hold it."""
        paths = self._in_vpp_terms(wanted)
        return paths if isinstance(paths, Reason) else self._entries.id(paths, current)

    def repoint(self, number: int, wanted: PathSet) -> bool:
        """Let a path id stand for another path set; its entries are written at once."""
        paths = self._in_vpp_terms(wanted)
        if isinstance(paths, Reason) or not self._entries.replace(number, paths):
            return False
        self._post_entries(number)
        return True

    async def retain_paths(self, in_use: Mask) -> None:
        """Forget the path ids that are not marked, and remove their entries.

        Raises:
            FibLostError: VPP went away.
        """
        next_hops = self._open_next_hops()
        await next_hops.settled()
        await next_hops.remove(self._entries.release(in_use))
        if not self._entries.recursion and next_hops.tables and not self._entries.held():
            await next_hops.remove_tables()
        if not self._looking_up:
            self._forget_codec_paths()

    def _forget_codec_paths(self) -> None:
        """Let the codec forget what routes' own paths it has ever met; those in use it meets again.

        Only the connected prefixes are known by its ids beyond a write, a reading or a look-up.
        """
        kept = np.zeros(self._sets.limit, np.bool_)
        kept[[*self._connected.paths()]] = True
        self._sets.release(kept)
        self._connected.forget()
        self._numbering.forget()
        self._open_codec().forget()

    @property
    def path_limit(self) -> int:
        """See `Fib`."""
        return self._entries.limit

    def path_set(self, number: int) -> PathSet:
        """Return a path set by id, in VPP's terms."""
        return self._entries.paths(number)

    def interface_name(self, interface: int) -> str:
        """Return VPP's name of an interface number (sw_if_index + 1)."""
        if interface == 0:
            return "any"
        return self._interfaces.names.get(interface - 1, f"sw_if_index {interface - 1}")

    def counterpart(self, interface: int) -> str | None:
        """Return VPP's name of a control-plane interface (by ifindex), None if it has none."""
        index = self._interfaces.translation().get(interface)
        return None if index is None else self._interfaces.names[index]

    def on_change(self, changed: Callable[[], None]) -> None:
        """See `Fib`: linux-cp's pairs come and go."""
        self._changed = changed

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> bool:
        """Take note of control-plane interfaces; True when `path_id` may now answer differently."""
        self._pairs_doubtful.set()
        changed = self._interfaces.links(links, removed)
        self._legs.note_links(links, removed)
        self._note_moved(self._match_legs())
        if changed:
            self._neighbours_settled = False
        return changed

    def neighbours_lost(self, lost: Sequence[Neighbour]) -> None:
        """See `Fib`: entries leave out the legs by these neighbours."""
        translation = self._interfaces.translation()
        for neighbour in lost:
            self._neighbours.pop((neighbour.interface, neighbour.address), None)
        self._legs.lose_neighbours(
            (translation[n.interface], n.address) for n in lost if n.interface in translation
        )
        self._note_moved(self._post_entries())

    async def write_neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None:
        """Copy neighbours; those of unknown interfaces wait until the interface is known.

        What VPP refuses is logged and shown by `refused_neighbours`.

        Raises:
            FibLostError: VPP went away.
        """
        translation = self._interfaces.translation()
        gone: list[Entry] = []
        for neighbour in removed:
            self._neighbours.pop((neighbour.interface, neighbour.address), None)
            if neighbour.interface in translation:
                gone.append((translation[neighbour.interface], neighbour.address))
        for neighbour in learned:
            self._neighbours[neighbour.interface, neighbour.address] = neighbour.mac
        self._neighbours_settled = False
        await self._settle_neighbours(gone)

    async def retain_neighbours(self, current: Sequence[Neighbour]) -> None:
        """Remove static neighbours on our interfaces that are not among these; see `Fib`.

        Raises:
            FibLostError: VPP went away.
        """
        self._neighbours = {(n.interface, n.address): n.mac for n in current}
        fib = self._open_neighbours()
        wanted = self._wanted_neighbours()
        gone = [entry for entry in fib.held if entry not in wanted]
        hosts = self._connected.hosts(wanted)
        await fib.remove_hosts([host for host in fib.hosts if host not in hosts])
        await fib.program(wanted, hosts, gone=gone)
        self._match_neighbours()

    async def wait_lost(self) -> None:
        """Return when VPP has gone away, or an interface we use came, went or changed its number."""
        lost = asyncio.ensure_future(self._session.wait_lost())
        changed = asyncio.ensure_future(self._interfaces_changed.wait())
        try:
            await asyncio.wait((lost, changed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            changed.cancel()

    async def _write_rest(self, changes: Changes, refused: Mapping[int, int]) -> Failures:
        """Write what does not lead through entries that VPP refuses; those rows fail as their entries did."""
        lost: Mask = np.isin(changes.paths, list(refused))
        rest: I64 = np.flatnonzero(~lost)
        failures = await self.write(
            Changes(
                changes.family, changes.table, changes.keys[rest], changes.paths[rest], changes.held[rest]
            )
        )
        rows: I64 = np.flatnonzero(lost)
        codes = np.array([refused[number] for number in changes.paths[rows].tolist()], np.int32)
        return Failures(
            rows=np.concatenate((rest[failures.rows], rows)), codes=np.concatenate((failures.codes, codes))
        )

    async def _revive(
        self, family: Family, table: int, chunks: Sequence[tuple[U64, U32]]
    ) -> list[tuple[U64, U32]]:
        """Take routes off dead paths, all of them before any is written anew; return what is left."""
        now = np.arange(self._sets.limit, dtype=np.uint32)
        for number, held in list(self._sets.items()):
            alive = self._without_dead(held)
            now[number] = self._sets.id(alive) if alive.paths or alive == held else ABSENT
        left = []
        for keys, paths in chunks:
            kept = now[paths]
            moved = kept != paths
            if moved.any():
                count = int(moved.sum())
                log.warning(
                    "taking %d routes off a deleted interface",
                    count,
                    extra=about(Event.TAKEN_OFF, routes=count),
                )
                await self._open_codec().write(family, table, keys[moved], kept[moved], self._window)
            left.append((keys[kept != ABSENT], kept[kept != ABSENT]))
        return left

    def _without_dead(self, paths: PathSet) -> PathSet:
        """Return a path set without its dead legs."""
        legs = tuple(path for path in paths.paths if not self._is_dead(path))
        return paths if legs == paths.paths else PathSet(paths.type, legs)

    def _is_dead(self, path: Path) -> bool:
        if path.interface <= 0:
            return False
        return path.interface - 1 in self._dead or (ANY_ATTACHED in self._dead and not path.gateway)

    def _open_codec(self) -> RouteCodec:
        if self._codec is None:
            raise FibError("the VPP FIB was not opened; call open() first")
        return self._codec

    def _open_lookups(self) -> RouteLookups:
        if self._lookups is None:
            raise FibError("the VPP FIB was not opened; call open() first")
        return self._lookups

    def _open_next_hops(self) -> NextHopTables:
        if self._next_hops is None:
            raise FibError("the VPP FIB was not opened; call open() first")
        return self._next_hops

    def _open_neighbours(self) -> VppNeighbours:
        if self._neighbour_fib is None:
            raise FibError("the VPP FIB was not opened; call open() first")
        return self._neighbour_fib

    def _in_vpp_terms(self, wanted: PathSet) -> PathSet | Reason:
        if wanted.type in (RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT):
            return PathSet(wanted.type)
        if wanted.type is not RouteType.UNICAST:
            return Reason.UNSUPPORTED_TYPE
        if not wanted.paths:
            return Reason.UNRESOLVED_NEXT_HOP
        legs: list[Path] = []
        for path in wanted.paths:
            leg = self._leg(path)
            if isinstance(leg, Reason):
                return leg
            legs.append(leg)
        paths = normal_weights(tuple(legs))
        if len(paths) > MOST_PATHS:
            return Reason.OVER_CAPACITY
        return PathSet(RouteType.UNICAST, paths)

    def _match_legs(self) -> int:
        self._legs.match(self._interfaces.translation())
        return self._post_entries()

    def _match_neighbours(self) -> None:
        wanted, held = self._wanted_neighbours(), self._open_neighbours().held
        self._legs.note_neighbours(entry for entry in held if entry in wanted)
        self._post_entries()

    def _post_entries(self, number: int = ABSENT) -> int:
        return 0 if self._next_hops is None else self._next_hops.post(number)

    def _note_moved(self, entries: int) -> None:
        if entries:
            log.info(
                "a link or neighbour came or went: %d next-hop entries follow at once, and all their routes",
                entries,
                extra=about(Event.REPOINTED, sets=entries),
            )

    def _leg(self, path: Path) -> Path | Reason:
        if path.tunnel or len(path.labels) > MOST_LABELS:
            return Reason.UNSUPPORTED_ENCAPSULATION
        if path.interface == 0:
            return path if path.gateway else Reason.UNRESOLVED_NEXT_HOP
        index = self._interfaces.translation().get(path.interface)
        if index is None:
            return Reason.UNRESOLVED_INTERFACE
        return replace(path, interface=index + 1)

    async def _take_sources(self) -> None:
        """Find or add the source of routes and, one priority below it, that of neighbours' host routes."""
        routes = await self._source(self._source_name, self._source_priority)
        hosts = await self._source(self._source_name + HOSTS_SUFFIX, self._source_priority + 1)
        tables = (
            await make_tables(self._session, self._source_name, self._recursion_table)
            if self._entries.recursion
            else await find_tables(self._session, self._source_name)
        )
        self._entries.reset()
        self._next_hops = NextHopTables(
            self._session, routes, self._entries, tables, self._interfaces_changed.set
        )
        await self._next_hops.connect()
        self._codec = RouteCodec(self._session, routes, self._sets, tables)
        self._neighbour_fib = VppNeighbours(self._session, hosts, self._window)

    async def _open_side_stream(self) -> None:
        """Connect once more, for look-ups."""
        sources = await self._session.call("fib_source_dump")
        ours = next(int(entry.src.id) for entry in sources if entry.src.name == self._source_name)
        stream, index = await self._session.open_side_stream()
        priorities = {int(entry.src.id): int(entry.src.priority) for entry in sources}
        self._lookups = RouteLookups(self._session, stream, index, self._open_codec(), ours, priorities)

    async def _learn_entries(self) -> None:
        """Read the next-hop tables. Entries on deleted interfaces come off them before any is made anew."""
        next_hops = self._open_next_hops()
        for family in next_hops.tables:
            await next_hops.read(family)
        dead = [
            (entry, alive)
            for entry, held in self._entries.held().items()
            if (alive := self._without_dead(held)) != held
        ]
        if not dead:
            return
        log.warning(
            "taking %d next-hop entries off a deleted interface",
            len(dead),
            extra=about(Event.TAKEN_OFF, routes=len(dead)),
        )
        await next_hops.take_off(dead)
        self._entries.reset()
        for family in next_hops.tables:
            await next_hops.read(family)

    async def _source(self, name: str, priority: int) -> int:
        """Return the number of the source of a name, adding it when VPP has none."""
        for entry in await self._session.call("fib_source_dump"):
            if entry.src.name != name:
                continue
            if entry.src.priority != priority:
                log.warning(
                    "FIB source %s has priority %d in VPP and %d in the configuration; "
                    "VPP keeps its own until it restarts",
                    name,
                    entry.src.priority,
                    priority,
                    extra=about(Event.SOURCE_DIFFERS, source=name),
                )
            return int(entry.src.id)
        answer = await self._session.call("fib_source_add", src={"priority": priority, "name": name})
        if answer.id == 0:
            raise FibError("VPP has no FIB source number left (it has 255); restart VPP")
        return int(answer.id)

    async def _create_tables(self) -> None:
        present = {
            (Family.IPV6 if entry.table.is_ip6 else Family.IPV4, int(entry.table.table_id))
            for entry in await self._session.call("ip_table_dump")
        }
        for family, table in self._tables:
            if (family, table) in present:
                continue
            await self._session.call(
                "ip_table_add_del_v2",
                table={"table_id": table, "is_ip6": family is Family.IPV6, "name": self._source_name},
                is_add=True,
                create_mfib=True,
            )
            log.info(
                "created %s table %d in VPP",
                *(family.label, table),
                extra=about(Event.TABLE_MADE, family=family.label, table=table),
            )

    async def _watch_pairs(self) -> None:
        """Read the pairs again whenever an interface came, went or changed, on either side."""
        while True:
            await self._pairs_doubtful.wait()
            self._pairs_doubtful.clear()
            before = self._interfaces.translation()
            try:
                await self._interfaces.learn(self._session)
            except FibError as error:
                log.warning(
                    "cannot read linux-cp's pairs, the FIB is opened anew: %s",
                    error,
                    extra=about(Event.PAIRS_UNREADABLE, problem=str(error)),
                )
                self._interfaces_changed.set()
                return
            if self._interfaces.translation() != before:
                self._neighbours_settled = False
                self._match_legs()
                self._changed()

    async def _learn_neighbours(self) -> None:
        self._connected = Connected(self._sets)
        self._learned_ports = self._interfaces.ports
        fib = self._open_neighbours()
        await fib.learn(self._learned_ports, self._tables)
        if self._dead:
            await fib.remove_hosts(fib.hosts)
        self._legs.note_neighbours(fib.held)
        self._legs.match(self._interfaces.translation())
        self._neighbours_settled = False

    def _on_event(self, name: str, fields: Any) -> None:
        """Note interface events that make our numbers wrong, or the pairs doubtful."""
        if name != "sw_interface_event":
            return
        self._pairs_doubtful.set()
        if self._interfaces.lost_by(fields):
            self._interfaces_changed.set()

    def _wanted_neighbours(self) -> dict[Entry, bytes]:
        """Return wanted neighbours in VPP's interface numbers."""
        translation = self._interfaces.translation()
        return {
            (translation[index], address): mac
            for (index, address), mac in self._neighbours.items()
            if index in translation
        }

    async def _settle_neighbours(self, gone: Sequence[Entry] = ()) -> None:
        """Write neighbours and host routes that VPP lacks, when anything they depend on has changed."""
        if self._neighbours_settled:
            return
        self._neighbours_settled = True
        ports = self._interfaces.ports
        for port in ports - self._learned_ports:
            await self._open_neighbours().learn_port(port)
        self._learned_ports = ports
        wanted = self._wanted_neighbours()
        await self._open_neighbours().program(wanted, self._connected.hosts(wanted), gone=gone)
        self._match_neighbours()


def refuse_linux_nl(plugins: str) -> None:
    """Refuse to write beside VPP's own netlink listener.

    Args:
        plugins: what ``show plugins`` prints.

    Raises:
        FibError: ``linux_nl_plugin.so`` is loaded. Its routes (priority 16) would hide ours.
    """
    if re.search(r"^\s*\d+\.\s+linux_nl_plugin\.so\b", plugins, re.MULTILINE):
        raise FibError(
            "VPP has linux_nl_plugin.so loaded, which writes the kernel's routes to the FIB itself: "
            "disable it in startup.conf (`plugins { plugin linux_nl_plugin.so { disable } }`) and restart "
            "VPP, or do not run the agent"
        )


def _cli_family(family: Family) -> str:
    return "ip" if family is Family.IPV4 else "ip6"


def dead_interfaces(listing: str) -> set[int]:
    """Return the sw_if_index of deleted interfaces that paths still hang on.

    When an interface is deleted VPP marks the paths over it as dropping, for good: an interface made anew has
    the same number but does not revive them, and a path list that is shared is found and used again for the
    next route with the same next hops. The API shows nothing of it.

    Args:
        listing: what ``show fib paths`` prints.

    Returns:
        Interface numbers; `ANY_ATTACHED` among them when a path without gateway is dead, for which VPP does
        not print the number.
    """
    dead = set()
    for kind, number in _DEAD_PATH.findall(listing):
        dead.add(int(number) if kind == "attached-nexthop" else ANY_ATTACHED)
    return dead


def _check_arguments(source_name: str, source_priority: int, window: int) -> None:
    if not source_name or len(source_name.encode()) > _NAME_BYTES - len(HOSTS_SUFFIX):
        raise FibError(
            f"FIB source name {source_name!r}: expected 1 to {_NAME_BYTES - len(HOSTS_SUFFIX)} bytes, "
            f"such as {DEFAULT_SOURCE}"
        )
    if not INTERFACE_PRIORITY < source_priority < API_PRIORITY - 1:
        raise FibError(
            f"FIB source priority {source_priority}: expected {INTERFACE_PRIORITY + 1} to "
            f"{API_PRIORITY - 2}, between interface and API routes; {DEFAULT_PRIORITY} is a good one"
        )
    if window < 1:
        raise FibError(f"window of {window} unanswered requests: expected at least 1, say {DEFAULT_WINDOW}")
