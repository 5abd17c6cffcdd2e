"""What a feed is told of its routes: once for each time it gave one, and again when that is no longer so."""

from __future__ import annotations

from ipaddress import ip_network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.confirm import Confirmer
from router_agent.model import (
    Failures,
    Family,
    Operation,
    Outcome,
    Outcomes,
    PathSet,
    Prefix,
    Reason,
    RouteBatch,
    keys_of,
    prefixes_of,
)
from router_agent.reconcile import Reconciler, Translation
from router_agent.rib import Rib

PREFIXES: list[Prefix] = [ip_network(f"10.0.{i}.0/24") for i in range(6)]
UNRESOLVED = 4
"""The path that the FIB has no interface for."""
TABLE = 254


class Paths:
    """Path ids stand for themselves here."""

    def resolve(self, path: int) -> PathSet | None:
        raise AssertionError("not asked for IPv4")

    def path_id(self, path_set: PathSet) -> int:
        raise AssertionError("not asked for IPv4")


class Pipeline:
    """The order in which the real one calls reconciler and confirmer, with a FIB that refuses some keys."""

    def __init__(self) -> None:
        self.translation = Translation(self._translate)
        self.reconciler = Reconciler(Rib(Family.IPV4, Paths()), 0, self.translation)
        self.confirmer = Confirmer(self.reconciler, TABLE, self._tell)
        self.told: list[tuple[str, int, bool]] = []
        self.refusing: set[int] = set()

    def _translate(self, path: int, before: int) -> int | Reason:
        return Reason.UNRESOLVED_INTERFACE if path == UNRESOLVED else 10 * path

    def _tell(self, outcomes: Outcomes) -> None:
        assert outcomes.table == TABLE
        prefixes = map(str, prefixes_of(outcomes.keys))
        self.told += zip(prefixes, outcomes.paths.tolist(), outcomes.in_fib.tolist(), strict=True)

    def receive(self, routes: dict[int, int]) -> None:
        """Take routes (prefix number to path, 0 deletes) as from the feed."""
        keys = keys_of([PREFIXES[n] for n in routes])
        paths = np.array(list(routes.values()), np.uint32)
        operations = np.where(paths == 0, Operation.DELETE, Operation.SET).astype(np.uint8)
        batch = RouteBatch(Family.IPV4, TABLE, keys, np.full(len(keys), 20, np.uint32), paths, operations)
        self.reconciler.rib.apply(batch)
        self.reconciler.touch(self.confirmer.received(batch))

    def write(self) -> None:
        keys = self.reconciler.take()
        changes = self.reconciler.changes(keys)
        refused = np.flatnonzero(np.isin(changes.paths, list(self.refusing)))
        failures = Failures(refused, np.full(len(refused), -7, np.int32))
        self.reconciler.settle(changes, failures)
        self.confirmer.report(keys)

    def news(self) -> dict[str, bool]:
        """What was told since the last call; each prefix once at most."""
        found = {prefix: in_fib for prefix, _, in_fib in self.told}
        assert len(found) == len(self.told)
        self.told.clear()
        return found


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


def name(*numbers: int) -> list[str]:
    return [str(PREFIXES[number]) for number in numbers]


def test_nothing_is_told_before_it_is_written(pipeline: Pipeline) -> None:
    pipeline.receive({0: 1, 1: UNRESOLVED})
    assert not pipeline.told
    pipeline.write()
    assert pipeline.news() == {name(0)[0]: True, name(1)[0]: False}


def test_the_same_path_again_asks_for_an_answer_again_and_looking_does_not(pipeline: Pipeline) -> None:
    pipeline.receive({0: 1})
    pipeline.write()
    pipeline.news()
    pipeline.reconciler.touch(keys_of([PREFIXES[0]]))
    pipeline.write()
    assert pipeline.news() == {}
    pipeline.receive({0: 1})
    pipeline.write()
    assert pipeline.news() == {name(0)[0]: True}


def test_a_deleted_route_is_not_spoken_of(pipeline: Pipeline) -> None:
    pipeline.receive({0: 1})
    pipeline.write()
    pipeline.news()
    pipeline.receive({0: 0})
    pipeline.write()
    assert pipeline.news() == {}


def test_what_was_refused_and_succeeds_later_is_told_then(pipeline: Pipeline) -> None:
    pipeline.refusing = {10}
    pipeline.receive({0: 1})
    pipeline.write()
    assert pipeline.news() == {name(0)[0]: False}
    pipeline.refusing = set()
    pipeline.reconciler.touch(pipeline.reconciler.retry())
    pipeline.write()
    assert pipeline.news() == {name(0)[0]: True}


def test_a_refused_replacement_is_not_in_the_fib_though_the_former_path_is(pipeline: Pipeline) -> None:
    pipeline.receive({0: 1})
    pipeline.write()
    pipeline.news()
    pipeline.refusing = {20}
    pipeline.receive({0: 2})
    pipeline.write()
    assert pipeline.news() == {name(0)[0]: False}


def test_what_the_fib_holds_already_is_confirmed_without_a_write(pipeline: Pipeline) -> None:
    keys = keys_of(PREFIXES[:2])
    pipeline.reconciler.learn(keys, np.array([10, 20], np.uint32))
    pipeline.receive({0: 1, 1: 2})
    changes = pipeline.reconciler.changes(keys)
    assert len(changes) == 0
    pipeline.confirmer.report(keys)
    assert pipeline.news() == dict.fromkeys(name(0, 1), True)


def test_what_went_with_the_fib_is_withdrawn_and_what_is_back_is_not(pipeline: Pipeline) -> None:
    pipeline.receive({0: 1, 1: 1, 2: UNRESOLVED})
    pipeline.write()
    pipeline.news()
    pipeline.reconciler.forget()
    pipeline.reconciler.learn(keys_of(PREFIXES[:1]), np.array([10], np.uint32))
    assert pipeline.confirmer.withdraw(lost=False) == 1
    assert pipeline.news() == {name(1)[0]: False}
    assert pipeline.confirmer.withdraw(lost=True) == 1
    assert pipeline.news() == {name(0)[0]: False}
    assert pipeline.confirmer.counts() == {Outcome.UNKNOWN: 0, Outcome.IN_FIB: 0, Outcome.FAILED: 3}
    pipeline.reconciler.touch(keys_of(PREFIXES[:3]))
    pipeline.write()
    assert pipeline.news() == dict.fromkeys(name(0, 1), True)


steps = st.lists(
    st.one_of(
        st.dictionaries(st.integers(0, 5), st.integers(0, UNRESOLVED), min_size=1),
        st.sets(st.sampled_from([10, 20, 30])),
        st.just(None),
    ),
    max_size=30,
)


@given(steps)
def test_the_last_word_on_each_route_is_true(actions: list[dict[int, int] | set[int] | None]) -> None:
    """Whatever happens: after all is written, the last answer since a route was given says what is."""
    pipeline = Pipeline()
    last: dict[str, bool] = {}
    for action in [*actions, None]:
        match action:
            case None:
                pipeline.write()
            case set():
                pipeline.refusing = action
            case _:
                pipeline.receive(action)
                for number in action:
                    last.pop(str(PREFIXES[number]), None)
        last |= {prefix: in_fib for prefix, _, in_fib in pipeline.told}
        pipeline.told.clear()
    rib = pipeline.reconciler.rib
    keys = rib.prefixes.keys(rib.prefixes.rows())
    wanted = pipeline.reconciler.wanted(keys)
    held = pipeline.reconciler.held_paths(keys)
    truth = dict(zip(map(str, prefixes_of(keys)), ((wanted > 0) & (wanted == held)).tolist(), strict=True))
    assert last == truth
