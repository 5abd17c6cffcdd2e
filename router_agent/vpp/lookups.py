"""What VPP holds for prefixes that are known: exact look-ups, many on their way at once.

A dump of a full table keeps VPP's main thread from everything else for a second and more, and the workers
with it: ``ip_route_v2_dump`` and ``ip_route_lookup_v2`` both run under the worker barrier, one barrier a
message (only ``ip_route_add_del`` and its v2 are marked as thread safe, ``ip_api_hookup`` in
src/vnet/ip/ip_api.c). A look-up holds it for some microseconds. So what is to be compared all the time is
looked up, at a measured pace.

VPP answers a look-up with the entry's best source and that source's paths. Ours shows only where nobody beats
it; where another source does, whether ours lies beneath is told by the debug CLI alone (`beneath`).

Look-ups have a connection of their own: a route change never waits behind them for longer than what VPP reads
from a socket at a time (4 KiB, some eighty look-ups).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address

import numpy as np

from router_agent.fibs.fib import LookedUp
from router_agent.model import (
    ABSENT,
    I32,
    I64,
    U8,
    U32,
    U64,
    Family,
    Path,
    PathSet,
    RouteType,
    key_addresses,
    key_lengths,
)
from router_agent.vpp import layout
from router_agent.vpp.routes import RouteCodec
from router_agent.vpp.session import VppSession
from router_agent.vpp.stream import HEADER, Frames, Stream, framed

MESSAGES: dict[str, tuple[str, ...]] = {
    "ip_route_lookup_v2": (
        "client_index",
        "context",
        "table_id",
        "exact",
        "prefix.address.af",
        "prefix.address.un.ip4",
        "prefix.address.un.ip6",
        "prefix.len",
    ),
    "ip_route_lookup_v2_reply": ("context", "retval", "route.src", "route.n_paths", "route.stats_index"),
}
"""What look-ups need of VPP's API, for `VppSession.require`."""

MOST = 1024
"""Look-ups on their way at one time: their answers, 240 bytes each, fit the socket's buffer."""

_PACE_SECONDS = 0.01
"""Nobody waits for an answer: a rare look at the socket costs less than waking for each."""
_NO_SUCH_ENTRY = -6
_LENGTH_COUNT = re.compile(r"^\s*(\d+)\s+(\d+)\s*$", re.MULTILINE)
_SOURCE = re.compile(r"^  (\S+) refs:\d+ src-flags:", re.MULTILINE)
_PATH = re.compile(r"weight=(\d+) pref=\d+ (attached-nexthop|attached|special|\S+):[^\n]*\n\s+([^\n]+)")


class RouteLookups:
    """Looks up routes on a stream of its own.

    Args:
        session: an open session; layouts and ids come from it.
        stream: the connection that look-ups use, and nothing else does.
        client_index: what their ``client_index`` is.
        codec: how paths are read.
        source: number of our FIB source.
        priorities: priority of each FIB source by number; the lower one wins.

    Raises:
        FibError: VPP's API lacks a message or a field.
    """

    def __init__(
        self,
        session: VppSession,
        stream: Stream,
        client_index: int,
        codec: RouteCodec,
        source: int,
        priorities: Mapping[int, int],
    ) -> None:
        session.require(MESSAGES)
        self._session = session
        self._stream = stream
        self._client_index = client_index
        self._codec = codec
        self._source = source
        self._beats_us = np.zeros(256, np.bool_)
        for number, priority in priorities.items():
            self._beats_us[number] = number != source and priority <= priorities.get(source, 255)
        request = session.message("ip_route_lookup_v2")
        reply = session.message("ip_route_lookup_v2_reply")
        framing = HEADER.size
        self._context = layout.field(request, "context", size=4).at(framing)
        self._address = {
            family: layout.field(request, f"prefix.address.un.{arm}").at(framing)
            for family, arm in ((Family.IPV4, "ip4"), (Family.IPV6, "ip6"))
        }
        self._length = layout.field(request, "prefix.len", size=1).at(framing).start
        self._reply_id = session.message_id("ip_route_lookup_v2_reply")
        self._ping_reply_id = session.message_id("control_ping_reply")
        self._reply_context = layout.field(reply, "context", size=4).at(framing)
        self._retval = layout.field(reply, "retval", size=4).at(framing)
        self._route = layout.field(reply, "route").at(framing).start
        self._reply_source = layout.field(reply, "route.src", size=1).at(framing).start
        self._stats_index = layout.field(reply, "route.stats_index", size=4).at(framing)
        details = session.message("ip_route_v2_details")
        self._details_route = layout.field(details, "route").at(framing).start
        self._templates: dict[tuple[Family, int], U8] = {}

    async def look_up(self, family: Family, table: int, keys: U64) -> LookedUp:
        """Return what VPP holds for these keys.

        Args:
            family: address family of the keys.
            table: VPP table id.
            keys: prefix keys, (n, family.key_width).

        Raises:
            FibLostError: VPP went away.
        """
        found = LookedUp(
            np.zeros(len(keys), np.uint32),
            np.zeros(len(keys), np.bool_),
            np.full(len(keys), -1, np.int64),
        )
        async with self._stream.lock:
            for start in range(0, len(keys), MOST):
                part = slice(start, start + MOST)
                await self._look_up(
                    family,
                    table,
                    keys[part],
                    LookedUp(found.paths[part], found.covered[part], found.counters[part]),
                )
        return found

    async def _look_up(self, family: Family, table: int, keys: U64, found: LookedUp) -> None:
        answered = np.zeros(len(keys), np.bool_)
        request = self._encode(family, table, keys)
        async for frames in self._stream.dump(request, self._ping_reply_id, pace=_PACE_SECONDS):
            ours = frames.message_ids == self._reply_id
            if not ours.all():
                self._stream.hand_to_foreign(Frames(frames.rows[~ours]))
            rows = frames.rows[ours]
            if len(rows):
                answered[self._file(family, table, keys, rows, found)] = True
        if not answered.all():
            missing = int((~answered).sum())
            self._stream.close(f"VPP left {missing} of {len(keys)} look-ups without an answer")
            self._stream.check()

    def _encode(self, family: Family, table: int, keys: U64) -> bytes:
        """Return framed look-ups whose contexts are their row numbers, closed by a ping."""
        lengths = key_lengths(keys)
        if lengths.max(initial=0) > 8 * family.address_bytes:
            # VPP 26.06 takes any length, reads beyond its tables and ends.
            raise ValueError(f"an {family.label} prefix of length {lengths.max()} cannot be looked up")
        rows = np.repeat(self._template(family, table)[None], len(keys), axis=0)
        rows[:, self._address[family]] = key_addresses(keys)
        rows[:, self._length] = lengths
        rows[:, self._context] = np.arange(len(keys), dtype="<u4").view(np.uint8).reshape(-1, 4)
        ping = self._session.pack("control_ping", context=1, client_index=self._client_index)
        return rows.tobytes() + framed(ping)

    def _template(self, family: Family, table: int) -> U8:
        found = self._templates.get((family, table))
        if found is None:
            packed = self._session.pack(
                "ip_route_lookup_v2",
                client_index=self._client_index,
                table_id=table,
                exact=1,
                prefix={"address": {"af": int(family is Family.IPV6), "un": {}}, "len": 0},
            )
            found = self._templates[family, table] = np.frombuffer(framed(packed), np.uint8)
        return found

    def _file(self, family: Family, table: int, keys: U64, rows: U8, found: LookedUp) -> I64:
        """Enter answers of one length; return the numbers of the look-ups they answer."""
        contexts: U32 = np.ascontiguousarray(rows[:, self._reply_context]).view("<u4")[:, 0]
        numbers = contexts.astype(np.int64)
        if (numbers >= len(keys)).any():
            self._stream.close("VPP answered a look-up that was not asked for")
            self._stream.check()
        retvals: I32 = np.ascontiguousarray(rows[:, self._retval]).view(">i4")[:, 0]
        sources = rows[:, self._reply_source]
        there = retvals == 0
        mine = there & (sources == self._source)
        found.covered[numbers] = there & self._beats_us[sources]
        indices: U32 = np.ascontiguousarray(rows[:, self._stats_index]).view(">u4")[:, 0]
        found.counters[numbers[there]] = indices[there]
        if mine.any():
            found_keys, paths = self._codec.decode(family, table, Frames(self._as_details(rows[mine])))
            same = (found_keys == keys[numbers[mine]]).all(axis=1)
            found.paths[numbers[mine]] = np.where(same, paths, np.uint32(ABSENT))
        return numbers

    def _as_details(self, rows: U8) -> U8:
        """Return answers as ``ip_route_v2_details``: both end in one route, behind heads of other lengths."""
        head = rows[:, : self._details_route]
        return np.ascontiguousarray(np.concatenate((head, rows[:, self._route :]), axis=1))


def entries_by_length(summary: str, family: Family) -> I64:
    """Return how many entries a table has of each prefix length, of all sources together.

    Args:
        summary: what ``show ip fib table N summary`` (or ``ip6``) prints.
        family: of the table.

    Returns:
        Shape (33,) or (129,).
    """
    counts = np.zeros(8 * family.address_bytes + 1, np.int64)
    for length, count in _LENGTH_COUNT.findall(summary):
        if int(length) < len(counts):
            counts[int(length)] += int(count)
    return counts


def beneath(listing: str, source_name: str, interfaces: Mapping[str, int]) -> PathSet | None:
    """Return what a source says of a prefix that another source decides.

    Args:
        listing: what ``show ip fib table N PREFIX`` prints: a section for each source, best first.
        source_name: whose section.
        interfaces: interface numbers of path sets by VPP's name.

    Returns:
        The source's paths; None when it says nothing, or something this cannot read.
    """
    sections = list(_SOURCE.finditer(listing))
    for number, section in enumerate(sections):
        if section[1] != source_name:
            continue
        end = sections[number + 1].start() if number + 1 < len(sections) else listing.find(" forwarding:")
        return _legs(listing[section.end() : end], interfaces)
    return None


def _legs(section: str, interfaces: Mapping[str, int]) -> PathSet | None:
    legs = []
    for weight, kind, words in _PATH.findall(section):
        *gateway, interface = words.split()
        if interface not in interfaces or len(gateway) != (kind == "attached-nexthop"):
            return None
        if kind not in ("attached", "attached-nexthop"):
            return None
        packed = ip_address(gateway[0]).packed if gateway else b""
        legs.append(Path(interfaces[interface], packed, int(weight)))
    return PathSet(RouteType.UNICAST, tuple(sorted(legs))) if legs else None


def forwarding_lines(listing: str) -> tuple[str, ...]:
    """Return how an entry is resolved, a line for each load-balance and bucket.

    Args:
        listing: what ``show ip fib table N PREFIX`` prints.
    """
    _, _, words = listing.partition(" forwarding:")
    return tuple(" ".join(line.split()) for line in words.splitlines()[1:] if line.strip())


def forwarding_problem(resolved: tuple[str, ...]) -> str | None:
    """Return why an entry that should forward does not, None when it does.

    VPP shows an adjacency without a neighbour as ``arp-ipv4`` or ``arp-ipv6``, and one that leads nowhere as
    ``dpo-drop``.
    """
    for line in resolved:
        if "dpo-drop" in line:
            return f"VPP drops: {line}"
        if "arp-ip" in line:
            return f"VPP knows no neighbour there: {line}"
    return None
