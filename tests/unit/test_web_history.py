"""The ring of samples: what comes out is what went in last, in fixed memory."""

from __future__ import annotations

from math import isnan

from hypothesis import given
from hypothesis import strategies as st

from router_agent.web.history import History

SAMPLES, COLUMNS = 5, 3


def ring() -> History:
    return History(samples=SAMPLES, columns=COLUMNS)


def plain(values: list[float]) -> list[float | None]:
    return [None if isnan(value) else value for value in values]


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.floats(0, 1e12)), max_size=30))
def test_the_last_samples_are_kept(rows: list[dict[str, float]]) -> None:
    history = ring()
    for at, row in enumerate(rows):
        history.add(float(at), row)
    part = history.since()
    kept = rows[-SAMPLES:]
    assert part.whole
    assert part.at == [float(at) for at in range(len(rows))][-SAMPLES:]
    for name in {name for row in kept for name in row}:
        assert plain(part.columns[name]) == [row.get(name) for row in kept]
    assert all(any(value is not None for value in plain(c)) for c in part.columns.values()) or len(rows) < 2


@given(st.integers(0, 12), st.integers(0, 12))
def test_who_asks_again_gets_what_came_since(first: int, more: int) -> None:
    history = ring()
    for at in range(first):
        history.add(float(at), {"a": at})
    cursor = history.since().cursor
    for at in range(first, first + more):
        history.add(float(at), {"a": at})
    part = history.since(cursor)
    assert part.whole == (more > SAMPLES)
    assert part.at == [float(at) for at in range(first, first + more)][-SAMPLES:]


def test_a_cursor_of_an_earlier_process_gives_everything() -> None:
    before, now = ring(), ring()
    for history in (before, now):
        history.add(1.0, {"a": 1})
    part = now.since(before.cursor)
    assert (part.whole, part.at) == (True, [1.0])


@given(st.text(max_size=40))
def test_a_cursor_that_is_none_gives_everything(cursor: str) -> None:
    history = ring()
    history.add(1.0, {"a": 1})
    epoch = history.cursor.partition(".")[0]
    for wrong in (cursor, f"{epoch}.{cursor}", f"{epoch}.99", f"{epoch}.-1", f"{epoch}.²"):
        part = history.since(wrong)
        assert part.whole or wrong in (f"{epoch}.0", f"{epoch}.1")


def test_columns_are_so_many_and_those_not_seen_any_more_make_room() -> None:
    history = ring()
    history.add(0.0, {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1})
    assert (set(history.since().columns), history.left_out) == ({"a", "b", "c"}, 2)
    for at in range(SAMPLES):
        history.add(1.0 + at, {"d": 1})
    history.add(9.0, {"d": 1})
    assert (set(history.since().columns), history.left_out) == ({"d"}, 0)
