"""Neighbours in VPP: static entries, and the host routes that make connected hosts reachable.

A static neighbour (``ip_neighbor_add_del``, src/vnet/ip-neighbor/ip_neighbor.api) completes the adjacency of
every route with that gateway. VPP makes it a host route as well, but that one forwards only below a prefix
attached by the interface, API or CLI source. Ports that mirror a control plane's have no address and our
connected prefixes come from a source of our own, so for neighbours below those we add the host routes: under
a second source, named after the first, so that they never show among the control plane's routes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

import numpy as np
from numpy.typing import NDArray

from router_agent.events import Event, about
from router_agent.model import (
    ABSENT,
    U32,
    U64,
    Family,
    Interner,
    Path,
    PathSet,
    RouteType,
    key_addresses,
    key_lengths,
)
from router_agent.vpp import layout
from router_agent.vpp.routes import RouteCodec
from router_agent.vpp.session import VppSession, error_name
from router_agent.vpp.stream import HEADER, ReplyLayout, framed

log = logging.getLogger(__name__)

MESSAGES: dict[str, tuple[str, ...]] = {
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
}
"""What is needed of VPP's API, for `VppSession.require`."""

Entry = tuple[int, bytes]
"""A neighbour on a port: sw_if_index and address."""
Host = tuple[Family, int, bytes]
"""A host route: family, VPP table id and address."""

_LINK_LOCAL = b"\xfe\x80"
_NOT_LOOKED_AT, _NOT_ATTACHED, _ATTACHED = 0, 1, 2


class Connected:
    """The prefixes of our source that lead straight to an interface.

    Args:
        interner: what the path ids stand for.
    """

    def __init__(self, interner: Interner[PathSet]) -> None:
        self._interner = interner
        self._attached: NDArray[np.int8] = np.zeros(0, np.int8)
        """By path id: whether it leads straight to an interface, or that nobody has looked yet."""
        self._held: dict[tuple[Family, int], dict[bytes, tuple[U64, int]]] = {}

    def note(self, family: Family, table: int, keys: U64, paths: U32) -> bool:
        """Take note of what VPP holds now (`ABSENT` for a delete); True when a connected prefix changed."""
        self._reach(paths)
        held = self._held.setdefault((family, table), {})
        concerned = self._attached[paths] == _ATTACHED
        if held:
            words = np.array([key[0] for key, _ in held.values()], np.uint64)
            concerned |= np.isin(keys[:, 0], words)
        changed = False
        for row in np.flatnonzero(concerned).tolist():
            name, path = keys[row].tobytes(), int(paths[row])
            before = held[name][1] if name in held else ABSENT
            if self._attached[path] != _ATTACHED:
                changed |= held.pop(name, None) is not None
            elif path != before:
                held[name] = (keys[row].copy(), path)
                changed = True
        return changed

    def hosts(self, entries: Iterable[Entry]) -> dict[Host, int]:
        """Return which host routes make these neighbours reachable, and over which sw_if_index."""
        found: dict[Host, int] = {}
        for index, address in sorted(entries):
            family = Family.IPV4 if len(address) == Family.IPV4.address_bytes else Family.IPV6
            if family is Family.IPV6 and address[:2] == _LINK_LOCAL:
                continue
            for (ours, table), held in self._held.items():
                if ours is family and self._covers(held, index, address):
                    found.setdefault((family, table, address), index)
        return found

    def _covers(self, held: Mapping[bytes, tuple[U64, int]], index: int, address: bytes) -> bool:
        number = int.from_bytes(address, "big")
        for key, path in held.values():
            shift = 8 * len(address) - int(key_lengths(key[None])[0])
            network = int.from_bytes(key_addresses(key[None])[0].tobytes(), "big")
            if number >> shift == network >> shift and Path(index + 1) in _unweighted(self._interner[path]):
                return True
        return False

    def paths(self) -> set[int]:
        """Return the path ids of the connected prefixes."""
        return {path for held in self._held.values() for _, path in held.values()}

    def forget(self) -> None:
        """Forget what path ids stand for, besides `paths`: some will stand for something else."""
        self._attached = np.zeros(0, np.int8)

    def _reach(self, paths: U32) -> None:
        """Work out for path ids not seen before whether they lead straight to an interface."""
        limit = self._interner.limit
        if len(self._attached) < limit:
            grown = np.zeros(limit, np.int8)
            grown[: len(self._attached)] = self._attached
            self._attached = grown
        fresh = paths[self._attached[paths] == _NOT_LOOKED_AT]
        for number in np.unique(fresh).tolist():
            attached = number != ABSENT and _is_attached(self._interner[number])
            self._attached[number] = _ATTACHED if attached else _NOT_ATTACHED


def _is_attached(paths: PathSet) -> bool:
    return paths.type is RouteType.UNICAST and any(p.interface and not p.gateway for p in paths.paths)


def _unweighted(paths: PathSet) -> set[Path]:
    return {Path(path.interface, path.gateway) for path in paths.paths}


@dataclass(frozen=True, slots=True)
class Refused:
    """A neighbour or host route VPP refused, and its error number."""

    interface: int
    address: bytes
    retval: int


class VppNeighbours:
    """The static neighbours VPP holds on our ports, and our host routes.

    Args:
        session: an open session.
        source: number of the FIB source of host routes.
        window: most requests unanswered at any time.

    Raises:
        FibError: VPP's API lacks a message or a field.
    """

    def __init__(self, session: VppSession, source: int, window: int) -> None:
        session.require(MESSAGES)
        self._session = session
        self._window = window
        self._interner: Interner[PathSet] = Interner()
        self._codec = RouteCodec(session, source, self._interner)
        self._static = session.enumeration("vl_api_ip_neighbor_flags_t")["IP_API_NEIGHBOR_FLAG_STATIC"]
        reply = session.message("ip_neighbor_add_del_reply")
        self._reply = ReplyLayout(
            message_id=session.message_id("ip_neighbor_add_del_reply"),
            length=HEADER.size + layout.fixed_size(reply),
            context=layout.field(reply, "context", size=4).at(HEADER.size).start,
            retval=layout.field(reply, "retval", size=4).at(HEADER.size).start,
        )
        self.held: dict[Entry, bytes] = {}
        """Static neighbours in VPP, with their MAC."""
        self.hosts: dict[Host, int] = {}
        """Our host routes in VPP, with their sw_if_index."""
        self.refused: dict[Entry, Refused] = {}
        """What VPP refused the last time it was asked."""

    async def learn(self, ports: Iterable[int], tables: Iterable[tuple[Family, int]]) -> None:
        """Read what VPP holds.

        Args:
            ports: sw_if_index of the ports that are ours.
            tables: tables host routes may be in.

        Raises:
            FibLostError: VPP went away.
        """
        self.held.clear()
        self.hosts.clear()
        for index in ports:
            await self.learn_port(index)
        for family, table in tables:
            for keys, paths in await self._codec.read(family, table):
                self._learn_hosts(family, table, keys, paths)

    async def learn_port(self, index: int) -> None:
        """Read the static neighbours of one more port.

        Raises:
            FibLostError: VPP went away.
        """
        for af in (0, 1):
            for entry in await self._session.call("ip_neighbor_dump", sw_if_index=index, af=af):
                if int(entry.neighbor.flags) & self._static:
                    address = entry.neighbor.ip_address.packed
                    self.held[index, address] = entry.neighbor.mac_address.packed

    async def program(
        self, wanted: Mapping[Entry, bytes], hosts: Mapping[Host, int], *, gone: Iterable[Entry] = ()
    ) -> None:
        """Write what VPP lacks, and remove neighbours that are gone and host routes that lost their reason.

        Host routes of neighbours that are neither wanted nor gone are left: nothing is known about them yet.

        Args:
            wanted: neighbours that must be there, with their MAC.
            hosts: host routes that must be there, with their sw_if_index.
            gone: neighbours of `held` to remove.

        Raises:
            FibLostError: VPP went away.
        """
        gone = [entry for entry in gone if entry in self.held and entry not in wanted]
        addresses = {address for _, address in gone}
        unused = [
            host
            for host, index in self.hosts.items()
            if host not in hosts and (host[2] in addresses or (index, host[2]) in wanted)
        ]
        await self._write_neighbours(
            [(e, mac) for e, mac in wanted.items() if self.held.get(e) != mac], add=True
        )
        await self._write_hosts({h: i for h, i in hosts.items() if self.hosts.get(h) != i}, unused)
        await self._write_neighbours([(entry, self.held[entry]) for entry in gone], add=False)

    async def remove_hosts(self, unused: Iterable[Host]) -> None:
        """Remove host routes.

        Raises:
            FibLostError: VPP went away.
        """
        await self._write_hosts({}, list(unused))

    def _learn_hosts(self, family: Family, table: int, keys: U64, paths: U32) -> None:
        for address, path in zip(key_addresses(keys), paths.tolist(), strict=True):
            legs = self._interner[path].paths
            self.hosts[family, table, address.tobytes()] = legs[0].interface - 1 if legs else -1

    async def _write_neighbours(self, entries: list[tuple[Entry, bytes]], *, add: bool) -> None:
        if not entries:
            return

        def encode(start: int, count: int, context: int) -> bytes:
            requests = (
                self._request(*entries[start + i], add=add, context=(context + i) & 0xFFFFFFFF)
                for i in range(count)
            )
            return b"".join(requests)

        stream = self._session.stream
        async with stream.lock:
            retvals = await stream.transact(len(entries), encode, self._reply, self._window)
        for (entry, mac), retval in zip(entries, retvals.tolist(), strict=True):
            if retval:
                self._refuse(entry, retval, "add" if add else "remove")
                continue
            self.refused.pop(entry, None)
            if add:
                self.held[entry] = mac
            else:
                self.held.pop(entry, None)

    def _request(self, entry: Entry, mac: bytes, *, add: bool, context: int) -> bytes:
        index, address = entry
        six = len(address) == Family.IPV6.address_bytes
        request = self._session.pack(
            "ip_neighbor_add_del",
            context=int.from_bytes(context.to_bytes(4, "little"), "big"),
            is_add=add,
            neighbor={
                "sw_if_index": index,
                "flags": self._static,
                "mac_address": mac,
                "ip_address": {"af": int(six), "un": {"ip6" if six else "ip4": address}},
            },
        )
        return framed(request)

    async def _write_hosts(self, added: Mapping[Host, int], removed: Iterable[Host]) -> None:
        todo: dict[tuple[Family, int], list[tuple[Host, int]]] = {}
        for host, index in added.items():
            todo.setdefault(host[:2], []).append((host, index))
        for host in removed:
            todo.setdefault(host[:2], []).append((host, -1))
        for (family, table), hosts in todo.items():
            keys = _host_keys(family, [host[2] for host, _ in hosts])
            ids = [ABSENT if i < 0 else self._interner.id(PathSet.unicast(Path(i + 1))) for _, i in hosts]
            retvals = await self._codec.write(family, table, keys, np.array(ids, np.uint32), self._window)
            for (host, index), retval in zip(hosts, retvals.tolist(), strict=True):
                if retval:
                    self._refuse((max(index, 0), host[2]), retval, "set the host route of")
                elif index < 0:
                    self.hosts.pop(host, None)
                else:
                    self.hosts[host] = index

    def _refuse(self, entry: Entry, retval: int, what: str) -> None:
        self.refused[entry] = Refused(entry[0], entry[1], retval)
        log.warning(
            "VPP refused to %s neighbour %s on sw_if_index %d, packets to it are dropped: %s",
            what,
            ip_address(entry[1]),
            entry[0],
            error_name(retval),
            extra=about(
                Event.NEIGHBOUR_REFUSED, neighbour=str(ip_address(entry[1])), problem=error_name(retval)
            ),
        )


def _host_keys(family: Family, addresses: list[bytes]) -> U64:
    length = 8 * family.address_bytes
    if family is Family.IPV4:
        return np.array([[int.from_bytes(a, "big") << 8 | length] for a in addresses], np.uint64)
    halves = [(int.from_bytes(a[:8], "big"), int.from_bytes(a[8:], "big"), length) for a in addresses]
    return np.array(halves, np.uint64)
