"""The RIB of one table: every candidate route by prefix and metric, and which is best.

The candidates of a prefix form a chain in rising order of metric, so the best one is the head. Chains live in
columns and are walked for whole batches at once: the depth of the longest chain, not the number of routes,
sets how many steps a batch takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from router_agent.model import (
    ABSENT,
    I32,
    I64,
    U8,
    U32,
    U64,
    Family,
    Mask,
    Operation,
    PathSet,
    RouteBatch,
)
from router_agent.prefix_table import PrefixTable, unique_last

_NONE = np.int32(-1)


class Paths(Protocol):
    """Path sets by id, and ids for path sets; a `Feed` is one."""

    def resolve(self, path: int) -> PathSet | None:
        """Return the path set of an id, None when it leads nowhere."""

    def path_id(self, path_set: PathSet) -> int:
        """Return the id of a path set, giving it one if it is new."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate of a prefix: its metric and the feed's path id."""

    metric: int
    path: int


class _Chains:
    """Rows of candidates, linked per prefix."""

    def __init__(self) -> None:
        self.metric: U32 = np.empty(0, np.uint32)
        self.path: U32 = np.empty(0, np.uint32)
        self.seen: U32 = np.empty(0, np.uint32)
        self.next: I32 = np.empty(0, np.int32)
        self.owner: I32 = np.empty(0, np.int32)
        self._free: list[I32] = []
        self.top = 0

    def take(self, n: int) -> I32:
        parts: list[I32] = []
        while n and self._free:
            free = self._free.pop()
            if len(free) > n:
                self._free.append(free[n:])
                free = free[:n]
            parts.append(free)
            n -= len(free)
        if n:
            self._grow(self.top + n)
            parts.append(np.arange(self.top, self.top + n, dtype=np.int32))
            self.top += n
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def give(self, rows: I32) -> None:
        self.path[rows] = ABSENT
        self._free.append(rows)

    def in_use(self) -> I64:
        return np.flatnonzero(self.path[: self.top])

    def _grow(self, rows: int) -> None:
        capacity = len(self.metric)
        if rows <= capacity:
            return
        capacity = max(rows, capacity + capacity // 2, 1024)
        for name in ("metric", "path", "seen", "next", "owner"):
            old = getattr(self, name)
            new = np.zeros(capacity, old.dtype)
            new[: self.top] = old[: self.top]
            setattr(self, name, new)

    @property
    def nbytes(self) -> int:
        return 20 * len(self.metric)


class Rib:
    """Candidates and best routes of one (family, table).

    Args:
        family: address family of every prefix.
        paths: the feed's path sets by id, needed where IPv6 takes single legs away from a set.

    Attributes:
        prefixes: one row a prefix; of its columns, ``told`` is `Confirmer`'s: the `Outcome` that the feed
            knows of.
    """

    def __init__(self, family: Family, paths: Paths) -> None:
        self.family = family
        self._paths = paths
        self.prefixes = PrefixTable(family.key_width, {"head": np.int32, "told": np.uint8})
        self._chains = _Chains()
        self._snapshot = np.uint32(1)
        self._shadowed = PrefixTable(family.key_width)
        self.ambiguous = False
        """Set when only the feed's own truth tells what a prefix leads to; the agent then asks for it."""

    def __len__(self) -> int:
        return len(self.prefixes)

    @property
    def nbytes(self) -> int:
        """Bytes held by columns and slots."""
        return self.prefixes.nbytes + self._chains.nbytes

    def snapshot_begin(self) -> None:
        """Candidates not set again before `snapshot_end` are stale from now on."""
        self._snapshot += np.uint32(1)
        self._shadowed.clear()

    def snapshot_end(self) -> U64:
        """Drop the stale candidates; return the keys whose best route changed.

        Call it only after a clean reading (invariant 2); after another one simply do not.
        """
        chains = self._chains
        rows = chains.in_use()
        return self._drop(rows[chains.seen[rows] != self._snapshot])

    def purge(self, paths: U32) -> U64:
        """Drop every candidate that uses one of these path ids; return the keys that changed."""
        return self._drop(self._rows_using(paths))

    def using(self, paths: U32) -> U64:
        """Return the keys whose best route uses one of these path ids."""
        rows = self._rows_using(paths)
        owners = self._chains.owner[rows]
        best: Mask = self.prefixes["head"][owners] == rows
        return self.prefixes.keys(owners[best])

    def paths_in_use(self, limit: int) -> Mask:
        """Return which path ids below `limit` any candidate uses."""
        used: Mask = np.zeros(limit, np.bool_)
        chains = self._chains
        used[chains.path[chains.in_use()]] = True
        return used

    def best_counts(self) -> I64:
        """Return how many prefixes have each path id as their best; shape (largest id + 1,)."""
        heads = self.prefixes["head"][self.prefixes.rows()]
        return np.bincount(self._chains.path[heads])

    def best(self, keys: U64) -> U32:
        """Return the path id of the best candidate of each key, `ABSENT` where there is none."""
        return self._best_of(self.prefixes.find(keys))

    def candidates(self, key: U64) -> list[Candidate]:
        """Return every candidate of one key (shape (1, width)), best first."""
        row = int(self.prefixes.find(key)[0])
        found = []
        at = int(self.prefixes["head"][row]) if row >= 0 else -1
        while at >= 0:
            found.append(Candidate(int(self._chains.metric[at]), int(self._chains.path[at])))
            at = int(self._chains.next[at])
        return found

    def find(self, keys: U64, metrics: U32) -> I32:
        """Return the number of the candidate with each key and metric, -1 where there is none."""
        found: I32 = np.full(len(keys), _NONE, np.int32)
        rows = self.prefixes.find(keys)
        known = np.flatnonzero(rows >= 0)
        _, at = self._walk(rows[known], metrics[known])
        same = at >= 0
        same[same] = self._chains.metric[at[same]] == metrics[known[same]]
        found[known[same]] = at[same]
        return found

    def leads(self, candidates: I32, paths: U32) -> Mask:
        """Tell which candidates (-1: none) lead to these path ids."""
        same: Mask = candidates >= 0
        same[same] = self._chains.path[candidates[same]] == paths[same]
        return same

    def no_rows(self) -> Mask:
        """Return marks of candidates, none of them set; see `marked`."""
        return np.zeros(self._chains.top, np.bool_)

    def marked(self, marks: Mask, candidates: I32) -> Mask:
        """Return the marks with these candidates' set."""
        if self._chains.top > len(marks):
            marks = np.concatenate((marks, np.zeros(self._chains.top - len(marks), np.bool_)))
        marks[candidates] = True
        return marks

    def is_marked(self, marks: Mask, candidates: I32) -> Mask:
        """Tell which candidates (-1: none) are marked."""
        known: Mask = (candidates >= 0) & (candidates < len(marks))
        known[known] = marks[candidates[known]]
        return known

    def unmarked(self, marks: Mask) -> U64:
        """Return the keys of the candidates that are not marked; of one prefix there may be several."""
        rows = self._chains.in_use().astype(np.int32)
        return self.prefixes.keys(self._chains.owner[rows[~self.is_marked(marks, rows)]])

    def apply(self, batch: RouteBatch) -> U64:
        """Take a batch in its order; return the keys whose best route is another one now."""
        if not len(batch):
            return batch.keys
        keys, metrics, paths, operations = batch.keys, batch.metrics, batch.paths, batch.operations
        columns = [keys[:, word] for word in range(keys.shape[1])]
        if not self._order_matters(operations):
            kept = unique_last(*columns, metrics)
        elif self._is_plain(operations):
            kept = _since_last_set([*columns, metrics], operations)
        else:
            kept = np.arange(len(keys))
        if len(kept) < len(keys):
            keys, metrics, paths, operations = keys[kept], metrics[kept], paths[kept], operations[kept]
        changed = [
            self._apply_distinct(keys[rows], metrics[rows], paths[rows], operations[rows])
            for rows in _rounds(keys)
        ]
        return changed[0] if len(changed) == 1 else np.concatenate(changed)

    def _order_matters(self, operations: U8) -> bool:
        """Tell whether the last event of a (prefix, metric) does not say it all."""
        if (operations == Operation.SET).all():
            return False
        return self.family is Family.IPV6 or not self._is_plain(operations)

    def _is_plain(self, operations: U8) -> bool:
        """Tell whether a SET says it all whatever came before: nothing is added beside, nothing hidden."""
        plain = (operations == Operation.SET) | (operations == Operation.DELETE)
        return bool(plain.all()) and not len(self._shadowed)

    def _apply_distinct(
        self, keys: U64, metrics: U32, paths: U32, operations: U8, *, settle: bool = True
    ) -> U64:
        """Apply rows that all have different keys."""
        chains = self._chains
        deletes = operations == Operation.DELETE
        rows = self.prefixes.find(keys)
        new = np.flatnonzero((rows < 0) & ~deletes)
        if len(new):
            rows[new] = self.prefixes.insert(keys[new])
            self.prefixes["head"][rows[new]] = _NONE
        known = rows >= 0
        if not known.all():
            keys, metrics, paths, operations = keys[known], metrics[known], paths[known], operations[known]
            rows, deletes = rows[known], deletes[known]
        if not len(rows):
            return keys
        before = self._best_of(rows)
        previous, at = self._walk(rows, metrics)
        same = at >= 0
        same[same] = chains.metric[at[same]] == metrics[same]
        if settle and not (operations == Operation.SET).all():
            same, paths, operations = self._settle(keys, at, same, paths, operations)
            deletes = operations == Operation.DELETE
        update = same & ~deletes
        chains.path[at[update]] = paths[update]
        chains.seen[at[update]] = self._snapshot
        add = np.flatnonzero(~same & ~deletes)
        if len(add):
            fresh = chains.take(len(add))
            chains.metric[fresh] = metrics[add]
            chains.path[fresh] = paths[add]
            chains.seen[fresh] = self._snapshot
            chains.owner[fresh] = rows[add]
            chains.next[fresh] = at[add]
            self._link(rows[add], previous[add], fresh)
        gone = np.flatnonzero(same & deletes)
        if len(gone):
            self._link(rows[gone], previous[gone], chains.next[at[gone]])
            chains.give(at[gone])
        changed: U64 = keys[self._best_of(rows) != before]
        if len(gone):
            empty = rows[gone]
            self.prefixes.remove(empty[self.prefixes["head"][empty] == _NONE])
        return changed

    def _walk(self, rows: I32, metrics: U32) -> tuple[I32, I32]:
        """Return for each row the last candidate below its metric and the one after that (-1: none)."""
        chains = self._chains
        at: I32 = self.prefixes["head"][rows]
        previous: I32 = np.full(len(rows), _NONE, np.int32)
        walking = np.flatnonzero(at >= 0)
        while len(walking):
            walking = walking[chains.metric[at[walking]] < metrics[walking]]
            previous[walking] = at[walking]
            at[walking] = chains.next[at[walking]]
            walking = walking[at[walking] >= 0]
        return previous, at

    def _link(self, rows: I32, previous: I32, to: I32) -> None:
        first = previous < 0
        self.prefixes["head"][rows[first]] = to[first]
        self._chains.next[previous[~first]] = to[~first]

    def _settle(self, keys: U64, at: I32, same: Mask, paths: U32, operations: U8) -> tuple[Mask, U32, U8]:
        """Decide the rows that plain setting does not describe; return what is to be done instead.

        A row is made to do nothing by turning it into a delete of a candidate that is not there.
        """
        chains = self._chains
        same, paths, operations = same.copy(), paths.copy(), operations.copy()
        held = np.zeros(len(at), np.uint32)
        held[same] = chains.path[at[same]]
        other = same & (held != paths)
        deletes = operations == Operation.DELETE

        hidden = np.zeros(len(keys), np.bool_)
        if len(self._shadowed):
            hidden = deletes & (self._shadowed.find(keys) >= 0)
            self.ambiguous |= bool(hidden.any())
        if self.family is Family.IPV6:
            for row in np.flatnonzero(deletes & other & ~hidden):
                self._take_legs(int(row), held, paths, operations)

        behind = other & (operations == Operation.FOUND)
        behind[behind] = chains.seen[at[behind]] == self._snapshot
        behind |= other & (operations == Operation.APPEND)
        beside = behind | (other & (operations == Operation.PREPEND))
        if beside.any():
            self._shadowed.find_or_insert(keys[beside])
        chains.seen[at[behind]] = self._snapshot

        nothing = behind | (hidden & other)
        operations[nothing] = Operation.DELETE
        same &= ~nothing
        return same, paths, operations

    def _take_legs(self, row: int, held: U32, paths: U32, operations: U8) -> None:
        """IPv6 removes a multipath route leg by leg: keep the legs that were not named."""
        whole, gone = self._paths.resolve(int(held[row])), self._paths.resolve(int(paths[row]))
        if whole is None or gone is None:
            return
        named = {(leg.interface, leg.gateway) for leg in gone.paths}
        left = [leg for leg in whole.paths if (leg.interface, leg.gateway) not in named]
        if not left:
            return
        if len(left) == len(whole.paths):
            # A route we do not hold under this prefix and metric was removed: ours stays.
            paths[row] = held[row]
        else:
            paths[row] = self._paths.path_id(PathSet.unicast(*left))
        operations[row] = Operation.SET

    def _best_of(self, rows: I32) -> U32:
        best: U32 = np.zeros(len(rows), np.uint32)
        known = np.flatnonzero(rows >= 0)
        heads = self.prefixes["head"][rows[known]]
        live = heads >= 0
        best[known[live]] = self._chains.path[heads[live]]
        return best

    def _rows_using(self, paths: U32) -> I64:
        chains = self._chains
        held = chains.path[: chains.top]
        highest = max(int(held.max(initial=0)), int(paths.max(initial=0)))
        asked = np.zeros(highest + 1, np.bool_)
        asked[paths] = True
        asked[ABSENT] = False  # rows that are free
        return np.flatnonzero(asked[held])

    def _drop(self, rows: I64) -> U64:
        """Delete candidates by row; of one prefix there may be several."""
        chains = self._chains
        owners = chains.owner[rows]
        keys = self.prefixes.keys(owners)
        metrics = chains.metric[rows]
        delete = np.full(len(rows), Operation.DELETE, np.uint8)
        paths = chains.path[rows]
        parts = [
            self._apply_distinct(keys[part], metrics[part], paths[part], delete[part], settle=False)
            for part in _rounds(keys)
        ]
        return np.concatenate(parts)


def _since_last_set(columns: list[NDArray[np.unsignedinteger]], operations: U8) -> I64:
    """Return the rows of each distinct entry of the columns from its last SET on, all where it has none."""
    order = np.lexsort(columns[::-1])
    first = np.ones(len(order), np.bool_)
    first[1:] = np.logical_or.reduce([column[order[1:]] != column[order[:-1]] for column in columns])
    numbers = np.arange(len(order))
    last_set = np.maximum.reduceat(
        np.where(operations[order] == Operation.SET, numbers, -1), np.flatnonzero(first)
    )
    return np.sort(order[numbers >= last_set[np.cumsum(first) - 1]])


def _rounds(keys: U64) -> list[I64]:
    """Split row numbers so that the keys of each part are distinct; rows of one key keep their order."""
    n = len(keys)
    columns = [keys[:, word] for word in range(keys.shape[1])]
    last = unique_last(*columns)
    if len(last) == n:
        return [np.arange(n, dtype=np.int64)]
    order = np.lexsort(columns[::-1])
    starts = np.ones(n, np.bool_)
    starts[1:] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    begin = np.maximum.accumulate(np.where(starts, np.arange(n), 0))
    occurrence = np.empty(n, np.int64)
    occurrence[order] = np.arange(n) - begin
    return [np.flatnonzero(occurrence == number) for number in range(int(occurrence.max()) + 1)]
