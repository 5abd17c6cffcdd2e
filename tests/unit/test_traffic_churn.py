"""What route changes cost: packets, time without any, convergence of each prefix; and the budget of these."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.traffic.counters.source import DropClass, Side
from router_agent.traffic.generators.generator import (
    ByDestination,
    GeneratorError,
    Losses,
    Series,
    Snapshot,
    TrialResult,
)
from router_agent.traffic.judgement.ledger import LedgerKeeper, balance
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.churn import (
    Clock,
    analyse,
    blocked_times,
    lost_after,
    measure_churn,
)
from router_agent.traffic.measurements.results import Batch, ChurnRun
from router_agent.traffic.scenario import ChurnBudget, FrameSizes, Goal
from simulated_device import series

SIZES = FrameSizes.of(64)
INTERVAL_S = 0.001
PREFIXES = 20
PER_MILLISECOND = 20
"""So that each prefix gets one packet a millisecond."""


def outage(milliseconds: int, lost: dict[int, tuple[int, int]], *, tester: int = 0) -> TrialResult:
    """A stream of one packet to each prefix a millisecond; prefix p loses those of `lost[p]`, from, to."""
    gone = np.zeros((PREFIXES, milliseconds), np.bool_)
    for prefix, (begin, end) in lost.items():
        gone[prefix, begin:end] = True
    rows, at = np.nonzero(gone)
    sent = np.full(milliseconds, PER_MILLISECOND, np.int64)
    by_time = gone.sum(axis=0).astype(np.int64)
    to = np.full(PREFIXES, milliseconds, np.int64)
    arrived = to - gone.sum(axis=1)
    total = int(sent.sum())
    return TrialResult(
        rate_pps=PER_MILLISECOND * 1000,
        duration_s=milliseconds / 1000,
        offered_s=milliseconds / 1000,
        intended=total,
        sent=total,
        received=int(arrived.sum()),
        received_by_port=(int(arrived.sum()),),
        series=Series(INTERVAL_S, sent, sent, sent - by_time, by_time),
        by_destination=ByDestination(to, arrived[None, :]),
        losses=Losses(rows.astype(np.int64), at.astype(np.int64)),
        tester_drops={"east": tester} if tester else {},
    )


def analysed(trial: TrialResult, *batches: Batch, budget: ChurnBudget | None = None) -> ChurnRun:
    ours = [DropClass("ring", n, Side.TESTER, "x") for n in trial.tester_drops.values()]
    ledger = balance(trial.sent, trial.received, ours)
    return analyse(SIZES, trial, ledger, batches, Goal(churn=budget))


def rows(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, np.int64)


@given(st.dictionaries(st.integers(0, PREFIXES - 1), st.tuples(st.integers(0, 499), st.integers(0, 499))))
def test_each_prefix_converges_in_the_time_it_lost_packets(lost: dict[int, tuple[int, int]]) -> None:
    run = analysed(outage(500, lost), Batch(0.1, 20, "path changes"))
    expected = sorted((end - begin) / 1000 for begin, end in lost.values() if end > begin)
    assert run.convergence_s == pytest.approx(expected)
    assert run.lost == round(sum(expected) * 1000)
    assert run.convergence_resolution_s == pytest.approx(0.001)
    if expected:
        assert run.convergence_p99_s == pytest.approx(expected[-1]), "fewer than 100: the slowest"


def test_p99_is_by_nearest_rank() -> None:
    run = replace(analysed(outage(10, {})), convergence_s=tuple(float(i) for i in range(1, 201)))
    assert run.convergence_p99_s == 198.0


def test_packets_to_withdrawn_prefixes_are_no_fault_until_they_are_announced() -> None:
    """Prefix 3 goes at 100 ms and comes back at 300 ms, its route 50 ms later; 4 fails by itself."""
    run = analysed(
        outage(500, {3: (110, 350), 4: (120, 130)}),
        Batch(0.1, 1, "withdrawn", rows(3), reachable=False),
        Batch(0.3, 1, "announced", rows(3)),
    )
    assert run.convergence_s == pytest.approx((0.010, 0.050))
    assert run.lost == 60
    assert run.trial.lost == 250
    assert "190 packets to withdrawn prefixes are left out" in run.verdict.notes
    assert lost_after(run) == (200, 50)


def test_withdrawn_prefixes_do_not_block_the_others() -> None:
    """All but one are withdrawn, and that one's packets keep arriving, though not in every moment."""
    lost = dict.fromkeys(range(1, PREFIXES), (100, 300))
    calm = outage(400, lost)
    # the one packet of each millisecond goes out in every other one, two at a time
    last = np.zeros(400, np.int64)
    last[100:300:2], last[101:300:2] = 1, -1
    moved = replace(calm.series, sent=calm.series.sent + last, received=calm.series.received + last)
    batch = Batch(0.1, 19, "withdrawn", np.arange(1, PREFIXES), reachable=False)
    assert moved.received[101] == 0
    run = analysed(replace(calm, series=moved), batch)
    assert (run.blocked, run.lost) == ((), 0)
    assert analysed(replace(calm, series=moved), Batch(0.1, 19, "path changes")).blocked


def test_a_prefix_that_stays_withdrawn_is_excused_to_the_end() -> None:
    run = analysed(outage(300, {0: (100, 300)}), Batch(0.1, 1, "withdrawn", rows(0), reachable=False))
    assert (run.lost, run.convergence_s) == (0, ())
    assert run.verdict.outcome is Outcome.PASS


def test_a_batch_that_makes_prefixes_unreachable_names_them() -> None:
    with pytest.raises(ValueError, match="name their rows"):
        Batch(0.1, 1, "withdrawn", reachable=False)


# blocked times


def test_a_device_that_holds_packets_back_is_blocked_without_losing_any() -> None:
    sent = [20] * 10
    blocked, resolution = blocked_times(
        series(INTERVAL_S, sent, [20, 20, 20, 0, 0, 0, 80, 20, 20, 20], [0] * 10)
    )
    assert [(round(b.at_s, 6), round(b.seconds, 6)) for b in blocked] == [(0.003, 0.003)]
    assert resolution == INTERVAL_S


def test_a_sender_that_paused_is_no_blocked_device() -> None:
    paused = series(INTERVAL_S, [20, 20, 0, 0, 60, 20], [20, 20, 0, 0, 60, 20], [0] * 6)
    assert blocked_times(paused)[0] == ()


def test_a_burst_that_arrives_in_the_next_interval_is_no_blocked_device() -> None:
    bursts = series(INTERVAL_S, [40, 0, 40, 0, 40, 0], [0, 40, 0, 40, 0, 40], [0] * 6)
    assert blocked_times(bursts)[0] == ()


def test_a_black_hole_is_blocked() -> None:
    sent = [20] * 6
    blocked, _ = blocked_times(series(INTERVAL_S, sent, [20, 0, 0, 20, 0, 20], [0, 20, 20, 0, 20, 0]))
    assert [(round(b.at_s, 6), round(b.seconds, 6)) for b in blocked] == [(0.001, 0.002), (0.004, 0.001)]


def test_intervals_too_short_for_the_rate_are_joined() -> None:
    sent = [1] * 60
    received = [1] * 20 + [0] * 20 + [1] * 20
    blocked, resolution = blocked_times(series(INTERVAL_S, sent, received, [1 - n for n in received]))
    assert resolution == pytest.approx(0.010)
    assert [(round(b.at_s, 6), round(b.seconds, 6)) for b in blocked] == [(0.02, 0.02)]


def test_nothing_received_is_no_blocked_time_but_a_dead_device() -> None:
    assert blocked_times(series(INTERVAL_S, [20] * 5, [0] * 5, [20] * 5))[0] == ()


def test_ports_that_only_count_show_blocked_times_too() -> None:
    counted = series(INTERVAL_S, [20] * 5, [20, 0, 0, 60, 20], [0, 20, 20, -40, 0])
    (blocked,), _ = blocked_times(counted, followed=False)
    assert (blocked.at_s, blocked.seconds) == (0.001, 0.002)


# the budget

CHANGES = Batch(0.1, 20, "path changes")
EVERYTHING = dict.fromkeys(range(PREFIXES), (100, 150))


@pytest.mark.parametrize(
    ("budget", "outcome", "words"),
    [
        (None, "PASS", "20 route changes cost 1,000 of 10,000 packets, and 50 ms without any"),
        (ChurnBudget(lost=1_000, blocked_s=0.05, convergence_s=0.05), "PASS", "at most 50 ms"),
        (ChurnBudget(lost=999), "FAIL", "allowed: 999 packets"),
        (ChurnBudget(blocked_s=0.049), "FAIL", "allowed: 49 ms without any"),
        (ChurnBudget(convergence_s=0.049), "FAIL", "allowed: 49 ms for 99 %"),
        (ChurnBudget(lost=1, convergence_s=0.01), "FAIL", "1 packets, 10 ms for 99 %"),
        (ChurnBudget(blocked_s=0.0005), "INVALID", "blocked times are seen from 1.0 ms on"),
        (ChurnBudget(convergence_s=0.0005), "INVALID", "a prefix gets a packet every 1 ms"),
    ],
)
def test_the_budget_decides(budget: ChurnBudget | None, outcome: str, words: str) -> None:
    run = analysed(outage(500, EVERYTHING), CHANGES, budget=budget)
    assert run.verdict.outcome == outcome, run.verdict.reason
    assert words in run.verdict.reason


def test_losses_of_the_tester_itself_are_no_verdict_on_the_device() -> None:
    run = analysed(outage(500, EVERYTHING, tester=950), CHANGES, budget=ChurnBudget(lost=100))
    assert run.verdict.outcome is Outcome.INVALID
    assert "the tester was the limit: of 1,000 packets missing it dropped 950 itself" in run.verdict.reason


def test_a_load_that_was_not_offered_is_invalid() -> None:
    run = analysed(replace(outage(500, {}), intended=20_000), CHANGES)
    assert run.verdict.outcome is Outcome.INVALID
    assert "generator was the limit" in run.verdict.reason


def test_a_generator_that_follows_no_packets_judges_what_it_sees() -> None:
    counted = replace(outage(500, EVERYTHING), by_destination=None, losses=None)
    assert analysed(counted, CHANGES, budget=ChurnBudget(lost=1_000)).verdict.outcome is Outcome.PASS
    run = analysed(counted, CHANGES, budget=ChurnBudget(convergence_s=1))
    assert run.verdict.outcome is Outcome.INVALID
    assert "follows no single packets" in run.verdict.reason


def test_too_many_losses_to_list_say_so() -> None:
    unlisted = replace(outage(500, EVERYTHING), losses=None)
    withdrawn = Batch(0.1, 1, "withdrawn", rows(1), reachable=False)
    run = analysed(unlisted, withdrawn, budget=ChurnBudget(convergence_s=1))
    assert "too many packets were lost" in run.verdict.reason
    assert analysed(unlisted, CHANGES).convergence_s, "without withdrawals the list is not needed"


def test_a_rate_below_the_table_is_said_to_be_coarse() -> None:
    slow = replace(outage(500, {}), offered_s=500.0 * 60, duration_s=500.0 * 60)
    assert "a prefix gets a packet every 60.0 s only" in analysed(slow, CHANGES).verdict.notes[0]


# traffic and changes together


class Stream:
    """A generator whose stream is made beforehand; its clock is the real one."""

    kind, follows_packets, process_ids, counters = "made", True, (), ()

    def __init__(self, trial: TrialResult, *, flows: bool = True) -> None:
        self.trial, self.flows, self.stopped = trial, flows, False

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None: ...

    def start(self, rate_pps: float, duration_s: float, *, packets: int | None = None) -> Stream:
        self.began = time.monotonic()
        return self

    def snapshot(self) -> Snapshot:
        elapsed = time.monotonic() - self.began
        return Snapshot(elapsed, int(elapsed * 20_000), int(elapsed * 20_000) if self.flows else 0)

    def finish(self, progress: Callable[[Snapshot], None] | None = None) -> TrialResult:
        raise AssertionError("it is stopped, not awaited")

    def stop(self) -> TrialResult:
        self.stopped = True
        return self.trial


def test_changes_are_made_while_traffic_flows_and_dated_by_its_clock() -> None:
    stream, told = Stream(outage(500, {})), []

    def changes(clock: Clock) -> Iterator[Batch]:
        assert clock() >= 0.05
        for number in range(2):
            assert not stream.stopped
            yield Batch(clock(), 10 + number, "announced")

    run = measure_churn(
        stream,
        LedgerKeeper([]),
        SIZES,
        20_000,
        changes,
        goal=Goal(),
        before_s=0.05,
        after_s=0.05,
        progress=lambda stage, done, text: told.append(text),
    )
    assert stream.stopped
    assert [batch.changes for batch in run.batches] == [10, 11]
    assert 0.05 <= run.batches[0].at_s <= run.batches[1].at_s <= time.monotonic() - stream.began
    assert run.culprits == ()
    assert told[0].startswith("10 announced at ")
    assert told[-1] == "2 batches"


def test_the_stream_ends_when_changes_fail() -> None:
    stream = Stream(outage(500, {}))

    def changes(clock: Clock) -> list[Batch]:
        raise RuntimeError("the upstream is gone")

    with pytest.raises(RuntimeError, match="upstream is gone"):
        measure_churn(stream, LedgerKeeper([]), SIZES, 1, changes, goal=Goal(), before_s=0, after_s=0)
    assert stream.stopped


def test_changes_that_outlast_the_stream_are_refused() -> None:
    stream = Stream(outage(500, {}))
    with pytest.raises(GeneratorError, match=r"ended by itself after 0\.01 s"):
        measure_churn(
            stream, LedgerKeeper([]), SIZES, 1, lambda clock: [], goal=Goal(), before_s=0.05, most_s=0.01
        )


def test_routes_are_not_changed_before_traffic_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router_agent.traffic.measurements.churn._FLOW_S", 0.05)
    stream = Stream(outage(500, {}), flows=False)

    def changes(clock: Clock) -> list[Batch]:
        raise AssertionError("nothing arrives")

    with pytest.raises(GeneratorError, match="expected traffic to flow before routes are changed"):
        measure_churn(stream, LedgerKeeper([]), SIZES, 1, changes, goal=Goal(), before_s=0)
    assert stream.stopped
