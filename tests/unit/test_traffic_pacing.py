"""A pacer neither drifts nor bursts, whatever the clock and the scheduler do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.traffic.generators.sockets.pacing import Pacer

NS = 1_000_000_000


def run(pacer: Pacer, delays: list[int]) -> list[tuple[int, int]]:
    """Send with a sender that wakes up late by these delays in turn; return (time, packets) bursts."""
    now, sent, bursts = pacer.start_ns, 0, []
    while sent < pacer.packets:
        count = pacer.due(now, sent)
        if count:
            bursts.append((now, count))
            sent += count
        delay = delays[len(bursts) % len(delays)] if delays else 0
        now = max(pacer.next_ns(now, sent), now + 1) + delay
    return bursts


@pytest.mark.parametrize("rate", [1, 7, 999.5, 10_000, 333_333, 2_000_000])
def test_an_unhindered_sender_ends_in_time(rate: float) -> None:
    packets = max(1, int(rate * 2))
    pacer = Pacer(rate, packets, start_ns=123)
    bursts = run(pacer, [])
    assert sum(count for _, count in bursts) == packets
    due_ns = (packets - 1) * NS / rate
    assert bursts[-1][0] - 123 == pytest.approx(due_ns, abs=2 * pacer.tick_ns)


@given(
    st.floats(1, 1e6, allow_nan=False),
    st.integers(1, 2000),
    st.lists(st.integers(0, 50_000_000), min_size=1, max_size=5),
)
def test_never_early_never_more_than_a_burst(rate: float, packets: int, delays: list[int]) -> None:
    pacer = Pacer(rate, packets, 0)
    sent = 0
    for when, count in run(pacer, delays):
        assert count <= pacer.burst
        sent += count
        assert (sent - 1) * NS / rate <= when + 1, "no packet leaves before it is due"
    assert sent == packets


def test_a_held_up_sender_catches_up_at_twice_the_rate() -> None:
    pacer = Pacer(100_000, 1_000_000, 0)
    held_up = 50_000_000
    now, sent = held_up, 0
    while pacer.scheduled(now) - sent > pacer.burst // 2:
        sent += pacer.due(now, sent)
        now = pacer.next_ns(now, sent)
    assert now - held_up == pytest.approx(held_up, rel=0.1)


def test_the_schedule_begins_and_ends() -> None:
    pacer = Pacer(10, 5, 1000)
    assert pacer.scheduled(999) == 0
    assert pacer.scheduled(1000) == 1
    assert pacer.scheduled(1000 + 100 * NS) == 5
    with pytest.raises(ValueError, match="cannot pace"):
        Pacer(0, 1, 0)


def test_a_sender_is_behind_when_more_than_a_burst_is_overdue() -> None:
    pacer = Pacer(10_000, 1_000, 0)
    assert not pacer.behind(0, 0)
    late = (pacer.burst + 1) * NS // 10_000
    assert pacer.behind(late, 0)
    assert not pacer.behind(late, 2)
