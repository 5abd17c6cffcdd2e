"""The vectorised hash table against a dictionary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.model import U64
from router_agent.prefix_table import PrefixTable, unique_last


def keys(numbers: list[int], width: int) -> U64:
    column = np.array(numbers, np.uint64)
    return np.stack([column * np.uint64(w + 1) for w in range(width)], axis=1).reshape(-1, width)


steps = st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 200), max_size=60)), max_size=12)


@pytest.mark.parametrize("width", [1, 3])
@given(steps=steps)
def test_equals_a_dictionary(width: int, steps: list[tuple[bool, set[int]]]) -> None:
    table = PrefixTable(width, {"value": np.uint32})
    model: dict[int, int] = {}
    for adding, numbers in steps:
        if adding:
            new = sorted(numbers - model.keys())
            rows = table.insert(keys(new, width))
            assert not table["value"][rows].any(), "columns of new rows are zero"
            table["value"][rows] = np.array(new, np.uint32) + 1
            model |= {n: n + 1 for n in new}
        else:
            old = sorted(numbers & model.keys())
            table.remove(table.find(keys(old, width)))
            for n in old:
                del model[n]
        every = keys(list(range(201)), width)
        rows = table.find(every)
        assert {n: int(table["value"][r]) for n, r in enumerate(rows) if r >= 0} == model
        assert len(table) == len(model) == len(table.rows())


def test_grows_and_shrinks_with_a_million_keys() -> None:
    every = np.random.default_rng(1).permutation(np.arange(1 << 20, dtype=np.uint64))[:, None]
    table = PrefixTable(1, {"value": np.uint32})
    for start in range(0, len(every), 50_000):
        rows = table.find_or_insert(every[start : start + 50_000])
        table["value"][rows] = 7
    assert len(table) == len(every)
    assert table.nbytes < 48 << 20
    table.remove(table.find(every[::2]))
    assert (table.find(every[::2]) < 0).all()
    assert (table["value"][table.find(every[1::2])] == 7).all()
    seen = np.concatenate([table.keys(rows)[:, 0] for rows in table.chunks(10_000)])
    assert np.array_equal(np.sort(seen), np.sort(every[1::2, 0]))
    table.remove(table.rows())
    assert len(table) == 0
    assert table.nbytes < 1 << 20, "an empty table gives its memory back"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30))
def test_unique_last_names_the_last_of_each(rows: list[tuple[int, int]]) -> None:
    columns = [np.array([r[i] for r in rows], np.uint64) for i in range(2)]
    expected = sorted({row: i for i, row in enumerate(rows)}.values())
    assert list(unique_last(*columns)) == expected


@pytest.mark.parametrize("width", [1, 3])
def test_prefixes_that_come_and_go_leave_nothing_behind(width: int) -> None:
    """A flapping prefix must not lengthen the probing around it, nor make the table be laid out anew."""
    every = keys(list(range(200_000)), width)
    table = PrefixTable(width)
    for start in range(0, len(every), 10_000):
        table.insert(every[start : start + 10_000])
    slots = table._slots
    for _ in range(300):
        table.remove(table.find(every[:1_000]))
        table.insert(every[:1_000])
    assert table._slots is slots, "the table was laid out anew"
    assert int((table._slots == -2).sum()) <= 1_000
    assert table._used == int((table._slots != -1).sum())
    assert (table.find(every) >= 0).all()


def test_a_table_that_is_nearly_full_has_room_for_tombstones() -> None:
    """Just below a power of two every few changes would otherwise lay it out anew."""
    rng = np.random.default_rng(3)
    table = PrefixTable(1)
    table.insert(keys(list(range(130_000)), 1))
    layouts = [table._slots]
    for turn in range(40):
        table.remove(table.rows()[rng.permutation(len(table))[:2_000]])
        fresh = keys(list(range(1_000_000 + 2_000 * turn, 1_002_000 + 2_000 * turn)), 1)
        table.insert(fresh)
        if table._slots is not layouts[-1]:
            layouts.append(table._slots)
    assert len(layouts) <= 2
