"""When a missing next hop is asked for."""

from __future__ import annotations

from router_agent.feeds.solicit import Schedule

ONE, TWO = (3, b"aaaa"), (3, b"bbbb")


def test_a_missing_next_hop_is_asked_for_at_once_and_then_ever_more_seldom() -> None:
    schedule = Schedule()
    asked = [now for now in range(400) if schedule.due([ONE], float(now))]
    assert asked == [0, 4, 12, 28, 60, 124, 188, 252, 316, 380]


def test_one_that_was_found_and_lost_is_new() -> None:
    schedule = Schedule()
    assert schedule.due([ONE], 0.0) == [ONE]
    assert schedule.due([ONE], 1.0) == []
    assert schedule.due([], 2.0) == []
    assert schedule.pause(2.0) is None
    assert schedule.due([ONE], 3.0) == [ONE]


def test_the_pause_ends_with_the_first_that_is_due() -> None:
    schedule = Schedule()
    schedule.due([ONE], 0.0)
    schedule.due([ONE, TWO], 1.0)
    assert schedule.pause(1.0) == 3.0
    assert schedule.pause(9.0) == 0.0
