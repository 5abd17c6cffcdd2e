"""The RIB against a plain model: a dictionary of sorted candidate lists."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.model import (
    ABSENT,
    Family,
    Interner,
    Operation,
    Path,
    PathSet,
    RouteBatch,
    keys_of,
    prefixes_of,
)
from router_agent.rib import Candidate, Rib


class Paths:
    """The feed's side: an interner and nothing else."""

    def __init__(self) -> None:
        self.interner: Interner[PathSet] = Interner()

    def resolve(self, path: int) -> PathSet | None:
        return self.interner[path]

    def path_id(self, path_set: PathSet) -> int:
        return self.interner.id(path_set)


V4 = [ip_network(f"10.{i}.0.0/16") for i in range(4)] + [ip_network("10.0.0.0/8"), ip_network("0.0.0.0/0")]
V6 = [ip_network(f"2001:db8:{i}::/48") for i in range(4)] + [ip_network("2001:db8::/32"), ip_network("::/0")]


def leg(interface: int) -> PathSet:
    return PathSet.unicast(Path(interface, bytes([192, 0, 2, interface])))


def batch(family: Family, rows: Sequence[tuple[int, int, int, int]]) -> RouteBatch:
    """Rows of (prefix number, metric, path id, operation)."""
    prefixes = V4 if family is Family.IPV4 else V6
    return RouteBatch(
        family,
        254,
        keys_of([prefixes[row[0]] for row in rows]).reshape(len(rows), family.key_width),
        np.array([row[1] for row in rows], np.uint32),
        np.array([row[2] for row in rows], np.uint32),
        np.array([row[3] for row in rows], np.uint8),
    )


def contents(rib: Rib, family: Family) -> dict[int, list[tuple[int, int]]]:
    prefixes = V4 if family is Family.IPV4 else V6
    found = {}
    for number, prefix in enumerate(prefixes):
        candidates = rib.candidates(keys_of([prefix]))
        if candidates:
            found[number] = [(c.metric, c.path) for c in candidates]
    return found


events = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from([0, 20, 256, 1024, 2**32 - 1]),
        st.integers(1, 4),
        st.sampled_from([Operation.SET, Operation.SET, Operation.DELETE]),
    ),
    max_size=40,
)


@pytest.mark.parametrize("family", list(Family), ids=lambda f: f.label)
@given(batches=st.lists(events, max_size=6))
def test_equals_a_dictionary(family: Family, batches: list[list[tuple[int, int, int, int]]]) -> None:
    paths = Paths()
    for interface in range(1, 5):
        paths.path_id(leg(interface))
    rib = Rib(family, paths)
    model: dict[int, dict[int, int]] = {}
    for rows in batches:
        before = {p: min(c.items())[1] for p, c in model.items() if c}
        for number, metric, path, operation in rows:
            candidates = model.setdefault(number, {})
            if operation == Operation.SET:
                candidates[metric] = path
            elif candidates.get(metric) == path or family is Family.IPV4:
                candidates.pop(metric, None)
        changed = rib.apply(batch(family, rows))
        after = {p: min(c.items())[1] for p, c in model.items() if c}
        assert contents(rib, family) == {p: sorted(c.items()) for p, c in model.items() if c}
        assert len(rib) == len(after)
        moved = {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
        prefixes = V4 if family is Family.IPV4 else V6
        assert moved <= {prefixes.index(p) for p in prefixes_of(changed)}


@pytest.mark.parametrize("family", list(Family), ids=lambda f: f.label)
@given(first=events, second=events, clean=st.booleans())
def test_snapshot_sweeps_only_when_clean(
    family: Family,
    first: list[tuple[int, int, int, int]],
    second: list[tuple[int, int, int, int]],
    clean: bool,
) -> None:
    rib = Rib(family, Paths())
    found = [
        (p, m, path, Operation.FOUND) for p, m, path in {(p, m): (p, m, 1) for p, m, _, _ in second}.values()
    ]
    old = {(p, m): path for p, m, path, _ in first}
    rib.apply(batch(family, [(p, m, path, Operation.SET) for (p, m), path in old.items()]))
    rib.snapshot_begin()
    rib.apply(batch(family, found))
    if clean:
        rib.snapshot_end()
    expected = {(p, m): path for p, m, path, _ in found}
    if not clean:
        expected = old | expected
    assert {(p, m): path for p, cs in contents(rib, family).items() for m, path in cs} == expected


def test_the_first_of_two_found_with_one_metric_is_effective_and_deletion_asks_for_truth() -> None:
    rib = Rib(Family.IPV4, Paths())
    rib.snapshot_begin()
    rib.apply(batch(Family.IPV4, [(0, 20, 1, Operation.FOUND), (0, 20, 2, Operation.FOUND)]))
    rib.snapshot_end()
    assert contents(rib, Family.IPV4) == {0: [(20, 1)]}
    assert not rib.ambiguous
    rib.apply(batch(Family.IPV4, [(0, 20, 2, Operation.DELETE)]))
    assert contents(rib, Family.IPV4) == {0: [(20, 1)]}
    assert rib.ambiguous


@pytest.mark.parametrize(
    ("operation", "effective"), [(Operation.APPEND, 1), (Operation.PREPEND, 2)], ids=["append", "prepend"]
)
def test_a_second_route_of_one_metric(operation: Operation, effective: int) -> None:
    rib = Rib(Family.IPV4, Paths())
    rib.apply(batch(Family.IPV4, [(0, 20, 1, Operation.SET), (0, 20, 2, operation)]))
    assert contents(rib, Family.IPV4) == {0: [(20, effective)]}
    rib.apply(batch(Family.IPV4, [(0, 20, effective, Operation.DELETE)]))
    assert rib.ambiguous, "another route hides behind the deleted one; only the kernel knows it"


def test_ipv6_loses_legs_one_at_a_time() -> None:
    paths = Paths()
    both = paths.path_id(PathSet.unicast(Path(1, b"a" * 16), Path(2, b"b" * 16)))
    one = paths.path_id(PathSet.unicast(Path(1, b"a" * 16)))
    two = paths.path_id(PathSet.unicast(Path(2, b"b" * 16)))
    rib = Rib(Family.IPV6, paths)
    rib.apply(batch(Family.IPV6, [(0, 1024, both, Operation.SET)]))
    rib.apply(batch(Family.IPV6, [(0, 1024, one, Operation.DELETE)]))
    assert contents(rib, Family.IPV6) == {0: [(1024, two)]}
    rib.apply(batch(Family.IPV6, [(0, 1024, both, Operation.SET), (0, 1024, two, Operation.DELETE)]))
    assert contents(rib, Family.IPV6) == {0: [(1024, one)]}
    rib.apply(batch(Family.IPV6, [(0, 1024, one, Operation.DELETE)]))
    assert contents(rib, Family.IPV6) == {}


def test_purge_and_using_name_the_keys_of_a_path() -> None:
    rib = Rib(Family.IPV4, Paths())
    rib.apply(
        batch(
            Family.IPV4,
            [(0, 20, 1, 1), (0, 30, 2, 1), (1, 20, 2, 1), (2, 20, 3, 1), (3, 5, 2, 1), (3, 6, 1, 1)],
        )
    )
    assert prefixes_of(rib.using(np.array([2], np.uint32))) == [V4[1], V4[3]]
    changed = rib.purge(np.array([2], np.uint32))
    assert set(prefixes_of(changed)) == {V4[1], V4[3]}
    assert contents(rib, Family.IPV4) == {0: [(20, 1)], 2: [(20, 3)], 3: [(6, 1)]}
    assert list(rib.paths_in_use(4)) == [False, True, False, True]


def test_best_of_an_unknown_prefix_is_absent() -> None:
    rib = Rib(Family.IPV4, Paths())
    assert list(rib.best(keys_of([V4[0]]))) == [ABSENT]
    assert rib.candidates(keys_of([V4[0]])) == []
    rib.apply(batch(Family.IPV4, [(0, 7, 3, Operation.SET)]))
    assert rib.candidates(keys_of([V4[0]])) == [Candidate(7, 3)]
