"""A BGP table that looks like the real one, made from nothing but its length distribution.

How many prefixes of each length there are was counted in a full table; where they lie is drawn from a
counter-based hash (splitmix64), so that the same sizes give the same table on every machine and with every
version of NumPy. Prefixes nest as in reality, because each length is drawn on its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from router_agent.lab.reserved import touches_reserved
from router_agent.model import U64, Family, v4_keys, v6_keys

IPV4_LENGTHS: Mapping[int, int] = {
    8: 8,
    9: 6,
    10: 31,
    11: 95,
    12: 257,
    13: 493,
    14: 1120,
    15: 2455,
    16: 9331,
    17: 6735,
    18: 11825,
    19: 22075,
    20: 33264,
    21: 46064,
    22: 103676,
    23: 103717,
    24: 709602,
    25: 1350,
    26: 1447,
    27: 1595,
    28: 141,
    29: 164,
    30: 53,
    31: 3,
    32: 7,
}
"""Prefixes of each length in a full IPv4 table of 1,055,514."""

IPV6_LENGTHS: Mapping[int, int] = {
    16: 1,
    20: 9,
    21: 3,
    22: 9,
    23: 12,
    24: 42,
    25: 22,
    26: 38,
    27: 31,
    28: 134,
    29: 10327,
    30: 656,
    31: 1141,
    32: 27882,
    33: 715,
    34: 850,
    35: 1147,
    36: 3190,
    37: 717,
    38: 1271,
    39: 1478,
    40: 5588,
    41: 1107,
    42: 1663,
    43: 2398,
    44: 7112,
    45: 3002,
    46: 5428,
    47: 8545,
    48: 39866,
}
"""Prefixes of each length in a full IPv6 table of 124,384."""

_ALLOCATED = (0x2400, 0x2600, 0x2800, 0x2A00, 0x2C00)
"""The /12s that the five regional registries hand out, as the first 16 bits."""
_ALLOCATED_BITS = 12

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def generate(family: Family, count: int) -> U64:
    """Return `count` distinct keys of a family, sorted, none of them touching reserved space.

    Raises:
        ValueError: there are not that many prefixes to draw from.
    """
    lengths = IPV4_LENGTHS if family is Family.IPV4 else IPV6_LENGTHS
    parts = [_draw(family, length, wanted) for length, wanted in _shares(lengths, count).items() if wanted]
    if not parts:
        return np.empty((0, family.key_width), np.uint64)
    keys = np.concatenate(parts)
    return keys[np.lexsort(keys.T[::-1])]


def _shares(lengths: Mapping[int, int], count: int) -> dict[int, int]:
    """Divide `count` in the proportions of the histogram: whole shares, then the largest remainders."""
    if count < 0:
        raise ValueError(f"found {count} prefixes wanted, expected 0 or more")
    total = sum(lengths.values())
    shares = {length: count * weight // total for length, weight in lengths.items()}
    by_remainder = sorted(lengths, key=lambda length: (-(count * lengths[length] % total), length))
    for length in by_remainder[: count - sum(shares.values())]:
        shares[length] += 1
    return shares


def _draw(family: Family, length: int, wanted: int) -> U64:
    """Draw distinct prefixes of one length, the first `wanted` of an endless reproducible sequence."""
    pool = 1 << length if family is Family.IPV4 else len(_ALLOCATED) << (length - _ALLOCATED_BITS)
    if wanted > pool // 2:
        raise ValueError(
            f"found {wanted:,} prefixes of length /{length} wanted of {family.label}, expected at most "
            f"{pool // 2:,}: ask for a smaller table"
        )
    seen = np.empty((0, family.key_width), np.uint64)
    drawn = 0
    while len(seen) < wanted:
        more = (wanted - len(seen)) * 5 // 4 + 64
        numbers = _splitmix(drawn, more, seed=length + 100 * family.key_width)
        drawn += more
        keys = _keys(family, length, numbers)
        seen = _first_seen(np.concatenate((seen, keys[~touches_reserved(family, keys)])))
    return seen[:wanted]


def _first_seen(keys: U64) -> U64:
    """Drop repeated keys of one length without changing the order of the rest."""
    _, first = np.unique(keys[:, 0], return_index=True)
    return keys[np.sort(first)]


def _keys(family: Family, length: int, numbers: U64) -> U64:
    lengths = np.full(len(numbers), length, np.uint8)
    if family is Family.IPV4:
        addresses = (numbers >> np.uint64(64 - length)) << np.uint64(32 - length)
        return v4_keys(addresses.astype(np.uint32), lengths)
    block = np.array(_ALLOCATED, np.uint64)[(numbers >> np.uint64(56)) % np.uint64(len(_ALLOCATED))]
    free = length - _ALLOCATED_BITS
    offset = (numbers & np.uint64((1 << free) - 1)) << np.uint64(64 - length)
    return v6_keys((block << np.uint64(48)) | offset, np.zeros(len(numbers), np.uint64), lengths)


def _splitmix(start: int, count: int, *, seed: int) -> U64:
    """Return values start … start + count - 1 of splitmix64 (Steele, Lea and Flood, 2014) from a seed."""
    state = (
        np.arange(start + 1, start + count + 1, dtype=np.uint64) + (np.uint64(seed) << np.uint64(40))
    ) * _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * _MIX[0]
    state = (state ^ (state >> np.uint64(27))) * _MIX[1]
    return state ^ (state >> np.uint64(31))
