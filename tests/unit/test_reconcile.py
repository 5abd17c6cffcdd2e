"""The reconciler against plain dictionaries: least writes, and equality after them."""

from __future__ import annotations

from ipaddress import ip_network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.model import (
    ABSENT,
    U64,
    Changes,
    Failures,
    Family,
    Operation,
    PathSet,
    Prefix,
    Reason,
    RouteBatch,
    keys_of,
    prefixes_of,
)
from router_agent.reconcile import Reconciler, Translation
from router_agent.rib import Rib

PREFIXES: list[Prefix] = [ip_network(f"10.0.{i}.0/24") for i in range(12)]


class Paths:
    """Path ids stand for themselves here."""

    def resolve(self, path: int) -> PathSet | None:
        raise AssertionError("not asked for IPv4")

    def path_id(self, path_set: PathSet) -> int:
        raise AssertionError("not asked for IPv4")


def translate(path: int, _before: int = 0) -> int | Reason:
    """The FIB calls path n 10 n; it has no interface for path 4."""
    return Reason.UNRESOLVED_INTERFACE if path == 4 else 10 * path


def reconciler() -> Reconciler:
    return Reconciler(Rib(Family.IPV4, Paths()), 0, Translation(translate))


def want(target: Reconciler, routes: dict[int, int]) -> U64:
    """Make the RIB hold exactly these routes (prefix number to path); return the changed keys."""
    target.rib.snapshot_begin()
    changed = target.rib.apply(
        RouteBatch(
            Family.IPV4,
            254,
            keys_of([PREFIXES[n] for n in routes]),
            np.full(len(routes), 20, np.uint32),
            np.array(list(routes.values()), np.uint32),
            np.full(len(routes), Operation.FOUND, np.uint8),
        )
    )
    return np.concatenate((changed, target.rib.snapshot_end()))


def hold(target: Reconciler, routes: dict[int, int]) -> None:
    target.forget()
    target.learn(keys_of([PREFIXES[n] for n in routes]), np.array(list(routes.values()), np.uint32))


def written(changes: Changes) -> dict[int, int]:
    return {
        PREFIXES.index(p): int(path) for p, path in zip(prefixes_of(changes.keys), changes.paths, strict=True)
    }


def held(target: Reconciler) -> dict[int, int]:
    rows = target.held.rows()
    return {
        PREFIXES.index(p): int(path)
        for p, path in zip(prefixes_of(target.held.keys(rows)), target.held["path"][rows], strict=True)
    }


tables = st.dictionaries(st.integers(0, 11), st.integers(1, 4), max_size=12)
fib_tables = st.dictionaries(st.integers(0, 11), st.sampled_from([10, 20, 30, 990]), max_size=12)


@given(wanted=tables, there=fib_tables)
def test_writes_the_least_and_ends_equal(wanted: dict[int, int], there: dict[int, int]) -> None:
    target = reconciler()
    want(target, wanted)
    hold(target, there)
    expected = {n: 10 * path for n, path in wanted.items() if path != 4}
    for keys in target.everything():
        changes = target.changes(keys)
        for number, path in written(changes).items():
            assert expected.get(number, ABSENT) == path
            assert there.get(number, ABSENT) != path, "nothing is written that is right already"
        target.settle(changes, Failures())
    assert held(target) == expected
    assert not any(len(target.changes(keys)) for keys in target.everything())
    unresolved = sum(path == 4 for path in wanted.values())
    assert target.unplaced() == ({Reason.UNRESOLVED_INTERFACE: unresolved} if unresolved else {})


@given(first=tables, then=st.lists(tables, min_size=1, max_size=4))
def test_touched_prefixes_suffice_and_coalesce(first: dict[int, int], then: list[dict[int, int]]) -> None:
    target = reconciler()
    want(target, first)
    for keys in target.everything():
        target.settle(target.changes(keys), Failures())
    for table in then:
        target.touch(want(target, table))
    keys = target.take()
    assert len(np.unique(keys)) == len(keys), "a prefix waits once, however often it changes"
    assert target.pending == 0
    target.settle(target.changes(keys), Failures())
    assert held(target) == {n: 10 * path for n, path in then[-1].items() if path != 4}


def test_deletes_come_last() -> None:
    target = reconciler()
    hold(target, dict.fromkeys(range(6), 10))
    want(target, dict.fromkeys(range(3, 9), 2))
    changes = target.changes(keys_of(PREFIXES))
    assert list(changes.paths) == [20] * 6 + [ABSENT] * 3


def test_a_refused_route_is_reported_and_not_tried_again_until_something_changes() -> None:
    target = reconciler()
    want(target, {0: 1, 1: 1})
    changes = target.changes(keys_of(PREFIXES[:2]))
    target.settle(changes, Failures(np.array([1]), np.array([-22], np.int32)))
    refused = keys_of([prefixes_of(changes.keys)[1]])
    refusal = target.refusal(refused)
    assert refusal is not None
    assert (refusal.path, refusal.code) == (10, -22)
    assert target.unplaced() == {Reason.REJECTED: 1}
    assert not len(target.changes(keys_of(PREFIXES[:2]))), "no loop of tries"
    target.touch(want(target, {0: 1, 1: 2}))
    changes = target.changes(target.take())
    assert written(changes) == {1: 20}
    target.settle(changes, Failures())
    assert target.unplaced() == {}
    assert target.refusal(refused) is None


def test_a_refused_route_that_is_withdrawn_is_refused_no_longer() -> None:
    target = reconciler()
    want(target, {0: 1})
    changes = target.changes(keys_of(PREFIXES[:1]))
    target.settle(changes, Failures(np.array([0]), np.array([-3], np.int32)))
    target.touch(want(target, {}))
    assert not len(target.changes(target.take()))
    assert target.unplaced() == {}


def test_retry_asks_again() -> None:
    target = reconciler()
    want(target, {0: 1})
    target.settle(target.changes(keys_of(PREFIXES[:1])), Failures(np.array([0]), np.array([-3], np.int32)))
    assert not len(target.changes(keys_of(PREFIXES[:1])))
    assert list(prefixes_of(again := target.retry())) == PREFIXES[:1]
    assert written(target.changes(again)) == {0: 10}


def test_translation_is_asked_once_and_refreshes() -> None:
    asked: list[int] = []
    answers: dict[int, int | Reason] = {1: 10, 2: Reason.UNRESOLVED_INTERFACE}

    def answer(path: int, _before: int) -> int | Reason:
        asked.append(path)
        return answers[path]

    translation = Translation(answer)
    column = np.array([1, 2, 1, 0, 2], np.uint32)
    first = translation(column)
    assert list(first) == [10, -1, 10, ABSENT, -1]
    translation(column)
    assert asked == [1, 2]
    answers[2] = 20
    assert list(translation.refresh()) == [2]
    assert list(translation(column)) == [10, 20, 10, ABSENT, 20]
    translation.forget(np.array([False, True, False]))
    answers[2] = 30
    assert list(translation(column)) == [10, 30, 10, ABSENT, 30]


@pytest.mark.parametrize("limit", [1, 3, 64, 65, 5_000], ids=str)
def test_translation_forgets_whatever_the_number_of_ids(limit: int) -> None:
    translation = Translation(lambda number, _before: number + 1)
    column = np.array([1, 2], np.uint32)
    translation(column)
    translation.forget(np.zeros(limit, np.bool_))
    assert list(translation(column)) == [2, 3]
    assert list(translation(np.array([ABSENT], np.uint32))) == [ABSENT]


@pytest.mark.parametrize("path", [63, 64, 100_000], ids=str)
def test_translation_grows(path: int) -> None:
    translation = Translation(lambda number, _before: number + 1)
    assert list(translation(np.array([path], np.uint32))) == [path + 1]
