"""How the sockets generator deals work out and adds up what came of it: no socket is opened here."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.model import Prefix
from router_agent.traffic.generators.sockets import account, clock
from router_agent.traffic.generators.sockets.account import Lane
from router_agent.traffic.generators.sockets.board import Board, Layout
from router_agent.traffic.generators.sockets.capture import Captured
from router_agent.traffic.generators.sockets.plan import Queues, plan
from router_agent.traffic.generators.sockets.receiver import FRAMES, REORDERED, STRAY, ReceiveJob, Tally
from router_agent.traffic.generators.sockets.sampling import MOST_SAMPLES, SAMPLES_PER_SECOND, sampling_shift
from router_agent.traffic.scenario import Destinations, Port


def to(ingress: list[int]) -> Destinations:
    """Return one destination for each port named."""
    prefixes: list[Prefix] = [IPv4Network(f"20.{i}.0.0/16") for i in range(len(ingress))]
    parts = [Destinations.of([prefix], ingress=port) for prefix, port in zip(prefixes, ingress, strict=True)]
    return Destinations.joined(parts)


PORTS = [Port("a", "a", "one"), Port("b", "b", "one"), Port("c", "c", "two")]


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=12),
    st.dictionaries(st.integers(0, 2), st.builds(Queues, st.integers(1, 5), st.integers(1, 5))),
    st.integers(0, 40),
)
def test_a_plan_leaves_out_no_port_and_no_destination(
    ingress: list[int], queues: dict[int, Queues], workers: int
) -> None:
    found = plan(PORTS, to(ingress), queues, workers)
    rows = np.sort(np.concatenate([sending.rows for sending in found.senders]))
    assert rows.tolist() == list(range(len(ingress)))
    assert all(ingress[row] == sending.port for sending in found.senders for row in sending.rows)
    assert {port for receiving in found.receivers for port in receiving.ports} == {0, 1, 2}
    least = len(set(ingress)) + 2
    assert least <= len(found) <= max(workers, least)
    for port in range(3):
        sharing = [r for r in found.receivers if port in r.ports]
        assert {r.sharing for r in sharing} == {len(sharing)}
        assert len(sharing) <= queues.get(port, Queues()).receive
        assert sum(s.port == port for s in found.senders) <= queues.get(port, Queues()).transmit


def test_more_cpus_go_to_ports_first_and_then_to_queues() -> None:
    queues = {i: Queues(2, 2) for i in range(3)}
    dealt = [plan(PORTS, to([0, 0, 1]), queues, n) for n in (1, 5, 6, 7, 40)]
    assert [(len(p.senders), len(p.receivers)) for p in dealt] == [(2, 2), (2, 3), (3, 3), (3, 4), (3, 6)]
    assert dealt[0].receivers[0].ports == (0, 1)
    assert dealt[1].receivers[0].ports == (0,)


@given(st.floats(1, 1e8), st.integers(1, 10**11))
def test_samples_are_bounded_and_no_fewer_than_needed(rate: float, packets: int) -> None:
    shift = sampling_shift(rate, packets)
    assert rate / 2**shift <= SAMPLES_PER_SECOND
    assert packets >> shift <= MOST_SAMPLES
    if shift:
        looser = shift - 1
        assert rate / 2**looser > SAMPLES_PER_SECOND or packets >> looser > MOST_SAMPLES


def job(packets: int, *, lanes: tuple[int, ...] = (0,), shift: int = 0, first: int = 1000) -> ReceiveJob:
    layout = Layout(10, (packets >> shift) + 1, 1, packets)
    return ReceiveJob(first, lanes, shift, 5_000_000_000, 100_000_000, layout)


def captured(sequence: list[int], when_ns: list[int]) -> Captured:
    times = np.array(when_ns, np.int64)
    return Captured(
        np.array(sequence, np.int64),
        (times // 1_000_000_000).astype(np.uint32),
        (times % 1_000_000_000).astype(np.uint32),
    )


def tallied(work: ReceiveJob, batches: list[Captured]) -> Board:
    board = Board.create("test", work.layout)
    tally = Tally(work, board, 0)
    for batch in batches:
        tally.add(batch)
    return board


def test_a_tally_enters_time_order_and_strays() -> None:
    start = 5_000_000_000
    batches = [
        captured([1000, 1001, 1003], [start, start + 1, start + 100_000_000]),
        captured([1002, 999, 1004, 2000], [start + 200_000_000 + i for i in range(4)]),
        captured([1004, 1005], [start + 300_000_000, start + 10_000_000_000]),
    ]
    board = tallied(job(8), batches)
    assert board.seen[0].tolist() == [1, 1, 1, 1, 1, 1, 0, 0]
    assert board.counters[[FRAMES, REORDERED, STRAY]].tolist() == [7, 1, 2]
    assert board.intervals.tolist() == [2, 1, 2, 1, 0, 0, 0, 0, 0, 1]
    assert board.times[:7].tolist() == [
        start,
        start + 1,
        start + 200_000_000,
        start + 100_000_000,
        start + 200_000_002,
        start + 10_000_000_000,
        0,
    ]
    board.close()


@given(st.lists(st.lists(st.integers(0, 39), min_size=1, max_size=30), max_size=5), st.integers(0, 3))
def test_a_tally_agrees_with_counting_one_by_one(batches: list[list[int]], shift: int) -> None:
    lanes = (0, 16, 32)
    work = job(40, lanes=lanes, shift=shift)
    clock_ns = iter(range(5_000_000_001, 6_000_000_000, 7_000_000))
    timed = [[next(clock_ns) for _ in batch] for batch in batches]
    board = tallied(
        work,
        [captured([1000 + p for p in batch], times) for batch, times in zip(batches, timed, strict=True)],
    )
    newest, late = [-1, -1, -1], 0
    arrivals: dict[int, list[int]] = {}
    for packet, when in zip(chain(*batches), chain(*timed), strict=True):
        lane = packet // 16
        late += packet < newest[lane]
        newest[lane] = max(newest[lane], packet)
        arrivals.setdefault(packet, []).append(when)
    assert board.counters[REORDERED] == late
    assert board.counters[FRAMES] == sum(map(len, batches))
    assert np.flatnonzero(board.seen[0]).tolist() == sorted(arrivals)
    for packet in range(0, 40, 1 << shift):
        assert board.times[packet >> shift] in arrivals.get(packet, [0])
    board.close()


def lane(first: int, rows: list[int], sent: int, times: list[int] | None = None) -> Lane:
    intervals = np.array([sent // 2, sent - sent // 2, 0], np.int64)
    return Lane(
        100.0, first, np.array(rows), sent, sent + 1, intervals, np.array(times or [0] * (sent + 1), np.int64)
    )


def test_lanes_add_up_by_destination_and_interval() -> None:
    lanes = [lane(0, [0, 2], 5), lane(8, [1], 3)]
    west, east = np.zeros(16, np.uint8), np.zeros(16, np.uint8)
    east[[0, 1, 2, 4]] = 1
    west[[8, 10]] = 1
    seen = account.merged([west, east])
    assert account.received(lanes, seen) == 6
    assert not account.complete(lanes, seen)
    counts = account.by_destination(lanes, [west, east], 3)
    assert counts.sent.tolist() == [3, 3, 2]
    assert counts.arrived.tolist() == [[0, 2, 0], [3, 0, 1]]
    series = account.series(lanes, seen, np.array([4, 2, 0], np.int64), 100_000_000)
    assert series.sent.tolist() == [3, 5]
    assert series.lost.tolist() == [0, 2]
    seen[[3, 9]] = 1
    assert account.complete(lanes, seen)


def test_latency_is_from_the_first_arrival_at_any_worker() -> None:
    lanes = [lane(0, [0], 3, [100, 200, 300, 0]), lane(4, [1], 2, [1000, 2000, 0])]
    one = np.array([150, 0, 330, 0, 0, 2400, 0], np.int64)
    two = np.array([160, 0, 310, 0, 1500, 2300, 0], np.int64)
    found = account.latency(lanes, [one, two], 0, "test")
    assert len(found) == 4
    assert (found.least, found.percentile(100)) == (10, 500)


def test_a_clock_step_is_told_from_a_late_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = clock.StepWatch()
    assert watch.step_ns() == 0
    for change, told in ((900_000, 0), (-1_500_000, -1_500_000), (3_600_000_000_000, 3_600_000_000_000)):
        monkeypatch.setattr(clock, "realtime_offset_ns", lambda change=change: watch.offset_ns + change)
        assert watch.step_ns() == told


def test_losses_are_listed_with_their_destination_and_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = [lane(0, [0, 2], 5), lane(8, [1], 3)]
    seen = np.ones(16, np.uint8)
    seen[[1, 4, 10]] = 0
    found = account.losses(lanes, seen)
    assert found is not None
    # the first lane sends 2 and 3 packets in its intervals, the second 1 and 2
    assert [*zip(found.rows.tolist(), found.intervals.tolist(), strict=True)] == [(2, 0), (0, 1), (1, 1)]
    monkeypatch.setattr(account, "MOST_LOSSES", 2)
    assert account.losses(lanes, seen) is None
