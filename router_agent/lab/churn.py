"""Streams of route changes, as BGP brings them: few prefixes change often, and some moments change many.

A `Churn` is columns: which prefix of a table, when, and what it leads to from then on. Path numbers mean
nothing here; whoever replays a stream says what each is (`router_agent.lab.replay`). A stream is recorded
(`router_agent.lab.recording`) or generated, the same one from the same sizes.

What is generated follows what is known of inter-domain churn (Oliveira et al., "Measurement of highly active
prefixes in BGP", 2005; Elmokashfi et al., "BGP churn evolution", 2012): activity per prefix has a heavy tail,
most updates change the path and some withdraw it, and when a session or a link further away changes, all
that was learned by it changes at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router_agent.lab.table import Table
from router_agent.model import ABSENT, I64, U8, U32, U64, Family, Mask
from router_agent.prefix_table import PrefixTable

WITHDRAWN = ABSENT
"""The path number of a prefix that nobody announces."""

_TAIL = 0.9
"""Exponent of the activity of prefixes by rank: the busiest 1 % of 100,000 make about half of the updates."""
_WITHDRAWALS = 0.25
_BURSTS = 8
_BURST_SHARE = 0.4


@dataclass(frozen=True, eq=False)
class Churn:
    """Route changes in order. All columns have n rows.

    Attributes:
        table: the prefixes that `rows` counts.
        families: `Family` of each, ``uint8``.
        rows: row number in the table's column of that family.
        paths: path number from then on, 1 to `path_count`; `WITHDRAWN` where it goes.
        seconds: when, from the start; rising.
        path_count: how many paths there are.
        before: path number of every row of the table before the first change, by family.
        origin: where it came from, for people.
        as_paths: of a recording, the AS path of each path number, from 1; empty when none are known.
    """

    table: Table
    families: U8
    rows: I64
    paths: U32
    seconds: NDArray[np.float64]
    path_count: int
    before: Mapping[Family, U32]
    origin: str
    as_paths: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def duration(self) -> float:
        """Seconds from the start to the last change."""
        return float(self.seconds[-1]) if len(self) else 0.0

    def keys(self, family: Family) -> U64:
        """Return the prefix key of each change of one family, in order."""
        keys: U64 = self.table.keys(family)[self.rows[self.families == family]]
        return keys

    def at_rate(self, per_second: float) -> Churn:
        """Return the same changes at this many a second in the mean; bursts stay bursts."""
        if per_second <= 0:
            raise ValueError(f"found a rate of {per_second} changes a second, expected more than 0")
        if not len(self):
            return self
        scale = len(self) / per_second / self.duration if self.duration else 0.0
        return replace(self, seconds=self.seconds * scale)

    def after(self) -> dict[Family, U32]:
        """Return the path number of every row of the table after the last change."""
        found = {}
        for family in Family:
            ours = self.families == family
            paths = self.before[family].copy()
            # of several changes of one row NumPy keeps the last
            paths[self.rows[ours]] = self.paths[ours]
            found[family] = paths
        return found

    def effective(self) -> Churn:
        """Leave out changes that change nothing: the path a prefix has already, a withdrawal of what is gone.

        A BGP speaker takes them; a kernel refuses to delete what is not there.
        """
        order = self._by_prefix()
        paths = self.paths[order]
        previous = np.empty_like(paths)
        previous[1:] = paths[:-1]
        first = self._first_of_prefix(order)
        previous[first] = self._path_before(order[first])
        return self._only(np.sort(order[paths != previous]))

    def rows_that_stay(self, family: Family) -> I64:
        """Return the rows of a family that are announced before and never change."""
        stays = self.before[family] != WITHDRAWN
        stays[self.rows[self.families == family]] = False
        return np.flatnonzero(stays)

    def rows_that_change(self, family: Family) -> I64:
        """Return the rows of a family that change at least once."""
        return np.unique(self.rows[self.families == family])

    def within(self, table: Table) -> Churn:
        """Return the same changes among the prefixes of a table as well, which stay, on path 1."""
        tables: dict[Family, U64] = {}
        before: dict[Family, U32] = {}
        rows = self.rows.copy()
        for family in Family:
            ours = self.table.keys(family)
            tables[family] = np.unique(np.concatenate((table.keys(family), ours)), axis=0)
            places = PrefixTable(family.key_width)
            numbers = places.insert(tables[family])
            moved = np.empty(len(numbers), np.int64)
            moved[numbers] = np.arange(len(numbers))
            moved = moved[places.find(ours)]
            before[family] = np.ones(len(tables[family]), np.uint32)
            before[family][moved] = self.before[family]
            changed = self.families == family
            rows[changed] = moved[self.rows[changed]]
        both = Table(tables[Family.IPV4], tables[Family.IPV6], f"{table.origin} and {self.origin}")
        return replace(self, table=both, rows=rows, before=before)

    def first(self, count: int) -> Churn:
        """Return the stream up to its n-th change."""
        return self._only(np.arange(min(count, len(self))))

    def _only(self, chosen: I64) -> Churn:
        return replace(
            self,
            families=self.families[chosen],
            rows=self.rows[chosen],
            paths=self.paths[chosen],
            seconds=self.seconds[chosen],
        )

    def _by_prefix(self) -> I64:
        """Return the changes' numbers prefix by prefix, each prefix's in order."""
        return np.lexsort((np.arange(len(self)), self.rows, self.families))

    def _first_of_prefix(self, order: I64) -> Mask:
        return _first(self.families[order].astype(np.int64) << 40 | self.rows[order])

    def _path_before(self, numbers: I64) -> U32:
        paths = np.empty(len(numbers), np.uint32)
        for family in Family:
            ours = self.families[numbers] == family
            paths[ours] = self.before[family][self.rows[numbers[ours]]]
        return paths


def leading_to(churn: Churn, state: Mapping[Family, U32] | None = None) -> Churn:
    """Return the changes that lead from a state to where a stream begins, all due at once, path by path.

    Args:
        churn: the stream.
        state: path number of every row of its table, by family; None has none announced.
    """
    rows, paths, families = [], [], []
    for family in Family:
        wanted = churn.before[family]
        changed = np.flatnonzero(wanted != (state[family] if state else WITHDRAWN))
        changed = changed[np.argsort(wanted[changed], kind="stable")]
        rows.append(changed)
        paths.append(wanted[changed])
        families.append(np.full(len(changed), family, np.uint8))
    empty = {family: np.full(len(column), WITHDRAWN, np.uint32) for family, column in churn.before.items()}
    return replace(
        churn,
        families=np.concatenate(families),
        rows=np.concatenate(rows),
        paths=np.concatenate(paths),
        seconds=np.zeros(sum(map(len, rows))),
        before=empty if state is None else state,
    )


def generated_churn(
    table: Table,
    count: int,
    *,
    path_count: int = 3,
    before: Mapping[Family, U32] | None = None,
    changing: float = 0.1,
    seed: int = 1,
) -> Churn:
    """Return `count` changes of some prefixes of a table, spread over one second; the same ones each time.

    Every one changes something, and what is withdrawn is announced again before it is withdrawn again.

    Args:
        table: whose prefixes change.
        count: how many changes.
        path_count: how many paths there are; at least 2.
        before: path number of every row before; None has every prefix on path 1.
        changing: the share of prefixes that change at all; the others stay.
        seed: the same seed gives the same stream.

    Raises:
        ValueError: there is no prefix to change, or nothing to change it to.
    """
    if path_count < 2:
        raise ValueError(f"found {path_count} paths, expected at least 2: there is nothing to change to")
    rng = np.random.default_rng(seed)
    prefixes = rng.permutation(len(table))[: int(len(table) * changing)]
    if not len(prefixes):
        raise ValueError(f"found no prefix to change, expected some: {changing:g} of {len(table)} prefixes")
    if before is None:
        before = {family: np.ones(len(table.keys(family)), np.uint32) for family in Family}
    chosen, bursting, seconds = _moments(len(prefixes), count, rng)
    prefix = prefixes[chosen].astype(np.int64)
    sixth = prefix >= len(table.ipv4)
    families = np.where(sixth, Family.IPV6, Family.IPV4).astype(np.uint8)
    rows = np.where(sixth, prefix - len(table.ipv4), prefix)
    wishes = (rng.random(count) < _WITHDRAWALS) & ~bursting
    stream = Churn(
        table,
        families,
        rows,
        np.zeros(count, np.uint32),
        seconds,
        path_count,
        before,
        f"generated, seed {seed}",
    )
    return replace(stream, paths=_paths(stream, wishes, rng.integers(1, path_count, count)))


def _moments(prefixes: int, count: int, rng: np.random.Generator) -> tuple[I64, Mask, NDArray[np.float64]]:
    """Return which prefix (by rank) changes, whether in a burst, and when: sorted by time within a second."""
    in_bursts = int(count * _BURST_SHARE)
    weights = np.cumsum(np.arange(1, prefixes + 1, dtype=np.float64) ** -_TAIL)
    alone = np.searchsorted(weights, rng.random(count - in_bursts) * weights[-1])
    # a burst is what one neighbour's neighbour announces: a run of prefixes, one after the other
    together = np.arange(in_bursts) % prefixes
    bursts = np.repeat(rng.random(_BURSTS), -(-in_bursts // _BURSTS))[:in_bursts]
    chosen = np.concatenate((np.minimum(alone, prefixes - 1), together))
    seconds = np.concatenate((rng.random(len(alone)), bursts))
    order = np.argsort(seconds, kind="stable")
    return chosen[order], (np.arange(count) >= len(alone))[order], seconds[order]


def _paths(stream: Churn, wishes: Mask, steps: I64) -> U32:
    """Return the path numbers: a wish to withdraw is granted to prefixes that are there, others move on.

    Args:
        stream: with every column but the paths.
        wishes: which changes would be withdrawals.
        steps: by how many numbers each announcement moves on, 1 to path_count - 1.
    """
    order = stream._by_prefix()
    first = stream._first_of_prefix(order)
    numbers = np.arange(len(order))
    home = stream._path_before(order[first]).astype(np.int64)
    group = np.cumsum(first) - 1
    gone = wishes[order] & _odd_of_run(wishes[order], first, (home == WITHDRAWN)[group])
    moves = np.where(gone, 0, steps[order])
    moved = np.cumsum(moves)
    moved -= (moved - moves)[np.maximum.accumulate(np.where(first, numbers, 0))]
    paths = np.where(gone, WITHDRAWN, (home[group] - 1 + moved) % stream.path_count + 1)
    found = np.empty(len(order), np.uint32)
    found[order] = paths
    return found


def _odd_of_run(wishes: Mask, first: Mask, absent: Mask) -> Mask:
    """Tell which wishes are the first, third, ... of a run of wishes of one prefix.

    Before the first change of a prefix that is absent there was, as it were, one more.
    """
    numbers = np.arange(len(wishes))
    # where the run began, less one; groups are kept apart by a distance no run reaches
    apart = np.cumsum(first) * (len(wishes) + 2)
    begins = np.where(~wishes, numbers, np.where(first, numbers - 1 - absent, -(len(wishes) + 2)))
    started = np.maximum.accumulate(begins + apart) - apart
    odd: Mask = (numbers - started) % 2 == 1
    return odd


def _first(values: I64) -> Mask:
    """Tell which values differ from the one before."""
    first: Mask = np.ones(len(values), np.bool_)
    first[1:] = values[1:] != values[:-1]
    return first
