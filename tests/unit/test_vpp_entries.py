"""Entries: which one stands for what, against a model of a VPP that is slow and keeps what it has."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router_agent.model import ABSENT, Family, Path, PathSet, RouteType
from router_agent.vpp.entries import Entries, Entry, recursable

ONE, TWO, THREE = (Path(n, bytes((10, 0, 0, n))) for n in (1, 2, 3))
BOTH = PathSet.unicast(ONE, TWO)
SETS = [
    PathSet.unicast(ONE),
    PathSet.unicast(TWO),
    BOTH,
    PathSet.unicast(ONE, TWO, THREE),
    PathSet.unicast(TWO, THREE),
    PathSet.unicast(Path(1)),
    PathSet(RouteType.BLACKHOLE),
]


def whole(paths: PathSet) -> PathSet:
    return paths


def write(entries: Entries) -> list[Entry]:
    """VPP does what is due."""
    due = list(entries.due())
    for entry, paths in due:
        entries.written(entry, paths)
    return [entry for entry, _ in due]


@pytest.mark.parametrize(
    ("paths", "may"),
    [
        (BOTH, True),
        (PathSet.unicast(Path(1, b"\xfe\x80" + bytes(14))), True),
        (PathSet.unicast(Path(1)), False),
        (PathSet.unicast(Path(1), TWO), False),
        (PathSet.unicast(Path(0, b"abcd")), False),
        (PathSet(RouteType.BLACKHOLE), False),
        (PathSet.unicast(), False),
    ],
    ids=["gateways", "IPv6 gateway", "connected", "connected and gateway", "resolved by VPP", "drop", "none"],
)
def test_what_has_gateways_recurses(paths: PathSet, may: bool) -> None:
    assert recursable(paths) is may
    for recursion in (False, True):
        entries = Entries(recursion=recursion, in_use=whole)
        assert entries.is_recursed(entries.id(paths)) is (may and recursion)


def test_replacing_costs_one_write_an_entry_and_no_route() -> None:
    entries = Entries(recursion=True, in_use=whole)
    number = entries.id(BOTH)
    four, six = (entries.entry(family, number) for family in Family)
    assert write(entries) == [(Family.IPV4, four), (Family.IPV6, six)]
    assert entries.replace(number, SETS[0])
    assert entries.id(SETS[0], number) == entries.id(SETS[0]) == number
    assert dict(entries.due()) == {(Family.IPV4, four): SETS[0], (Family.IPV6, six): SETS[0]}
    assert not entries.replace(number, PathSet(RouteType.BLACKHOLE)), "its routes have to be written"
    assert entries.paths(number) == SETS[0]


def test_a_path_id_keeps_its_number_beside_another_of_equal_content() -> None:
    entries = Entries(recursion=True, in_use=whole)
    both, one = entries.id(BOTH), entries.id(SETS[0])
    entries.replace(both, SETS[0])
    assert entries.id(SETS[0], both) == both
    assert entries.id(SETS[0], one) == one
    assert entries.replace(both, BOTH)
    assert (entries.paths(both), entries.paths(one)) == (BOTH, SETS[0])


def test_a_lost_leg_changes_the_entry_and_not_the_path_id() -> None:
    lost: set[Path] = set()

    def in_use(paths: PathSet) -> PathSet:
        legs = tuple(leg for leg in paths.paths if leg not in lost)
        return PathSet(paths.type, legs) if legs else paths

    entries = Entries(recursion=True, in_use=in_use)
    number = entries.id(BOTH)
    entry = (Family.IPV4, entries.entry(Family.IPV4, number))
    write(entries)
    lost.add(TWO)
    assert dict(entries.due()) == {entry: SETS[0]}
    assert entries.paths(number) == BOTH
    write(entries)

    again = Entries(recursion=True, in_use=in_use)
    again.found(Family.IPV4, {entry[1]: SETS[0]})
    number = again.id(BOTH)
    assert again.id_of_entry(entry) == number, "found as it would be written"
    assert not list(again.due())


def test_after_a_restart_entries_of_equal_content_are_one_path_id() -> None:
    entries = Entries(recursion=True, in_use=whole)
    entries.found(Family.IPV4, {3: BOTH, 9: BOTH, 4: SETS[0]})
    entries.found(Family.IPV6, {1: BOTH})
    both = entries.id(BOTH)
    same = [(Family.IPV4, 3), (Family.IPV4, 9), (Family.IPV6, 1)]
    assert {entries.id_of_entry(entry) for entry in same} == {both}
    assert not list(entries.due())
    entries.replace(both, SETS[1])
    assert sorted(write(entries)) == same, "all of them follow"
    in_use = np.zeros(entries.limit, np.bool_)
    in_use[both] = True
    assert entries.release(in_use) == [(Family.IPV4, 4)]


def test_an_entry_that_somebody_changed_shows_and_is_written_again() -> None:
    entries = Entries(recursion=True, in_use=whole)
    number = entries.id(BOTH)
    entry = (Family.IPV4, entries.entry(Family.IPV4, number))
    write(entries)
    generation = entries.generation
    entries.found(Family.IPV4, {entry[1]: SETS[0]})
    assert entries.id_of_entry(entry) != number
    assert entries.paths(entries.id_of_entry(entry)).paths == SETS[0].paths
    assert entries.generation != generation
    assert write(entries) == [entry]
    assert entries.id_of_entry(entry) == number
    entries.found(Family.IPV4, {})
    assert entries.id_of_entry(entry) != number, "removed by somebody"
    assert write(entries) == [entry]
    assert entries.id_of_entry((Family.IPV4, 77)) not in (ABSENT, number)


def test_what_was_being_written_is_not_held_against_an_entry() -> None:
    entries = Entries(recursion=True, in_use=whole)
    number = entries.id(BOTH)
    entry = (Family.IPV4, entries.entry(Family.IPV4, number))
    write(entries)
    entries.found(Family.IPV4, {entry[1]: SETS[0]}, doubtful={entry})
    assert entries.id_of_entry(entry) == number
    assert not list(entries.due())


@dataclass
class Vpp:
    """What a VPP holds, and the routes that lead through its entries: key to entry and the path id wanted."""

    entries: dict[Entry, PathSet] = field(default_factory=dict)
    routes: dict[tuple[Family, int], tuple[Entry | PathSet, int]] = field(default_factory=dict)


class Allocation(RuleBasedStateMachine):
    """Whatever happens in whatever order: a route leads to what its path id stands for, once written."""

    @initialize(recursion=st.booleans())
    def begin(self, recursion: bool) -> None:
        self.vpp = Vpp()
        self.lost: set[Path] = set()
        self.entries = self.connect(recursion)

    def connect(self, recursion: bool) -> Entries:
        entries = Entries(recursion=recursion, in_use=self.in_use)
        for family in Family:
            entries.found(family, {n: paths for (f, n), paths in self.vpp.entries.items() if f is family})
        return entries

    def in_use(self, paths: PathSet) -> PathSet:
        legs = tuple(leg for leg in paths.paths if leg not in self.lost)
        return PathSet(paths.type, legs) if legs else paths

    @rule(family=st.sampled_from(Family), key=st.integers(0, 5), paths=st.sampled_from(SETS))
    def write_route(self, family: Family, key: int, paths: PathSet) -> None:
        number = self.entries.id(paths)
        if not self.entries.is_recursed(number):
            self.vpp.routes[family, key] = (paths, number)
            return
        entry = (family, self.entries.entry(family, number))
        self.write_due()
        self.vpp.routes[family, key] = (entry, number)

    @rule(family=st.sampled_from(Family), key=st.integers(0, 5))
    def remove_route(self, family: Family, key: int) -> None:
        self.vpp.routes.pop((family, key), None)

    @precondition(lambda self: self.vpp.routes)
    @rule(data=st.data(), paths=st.sampled_from(SETS))
    def replace(self, data: st.DataObject, paths: PathSet) -> None:
        number = data.draw(st.sampled_from(sorted(n for _, n in self.vpp.routes.values())))
        before = self.entries.paths(number)
        if not self.entries.replace(number, paths):
            assert self.entries.paths(number) == before

    @rule(leg=st.sampled_from([ONE, TWO, THREE]))
    def lose_or_regain(self, leg: Path) -> None:
        self.lost ^= {leg}

    @rule()
    def write_due(self) -> None:
        for entry, paths in list(self.entries.due()):
            self.vpp.entries[entry] = paths
            self.entries.written(entry, paths)
        assert not list(self.entries.due())

    @rule(removes=st.booleans())
    def sweep(self, removes: bool) -> None:
        """After it, VPP removes entries, or is slow and has not yet."""
        in_use = np.zeros(self.entries.limit, np.bool_)
        in_use[[number for _, number in self.vpp.routes.values()]] = True
        gone = self.entries.release(in_use)
        used = {where for where, _ in self.vpp.routes.values()}
        assert used.isdisjoint(gone), "routes lead through an entry that is removed"
        for entry in gone if removes else []:
            del self.vpp.entries[entry]
            self.entries.removed(entry)

    @rule(recursion=st.booleans())
    def restart(self, recursion: bool) -> None:
        """Everything forgotten; read again what is there. Entries due when it died are as they were."""
        self.entries = self.connect(recursion)
        self.vpp.routes = {key: (where, self.found(where)) for key, (where, _) in self.vpp.routes.items()}

    def found(self, where: Entry | PathSet) -> int:
        if isinstance(where, PathSet):
            return self.entries.id_of_direct(where)
        number = self.entries.id_of_entry(where)
        assert self.entries.paths(number) == self.vpp.entries[where]
        return number

    @rule()
    def read_again(self) -> None:
        for family in Family:
            held = {n: paths for (f, n), paths in self.vpp.entries.items() if f is family}
            self.entries.found(family, held)

    @invariant()
    def routes_lead_where_their_path_ids_say(self) -> None:
        if not hasattr(self, "entries"):
            return
        due = dict(self.entries.due())
        for where, number in self.vpp.routes.values():
            stands_for = self.entries.paths(number)
            if isinstance(where, PathSet):
                assert where == stands_for
            elif where not in due:
                assert self.vpp.entries[where] in (self.in_use(stands_for), stands_for)
                assert self.entries.id_of_entry(where) == number


TestAllocation = Allocation.TestCase
TestAllocation.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
