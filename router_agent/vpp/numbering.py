"""Path ids of the FIB to those of the codec and back, for whole columns.

The FIB's users know a path set by the number `Entries` gave it. The codec knows the paths a route itself has
in VPP: for a route that recurses, those are one path through an entry.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from router_agent.model import ABSENT, I64, U32, Family, Interner, PathSet
from router_agent.vpp.entries import Entries
from router_agent.vpp.next_hops import entry_of, through

_UNKNOWN = -1


class Numbering:
    """Translates columns of path ids.

    Args:
        entries: gives and knows the FIB's path ids.
        sets: gives and knows the codec's.
    """

    def __init__(self, entries: Entries, sets: Interner[PathSet]) -> None:
        self._entries = entries
        self._sets = sets
        self._generation = entries.generation
        self._to_codec: dict[Family, I64] = {}
        self._from_codec: dict[Family, I64] = {}

    def to_codec(self, family: Family, paths: U32) -> U32:
        """Return the codec's ids of the FIB's; entries are allotted where there is none."""
        return self._mapped(self._to_codec, family, paths, self._written)

    def from_codec(self, family: Family, paths: U32) -> U32:
        """Return the FIB's ids of the codec's."""
        return self._mapped(self._from_codec, family, paths, self._read)

    def forget(self) -> None:
        """Forget every pair: the codec's ids stand for something else from now on."""
        self._to_codec.clear()
        self._from_codec.clear()

    def _mapped(
        self, known: dict[Family, I64], family: Family, paths: U32, look_up: Callable[[Family, int], int]
    ) -> U32:
        if not len(paths):
            return paths
        if self._generation != self._entries.generation:
            self._generation = self._entries.generation
            self._to_codec.clear()
            self._from_codec.clear()
        ids = known.get(family)
        highest = int(paths.max())
        if ids is None or highest >= len(ids):
            before = np.zeros(1, np.int64) if ids is None else ids
            ids = np.full(2 * highest + 64, _UNKNOWN, np.int64)
            ids[: len(before)] = before
            ids[ABSENT] = ABSENT
            known[family] = ids
        found = ids[paths]
        if (found == _UNKNOWN).any():
            for number in np.unique(paths[found == _UNKNOWN]).tolist():
                ids[number] = look_up(family, number)
            found = ids[paths]
        return found.astype(np.uint32)

    def _written(self, family: Family, number: int) -> int:
        if self._entries.is_recursed(number):
            return self._sets.id(through(family, self._entries.entry(family, number)))
        return self._sets.id(self._entries.paths(number))

    def _read(self, family: Family, number: int) -> int:
        paths = self._sets[number]
        entry = entry_of(family, paths)
        return self._entries.id_of_direct(paths) if entry is None else self._entries.id_of_entry(entry)
