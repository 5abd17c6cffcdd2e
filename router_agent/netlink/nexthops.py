"""Next-hop objects: linux/nexthop.h. FRR installs its routes through them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from router_agent.model import Path, PathSet, RouteType
from router_agent.netlink import constants as c
from router_agent.netlink.messages import NetlinkDecodeError, attribute_map, u32_of
from router_agent.netlink.paths import unicast
from router_agent.netlink.tunnels import parse_tunnel

_NHMSG = struct.Struct("=BBBxI")  # family, scope, protocol, flags
_MEMBER = struct.Struct("=IBBH")  # struct nexthop_grp: id, weight - 1, its high byte (6.12), reserved

REQUEST = _NHMSG.pack(0, 0, 0, 0)
"""Body of an RTM_GETNEXTHOP dump."""


@dataclass(frozen=True, slots=True)
class Nexthop:
    """A next-hop object: one leg, a blackhole, or a group of other objects.

    Attributes:
        id: NHA_ID.
        interface: ifindex of a single leg.
        gateway: 4 or 16 bytes, empty for a directly connected one.
        blackhole: drops.
        members: (id, weight from 1) of a group; resilient groups too.
        usable: not dead, and not for bridge forwarding entries.
        labels: MPLS labels that are pushed, outermost first.
        tunnel: name of an encapsulation that is none of labels.
    """

    id: int
    interface: int = 0
    gateway: bytes = b""
    blackhole: bool = False
    members: tuple[tuple[int, int], ...] = ()
    usable: bool = True
    labels: tuple[int, ...] = ()
    tunnel: str = ""

    def path(self, weight: int = 1) -> Path:
        """Return where a single object leads."""
        return Path(self.interface, self.gateway, weight, self.labels, self.tunnel)


def parse_nexthop(body: bytes) -> Nexthop:
    """Return the object of an RTM_NEWNEXTHOP or RTM_DELNEXTHOP.

    Raises:
        NetlinkDecodeError: the body is not what nexthop.h says.
    """
    if len(body) < _NHMSG.size:
        raise NetlinkDecodeError(0, found=f"a next-hop body of {len(body)} bytes", expected="at least 8")
    _, _, _, flags = _NHMSG.unpack_from(body)
    found = attribute_map(body, _NHMSG.size)
    if c.NHA_ID not in found:
        raise NetlinkDecodeError(_NHMSG.size, found="no NHA_ID", expected="every next hop to have one")
    group = found.get(c.NHA_GROUP, b"")
    if len(group) % _MEMBER.size:
        raise NetlinkDecodeError(
            _NHMSG.size, found=f"NHA_GROUP of {len(group)} bytes", expected="a multiple of 8"
        )
    labels, tunnel = parse_tunnel(found.get(c.NHA_ENCAP_TYPE, b""), found.get(c.NHA_ENCAP, b""))
    return Nexthop(
        id=u32_of(found[c.NHA_ID]),
        interface=u32_of(found[c.NHA_OIF]) if c.NHA_OIF in found else 0,
        gateway=found.get(c.NHA_GATEWAY, b""),
        blackhole=c.NHA_BLACKHOLE in found,
        members=tuple((m, 1 + low + 256 * high) for m, low, high, _ in _MEMBER.iter_unpack(group)),
        usable=not flags & c.RTNH_F_DEAD and c.NHA_FDB not in found,
        labels=labels,
        tunnel=tunnel,
    )


class NexthopTable:
    """The next-hop objects of a namespace. Changes return the ids of all objects they touch."""

    def __init__(self) -> None:
        self._objects: dict[int, Nexthop] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, number: int) -> bool:
        return number in self._objects

    def ids(self) -> set[int]:
        """Return the ids of all objects."""
        return set(self._objects)

    def put(self, nexthop: Nexthop) -> set[int]:
        """Add or replace an object; return it and the groups it is in, or nothing if it is as before."""
        if self._objects.get(nexthop.id) == nexthop:
            return set()
        self._objects[nexthop.id] = nexthop
        return {nexthop.id, *self._groups_of(nexthop.id)}

    def remove(self, number: int) -> tuple[set[int], set[int]]:
        """Remove an object, take it out of its groups, and remove groups that it leaves empty.

        Returns:
            Ids of the objects that are gone, and of the groups that changed.
        """
        gone: set[int] = set()
        changed: set[int] = set()
        leaving = [number]
        while leaving:
            number = leaving.pop()
            if self._objects.pop(number, None) is None:
                continue
            gone.add(number)
            for group in self._groups_of(number):
                held = self._objects[group]
                rest = tuple(m for m in held.members if m[0] != number)
                self._objects[group] = replace(held, members=rest)
                (changed.add if rest else leaving.append)(group)
        return gone, changed - gone

    def replace_all(self, nexthops: Iterable[Nexthop]) -> tuple[set[int], set[int]]:
        """Take a fresh dump. Returns ids that are gone, and ids (and their groups) that changed."""
        held, self._objects = self._objects, {n.id: n for n in nexthops}
        changed = {number for number, nexthop in self._objects.items() if held.get(number) != nexthop}
        for number in tuple(changed):
            changed.update(self._groups_of(number))
        return held.keys() - self._objects.keys(), changed

    def on_interface(self, interface: int) -> list[int]:
        """Return the ids of single objects that leave by an interface."""
        return [n.id for n in self._objects.values() if n.interface == interface and not n.members]

    def resolve(self, number: int) -> PathSet | None:
        """Return where an object leads, None if nowhere."""
        found = self._objects.get(number)
        if found is None or not found.usable:
            return None
        if found.blackhole:
            return PathSet(RouteType.BLACKHOLE)
        if not found.members:
            return unicast([found.path()])
        members = [(self._objects.get(member), weight) for member, weight in found.members]
        live = [(m, weight) for m, weight in members if m is not None and m.usable and not m.members]
        if any(m.blackhole for m, _ in live):
            return PathSet(RouteType.BLACKHOLE)
        heaviest = max((weight for _, weight in live), default=1)
        # weights beyond what a path set takes keep their proportions
        scale = max(1.0, heaviest / 256)
        return unicast([m.path(max(1, round(w / scale))) for m, w in live])

    def _groups_of(self, number: int) -> list[int]:
        return [
            group.id
            for group in self._objects.values()
            if any(member == number for member, _ in group.members)
        ]
