"""Streams of route changes: what is generated is like churn, and makes sense prefix by prefix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.lab.churn import WITHDRAWN, Churn, generated_churn
from router_agent.lab.markers import with_markers
from router_agent.lab.table import Table, generated_table
from router_agent.model import Family

TABLE = generated_table(4_000, 500)


def replayed(churn: Churn) -> dict[tuple[int, int], int]:
    """The state after the stream, change by change, checking that each changes something."""
    state = {
        (int(family), row): path
        for family, column in churn.before.items()
        for row, path in enumerate(column.tolist())
    }
    for family, row, path in zip(
        churn.families.tolist(), churn.rows.tolist(), churn.paths.tolist(), strict=True
    ):
        assert state[family, row] != path, "a change that changes nothing"
        state[family, row] = path
    return state


def stream(rows: list[int], paths: list[int], before: int = 1) -> Churn:
    n = len(rows)
    table = Table(TABLE.ipv4[:4], TABLE.ipv6[:0], "test")
    return Churn(
        table,
        np.full(n, Family.IPV4, np.uint8),
        np.array(rows, np.int64),
        np.array(paths, np.uint32),
        np.arange(n, dtype=np.float64),
        3,
        {Family.IPV4: np.full(4, before, np.uint32), Family.IPV6: np.empty(0, np.uint32)},
        "test",
    )


@given(count=st.integers(1, 3_000), paths=st.integers(2, 5), seed=st.integers(0, 99), absent=st.booleans())
def test_every_generated_change_changes_something(count: int, paths: int, seed: int, *, absent: bool) -> None:
    before = {
        family: np.where(np.arange(len(TABLE.keys(family))) % 2, 1, 0 if absent else 2).astype(np.uint32)
        for family in Family
    }
    churn = generated_churn(TABLE, count, path_count=paths, before=before, seed=seed)
    assert len(churn) == count
    assert (np.diff(churn.seconds) >= 0).all()
    assert churn.paths.max() <= paths
    state = replayed(churn)
    after = churn.after()
    assert all(after[Family(family)][row] == path for (family, row), path in state.items())


def test_the_same_sizes_give_the_same_stream() -> None:
    one, other = (generated_churn(TABLE, 2_000, seed=7) for _ in range(2))
    assert (one.paths == other.paths).all()
    assert (one.rows == other.rows).all()
    assert (one.rows != generated_churn(TABLE, 2_000, seed=8).rows).any()


def test_few_prefixes_change_often_most_never_and_some_at_once() -> None:
    churn = generated_churn(generated_table(100_000, 0), 200_000)
    times = np.sort(np.bincount(churn.rows, minlength=100_000))[::-1]
    assert times[:1_000].sum() > 0.35 * len(churn)
    assert (times == 0).sum() >= 90_000
    gone = (churn.paths == WITHDRAWN).mean()
    assert 0.05 < gone < 0.3
    together = np.bincount(np.unique(churn.seconds, return_inverse=True)[1]).max()
    assert together >= 200_000 * 0.4 // 8


def test_at_rate_sets_the_mean_and_keeps_the_shape() -> None:
    churn = generated_churn(TABLE, 5_000)
    slow = churn.at_rate(100.0)
    assert slow.duration == pytest.approx(50.0)
    assert np.allclose(slow.seconds / slow.duration, churn.seconds / churn.duration)
    with pytest.raises(ValueError, match="more than 0"):
        churn.at_rate(0.0)


def test_changes_that_change_nothing_are_left_out() -> None:
    churn = stream([0, 0, 1, 1, 1, 2, 2], [1, 2, 0, 0, 1, 3, 3]).effective()
    assert churn.rows.tolist() == [0, 1, 1, 2]
    assert churn.paths.tolist() == [2, 0, 1, 3]
    assert stream([3], [WITHDRAWN], before=0).effective().rows.tolist() == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40), st.integers(0, 3))
def test_effective_leads_to_the_same_and_every_change_counts(
    changes: list[tuple[int, int]], before: int
) -> None:
    churn = stream([row for row, _ in changes], [path for _, path in changes], before)
    effective = churn.effective()
    replayed(effective)
    assert (effective.after()[Family.IPV4] == churn.after()[Family.IPV4]).all()


def test_prefixes_that_stay_are_announced_and_never_change() -> None:
    churn = stream([1, 1], [0, 1])
    assert churn.rows_that_stay(Family.IPV4).tolist() == [0, 2, 3]
    assert churn.rows_that_change(Family.IPV4).tolist() == [1]
    assert stream([1], [2], before=WITHDRAWN).rows_that_stay(Family.IPV4).tolist() == []


def test_nothing_to_change_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        generated_churn(TABLE, 10, path_count=1)
    with pytest.raises(ValueError, match="no prefix to change"):
        generated_churn(TABLE, 10, changing=0.0)


def test_markers_are_new_prefixes_at_even_distances() -> None:
    plain = generated_churn(TABLE, 1_000)
    churn, numbers = with_markers(plain, 10)
    assert len(churn) == 1_010
    rows = churn.rows[numbers]
    assert (churn.before[Family.IPV4][rows] == WITHDRAWN).all()
    assert len(np.unique(rows)) == 10
    assert not np.isin(rows, plain.rows_that_change(Family.IPV4)).any()
    assert (np.diff(churn.seconds) >= 0).all()
    gaps = np.diff(churn.seconds[numbers])
    assert np.allclose(gaps, plain.duration / 10)
    replayed(churn)
    with pytest.raises(ValueError, match="for markers"):
        with_markers(plain, 4_000)


@given(st.integers(1, 500), st.integers(0, 9))
def test_within_a_larger_table_the_same_prefixes_change(count: int, seed: int) -> None:
    small = Table(TABLE.ipv4[::3], TABLE.ipv6[::3], "part")
    churn = generated_churn(small, count, seed=seed)
    whole = churn.within(Table(TABLE.ipv4[::2], TABLE.ipv6[::2], "rest"))
    for family in Family:
        assert (whole.keys(family) == churn.keys(family)).all()
        assert len(whole.table.keys(family)) > len(small.keys(family))
        assert (np.diff(whole.table.keys(family)[:, 0].astype(np.float64)) >= 0).all()
    replayed(whole)
    assert sum(map(len, map(whole.rows_that_stay, Family))) > len(small) // 2
