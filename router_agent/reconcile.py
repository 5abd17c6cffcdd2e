"""The only place that decides what is written: the difference between what is wanted and what is held.

Start-up, restart, overrun, audit, repair and steady state are all `diff` over some keys: every key of both
sides at start-up, the keys that changed in steady state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from router_agent.fibs.fib import Capacity
from router_agent.model import (
    ABSENT,
    I32,
    I64,
    U8,
    U32,
    U64,
    Changes,
    Failures,
    Family,
    Mask,
    Outcome,
    Reason,
    key_lengths,
)
from router_agent.prefix_table import PrefixTable
from router_agent.rib import Rib

CHUNK = 32_768
"""Prefixes decided at a time: bounds memory and how long the event loop is held (about 10 ms)."""

REASONS = tuple(Reason)


def diff(wanted: U32, held: U32) -> I64:
    """Return the numbers of the rows to write: those where the FIB does not hold what is wanted.

    Both columns are path ids of the FIB's interner, `ABSENT` for no route.
    """
    return np.flatnonzero(wanted != held)


class Translation:
    """Feed path ids to FIB path ids, worked out once per path set.

    Args:
        translate: gives the FIB's path id of a feed path id, `ABSENT` when the path set leads nowhere, or
            why the FIB cannot hold it. Its second argument is the FIB's path id so far, `ABSENT` for none.
    """

    _UNKNOWN = np.int32(np.iinfo(np.int32).min)

    def __init__(self, translate: Callable[[int, int], int | Reason]) -> None:
        self._translate = translate
        self._ids: I32 = np.full(64, self._UNKNOWN, np.int32)
        self._ids[ABSENT] = ABSENT

    def __call__(self, paths: U32) -> I32:
        """Return FIB path ids; a negative one is the reason ``REASONS[-id - 1]``."""
        if not len(paths):
            return np.empty(0, np.int32)
        self._reach(int(paths.max()))
        ids: I32 = self._ids[paths]
        unknown = ids == self._UNKNOWN
        if unknown.any():
            for path in np.unique(paths[unknown]):
                self._ids[path] = self._look_up(int(path), ABSENT)
            ids = self._ids[paths]
        return ids

    def refresh(self, paths: U32 | None = None) -> U32:
        """Work out again the given ids, or all known ones; return those whose meaning changed."""
        known = np.flatnonzero(self._ids != self._UNKNOWN).astype(np.uint32)
        known = known[known != ABSENT]
        if paths is not None:
            known = known[np.isin(known, paths)]
        before = np.maximum(self._ids[known], ABSENT).tolist()
        now = np.array(list(map(self._look_up, known.tolist(), before)), np.int32)
        changed: U32 = known[self._ids[known] != now]
        self._ids[known] = now
        return changed

    def forget(self, in_use: Mask) -> None:
        """Forget the ids that are not in use: the feed may give them to other path sets."""
        known = min(len(in_use), len(self._ids))
        self._ids[:known][~in_use[:known]] = self._UNKNOWN
        self._ids[ABSENT] = ABSENT

    def clear(self) -> None:
        """Forget everything: the FIB was opened anew."""
        self._ids[1:] = self._UNKNOWN

    def sharing(self, paths: U32) -> Iterator[tuple[int, U32]]:
        """Yield the FIB path ids of some feed path ids, each with all feed path ids that have it."""
        known = paths[paths < len(self._ids)]
        for number in np.unique(self._ids[known]):
            if number > ABSENT:
                yield int(number), np.flatnonzero(self._ids == number).astype(np.uint32)

    def mark_wanted(self, in_use: Mask) -> None:
        """Mark the FIB path ids that feed path ids lead to, in a column by id."""
        in_use[self._ids[self._ids > ABSENT]] = True

    def _look_up(self, path: int, before: int) -> int:
        answer = self._translate(path, before)
        return -1 - REASONS.index(answer) if isinstance(answer, Reason) else answer

    def _reach(self, path: int) -> None:
        if path < len(self._ids):
            return
        grown = np.full(max(path + 1, 2 * len(self._ids)), self._UNKNOWN, np.int32)
        grown[: len(self._ids)] = self._ids
        self._ids = grown


@dataclass(frozen=True, slots=True)
class Refusal:
    """A write the FIB refused: the path id that was refused and the FIB's own error number."""

    path: int
    code: int


class Reconciler:
    """Wanted against held, for one table of a FIB.

    Args:
        rib: the routes that are wanted.
        table: FIB table id written to.
        translation: from the feed's path ids to the FIB's.
    """

    def __init__(self, rib: Rib, table: int, translation: Translation) -> None:
        self.rib = rib
        self.table = table
        self._translation = translation
        width = rib.family.key_width
        self.held = PrefixTable(width, {"path": np.uint32})
        self.refused = PrefixTable(width, {"path": np.uint32, "code": np.int32})
        self.withheld = PrefixTable(width)
        """Additions that the FIB may have no room for."""
        self.out_of_room = False
        """Whether it has none for sure, so that they are not on their way but over capacity."""
        self.drifted = PrefixTable(width, {"reason": np.uint8})
        """Routes an audit found lost or altered and left so; the column indexes `REASONS`."""
        self.others: I64 | None = None
        """Entries of other owners by prefix length when the FIB was read; None where nobody counts."""
        self._dirty = PrefixTable(width)

    @property
    def family(self) -> Family:
        """Address family of the table."""
        return self.rib.family

    @property
    def nbytes(self) -> int:
        """Bytes held by the columns of both sides."""
        return self.rib.nbytes + self.held.nbytes + self.refused.nbytes + self._dirty.nbytes

    @property
    def pending(self) -> int:
        """Prefixes that wait to be looked at."""
        return len(self._dirty)

    def touch(self, keys: U64) -> None:
        """Note that these prefixes (any order, repeats allowed) may need a write.

        Whatever happens to a prefix while it waits, it is written at most once.
        """
        rows = self._dirty.find(keys)
        missing = keys[rows < 0]
        if not len(missing):
            return
        if len(missing) > 1:
            missing = np.unique(missing, axis=0) if missing.shape[1] > 1 else np.unique(missing)[:, None]
        self._dirty.insert(missing)

    def take(self) -> U64:
        """Return all prefixes that wait, which then wait no longer."""
        keys = self._dirty.keys(self._dirty.rows())
        self._dirty.clear()
        return keys

    def everything(self) -> Iterator[U64]:
        """Yield the keys of both sides, a chunk at a time: wanted ones first, then those only held.

        Adding before deleting keeps traffic flowing where a prefix moves to a shorter or longer one.
        """
        for rows in self.rib.prefixes.chunks(CHUNK):
            yield self.rib.prefixes.keys(rows)
        for rows in self.held.chunks(CHUNK):
            keys = self.held.keys(rows)
            yield keys[self.rib.prefixes.find(keys) < 0]

    def wanted(self, keys: U64) -> I32:
        """Return the FIB path id wanted for each key; negative: the reason why there can be none."""
        return self._translation(self.rib.best(keys))

    def held_lengths(self) -> I64:
        """Return how many prefixes of each length are held, shape (33,) or (129,)."""
        lengths = key_lengths(self.held.keys(self.held.rows()))
        return np.bincount(lengths, minlength=8 * self.family.address_bytes + 1)

    def held_paths(self, keys: U64) -> U32:
        """Return the FIB path id held for each key."""
        rows = self.held.find(keys)
        paths: U32 = np.zeros(len(keys), np.uint32)
        known = np.flatnonzero(rows >= 0)
        paths[known] = self.held["path"][rows[known]]
        return paths

    def changes(self, keys: U64) -> Changes:
        """Return the writes that make the FIB right for these distinct keys; deletes last.

        What the FIB refused is not asked of it again until something else is wanted, or `retry`.
        """
        if len(self.withheld):
            waiting = self.withheld.find(keys)
            self.withheld.remove(waiting[waiting >= 0])
        wanted = np.maximum(self.wanted(keys), ABSENT).astype(np.uint32)
        held = self.held_paths(keys)
        rows = diff(wanted, held)
        if len(self.refused):
            refused = self.refused.find(keys)
            known = np.flatnonzero(refused >= 0)
            same = self.refused["path"][refused[known]] == wanted[known]
            self.refused.remove(refused[known[~same]])
            rows = np.setdiff1d(rows, known[same], assume_unique=True)
        rows = rows[np.argsort(wanted[rows] == ABSENT, kind="stable")]
        return Changes(self.family, self.table, keys[rows], wanted[rows], held[rows])

    def learn(self, keys: U64, paths: U32) -> None:
        """Take note of routes read from the FIB since `forget`; each prefix is read once."""
        rows = self.held.insert(keys)
        self.held["path"][rows] = paths

    def expect(self) -> None:
        """Make room in the RIB for as many routes as the FIB holds: most likely they come again."""
        self.rib.prefixes.reserve(len(self.held))

    def unread(self, most: int) -> U64:
        """Return the wanted keys that were not read from the FIB; none when there are more than `most`."""
        found = [np.empty((0, self.family.key_width), np.uint64)]
        if len(self.rib) > len(self.held) + most:
            return found[0]
        for rows in self.rib.prefixes.chunks(CHUNK):
            keys = self.rib.prefixes.keys(rows)
            keys = keys[self.held.find(keys) < 0]
            found.append(keys[self.wanted(keys) > ABSENT])
            if sum(map(len, found)) > most:
                return found[0]
        return np.concatenate(found)

    def forget(self) -> None:
        """The FIB went away: nothing is known of it."""
        self.held.clear()
        self.refused.clear()
        self.drifted.clear()
        self.withheld.clear()

    def admit(self, changes: Changes, capacity: Capacity | None) -> Changes:
        """Return the changes that the FIB has room for; additions beyond are withheld until there is more."""
        if capacity is None:
            return changes
        adds = np.flatnonzero((changes.held == ABSENT) & (changes.paths != ABSENT))
        admitted = capacity.admit(self.family, changes.keys[adds])
        if admitted == len(adds):
            return changes
        self.withheld.find_or_insert(changes.keys[adds[admitted:]])
        kept = np.delete(np.arange(len(changes)), adds[admitted:])
        return Changes(
            changes.family, changes.table, changes.keys[kept], changes.paths[kept], changes.held[kept]
        )

    def some_withheld(self, most: int) -> U64:
        """Return keys of withheld additions, at most so many."""
        return self.withheld.keys(self.withheld.rows()[:most])

    def correct(self, keys: U64, paths: U32) -> None:
        """Take note of what the FIB was found to hold; whoever says so touches the prefixes."""
        there = paths != ABSENT
        rows = self.held.find_or_insert(keys[there])
        self.held["path"][rows] = paths[there]
        gone = self.held.find(keys[~there])
        self.held.remove(gone[gone >= 0])

    def mark_drifted(self, keys: U64, reason: Reason) -> None:
        """Take note of what an audit found wrong and leaves so."""
        rows = self.drifted.find_or_insert(keys)
        self.drifted["reason"][rows] = REASONS.index(reason)

    def unmark_drifted(self, keys: U64) -> U64:
        """Take back `mark_drifted` for these keys; return those that were marked."""
        if not len(self.drifted):
            return keys[:0]
        rows = self.drifted.find(keys)
        self.drifted.remove(rows[rows >= 0])
        return keys[rows >= 0]

    def drift_of(self, key: U64) -> Reason | None:
        """Return what an audit found wrong with one key (shape (1, width)) and left so."""
        row = int(self.drifted.find(key)[0])
        return REASONS[int(self.drifted["reason"][row])] if row >= 0 else None

    def retry(self) -> U64:
        """Let refused routes be tried again when they are looked at next, and return their keys."""
        keys = self.refused.keys(self.refused.rows())
        self.refused.clear()
        return keys

    def settle(self, changes: Changes, failures: Failures) -> None:
        """Take note of what became of a write."""
        done = np.ones(len(changes), np.bool_)
        done[failures.rows] = False
        keys, paths = changes.keys[done], changes.paths[done]
        kept = paths != ABSENT
        rows = self.held.find_or_insert(keys[kept])
        self.held["path"][rows] = paths[kept]
        gone = self.held.find(keys[~kept])
        self.held.remove(gone[gone >= 0])
        self.unmark_drifted(keys)
        if len(self.refused):
            accepted = self.refused.find(keys)
            self.refused.remove(accepted[accepted >= 0])
        if len(failures):
            rows = self.refused.find_or_insert(changes.keys[failures.rows])
            self.refused["path"][rows] = changes.paths[failures.rows]
            self.refused["code"][rows] = failures.codes

    def mark_held(self, in_use: Mask) -> None:
        """Mark the FIB path ids that the FIB holds or refused, in a column by id."""
        for table in (self.held, self.refused):
            in_use[table["path"][table.rows()]] = True

    def outcomes(self, keys: U64) -> U8:
        """Return the `Outcome` of what is wanted for each key: in the FIB, impossible or refused, or open."""
        wanted = self.wanted(keys)
        outcomes: U8 = np.full(len(keys), Outcome.UNKNOWN, np.uint8)
        outcomes[(wanted > ABSENT) & (wanted == self.held_paths(keys))] = Outcome.IN_FIB
        outcomes[wanted < ABSENT] = Outcome.FAILED
        if len(self.refused):
            rows = self.refused.find(keys)
            known = np.flatnonzero(rows >= 0)
            same = self.refused["path"][rows[known]] == wanted[known]
            outcomes[known[same]] = Outcome.FAILED
        if self.out_of_room and len(self.withheld):
            outcomes[self.withheld.find(keys) >= 0] = Outcome.FAILED
        if len(self.drifted):
            outcomes[self.drifted.find(keys) >= 0] = Outcome.FAILED
        return outcomes

    def refusal(self, key: U64) -> Refusal | None:
        """Return the refusal of one key (shape (1, width)), if there is one."""
        row = int(self.refused.find(key)[0])
        if row < 0:
            return None
        return Refusal(int(self.refused["path"][row]), int(self.refused["code"][row]))

    def impossible(self) -> dict[Reason, int]:
        """Count the wanted routes that cannot be put into the FIB's terms, by reason."""
        counts: dict[Reason, int] = {}
        routes = self.rib.best_counts()
        paths = np.flatnonzero(routes).astype(np.uint32)
        for target, count in zip(self._translation(paths), routes[paths], strict=True):
            if target < 0:
                reason = REASONS[-int(target) - 1]
                counts[reason] = counts.get(reason, 0) + int(count)
        return counts

    def unplaced(self) -> dict[Reason, int]:
        """Count the wanted routes that the FIB does not hold, by reason (invariant 4)."""
        counts = self.impossible()
        refused = self.refused["path"][self.refused.rows()]
        if len(refused):
            counts[Reason.REJECTED] = counts.get(Reason.REJECTED, 0) + len(refused)
        if self.out_of_room and len(self.withheld):
            counts[Reason.OVER_CAPACITY] = counts.get(Reason.OVER_CAPACITY, 0) + len(self.withheld)
        for number, count in enumerate(np.bincount(self.drifted["reason"][self.drifted.rows()])):
            if count:
                counts[REASONS[number]] = counts.get(REASONS[number], 0) + int(count)
        return counts
