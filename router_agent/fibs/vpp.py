"""VPP as a FIB: routes under a source of our own, neighbours copied, interfaces matched by name.

Route ownership. VPP keeps, for one prefix, what each source says and forwards by the best one. The agent adds
a source by name (``fib_source_add``) with a priority between interface routes (3) and API routes (128), and
reads and writes only that. Sources outlive the client that made them, so after a restart the same name finds
the former routes. ``ip_route_v2_dump`` shows a source's routes only where it is the best of its prefix: what
an interface's own address covers is not shown, and is found by `VppFib.read` another way.

Interfaces. Path sets of the control plane name kernel interfaces; the constructor's ``interfaces`` says which
VPP interface stands for each. In path sets of this FIB an interface is its sw_if_index + 1.

Forwarding without addresses. A mirrored port has its addresses in the control plane, not in VPP, and VPP
drops IP packets on an interface that IP is not enabled on; `router_agent.vpp.ports` says how it is enabled.
Routes need no address either: their paths are attached next hops (sw_if_index and gateway), and the rewrite
comes from the static neighbours the agent copies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from router_agent.fibs.fib import FibError, FibRoutes
from router_agent.model import (
    Changes,
    Failures,
    Family,
    Interner,
    Link,
    Neighbour,
    Path,
    PathSet,
    Reason,
    RouteType,
)
from router_agent.vpp import layout
from router_agent.vpp.routes import MOST_PATHS, RouteCodec, normal_weights
from router_agent.vpp.session import VppSession, error_name
from router_agent.vpp.stream import HEADER, Frames, ReplyLayout, framed

log = logging.getLogger(__name__)

DEFAULT_API_SOCKET = FilePath("/run/vpp/api.sock")
DEFAULT_SOURCE = "router-agent"
DEFAULT_PRIORITY = 64
DEFAULT_WINDOW = 16_384

INTERFACE_PRIORITY = 3
"""``FIB_SOURCE_INTERFACE`` of src/vnet/fib/fib_source.h: lower is better."""
API_PRIORITY = 128
"""``FIB_SOURCE_API``."""

_FORMER_SECONDS = 3.0
_FORMER_POLL_SECONDS = 0.05
_MESSAGES: dict[str, tuple[str, ...]] = {
    "fib_source_dump": (),
    "fib_source_details": ("src.priority", "src.id", "src.name"),
    "fib_source_add": ("src.priority", "src.name"),
    "sw_interface_dump": ("sw_if_index",),
    "sw_interface_details": ("sw_if_index", "interface_name"),
    "want_interface_events": ("enable_disable", "pid"),
    "sw_interface_event": ("sw_if_index", "deleted"),
    "ip_table_dump": (),
    "ip_table_details": ("table.table_id", "table.is_ip6"),
    "ip_table_add_del_v2": ("table.table_id", "table.is_ip6", "table.name", "is_add"),
    "ip_neighbor_add_del": (
        "context",
        "is_add",
        "neighbor.sw_if_index",
        "neighbor.flags",
        "neighbor.mac_address",
        "neighbor.ip_address",
    ),
    "ip_neighbor_add_del_reply": ("context", "retval"),
    "ip_neighbor_dump": ("sw_if_index", "af"),
    "cli_inband": ("cmd",),
}


class VppFib:
    """A running VPP, written under one FIB source.

    Args:
        api_socket: VPP's API socket.
        source_name: name of our FIB source, at most 63 bytes.
        source_priority: its priority; must lie between interface and API sources.
        interfaces: control-plane interface name to VPP interface name.
        window: most requests unanswered at any time.
        tables: (family, VPP table id) pairs the routes go to; created where they do not exist.
    """

    def __init__(
        self,
        *,
        interfaces: Mapping[str, str],
        api_socket: FilePath = DEFAULT_API_SOCKET,
        source_name: str = DEFAULT_SOURCE,
        source_priority: int = DEFAULT_PRIORITY,
        window: int = DEFAULT_WINDOW,
        tables: Sequence[tuple[Family, int]] = ((Family.IPV4, 0), (Family.IPV6, 0)),
    ) -> None:
        if not INTERFACE_PRIORITY < source_priority < API_PRIORITY:
            raise FibError(
                f"FIB source priority {source_priority} does not lie between interface routes "
                f"({INTERFACE_PRIORITY}) and API routes ({API_PRIORITY}); {DEFAULT_PRIORITY} is a good one"
            )
        if window < 1:
            raise FibError(
                f"window of {window} unanswered requests: expected at least 1, say {DEFAULT_WINDOW}"
            )
        self._api_socket = api_socket
        self._source_name = source_name
        self._source_priority = source_priority
        self._configured = dict(interfaces)
        self._window = window
        self._tables = tuple(tables)
        self._session = VppSession(
            api_socket=api_socket, name=_client_name(source_name), on_event=self._on_event
        )
        self._interner: Interner[PathSet] = Interner()
        self._codec: RouteCodec | None = None
        self._vpp_index: dict[str, int] = {}
        self._vpp_name: dict[int, str] = {}
        self._link_names: dict[int, str] = {}
        self._changed = asyncio.Event()
        self._neighbours: dict[tuple[int, bytes], bytes] = {}
        """Wanted: (control-plane ifindex, address) to MAC."""
        self._programmed: dict[tuple[int, bytes], bytes] = {}
        """Static neighbours VPP holds on our interfaces: (sw_if_index, address) to MAC."""
        self.neighbour_failures: dict[Neighbour, int] = {}
        """Neighbours VPP refused, with its error number."""

    async def open(self) -> None:
        """Connect, refuse a second writer, find or add our source, learn interfaces and neighbours.

        Creates configured tables that do not exist. Nothing else in VPP is changed.

        Raises:
            FibError: with what to do about it.
        """
        await self._session.open()
        try:
            self._session.require(_MESSAGES)
            refuse_linux_nl(await self._session.cli("show plugins"))
            await self._refuse_former_self()
            source = await self._source_id()
            self._codec = RouteCodec(self._session, source, self._interner)
            await self._create_tables()
            self._changed.clear()
            await self._session.call("want_interface_events", enable_disable=1, pid=os.getpid())
            await self._learn_interfaces()
            await self._learn_neighbours()
        except BaseException:
            await self._session.close()
            raise

    async def close(self) -> None:
        """Disconnect. What VPP holds stays and keeps forwarding."""
        await self._session.close()

    @property
    def version(self) -> str:
        """VPP's version, such as ``26.06-release``; empty before `open`."""
        return self._session.version

    @property
    def highest_unanswered(self) -> int:
        """The most requests that were ever unanswered at one time, since `open`."""
        return self._session.stream.highest_unanswered

    async def read(self, family: Family, table: int) -> AsyncIterator[FibRoutes]:
        """Yield every route of our source in a table.

        VPP sends a dump in one go and keeps in its heap what is not taken, so it is taken and packed as fast
        as it comes (12 bytes an IPv4 route, 28 an IPv6 one) before the first chunk is yielded.

        Raises:
            FibLostError: VPP went away; nothing was yielded.
        """
        chunks: deque[FibRoutes] = deque()
        stream, codec = self._session.stream, self._require_codec()
        async with stream.lock:
            request = codec.dump_request(family, table, context=1)
            ping = self._session.message_id("control_ping_reply")
            async for frames in stream.dump(request, ping):
                ours = frames.message_ids == codec.details_id
                if not ours.all():
                    stream.hand_to_foreign(Frames(frames.rows[~ours]))
                    frames = Frames(frames.rows[ours])
                if len(frames.rows):
                    decoded = codec.decode(family, table, frames)
                    chunks.append(FibRoutes(family, table, decoded.keys, decoded.paths))
        while chunks:
            yield chunks.popleft()

    async def write(self, changes: Changes) -> Failures:
        """Make VPP hold these changes; return when every one was answered.

        Raises:
            FibLostError: some changes may have been made and some not.
        """
        if not len(changes):
            return Failures()
        stream, codec = self._session.stream, self._require_codec()
        order = np.empty(len(changes), np.int64)

        def encode(start: int, count: int, context: int) -> memoryview:
            rows = slice(start, start + count)
            data, turn = codec.encode(
                changes.family, changes.table, changes.keys[rows], changes.paths[rows], context
            )
            order[rows] = turn + start
            return data.data

        async with stream.lock:
            retvals = await stream.transact(len(changes), encode, codec.reply, self._window)
        refused = np.flatnonzero(retvals)
        rows = order[refused]
        by_row = np.argsort(rows)
        return Failures(rows=rows[by_row], codes=retvals[refused][by_row])

    def path_id(self, wanted: PathSet) -> int | Reason:
        """Translate a path set of the control plane; see `Fib.path_id`."""
        if wanted.type is not RouteType.UNICAST:
            if wanted.type in (RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT):
                return self._interner.id(PathSet(wanted.type))
            return Reason.UNSUPPORTED_TYPE
        if not wanted.paths:
            return Reason.UNRESOLVED_NEXT_HOP
        legs = []
        for path in wanted.paths:
            leg = self._leg(path)
            if isinstance(leg, Reason):
                return leg
            legs.append(leg)
        paths = normal_weights(tuple(legs))
        if len(paths) > MOST_PATHS:
            return Reason.OVER_CAPACITY
        return self._interner.id(PathSet(RouteType.UNICAST, paths))

    def path_set(self, number: int) -> PathSet:
        """Return a path set by id, in VPP's terms."""
        return self._interner[number]

    def interface_name(self, interface: int) -> str:
        """Return VPP's name of an interface number (sw_if_index + 1)."""
        return self._vpp_name.get(interface - 1, f"sw_if_index {interface - 1}" if interface else "any")

    def counterpart(self, interface: int) -> str | None:
        """Return VPP's name of a control-plane interface (by ifindex), None if it has none."""
        index = self._translation().get(interface)
        return None if index is None else self._vpp_name[index]

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> bool:
        """Take note of control-plane interfaces; True when `path_id` may now answer differently."""
        before = self._translation()
        for index in removed:
            self._link_names.pop(index, None)
        for link in links:
            self._link_names[link.index] = link.name
        return self._translation() != before

    async def write_neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None:
        """Copy neighbours; those of unknown interfaces wait until the interface is known.

        What VPP refuses is logged and kept in `neighbour_failures`.

        Raises:
            FibLostError: VPP went away.
        """
        for neighbour in removed:
            self._neighbours.pop((neighbour.interface, neighbour.address), None)
        for neighbour in learned:
            self._neighbours[neighbour.interface, neighbour.address] = neighbour.mac
        wanted = self._wanted_neighbours()
        gone = []
        for neighbour in removed:
            index = self._translation().get(neighbour.interface)
            key = (-1 if index is None else index, neighbour.address)
            if key in self._programmed and key not in wanted:
                gone.append(key)
        await self._program_neighbours(wanted, gone)

    async def retain_neighbours(self, current: Sequence[Neighbour]) -> None:
        """Remove static neighbours on our interfaces that are not among these.

        Raises:
            FibLostError: VPP went away.
        """
        self._neighbours = {(n.interface, n.address): n.mac for n in current}
        wanted = self._wanted_neighbours()
        gone = [key for key in self._programmed if key not in wanted]
        await self._program_neighbours(wanted, gone)

    async def wait_lost(self) -> None:
        """Return when VPP has gone away, or an interface we use came, went or changed its number."""
        lost = asyncio.ensure_future(asyncio.shield(self._session.stream.lost))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((lost, changed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            changed.cancel()

    def _require_codec(self) -> RouteCodec:
        if self._codec is None:
            raise FibError("the VPP FIB was not opened; call open() first")
        return self._codec

    def _translation(self) -> dict[int, int]:
        """Return kernel ifindex to sw_if_index, for interfaces known on both sides."""
        found = {}
        for index, name in self._link_names.items():
            vpp = self._vpp_index.get(self._configured.get(name, ""))
            if vpp is not None:
                found[index] = vpp
        return found

    def _leg(self, path: Path) -> Path | Reason:
        if path.interface == 0:
            return Path(0, path.gateway, path.weight) if path.gateway else Reason.UNRESOLVED_NEXT_HOP
        index = self._translation().get(path.interface)
        if index is None:
            return Reason.UNRESOLVED_INTERFACE
        return Path(index + 1, path.gateway, path.weight)

    async def _refuse_former_self(self) -> None:
        """Refuse to start while another agent owns our source; wait out one that has just died."""
        deadline = asyncio.get_running_loop().time() + _FORMER_SECONDS
        while (count := count_clients(await self._session.cli("show api clients"), self._client_name)) > 2:
            if asyncio.get_running_loop().time() > deadline:
                raise FibError(
                    f"VPP has {count - 2} more connection(s) named {self._client_name}: another agent writes "
                    f"FIB source {self._source_name}; stop it, or give this one a source of its own"
                )
            await asyncio.sleep(_FORMER_POLL_SECONDS)

    @property
    def _client_name(self) -> str:
        return _client_name(self._source_name)

    async def _source_id(self) -> int:
        """Return the number of the source of our name, adding it when VPP has none."""
        for entry in await self._session.call("fib_source_dump"):
            if entry.src.name != self._source_name:
                continue
            if entry.src.priority != self._source_priority:
                log.warning(
                    "FIB source %s has priority %d in VPP and %d in the configuration; "
                    "VPP keeps its own until it restarts",
                    self._source_name,
                    entry.src.priority,
                    self._source_priority,
                )
            return int(entry.src.id)
        answer = await self._session.call(
            "fib_source_add", src={"priority": self._source_priority, "name": self._source_name}
        )
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
            log.info("created %s table %d in VPP", family.label, table)

    async def _learn_interfaces(self) -> None:
        details = await self._session.call("sw_interface_dump", sw_if_index=0xFFFFFFFF)
        self._vpp_name = {int(entry.sw_if_index): str(entry.interface_name) for entry in details}
        self._vpp_index = {name: index for index, name in self._vpp_name.items()}
        for ours, theirs in self._configured.items():
            if theirs not in self._vpp_index:
                log.warning(
                    "VPP has no interface %s (configured for %s); routes over it wait; VPP has: %s",
                    theirs,
                    ours,
                    ", ".join(sorted(self._vpp_index)),
                )

    def _on_event(self, name: str, fields: Any) -> None:
        """Note interface events that make our numbers wrong: one we use is deleted, or a new one appears."""
        if name != "sw_interface_event":
            return
        ours = self._vpp_name.get(int(fields.sw_if_index))
        if fields.deleted and ours in self._configured.values():
            log.warning("VPP deleted interface %s", ours)
            self._changed.set()
        elif not fields.deleted and ours is None and set(self._configured.values()) - set(self._vpp_index):
            self._changed.set()

    def _wanted_neighbours(self) -> dict[tuple[int, bytes], bytes]:
        """Return wanted neighbours in VPP's interface numbers."""
        translation = self._translation()
        return {
            (translation[index], address): mac
            for (index, address), mac in self._neighbours.items()
            if index in translation
        }

    async def _learn_neighbours(self) -> None:
        """Read the static neighbours on our interfaces, and write those VPP lacks (after its restart)."""
        self._programmed = {}
        static = self._session.enumeration("vl_api_ip_neighbor_flags_t")["IP_API_NEIGHBOR_FLAG_STATIC"]
        for theirs in self._configured.values():
            index = self._vpp_index.get(theirs)
            if index is None:
                continue
            for af in (0, 1):
                for entry in await self._session.call("ip_neighbor_dump", sw_if_index=index, af=af):
                    if int(entry.neighbor.flags) & static:
                        address = entry.neighbor.ip_address.packed
                        self._programmed[index, address] = entry.neighbor.mac_address.packed
        await self._program_neighbours(self._wanted_neighbours(), ())

    async def _program_neighbours(
        self, wanted: Mapping[tuple[int, bytes], bytes], gone: Iterable[tuple[int, bytes]]
    ) -> None:
        """Write what differs from what VPP holds."""
        todo = [(key, mac, True) for key, mac in wanted.items() if self._programmed.get(key) != mac]
        todo += [(key, self._programmed[key], False) for key in gone]
        if not todo:
            return

        def encode(start: int, count: int, context: int) -> bytes:
            return b"".join(
                framed(self._packed_neighbour(*todo[start + i], context=(context + i) & 0xFFFFFFFF))
                for i in range(count)
            )

        stream = self._session.stream
        async with stream.lock:
            retvals = await stream.transact(len(todo), encode, self._neighbour_reply(), self._window)
        for (key, mac, add), retval in zip(todo, retvals.tolist(), strict=True):
            self._note_neighbour(key, mac, add=add, retval=retval)

    def _packed_neighbour(self, key: tuple[int, bytes], mac: bytes, add: bool, *, context: int) -> bytes:
        index, address = key
        six = len(address) == Family.IPV6.address_bytes
        flags = self._session.enumeration("vl_api_ip_neighbor_flags_t")
        return self._session.pack(
            "ip_neighbor_add_del",
            context=int.from_bytes(context.to_bytes(4, "little"), "big"),
            is_add=add,
            neighbor={
                "sw_if_index": index,
                "flags": flags["IP_API_NEIGHBOR_FLAG_STATIC"],
                "mac_address": mac,
                "ip_address": {"af": int(six), "un": {"ip6" if six else "ip4": address}},
            },
        )

    def _neighbour_reply(self) -> ReplyLayout:
        reply = self._session.message("ip_neighbor_add_del_reply")
        return ReplyLayout(
            message_id=self._session.message_id("ip_neighbor_add_del_reply"),
            length=HEADER.size + layout.fixed_size(reply),
            context=layout.field(reply, "context", size=4).at(HEADER.size).start,
            retval=layout.field(reply, "retval", size=4).at(HEADER.size).start,
        )

    def _note_neighbour(self, key: tuple[int, bytes], mac: bytes, *, add: bool, retval: int) -> None:
        neighbour = Neighbour(key[0] + 1, key[1], mac)
        if retval:
            self.neighbour_failures[neighbour] = retval
            log.warning(
                "VPP refused to %s neighbour %s on %s: %s",
                "add" if add else "remove",
                key[1].hex(":"),
                self.interface_name(key[0] + 1),
                error_name(retval),
            )
            return
        self.neighbour_failures.pop(neighbour, None)
        if add:
            self._programmed[key] = mac
        else:
            with contextlib.suppress(KeyError):
                del self._programmed[key]


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


def count_clients(listing: str, name: str) -> int:
    """Return how many socket clients of a name ``show api clients`` lists."""
    return len(re.findall(rf"^\s*{re.escape(name)}\s+\d+\s*$", listing, re.MULTILINE))


def _client_name(source: str) -> str:
    return f"router-agent:{source}"[:63]
