"""Which entry of the next-hop tables stands for which path set. Decides only; `next_hops` carries it out.

Prefix-independent convergence: a path set is written once, as an entry of a table that nothing else uses, and
every route with that path set recurses through the entry. What all of them lead to is then changed by one
write. Three numbers are kept apart:

- a *path id* is what a FIB's users know a path set by. It keeps its number when what it stands for is
  replaced, so nobody has to write a route;
- an *entry* is a host prefix of the next-hop table of its family, by number. A path id may have several of
  one family: after a restart, those that were found with the same content are one path id;
- *legs in use* are those of a path set that lead somewhere right now. An entry has these alone, and all of
  them when none does.

An entry is given to another path id only after VPP has removed it, and it is removed only when nothing uses
its path id.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from router_agent.model import ABSENT, Family, Mask, PathSet, RouteType

Entry: TypeAlias = tuple[Family, int]
"""An entry of the next-hop table of a family, by number; numbers begin with 1."""


@dataclass(slots=True)
class _Meaning:
    """What a path id stands for.

    Attributes:
        paths: in VPP's terms, all legs.
        recursed: routes lead there through entries, and not by paths of their own.
        asked_for: somebody wants routes to lead there; otherwise it was merely found in VPP.
        entries: numbers by family; the first is used for new routes.
    """

    paths: PathSet
    recursed: bool
    asked_for: bool = False
    entries: dict[Family, list[int]] = field(default_factory=dict)


class Entries:
    """Path ids, and the entries they have.

    Args:
        recursion: whether routes that are asked for lead through entries; those that were found may or not.
        in_use: returns a path set without the legs that lead nowhere at the moment, at least one.
    """

    def __init__(self, *, recursion: bool, in_use: Callable[[PathSet], PathSet]) -> None:
        self.recursion = recursion
        self._in_use = in_use
        self._meanings: list[_Meaning | None] = [None]
        self._free: list[int] = []
        self._ids: dict[tuple[PathSet, bool], list[int]] = {}
        self._owners: dict[Entry, int] = {}
        self._held: dict[Entry, PathSet] = {}
        self._astray: set[Entry] = set()
        """Entries that somebody else changed or removed."""
        self._vacant: set[Entry] = set()
        """Entries without owner that VPP has not removed yet."""
        self._numbers = {family: _Numbers() for family in Family}
        self.generation = 0
        """Changes whenever what a path id or an entry was known to be may be something else."""

    @property
    def limit(self) -> int:
        """One more than the largest path id ever in use."""
        return len(self._meanings)

    def id(self, paths: PathSet, current: int = ABSENT) -> int:
        """Return the path id of a path set that routes shall lead to.

        Args:
            paths: in VPP's terms.
            current: the path id it had; kept when it still stands for this.
        """
        recursed = self.recursion and recursable(paths)
        meaning = self._meanings[current] if 0 < current < self.limit else None
        if meaning is not None and (meaning.paths, meaning.recursed) == (paths, recursed):
            return current
        number = self._known(paths, recursed) or self._adoptable(paths, recursed)
        number = number or self._new(paths, recursed)
        self._meaning(number).asked_for = True
        return number

    def id_of_direct(self, paths: PathSet) -> int:
        """Return the path id of routes that were found to have these paths themselves."""
        return self._known(paths, recursed=False) or self._new(paths, recursed=False)

    def id_of_entry(self, entry: Entry) -> int:
        """Return the path id of routes that were found to lead through an entry.

        It is one that nobody wants where the entry is not there or is not what it was made for: such routes
        show as different, and are written again.
        """
        owner = self._owners.get(entry)
        if owner is None or entry in self._astray:
            return self._strayed(self._held.get(entry))
        return owner

    def paths(self, number: int) -> PathSet:
        """Return what a path id stands for."""
        return self._meaning(number).paths

    def is_recursed(self, number: int) -> bool:
        """Return whether routes with this path id lead through an entry."""
        return self._meaning(number).recursed

    def replace(self, number: int, paths: PathSet) -> bool:
        """Let a path id stand for another path set from now on; False when its routes have to be written.

        Entries follow by `due`.
        """
        meaning = self._meanings[number] if 0 < number < self.limit else None
        if meaning is None or not (self.recursion and meaning.recursed and recursable(paths)):
            return False
        meaning.asked_for = True
        if meaning.paths != paths:
            self._unlist(number, meaning)
            meaning.paths = paths
            self._ids.setdefault((paths, True), []).append(number)
        return True

    def entry(self, family: Family, number: int) -> int:
        """Return the number of the entry that new routes with this path id lead through, allotting one."""
        numbers = self._meaning(number).entries.setdefault(family, [])
        if not numbers:
            numbers.append(self._numbers[family].take())
            self._owners[family, numbers[0]] = number
        return numbers[0]

    def due(self, number: int = ABSENT) -> Iterator[tuple[Entry, PathSet]]:
        """Yield the entries that VPP does not hold as they should be, and what they should be.

        Those that were found and that nobody has asked for stay as they are.

        Args:
            number: look at the entries of this path id alone.
        """
        for entry in self._owners if number == ABSENT else _entries(self._meaning(number)):
            wanted = self.due_at(entry)
            if wanted is not None:
                yield entry, wanted

    def due_at(self, entry: Entry) -> PathSet | None:
        """Return what an entry should be, None when VPP holds that or nobody has asked for it."""
        meaning = self._meanings[self._owners.get(entry, ABSENT)]
        if meaning is None or not meaning.asked_for:
            return None
        wanted = self._in_use(meaning.paths)
        return None if self._held.get(entry) == wanted else wanted

    def written(self, entry: Entry, paths: PathSet) -> None:
        """Take note of what VPP holds at an entry since now."""
        self._held[entry] = paths
        if entry in self._astray:
            self._astray.discard(entry)
            self.generation += 1

    def removed(self, entry: Entry) -> None:
        """Take note that VPP has no such entry any more: without owner, its number is free."""
        self._held.pop(entry, None)
        if entry in self._vacant:
            self._vacant.discard(entry)
            self._numbers[entry[0]].give(entry[1])

    def found(self, family: Family, held: Mapping[int, PathSet], doubtful: Container[Entry] = ()) -> None:
        """Take note of everything that VPP's next-hop table of a family holds of ours.

        Entries that are new to us make path ids of their own; those of equal content one together.

        Args:
            family: of the table.
            held: what was found, by number.
            doubtful: entries that were being written meanwhile: nothing is concluded for them.
        """
        self.generation += 1
        known = {entry for entry in (*self._owners, *self._held) if entry[0] is family}
        for entry in known | {(family, number) for number in held}:
            if entry in doubtful:
                continue
            paths = held.get(entry[1])
            if entry in self._owners and entry in self._held and paths != self._held[entry]:
                self._astray.add(entry)
            if paths is None:
                self.removed(entry)
                continue
            self._held[entry] = paths
            if entry not in self._owners and entry not in self._vacant:
                self._take_over(entry, paths)

    def release(self, in_use: Mask) -> list[Entry]:
        """Give up the path ids that are not marked; return the entries VPP shall remove.

        Not while entries are being written.

        Args:
            in_use: by path id; ids from ``len(in_use)`` on are kept.
        """
        for number in range(1, min(len(in_use), self.limit)):
            meaning = self._meanings[number]
            if meaning is None or in_use[number]:
                continue
            self._unlist(number, meaning)
            self._meanings[number] = None
            self._free.append(number)
            for entry in _entries(meaning):
                self._vacate(entry)
        self.generation += 1
        return sorted(self._vacant)

    def held(self) -> Mapping[Entry, PathSet]:
        """Return the entries VPP holds."""
        return self._held

    def reset(self) -> None:
        """Forget what VPP holds: it was connected anew. Path ids stay what they are."""
        for meaning in self._meanings:
            if meaning is not None:
                meaning.entries.clear()
                meaning.asked_for = False
        for state in (self._owners, self._held, self._astray, self._vacant):
            state.clear()
        self._numbers = {family: _Numbers() for family in Family}
        self.generation += 1

    def _meaning(self, number: int) -> _Meaning:
        meaning = self._meanings[number] if 0 < number < self.limit else None
        if meaning is None:
            raise KeyError(f"path id {number} is not in use (ids run from 1 to {self.limit - 1})")
        return meaning

    def _known(self, paths: PathSet, recursed: bool) -> int:
        return next(iter(self._ids.get((paths, recursed), ())), ABSENT)

    def _adoptable(self, paths: PathSet, recursed: bool) -> int:
        """Return a found path id whose entries are what these paths would be written as, if there is one."""
        if not recursed:
            return ABSENT
        written = self._in_use(paths)
        for number in self._ids.get((written, True), ()):
            if not self._meaning(number).asked_for:
                self.replace(number, paths)
                return number
        return ABSENT

    def _new(self, paths: PathSet, recursed: bool) -> int:
        meaning = _Meaning(paths, recursed)
        if self._free:
            number = self._free.pop()
            self._meanings[number] = meaning
        else:
            number = self.limit
            self._meanings.append(meaning)
        self._ids.setdefault((paths, recursed), []).append(number)
        return number

    def _strayed(self, held: PathSet | None) -> int:
        """Return a path id that is never given to anybody who asks, for an entry that has gone astray."""
        astray = PathSet(RouteType.THROW, held.paths if held else ())
        return self._known(astray, recursed=False) or self._new(astray, recursed=False)

    def _unlist(self, number: int, meaning: _Meaning) -> None:
        listed = self._ids[meaning.paths, meaning.recursed]
        listed.remove(number)
        if not listed:
            del self._ids[meaning.paths, meaning.recursed]

    def _take_over(self, entry: Entry, paths: PathSet) -> None:
        owner = self._known(paths, recursed=True) or self._new(paths, recursed=True)
        self._owners[entry] = owner
        self._meaning(owner).entries.setdefault(entry[0], []).append(entry[1])
        self._numbers[entry[0]].reserve(entry[1])

    def _vacate(self, entry: Entry) -> None:
        del self._owners[entry]
        self._astray.discard(entry)
        if entry in self._held:
            self._vacant.add(entry)
        else:
            self._numbers[entry[0]].give(entry[1])


class _Numbers:
    """Numbers of entries of one family, small ones first."""

    def __init__(self) -> None:
        self._top = 0
        self._free: list[int] = []

    def take(self) -> int:
        if self._free:
            return self._free.pop()
        self._top += 1
        return self._top

    def give(self, number: int) -> None:
        self._free.append(number)

    def reserve(self, number: int) -> None:
        """Take a number that was found in use; others below it stay unused."""
        self._top = max(self._top, number)
        if number in self._free:
            self._free.remove(number)


def recursable(paths: PathSet) -> bool:
    """Tell whether routes may lead to a path set through an entry: every leg has an interface and a gateway.

    Connected prefixes, and what is dropped, stay direct: they have nothing that fails on its own. A gateway
    that VPP resolves itself is looked up in the table of the route.
    """
    return (
        paths.type is RouteType.UNICAST
        and bool(paths.paths)
        and all(path.interface > 0 and path.gateway for path in paths.paths)
    )


def _entries(meaning: _Meaning) -> Iterator[Entry]:
    for family, numbers in meaning.entries.items():
        for number in numbers:
            yield family, number
