"""The BGP table the lab's upstream announces: read from a file, or generated.

A `Table` is two columns of prefix keys (see `router_agent.model`), sorted, without duplicates and without
address space that must not come from a neighbour: the lab's own links live in such space, and a route into
it would carry the lab's BGP sessions away.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import numpy as np

from router_agent.lab.errors import TableError
from router_agent.lab.generator import generate
from router_agent.lab.mrt import looks_like_mrt, read_mrt
from router_agent.lab.reserved import reserved
from router_agent.model import U64, Family, key_addresses, key_lengths
from router_agent.prefix_list import PrefixListError, distinct, read_prefix_list, unpacked

FULL_IPV4 = 1_050_000
"""Prefixes in a full-size IPv4 table."""
FULL_IPV6 = 120_000
"""Prefixes in a full-size IPv6 table."""

_LONGEST_ACCEPTED = {Family.IPV4: 24, Family.IPV6: 48}
"""The kit's routers accept nothing longer (``frr_accept_longest``)."""


@dataclass(frozen=True, slots=True)
class Table:
    """A BGP table without attributes.

    Attributes:
        ipv4: keys of shape (n, 1), sorted, distinct.
        ipv6: keys of shape (n, 3), sorted, distinct.
        origin: where it came from, for people.
        left_out: prefixes of the source that lie in reserved space and were not taken.
    """

    ipv4: U64
    ipv6: U64
    origin: str
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.ipv4) + len(self.ipv6)

    def keys(self, family: Family) -> U64:
        """Return the column of a family."""
        return self.ipv4 if family is Family.IPV4 else self.ipv6


def generated_table(ipv4: int = FULL_IPV4, ipv6: int = FULL_IPV6) -> Table:
    """Return a table of these sizes with the lengths of the real one; the same one each time.

    Raises:
        ValueError: more prefixes are wanted than the address space gives.
    """
    return Table(generate(Family.IPV4, ipv4), generate(Family.IPV6, ipv6), "generated")


def read_table(path: Path, ipv4: int | None = None, ipv6: int | None = None) -> Table:
    """Read a prefix list or an MRT RIB dump, either of them plain or packed with gzip, bzip2 or xz.

    Args:
        path: the file; what it is shows in its first bytes, not in its name.
        ipv4: take at most this many IPv4 prefixes, spread evenly over the file's; None takes all.
        ipv6: likewise.

    Raises:
        TableError: the file cannot be read or holds something else.
    """
    try:
        with unpacked(path) as file:
            head = file.read(12)
        read = read_mrt if looks_like_mrt(head) else read_prefix_list
        with unpacked(path) as file:
            columns = read(file, str(path))
    except PrefixListError as error:
        raise TableError(str(error)) from error
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise TableError(
            f"{path}: cannot be read: {error}; expected a prefix list or an MRT RIB dump"
        ) from error
    wanted = {Family.IPV4: ipv4, Family.IPV6: ipv6}
    taken = {family: distinct(columns[family]) for family in Family}
    kept = {family: keys[~reserved(family, keys)] for family, keys in taken.items()}
    left_out = sum(len(taken[family]) - len(kept[family]) for family in Family)
    if not any(len(keys) for keys in kept.values()):
        raise TableError(f"{path}: found no prefix that can be announced, expected at least one")
    limited = {family: _spread(keys, wanted[family]) for family, keys in kept.items()}
    return Table(limited[Family.IPV4], limited[Family.IPV6], str(path), left_out)


def acceptable(family: Family, keys: U64, count: int, management: IPv4Network) -> U64:
    """Return so many prefixes that the kit's routers accept and that do not touch a management network.

    Args:
        family: of the keys.
        keys: to choose from; the chosen ones are spread evenly over them.
        count: how many.
        management: where the hosts of a lab are managed.

    Raises:
        TableError: there are not so many.
    """
    kept = keys[key_lengths(keys) <= _LONGEST_ACCEPTED[family]]
    if family is Family.IPV4:
        addresses = key_addresses(kept).astype(np.uint32)
        first = addresses[:, 0] << 24 | addresses[:, 1] << 16 | addresses[:, 2] << 8 | addresses[:, 3]
        size = np.uint64(1) << (np.uint64(32) - key_lengths(kept).astype(np.uint64))
        low, high = int(management[0]), int(management[-1])
        kept = kept[(first > high) | (first + size <= low)]
    if len(kept) < count:
        raise TableError(f"found {len(kept)} usable {family.label} prefixes, expected {count}")
    return kept[np.arange(count) * len(kept) // count]


def _spread(keys: U64, limit: int | None) -> U64:
    if limit is None or limit >= len(keys):
        return keys
    return keys[np.arange(limit) * len(keys) // limit]
