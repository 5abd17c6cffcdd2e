"""The table in a namespace's kernel: written as zebra does, by next-hop objects and groups, and read back.

    port 1  gateways 198.51.100.10 ...   2001:db8:1::a ...
    port 2  gateways 198.51.100.138 ...  2001:db8:2::a ...

Of `GROUPS` groups most have a leg over each port, two have one leg only, as routes of one upstream have. One
route in a hundred is a blackhole, as those of a filter list are.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address

import numpy as np

from router_agent.lab.commands import ip_batch
from router_agent.lab.generator import generate
from router_agent.model import I64, MAIN_TABLE, U64, Family, Interner, Path, PathSet, RouteType
from router_agent.netlink import constants as c
from router_agent.netlink.encode import REPLACE, Writer, fill
from router_agent.netlink.messages import attribute, message
from router_agent.netlink.paths import PathIds, path_set_of
from router_agent.netlink.routes import RouteDecoder
from router_agent.netlink.sockets import DumpSocket, WriteSocket

from .routes import Routes, empty, lowest_terms

BGP = 186
"""Protocol id of FRR's bgpd (zebra/rt_netlink.h)."""
METRIC = 20
GROUPS = 8
ABSENT, BLACKHOLE = -1, -2
"""In place of a group number."""

_ONE_LEGGED = {6: 1, 7: 2}
"""Group to its only port."""
_BLACKHOLES = 100
_CHUNK = 1000
_RTMSG = struct.Struct("=BBBBBBBBI")
_U32 = struct.Struct("=I")
_SPARE_GATEWAY = 40


def interface(port: int) -> str:
    """Return the kernel's name of a port."""
    return f"eth{port}"


def gateway(family: Family, port: int, number: int) -> str:
    """Return a neighbour's address on a port."""
    if family is Family.IPV4:
        return f"198.51.100.{128 * (port - 1) + 10 + number}"
    return f"2001:db8:{port}::{10 + number:x}"


def own_address(family: Family, port: int) -> str:
    """Return the address of a port, with its prefix length."""
    if family is Family.IPV4:
        return f"198.51.100.{128 * (port - 1) + 1}/25"
    return f"2001:db8:{port}::1/64"


class Kernel:
    """The kernel's side of the comparison.

    Args:
        namespace: whose kernel tables.
        sizes: prefixes of each family.
        ids: where ids of path sets come from.

    Attributes:
        table: prefix keys of each family.
        held: of each prefix the group it is in, or `ABSENT` or `BLACKHOLE`: what was written, less what the
            kernel removes with a link.
    """

    def __init__(self, namespace: str, sizes: Mapping[Family, int], ids: Interner[PathSet]) -> None:
        self.table = {family: _shuffled(generate(family, sizes[family])) for family in Family}
        self.held = {family: np.full(len(keys), ABSENT) for family, keys in self.table.items()}
        self.last_written: list[tuple[Family, int]] = []
        self._namespace = namespace
        self._ids = ids
        self._socket = WriteSocket(namespace)
        self._legs: dict[tuple[Family, int], dict[int, int]] = {}
        """Of each group, the gateway number on each port."""

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __len__(self) -> int:
        return sum(len(keys) for keys in self.table.values())

    def assignment(self, family: Family) -> I64:
        """Return a group for every prefix, the same each time."""
        rows = np.arange(len(self.table[family]))
        return np.where(rows % _BLACKHOLES == 0, BLACKHOLE, rows % GROUPS)

    # -- interfaces and next hops ----------------------------------------------------------------

    def prepare(self, ports: Iterable[int] = (1, 2)) -> None:
        """Set ports up, give them addresses and neighbours."""
        lines = []
        for port in ports:
            name = interface(port)
            lines += [f"link set {name} up"]
            lines += [f"address replace {own_address(f, port)} dev {name}{_nodad(f)}" for f in Family]
            for number in (*range(GROUPS), _SPARE_GATEWAY):
                mac = f"02:00:00:00:{port:02x}:{number:02x}"
                for f in Family:
                    lines.append(
                        f"neigh replace {gateway(f, port, number)} lladdr {mac} dev {name} nud permanent"
                    )
        ip_batch(lines, namespace=self._namespace)

    def make_hops(self) -> None:
        """Make every next-hop object and group as it is meant, or replace it."""
        for family in Family:
            for number in range(GROUPS):
                only = _ONE_LEGGED.get(number)
                self._legs[family, number] = {port: number for port in (1, 2) if only in (None, port)}
        legs = [self._leg_line(f, n, p) for (f, n), ports in self._legs.items() for p in ports]
        groups = [self._group_line(f, n, ports) for (f, n), ports in self._legs.items()]
        ip_batch([*legs, *groups], namespace=self._namespace)

    def on_groups(self, only: int | None = None) -> int:
        """Return how many routes lead through groups, or through one."""
        return sum(int((held >= 0 if only is None else held == only).sum()) for held in self.held.values())

    def take_leg(self, port: int) -> None:
        """Replace every group of two legs by one without a leg over a port."""
        lines = []
        for (family, number), legs in self._legs.items():
            if len(legs) == 2:
                del legs[port]
                lines.append(self._group_line(family, number, legs))
        ip_batch(lines, namespace=self._namespace)

    def move_gateway(self, port: int, number: int) -> None:
        """Replace a leg's object in place by one with another gateway, for both families."""
        for family in Family:
            self._legs[family, number][port] = _SPARE_GATEWAY
        ip_batch([self._leg_line(f, number, port) for f in Family], namespace=self._namespace)

    def port_lost(self, port: int) -> None:
        """Note what the kernel removes when a port goes down: its legs, groups left empty, their routes."""
        for (family, number), legs in self._legs.items():
            legs.pop(port, None)
            if not legs:
                self.held[family][self.held[family] == number] = ABSENT

    def all_lost(self) -> None:
        """Note what the kernel removes when both interfaces are deleted."""
        for port in (1, 2):
            self.port_lost(port)

    def _leg_line(self, family: Family, number: int, port: int) -> str:
        via = gateway(family, port, self._legs[family, number][port])
        return (
            f"nexthop replace id {_leg_id(family, number, port)} via {via} dev {interface(port)} proto {BGP}"
        )

    def _group_line(self, family: Family, number: int, ports: Iterable[int]) -> str:
        members = "/".join(str(_leg_id(family, number, port)) for port in sorted(ports))
        return f"nexthop replace id {_group_id(family, number)} group {members} proto {BGP}"

    # -- routes ----------------------------------------------------------------------------------

    def write(self, wanted: Mapping[Family, I64]) -> tuple[int, float]:
        """Write what differs from what is held; return how many routes, and how long it took in seconds.

        Raises:
            RuntimeError: the kernel refused a route.
        """
        began = time.monotonic()
        count = 0
        self.last_written.clear()
        for family, groups in wanted.items():
            changed = np.flatnonzero(groups != self.held[family])
            for group in np.unique(groups[changed]).tolist():
                rows = changed[groups[changed] == group]
                self._send(family, rows, self._template(family, group))
                self.last_written.append((family, int(rows[-1])))
            self.held[family] = groups.copy()
            count += len(changed)
        return count, time.monotonic() - began

    def expected(self, family: Family, row: int) -> PathSet | None:
        """Return where a prefix leads by what was written; None for nowhere."""
        group = int(self.held[family][row])
        if group == ABSENT:
            return None
        if group == BLACKHOLE:
            return PathSet(RouteType.BLACKHOLE)
        legs = self._legs[family, group]
        hops = {port: ip_address(gateway(family, port, number)).packed for port, number in legs.items()}
        return PathSet.unicast(*(Path(port, hop) for port, hop in hops.items()))

    async def read(self, family: Family, ports: Mapping[int, int]) -> Routes:
        """Return the best route of each prefix as the kernel spells it out, next-hop objects resolved by it.

        Args:
            family: address family.
            ports: ifindex to port number.
        """
        ids = PathIds()
        # The agent follows next-hop objects; here the kernel's own resolution is taken.
        decoder = RouteDecoder(
            tables=(MAIN_TABLE,), protocols=frozenset({BGP}), paths=ids, knows_nexthop=lambda _: False
        )
        body = _RTMSG.pack(family, 0, 0, 0, MAIN_TABLE, BGP, 0, 0, 0)
        parts: list[tuple[U64, I64, I64]] = []
        socket = DumpSocket(self._namespace)
        try:
            async for messages in socket.dump(c.RTM_GETROUTE, body):
                parts += [
                    (batch.keys, batch.metrics.astype(np.int64), batch.paths.astype(np.int64))
                    for batch in decoder.decode(messages)
                ]
        finally:
            socket.close()
        if not parts:
            return empty(family)
        keys, metrics, paths = (np.concatenate(column) for column in zip(*parts, strict=True))
        chosen = _best(keys, metrics)
        translated = np.zeros(ids.limit, np.uint32)
        for number, path in ids.items():
            found = path_set_of(path)
            if found is not None:
                translated[number] = self._ids.id(lowest_terms(_on_ports(found, ports)))
        return Routes(keys[chosen], translated[paths[chosen]])

    def _template(self, family: Family, group: int) -> bytes:
        writer = Writer(BGP, METRIC)
        if group == ABSENT:
            return writer.withdrawal(family, MAIN_TABLE)
        if group == BLACKHOLE:
            return writer.route(family, MAIN_TABLE, PathSet(RouteType.BLACKHOLE), flags=REPLACE)
        body = _RTMSG.pack(family, 0, 0, 0, MAIN_TABLE, BGP, 0, RouteType.UNICAST, 0)
        body += attribute(c.RTA_DST, bytes(family.address_bytes))
        body += attribute(c.RTA_TABLE, _U32.pack(MAIN_TABLE))
        body += attribute(c.RTA_PRIORITY, _U32.pack(METRIC))
        body += attribute(c.RTA_NH_ID, _U32.pack(_group_id(family, group)))
        return message(c.RTM_NEWROUTE, REPLACE, 0, body)

    def _send(self, family: Family, rows: I64, template: bytes) -> None:
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            data = fill(template, self.table[family][part], 1)
            data[len(data) - len(template) + 6] |= c.NLM_F_ACK
            for answer, _ in self._socket.exchange(data, len(part)):
                if answer.errors.any():
                    raise RuntimeError(
                        f"the kernel refused a route: errno {sorted(set((-answer.errors).tolist()))}"
                    )


def _shuffled(keys: U64) -> U64:
    return keys[np.random.default_rng(1).permutation(len(keys))]


def _best(keys: U64, metrics: I64) -> I64:
    """Return the rows with the lowest metric of each prefix; of equal ones the first, which is in use."""
    order = np.lexsort((metrics, *keys.T[::-1]))
    ordered = keys[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    chosen: I64 = order[first]
    return chosen


def _on_ports(paths: PathSet, ports: Mapping[int, int]) -> PathSet:
    if paths.type is not RouteType.UNICAST:
        return PathSet(paths.type)
    return PathSet.unicast(*(replace(leg, interface=ports.get(leg.interface, -1)) for leg in paths.paths))


def _nodad(family: Family) -> str:
    return " nodad" if family is Family.IPV6 else ""


def _leg_id(family: Family, number: int, port: int) -> int:
    return 10_000 * family + 100 * port + number


def _group_id(family: Family, number: int) -> int:
    return 10_000 * family + 1000 + number
