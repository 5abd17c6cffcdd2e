"""What every peer has announced, and which of it is used.

An Adj-RIB-In is one `PrefixTable` per family whose rows hold the id of an interned `Attributes`. To decide
about prefixes, every peer's table is looked up for all of them at once; that gives one row of attribute ids
per prefix, of which few are distinct. Each distinct combination is decided once in plain Python and
remembered, and the outcome is spread over the prefixes. No result is stored per prefix: who takes them keeps
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from router_agent.feeds.decision import UNKNOWN_ROUTER_ID, Attributes, Candidate, Speaker, decide, why
from router_agent.feeds.exabgp_json import Header, SessionId, packed
from router_agent.model import ABSENT, I64, U32, U64, Family, Interner, Mask, Path, PathSet, Prefix, keys_of
from router_agent.prefix_table import PrefixTable, unique_last

CHUNK = 1 << 15
"""Prefixes decided at a time; some ten milliseconds."""
_REMEMBERED_DECISIONS = 1 << 17
_SPARE_ATTRIBUTES = 1 << 13
"""Attributes that may be unused before it is worth looking for them."""


class AdjRibIn:
    """Routes one session has announced, before any choice (RFC 4271, section 3.2).

    A row that was not announced again since `mark_stale` is stale; it still counts until `remove_stale`.

    Args:
        header: whose they are.
        families: the ones to hold.
    """

    def __init__(self, header: Header, families: Iterable[Family]) -> None:
        self.header = header
        self.router_id: int = UNKNOWN_ROUTER_ID
        self.tables: dict[Family, PrefixTable] = {
            family: PrefixTable(family.key_width, {"attributes": np.uint32, "fresh": np.bool_})
            for family in families
        }

    def __len__(self) -> int:
        return sum(map(len, self.tables.values()))

    @property
    def speaker(self) -> Speaker:
        """The peer as the decision sees it."""
        header = self.header
        return Speaker(packed(header.session.peer), self.router_id, header.peer_as != header.local_as)

    def set(self, family: Family, keys: U64, attributes: U32) -> int:
        """Take distinct prefixes: announced with these attribute ids, withdrawn where `ABSENT`.

        Returns:
            How many of them were new or stale before and are fresh now.
        """
        table = self.tables[family]
        withdrawn = attributes == ABSENT
        if withdrawn.any():
            rows = table.find(keys[withdrawn])
            table.remove(rows[rows >= 0])
            keys, attributes = keys[~withdrawn], attributes[~withdrawn]
        if not len(keys):
            return 0
        rows = table.find_or_insert(keys)
        table["attributes"][rows] = attributes
        freshened = len(rows) - int(np.count_nonzero(table["fresh"][rows]))
        table["fresh"][rows] = True
        return freshened

    def attributes(self, family: Family, keys: U64) -> U32:
        """Return the attribute id of each key, `ABSENT` where nothing is announced."""
        table = self.tables[family]
        rows = table.find(keys)
        ids: U32 = table["attributes"][rows]
        ids[rows < 0] = ABSENT
        return ids

    def mark_stale(self, family: Family) -> None:
        """What is not announced again from now on is stale."""
        self.tables[family]["fresh"][:] = False

    def remove_stale(self, family: Family) -> U64:
        """Remove stale routes; return their keys."""
        table = self.tables[family]
        rows = table.rows()
        rows = rows[~table["fresh"][rows]]
        keys = table.keys(rows)
        table.remove(rows)
        return keys

    def clear(self, family: Family) -> U64:
        """Remove every route of a family; return the keys."""
        table = self.tables[family]
        keys = table.keys(table.rows())
        table.clear()
        return keys

    @property
    def nbytes(self) -> int:
        """Bytes held by the tables."""
        return sum(table.nbytes for table in self.tables.values())


@dataclass(frozen=True, slots=True)
class CandidateView:
    """One candidate of a prefix, for people.

    Attributes:
        session: who announced it.
        attributes: with what.
        used: it is the best one, or used beside it.
        reason: "best", or why it is not.
        stale: not announced again yet since its session was lost or asked for a refresh.
    """

    session: SessionId
    attributes: Attributes
    used: bool
    reason: str
    stale: bool


class Ribs:
    """Every session's Adj-RIB-In, and the decisions over them.

    Args:
        families: the ones to hold.
        maximum_paths: see `decide`.
    """

    def __init__(self, families: Sequence[Family], maximum_paths: int = 1) -> None:
        self.families = tuple(families)
        self.maximum_paths = maximum_paths
        self.sessions: dict[SessionId, AdjRibIn] = {}
        self.attributes: Interner[Attributes] = Interner()
        self.paths: Interner[PathSet] = Interner()
        self._decided: dict[tuple[int, ...], int] = {}
        self._attributes_kept = 0

    def session(self, header: Header) -> AdjRibIn:
        """Return a session's Adj-RIB-In, an empty one when it is new."""
        rib = self.sessions.get(header.session)
        if rib is None:
            rib = self.sessions[header.session] = AdjRibIn(header, self.families)
            self._decided.clear()
        return rib

    def forget(self, session: SessionId) -> None:
        """Remove a session that has no routes."""
        if self.sessions.pop(session, None) is not None:
            self._decided.clear()

    def describe(self, rib: AdjRibIn, header: Header, router_id: int | None = None) -> bool:
        """Take what is newly known of a session; return True when decisions may change by it."""
        before = rib.speaker
        rib.header = header
        if router_id is not None:
            rib.router_id = router_id
        if rib.speaker == before:
            return False
        self._decided.clear()
        return True

    def retain_paths(self, in_use: Mask) -> None:
        """Take back the ids of path sets that are not marked."""
        if self.paths.release(in_use):
            self._decided.clear()

    def retain_attributes(self) -> None:
        """Take back the ids of attributes no route has, when that is worth while."""
        if len(self.attributes) < 2 * self._attributes_kept + _SPARE_ATTRIBUTES:
            return
        used: Mask = np.zeros(self.attributes.limit, np.bool_)
        for rib in self.sessions.values():
            for table in rib.tables.values():
                used[table["attributes"][table.rows()]] = True
        if self.attributes.release(used):
            self._decided.clear()
        self._attributes_kept = len(self.attributes)

    def prefixes(self, family: Family) -> Iterator[U64]:
        """Yield the keys of every prefix any session has, each once, in chunks."""
        earlier: list[PrefixTable] = []
        for rib in self.sessions.values():
            table = rib.tables[family]
            for rows in table.chunks(CHUNK):
                keys = table.keys(rows)
                for other in earlier:
                    keys = keys[other.find(keys) < 0]
                if len(keys):
                    yield keys
            earlier.append(table)

    def decide(self, family: Family, keys: U64) -> U32:
        """Return the id of the path set each prefix is to have, `ABSENT` for none."""
        columns = [rib.attributes(family, keys) for rib in self.sessions.values()]
        if not columns:
            return np.zeros(len(keys), np.uint32)
        combinations, which = _distinct_rows(columns)
        if len(self._decided) + len(combinations) > _REMEMBERED_DECISIONS:
            self._decided.clear()
        speakers = [rib.speaker for rib in self.sessions.values()]
        paths = np.fromiter(
            (self._path_of(row, speakers) for row in map(tuple, combinations.tolist())),
            np.uint32,
            len(combinations),
        )
        return paths[which]

    def candidates(self, prefix: Prefix) -> list[CandidateView]:
        """Return every candidate of a prefix, the used ones first, with the reason for each."""
        family = Family.IPV4 if prefix.version == 4 else Family.IPV6
        if family not in self.families:
            return []
        key = keys_of([prefix])
        having: list[tuple[SessionId, Candidate, bool]] = []
        for session, rib in self.sessions.items():
            table = rib.tables[family]
            row = int(table.find(key)[0])
            if row >= 0:
                attributes = self.attributes[int(table["attributes"][row])]
                having.append((session, (rib.speaker, attributes), not table["fresh"][row]))
        candidates = [candidate for _, candidate, _ in having]
        decision = decide(candidates, self.maximum_paths)
        best = None if decision.best is None else candidates[decision.best]
        views = []
        for number, (session, candidate, stale) in enumerate(having):
            used = number in decision.used
            reason = why(candidate, decision.lost[number], best)
            if used and number != decision.best:
                reason = f"used beside the best; {reason}"
            views.append(CandidateView(session, candidate[1], used, reason, stale))
        return sorted(views, key=lambda view: (not view.used, view.reason != "best"))

    @property
    def nbytes(self) -> int:
        """Bytes held by the tables of every session."""
        return sum(rib.nbytes for rib in self.sessions.values())

    def _path_of(self, combination: tuple[int, ...], speakers: Sequence[Speaker]) -> int:
        path = self._decided.get(combination)
        if path is None:
            path = self._decided[combination] = self._choose(combination, speakers)
        return path

    def _choose(self, combination: tuple[int, ...], speakers: Sequence[Speaker]) -> int:
        candidates = [
            (speaker, self.attributes[number])
            for speaker, number in zip(speakers, combination, strict=True)
            if number != ABSENT
        ]
        used = decide(candidates, self.maximum_paths).used
        if not used:
            return ABSENT
        return self.paths.id(PathSet.unicast(*(Path(0, candidates[n][1].next_hop) for n in used)))


def _distinct_rows(columns: Sequence[U32]) -> tuple[U32, I64]:
    """Return the distinct rows of columns of one length, and for each row the number of its distinct one."""
    numbers, which = np.unique(columns[0], return_inverse=True)
    rows = numbers[:, None]
    for column in columns[1:]:
        # One 64-bit number for (row so far, next column): sorting those is far quicker than sorting rows.
        both, which = np.unique(
            which.astype(np.uint64) << np.uint64(32) | column.astype(np.uint64), return_inverse=True
        )
        ahead = rows[(both >> np.uint64(32)).astype(np.int64)]
        rows = np.concatenate((ahead, both.astype(np.uint32)[:, None]), axis=1)
    return rows, which.reshape(-1)


def last_of_each(keys: U64, values: U32) -> tuple[U64, U32]:
    """Keep, of rows with the same key, the last one."""
    last = unique_last(*(keys[:, word] for word in range(keys.shape[1])))
    if len(last) == len(keys):
        return keys, values
    return keys[last], values[last]
