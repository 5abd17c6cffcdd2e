"""Two sets of routes in one vocabulary, and what they differ in.

An interface is the number of its port, from 1 on, on both sides of the pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_agent.model import U32, U64, Family, Interner, Path, PathSet, RouteType, prefixes_of

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Routes:
    """Distinct prefixes and the id of where each leads.

    Attributes:
        keys: prefix keys, shape (n, family.key_width).
        paths: ids in the interner that both sides share, shape (n,).
    """

    keys: U64
    paths: U32


@dataclass(frozen=True, slots=True)
class Difference:
    """What VPP holds against what the kernel does.

    Attributes:
        missing: prefixes of the kernel that VPP does not have.
        stale: prefixes that VPP has and the kernel has not.
        different: prefixes that both have and that lead elsewhere.
        examples: a few of them in words.
    """

    missing: int = 0
    stale: int = 0
    different: int = 0
    examples: tuple[str, ...] = ()

    @property
    def none(self) -> bool:
        """Whether VPP is right."""
        return not (self.missing or self.stale or self.different)

    def __add__(self, other: Difference) -> Difference:
        return Difference(
            self.missing + other.missing,
            self.stale + other.stale,
            self.different + other.different,
            self.examples + other.examples,
        )


def lowest_terms(paths: PathSet) -> PathSet:
    """Return a path set whose weights have no common divisor, which says the same."""
    if paths.type is not RouteType.UNICAST or not paths.paths:
        return PathSet(paths.type)
    divisor = gcd(*(path.weight for path in paths.paths))
    legs = (Path(p.interface, p.gateway, p.weight // divisor, p.labels) for p in paths.paths)
    return PathSet.unicast(*legs)


def compare(kernel: Routes, vpp: Routes, ids: Interner[PathSet]) -> Difference:
    """Return what is wrong in VPP."""
    wanted, held = _sortable(kernel.keys), _sortable(vpp.keys)
    _, ours, theirs = np.intersect1d(wanted, held, assume_unique=True, return_indices=True)
    other = kernel.paths[ours] != vpp.paths[theirs]
    lacking = np.setdiff1d(np.arange(len(wanted)), ours)
    surplus = np.setdiff1d(np.arange(len(held)), theirs)
    examples = [
        *(f"missing {prefix}" for prefix in prefixes_of(kernel.keys[lacking[:_EXAMPLES]])),
        *(f"stale {prefix}" for prefix in prefixes_of(vpp.keys[surplus[:_EXAMPLES]])),
    ]
    for row in np.flatnonzero(other)[:_EXAMPLES]:
        (prefix,) = prefixes_of(kernel.keys[ours[row]][None])
        want, have = ids[int(kernel.paths[ours[row]])], ids[int(vpp.paths[theirs[row]])]
        examples.append(f"{prefix}: {words(have)} instead of {words(want)}")
    return Difference(len(lacking), len(surplus), int(other.sum()), tuple(examples))


def within(routes: Routes, keys: U64) -> Routes:
    """Return the routes whose prefixes are among some keys."""
    kept = np.isin(_sortable(routes.keys), _sortable(keys))
    return Routes(routes.keys[kept], routes.paths[kept])


def words(paths: PathSet) -> str:
    """Return a path set as a person would write it."""
    if paths.type is not RouteType.UNICAST:
        return paths.type.name.lower()
    return ", ".join(
        f"{_address(path.gateway)} on port {path.interface} weight {path.weight}" for path in paths.paths
    )


def empty(family: Family) -> Routes:
    """Return no routes."""
    return Routes(np.empty((0, family.key_width), np.uint64), np.empty(0, np.uint32))


def _sortable(keys: U64) -> NDArray[Any]:
    width = keys.shape[1]
    if width == 1:
        return keys[:, 0]
    # bytes in network order sort as the numbers do; what matters is that equal keys are equal
    return np.ascontiguousarray(keys.astype(">u8")).view(np.dtype((np.void, 8 * width)))[:, 0]


def _address(gateway: bytes) -> str:
    return str(ip_address(gateway)) if gateway else "attached"
