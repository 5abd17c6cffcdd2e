"""How the upstream announces a table: next hops, AS paths, and the groups they are announced in.

A real neighbour's routes share some hundred AS paths and lead to few next hops. Here a hash of the prefix
chooses both, so that everyone who knows the prefix knows where it must leave: `expected_port` is what a
port proof compares with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

import numpy as np

from router_agent.lab.plan import IN, OUT, Port
from router_agent.lab.table import Table
from router_agent.model import I64, U8, U64, Family, key_addresses, key_lengths

RECEIVING_PORTS: tuple[Port, ...] = (OUT, IN)
"""Ports that routes lead to; `expected_port` gives positions in this tuple."""

_IN_SHARE = 8
"""One prefix in this many leaves by the port it came in by (a third-party next hop)."""

MOST_GROUPS = 400
"""AS paths of a full table."""
_PREFIXES_IN_GROUP = 50
"""A small table has fewer AS paths: at least this many prefixes share one."""

_DOCUMENTATION_AS = 65536
"""First of the 16 four-byte AS numbers for documentation (RFC 5398)."""

_LABELS = {Family.IPV4: "v4", Family.IPV6: "v6"}

_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


@dataclass(frozen=True, slots=True)
class Group:
    """Prefixes of one family that are announced with one AS path and next hop, and withdrawn together.

    Attributes:
        name: of the BIRD protocol that originates them.
        family: address family.
        port: where they lead; None leads to whoever announces them.
        path: AS path behind the upstream's own AS, nearest first.
        rows: row numbers in the table's column of this family.
    """

    name: str
    family: Family
    port: Port | None
    path: tuple[int, ...]
    rows: I64

    def __len__(self) -> int:
        return len(self.rows)


def expected_port(keys: U64) -> U8:
    """Return for each prefix the position in `RECEIVING_PORTS` of the port it must leave by.

    Args:
        keys: shape (n, 1) or (n, 3).
    """
    ports: U8 = (_hash(keys) % np.uint64(_IN_SHARE) == 0).astype(np.uint8)
    return ports


def groups_of(table: Table, ports: tuple[Port, ...] = RECEIVING_PORTS) -> list[Group]:
    """Divide a table into groups: in each family at most `MOST_GROUPS` AS paths, each for both ports.

    Args:
        table: what is announced.
        ports: the two ports that routes lead to; `expected_port` gives positions in this tuple. None at all
            has every route lead to whoever announces it.
    """
    leads: tuple[Port | None, ...] = ports or (None,)
    groups = []
    for family in Family:
        keys = table.keys(family)
        if not len(keys):
            continue
        paths = min(MOST_GROUPS, -(-len(keys) // _PREFIXES_IN_GROUP))
        path = (_hash(keys) >> np.uint64(32)) % np.uint64(paths)
        number = path.astype(np.int64) * len(leads) + (expected_port(keys) if ports else 0)
        order = np.argsort(number, kind="stable")
        numbers, starts = np.unique(number[order], return_index=True)
        for found, rows in zip(numbers, np.split(order, starts[1:]), strict=True):
            index, port = divmod(int(found), len(leads))
            groups.append(Group(f"{_LABELS[family]}_{found}", family, leads[port], _as_path(index), rows))
    return groups


def write_routes(directory: Path, table: Table, groups: list[Group]) -> None:
    """Write a BIRD configuration file that originates the table, one static protocol a group.

    Raises:
        OSError: the file cannot be written.
    """
    with (directory / "table.conf").open("w") as file:
        for group in groups:
            file.writelines(_static_protocol(group, table.keys(group.family)[group.rows]))


def _static_protocol(group: Group, keys: U64) -> Iterator[str]:
    channel = "ipv4" if group.family is Family.IPV4 else "ipv6"
    path = "".join(f"bgp_path.prepend({number}); " for number in reversed(group.path))
    next_hop = f"bgp_next_hop = {group.port.gateway(group.family)}; " if group.port else ""
    yield f"protocol static {group.name} {{\n"
    yield f"  {channel} {{ import filter {{ {next_hop}{path}accept; }}; }};\n"
    for prefix in _texts(keys):
        yield f"  route {prefix} blackhole;\n"
    yield "}\n"


def _texts(keys: U64) -> list[str]:
    lengths = key_lengths(keys).tolist()
    addresses = key_addresses(keys)
    if addresses.shape[1] == 4:
        rows = addresses.tolist()
        return [f"{a}.{b}.{c}.{d}/{n}" for (a, b, c, d), n in zip(rows, lengths, strict=True)]
    return [f"{IPv6Address(row.tobytes())}/{n}" for row, n in zip(addresses, lengths, strict=True)]


def _as_path(index: int) -> tuple[int, ...]:
    """Return the AS path with this number: three or five hops, different for each number below 4,096."""
    hops = [_DOCUMENTATION_AS + (index >> shift & 15) for shift in (0, 4, 8)]
    return tuple(hops[:1] + hops[1:] * (1 + index % 2))


def _hash(keys: U64) -> U64:
    mixed: U64 = keys[:, 0] * _MULTIPLIERS[0]
    for word in range(1, keys.shape[1]):
        mixed = (mixed ^ (mixed >> np.uint64(29))) + keys[:, word] * _MULTIPLIERS[word]
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _MULTIPLIERS[1]
    mixed ^= mixed >> np.uint64(29)
    return mixed
