"""The vocabulary: families, route types, paths, path sets, prefixes and their columns.

Everything imports this module; it imports nothing of ours.

A full table has more than a million prefixes but fewer than a thousand distinct path sets, so a route is
two numbers: a prefix key (one row of a ``uint64`` array) and the id of an interned `PathSet`. All bulk
interfaces exchange such columns; scalar classes exist for the small things and for people.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

U8: TypeAlias = NDArray[np.uint8]
U32: TypeAlias = NDArray[np.uint32]
U64: TypeAlias = NDArray[np.uint64]
I32: TypeAlias = NDArray[np.int32]
I64: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

Address: TypeAlias = IPv4Address | IPv6Address
Prefix: TypeAlias = IPv4Network | IPv6Network

MAIN_TABLE = 254
"""``RT_TABLE_MAIN`` of linux/rtnetlink.h."""

ABSENT = 0
"""The path id that means "no route"; interners never give it to a path set."""


class Family(IntEnum):
    """Address family, with the values of ``AF_INET`` and ``AF_INET6``."""

    IPV4 = 2
    IPV6 = 10

    @property
    def key_width(self) -> int:
        """Number of ``uint64`` words in a prefix key: 1 for IPv4, 3 for IPv6."""
        return 1 if self is Family.IPV4 else 3

    @property
    def address_bytes(self) -> int:
        """Length of an address in bytes."""
        return 4 if self is Family.IPV4 else 16

    @property
    def label(self) -> str:
        """Name as operators write it."""
        return "IPv4" if self is Family.IPV4 else "IPv6"


class RouteType(IntEnum):
    """Route types, with the values of ``RTN_*`` in linux/rtnetlink.h."""

    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    ANYCAST = 4
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8
    THROW = 9


FORWARDED_TYPES = frozenset(
    {RouteType.UNICAST, RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT}
)
"""The route types a FIB is asked to hold; the others are the host's own business."""


class Reason(StrEnum):
    """Why a route that is wanted is not in the FIB (invariant 4: no silent loss)."""

    UNRESOLVED_INTERFACE = "unresolved-interface"
    UNRESOLVED_NEXT_HOP = "unresolved-next-hop"
    UNSUPPORTED_TYPE = "unsupported-type"
    UNSUPPORTED_ENCAPSULATION = "unsupported-encapsulation"
    REJECTED = "rejected"
    OVER_CAPACITY = "over-capacity"
    LOST = "lost"
    """The FIB acknowledged it and holds it no longer; somebody else removed it."""
    ALTERED = "altered"
    """The FIB acknowledged it and holds other paths; somebody else changed it."""
    UNHEARD = "unheard"
    """The feed's source changed it and the agent was never told."""
    STALE = "stale"
    """Nobody wants it and the FIB holds it under our name. The one reason that is no wanted route's."""


@dataclass(frozen=True, slots=True, order=True)
class Path:
    """One leg of a route.

    Attributes:
        interface: interface index on the side that speaks (kernel ifindex, or VPP sw_if_index + 1 on
            the FIB side); 0 lets the FIB resolve the gateway itself.
        gateway: next hop in network byte order, 4 or 16 bytes; empty for a directly connected prefix.
        weight: relative share, 1 to 256 (``rtnh_hops`` + 1).
        labels: MPLS labels that are pushed, outermost first.
        tunnel: name of an encapsulation that is none of labels, such as ``seg6``; empty for none.
    """

    interface: int
    gateway: bytes = b""
    weight: int = 1
    labels: tuple[int, ...] = ()
    tunnel: str = ""


@dataclass(frozen=True, slots=True)
class PathSet:
    """What a prefix points at: a route type and, for unicast, its legs in sorted order."""

    type: RouteType = RouteType.UNICAST
    paths: tuple[Path, ...] = ()

    @classmethod
    def unicast(cls, *paths: Path) -> PathSet:
        """Return a unicast path set; the order of legs does not matter for equality."""
        return cls(RouteType.UNICAST, tuple(sorted(paths)))


T = TypeVar("T", bound=Hashable)


class Interner(Generic[T]):
    """Gives each distinct value a small positive id, gives the value back, and takes unused ids back.

    Id 0 is `ABSENT`.
    """

    _noun = "id"

    def __init__(self) -> None:
        self._ids: dict[T, int] = {}
        self._values: list[T | None] = [None]
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._values) - 1 - len(self._free)

    def __getitem__(self, number: int) -> T:
        value = self.get(number)
        if value is None:
            raise KeyError(f"{self._noun} {number} is not in use (ids run from 1 to {len(self._values) - 1})")
        return value

    def get(self, number: int) -> T | None:
        """Return the value of an id, None when it is not in use."""
        return self._values[number] if 0 < number < len(self._values) else None

    def id(self, value: T) -> int:
        """Return the id of a value, giving it one if it is new."""
        number = self._ids.get(value)
        if number is not None:
            return number
        if self._free:
            number = self._free.pop()
            self._values[number] = value
        else:
            number = len(self._values)
            self._values.append(value)
        self._ids[value] = number
        return number

    def items(self) -> Iterator[tuple[int, T]]:
        """Yield every id in use and its value."""
        return ((number, value) for number, value in enumerate(self._values) if value is not None)

    @property
    def limit(self) -> int:
        """One more than the largest id ever in use: the length of an array indexed by id."""
        return len(self._values)

    def release(self, in_use: Mask) -> int:
        """Give up every id that is not marked in use, to be given out again; return how many that were.

        Ids from ``len(in_use)`` on are kept.
        """
        released = 0
        for number in range(1, min(len(in_use), len(self._values))):
            value = self._values[number]
            if value is None or in_use[number]:
                continue
            if self._ids.get(value) == number:
                del self._ids[value]
            self._values[number] = None
            self._free.append(number)
            released += 1
        return released


class Operation(IntEnum):
    """What happened to a (prefix, metric) in the feed, or that it was found by a full reading."""

    DELETE = 0
    SET = 1
    """Added or replaced; for IPv6 also appended, because the kernel then reports the whole set."""
    APPEND = 2
    """Added behind a route of the same prefix and metric (IPv4), which stays the effective one."""
    PREPEND = 3
    """Added before a route of the same prefix and metric (IPv4), which it hides."""
    FOUND = 4
    """Read from a full dump; of several with one prefix and metric the first is the effective one."""


@dataclass(slots=True)
class RouteBatch:
    """Routes of one family and table, in the order they happened. All columns have n rows.

    Attributes:
        family: address family of every row.
        table: kernel table id.
        keys: prefix keys, ``uint64`` of shape (n, family.key_width); see `keys_of`.
        metrics: ``uint32`` route priority; lower wins. Never narrowed.
        paths: ``uint32`` ids of interned `PathSet` in the feed's interner.
        operations: ``uint8`` of `Operation`.
    """

    family: Family
    table: int
    keys: U64
    metrics: U32
    paths: U32
    operations: U8

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(slots=True)
class Changes:
    """Writes for one FIB table. ``paths[i] == ABSENT`` is a delete, anything else an add or a replace.

    Attributes:
        family: address family of every row.
        table: FIB table id.
        keys: prefix keys, shape (n, family.key_width); distinct.
        paths: ``uint32`` ids in the FIB's interner that the FIB shall hold afterwards.
        held: ``uint32`` ids that the FIB holds now (`ABSENT` for an add).
    """

    family: Family
    table: int
    keys: U64
    paths: U32
    held: U32

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(slots=True)
class Failures:
    """Rows of a `Changes` that the FIB refused: row numbers and the FIB's own error numbers.

    ``codes`` are ``-errno`` for a kernel FIB and VNET_API_ERROR_* (negative) for VPP.
    """

    rows: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    codes: I32 = field(default_factory=lambda: np.empty(0, np.int32))

    def __len__(self) -> int:
        return len(self.rows)


class Outcome(IntEnum):
    """What became of a route a feed gave, as far as its sender is told."""

    UNKNOWN = 0
    """Not decided yet, or changed since it was told."""
    IN_FIB = 1
    FAILED = 2


@dataclass(slots=True)
class Outcomes:
    """What became of routes of one family and table, for the feed to tell. All columns have n rows.

    Attributes:
        family: address family of every row.
        table: the feed's table id.
        keys: prefix keys, shape (n, family.key_width); distinct.
        paths: ``uint32`` path ids of the feed.
        in_fib: the FIB has acknowledged the route; false: it does not hold it, and why is known.
    """

    family: Family
    table: int
    keys: U64
    paths: U32
    in_fib: Mask

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A resolved neighbour: interface index on the side that speaks, address bytes, 6-byte MAC."""

    interface: int
    address: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """An interface of the control plane.

    Attributes:
        index: kernel ifindex.
        name: kernel name.
        up: administratively up (``IFF_UP``); the kernel drops IPv4 routes when this goes.
        carrier: operationally up (``IFF_LOWER_UP``).
        mac: hardware address, 6 bytes (empty for interfaces that have none).
        mtu: bytes.
    """

    index: int
    name: str
    up: bool
    carrier: bool
    mac: bytes
    mtu: int


def v4_keys(addresses: U32, lengths: U8) -> U64:
    """Return IPv4 prefix keys, shape (n, 1): ``address << 8 | length``, address in host order."""
    return ((addresses.astype(np.uint64) << np.uint64(8)) | lengths)[:, None]


def v6_keys(high: U64, low: U64, lengths: U8) -> U64:
    """Return IPv6 prefix keys, shape (n, 3): high and low halves of the address, then the length."""
    return np.stack((high, low, lengths.astype(np.uint64)), axis=1)


def key_lengths(keys: U64) -> U8:
    """Return the prefix lengths of keys of either family."""
    return (keys[:, -1] & np.uint64(0xFF)).astype(np.uint8)


def key_addresses(keys: U64) -> U8:
    """Return the addresses of keys in network byte order, shape (n, 4) or (n, 16)."""
    if keys.shape[1] == 1:
        return (keys[:, 0] >> np.uint64(8)).astype(">u4").view(np.uint8).reshape(-1, 4)
    return np.ascontiguousarray(keys[:, :2]).astype(">u8").view(np.uint8).reshape(-1, 16)


def keys_of(prefixes: list[Prefix]) -> U64:
    """Return the keys of scalar prefixes, all of one family. For tests and single look-ups."""
    if not prefixes:
        return np.empty((0, 1), np.uint64)
    if prefixes[0].version == 4:
        rows = [[int(p.network_address) << 8 | p.prefixlen] for p in prefixes]
    else:
        mask = (1 << 64) - 1
        rows = [[int(p.network_address) >> 64, int(p.network_address) & mask, p.prefixlen] for p in prefixes]
    return np.array(rows, np.uint64)


def prefixes_of(keys: U64) -> list[Prefix]:
    """Return the scalar prefixes of keys."""
    addresses, lengths = key_addresses(keys), key_lengths(keys)
    return [ip_network((a.tobytes(), int(n))) for a, n in zip(addresses, lengths, strict=True)]
