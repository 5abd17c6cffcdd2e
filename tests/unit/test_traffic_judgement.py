"""Ledger, verdict, port proof and search: what follows from what was measured."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.traffic.counters.source import DropClass, Side
from router_agent.traffic.generators.generator import ByDestination, Series, TrialResult
from router_agent.traffic.judgement.ledger import Ledger, LedgerKeeper, balance, grown
from router_agent.traffic.judgement.proof import Deviations, Proof, missing_rows, prove
from router_agent.traffic.judgement.verdict import Outcome, Verdict, combine, judge_proof, judge_trial
from router_agent.traffic.measurements.search import find_rate
from router_agent.traffic.scenario import ANY_PORT, Destinations, Goal, Search


def column(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


def trial(
    sent: int = 1000,
    lost: int = 0,
    *,
    unsent: int = 0,
    rate_pps: float = 1000,
    duration_s: float = 1.0,
    drops: dict[str, int] | None = None,
    **more: int,
) -> TrialResult:
    received = sent - lost
    series = Series(1.0, column(sent + unsent), column(sent), column(received), column(lost))
    return TrialResult(
        rate_pps=rate_pps,
        duration_s=duration_s,
        offered_s=duration_s,
        intended=sent + unsent,
        sent=sent,
        received=received,
        received_by_port=(received,),
        duplicates=more.get("duplicates", 0),
        reordered=more.get("reordered", 0),
        series=series,
        by_destination=ByDestination(column(sent), column(received)[None, :]),
        tester_drops=drops or {},
    )


def device(count: int, *, derived: bool = False) -> DropClass:
    return DropClass("no route", count, Side.DEVICE, "InNoRoutes", derived)


def ours(count: int) -> DropClass:
    return DropClass("capture ring full", count, Side.TESTER, "packet socket")


# the ledger


@given(
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.lists(st.tuples(st.integers(-50, 5000), st.booleans(), st.booleans())),
)
def test_a_ledger_always_balances(received: int, lost: int, classes: list[tuple[int, bool, bool]]) -> None:
    drops = [
        DropClass("x", n, Side.TESTER if own else Side.DEVICE, "y", derived) for n, own, derived in classes
    ]
    ledger = balance(received + lost, received, drops)
    assert ledger.sent == ledger.received + sum(d.count for d in ledger.drops) + ledger.unaccounted
    assert all(d.count > 0 for d in ledger.drops)
    exact = sum(n for n, _, derived in classes if n > 0 and not derived)
    assert ledger.unaccounted >= min(0, lost - exact), "derived classes never overdraw"


def test_a_derived_class_fills_what_is_left_and_no_more() -> None:
    ledger = balance(1000, 900, [device(500, derived=True), device(30), ours(20)])
    assert [(d.count, d.derived) for d in ledger.drops] == [(50, True), (30, False), (20, False)]
    assert ledger.unaccounted == 0
    assert balance(1000, 1000, [device(500, derived=True)]).drops == ()


def test_drops_that_are_not_ours_show_as_an_overdraft() -> None:
    assert balance(1000, 995, [device(8)]).unaccounted == -3


def test_a_restarted_source_counts_from_zero() -> None:
    assert grown({"a": 100, "b": 5}, {"a": 7, "b": 5, "c": 2}) == {"a": 7, "b": 0, "c": 2}


def test_a_source_most_of_whose_counters_went_back_was_restarted() -> None:
    class Anew(Counters):
        def drops(self, growth: Mapping[str, int]) -> list[DropClass]:
            return []

    restarted = Anew("VPP", [{"rx": 100, "tx": 90, "uptime": 5}, {"rx": 7, "tx": 3, "uptime": 6}])
    gauge = Anew("kernel", [{"sessions": 9, "rx": 1, "tx": 1}, {"sessions": 5, "rx": 8, "tx": 8}])
    keeper = LedgerKeeper([restarted, gauge])
    keeper.open()
    assert keeper.close(trial()).restarted == ("VPP",)


class Counters:
    """A source whose readings are scripted."""

    def __init__(self, name: str, readings: list[dict[str, int]]) -> None:
        self.name = name
        self._readings = iter(readings)

    def read(self) -> dict[str, int]:
        return next(self._readings)

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:
        return [device(growth["InNoRoutes"])]


def test_the_keeper_enters_what_grew_during_the_trial() -> None:
    first = Counters("one", [{"InNoRoutes": 100, "quiet": 1}, {"InNoRoutes": 107, "quiet": 1}])
    keeper = LedgerKeeper([first])
    keeper.open()
    ledger = keeper.close(trial(1000, 10, drops={"west": 2, "east": 0}))
    assert {d.name: d.count for d in ledger.drops} == {"no route": 7, "tester's capture of port west full": 2}
    assert ledger.unaccounted == 1
    assert ledger.moved == {"one": {"InNoRoutes": 7}}


def test_a_source_that_says_it_counts_anew_does() -> None:
    before, after = {"counts since": 10, "rx": 100}, {"counts since": 20, "rx": 150, "tx": 5}
    assert grown(before, after) == {"rx": 150, "tx": 5}
    assert grown(after, after | {"rx": 160}) == {"counts since": 0, "rx": 10, "tx": 0}


def test_a_keeper_wants_distinct_sources_and_an_opening() -> None:
    with pytest.raises(ValueError, match="different names"):
        LedgerKeeper([Counters("one", []), Counters("one", [])])
    with pytest.raises(ValueError, match="not opened"):
        LedgerKeeper([Counters("one", [])]).close(trial())


# the verdict of a trial

STRICT, LENIENT = Goal(), Goal(loss_ratio=0.01)


@pytest.mark.parametrize(
    ("result", "classes", "goal", "outcome", "words"),
    [
        pytest.param(trial(), [], STRICT, "PASS", "no packet lost of 1,000", id="nothing lost"),
        pytest.param(trial(lost=1), [device(1)], STRICT, "FAIL", "1 no route", id="one packet"),
        pytest.param(trial(lost=10), [device(10)], LENIENT, "PASS", "within a ratio of 0.01", id="allowed"),
        pytest.param(trial(lost=11), [device(11)], LENIENT, "FAIL", "allowed 10", id="one too many"),
        pytest.param(trial(lost=5), [], STRICT, "FAIL", "no counter moved; 5 unaccounted", id="unexplained"),
        pytest.param(trial(lost=5), [device(3)], STRICT, "FAIL", "2 unaccounted", id="half explained"),
        pytest.param(trial(lost=5), [ours(5)], STRICT, "INVALID", "capture ring full: 5", id="tester only"),
        pytest.param(trial(lost=5), [ours(9)], STRICT, "INVALID", "tester was the limit", id="tester more"),
        pytest.param(trial(lost=9), [ours(5), device(4)], STRICT, "FAIL", "4 no route", id="both"),
        pytest.param(
            trial(lost=14),
            [ours(5), device(9)],
            LENIENT,
            "INVALID",
            "tester was the limit",
            id="both, allowed",
        ),
        pytest.param(trial(unsent=5), [], STRICT, "PASS", "no packet lost", id="unsent, tolerated"),
        pytest.param(trial(unsent=6), [], STRICT, "INVALID", "generator was the limit", id="unsent"),
        pytest.param(
            trial(lost=500, unsent=600),
            [device(500)],
            STRICT,
            "INVALID",
            "37.500% of 1,600",
            id="unsent, lost",
        ),
        pytest.param(trial(0, unsent=10), [], STRICT, "INVALID", "sent nothing", id="silence"),
    ],
)
def test_the_verdict_of_a_trial(
    result: TrialResult, classes: list[DropClass], goal: Goal, outcome: str, words: str
) -> None:
    verdict = judge_trial(result, balance(result.sent, result.received, classes), goal)
    assert verdict.outcome == outcome
    assert words in verdict.reason


def test_what_did_not_decide_is_noted() -> None:
    result = trial(unsent=1, duplicates=3, reordered=4)
    notes = judge_trial(result, balance(1000, 1000, [device(2)]), STRICT).notes
    assert [note.split()[0] for note in notes] == ["1", "3", "4", "counters"]


def test_failing_outranks_invalid_and_invalid_outranks_passing() -> None:
    good, bad, void = (Verdict(o, o.value, (o.value,)) for o in (Outcome.PASS, Outcome.FAIL, Outcome.INVALID))
    assert combine(good, void, bad).outcome is Outcome.FAIL
    assert combine(void, bad).notes == ("INVALID", "FAIL", "not judged: INVALID")
    assert combine(good, void).reason == "INVALID"
    assert combine(good, good).reason == "PASS; PASS"
    assert combine(good, void).notes == ("PASS", "INVALID")
    assert [o.exit_code for o in Outcome] == [0, 1, 2]
    with pytest.raises(ValueError, match="nothing to judge"):
        combine()


# the port proof


def proof_trial(arrived: list[list[int]], sent_to: list[int] | None = None) -> TrialResult:
    matrix = np.array(arrived, np.int64)
    to = np.array(sent_to or [1] * matrix.shape[1], np.int64)
    seen = int((matrix.sum(axis=0) > 0).sum())
    series = Series(1.0, to[:1], to[:1], to[:1], to[:1])
    return TrialResult(
        rate_pps=100.0,
        duration_s=1.0,
        offered_s=1.0,
        intended=len(to),
        sent=int(to.sum()),
        received=seen,
        received_by_port=tuple(int(n) for n in matrix.sum(axis=1)),
        series=series,
        by_destination=ByDestination(to, matrix),
    )


def destinations(expected: list[int]) -> Destinations:
    rows = [[10, i, 0, 1] + [0] * 12 for i in range(len(expected))]
    n = len(expected)
    return Destinations(
        np.full(n, 2, np.uint8),
        np.array(rows, np.uint8),
        np.full(n, 16, np.uint8),
        np.array(expected, np.int16),
        np.zeros(n, np.int16),
    )


@pytest.mark.parametrize(
    ("expected", "arrived", "outcome", "words"),
    [
        ([0, 1, 1, 0], [[1, 0, 0, 1], [0, 1, 1, 0]], "PASS", "each of 4 prefixes"),
        ([ANY_PORT] * 4, [[1, 0, 0, 1], [0, 1, 1, 0]], "PASS", "each of 4 prefixes"),
        ([0, 1, 1, 0], [[1, 0, 1, 1], [0, 1, 0, 0]], "FAIL", "10.2.0.0/16: expected east, seen at west"),
        ([0, 1, 1, 0], [[1, 0, 1, 1], [0, 1, 1, 0]], "FAIL", "expected east, seen at west, east"),
        ([0, 1, 1, 0], [[1, 0, 0, 0], [0, 1, 1, 0]], "FAIL", "10.3.0.0/16, expected at west"),
    ],
)
def test_the_verdict_of_a_port_proof(
    expected: list[int], arrived: list[list[int]], outcome: str, words: str
) -> None:
    proof = prove(destinations(expected), ["west", "east"], proof_trial(arrived), None)
    verdict = judge_proof(proof)
    assert verdict.outcome == outcome
    assert words in verdict.reason


def test_a_second_attempt_is_told_and_not_hidden() -> None:
    first = proof_trial([[1, 0, 0, 0], [0, 0, 0, 0]])
    rows = missing_rows(first)
    assert rows.tolist() == [1, 2, 3]
    second = proof_trial([[0, 1, 0], [1, 0, 0]])
    proof = prove(destinations([0, 1, 1, 0]), ["west", "east"], first, (rows, second))
    assert (proof.right, len(proof.recovered), len(proof.wrong), len(proof.missing)) == (1, 1, 1, 1)
    assert proof.recovered.first[0].prefix == "10.1.0.0/16"
    assert proof.wrong.first[0].seen == "west"
    assert "only when sent to again at 100 pps" in judge_proof(proof).notes[0]


def test_recovered_prefixes_pass_with_a_word_about_them() -> None:
    first, second = proof_trial([[1, 0], [0, 0]]), proof_trial([[0], [1]])
    proof = prove(destinations([0, 1]), ["west", "east"], first, (missing_rows(first), second))
    verdict = judge_proof(proof)
    assert (verdict.outcome, verdict.reason) == (
        Outcome.PASS,
        "each of 2 prefixes left by its port, 1 of them at the second attempt only",
    )


def test_an_incomplete_proof_is_invalid() -> None:
    left_out = proof_trial([[1, 0], [0, 0]], [1, 0])
    assert (
        judge_proof(prove(destinations([0, 1]), ["west", "east"], left_out, None)).outcome is Outcome.INVALID
    )
    proof = Proof(2, 0, 1, Deviations(), Deviations(1), Deviations(), {}, 1.0, tester_drops=1)
    assert "the tester itself dropped 1" in judge_proof(proof).reason


def test_only_the_first_deviations_are_listed_but_all_are_counted() -> None:
    n = 500
    nothing = proof_trial([[0] * n, [0] * n])
    rows = np.zeros((n, 16), np.uint8)
    zeros = np.zeros(n, np.int16)
    many = Destinations(np.full(n, 2, np.uint8), rows, np.full(n, 32, np.uint8), zeros, zeros)
    proof = prove(many, ["west", "east"], nothing, None)
    assert len(proof.missing) == n
    assert len(proof.missing.first) == 100


# the search


class Device:
    """Forwards up to its capacity and drops the rest; the generator has a limit of its own."""

    def __init__(self, capacity: float, generator: float = 1e12) -> None:
        self.capacity, self.generator = capacity, generator
        self.asked: list[float] = []

    def run(self, rate_pps: float, duration_s: float) -> tuple[TrialResult, Ledger]:
        self.asked.append(rate_pps)
        intended = int(rate_pps * duration_s)
        sent = int(min(rate_pps, self.generator) * duration_s)
        lost = max(0, sent - int(self.capacity * duration_s))
        result = trial(sent, lost, unsent=intended - sent, rate_pps=rate_pps, duration_s=duration_s)
        return result, balance(sent, sent - lost, [device(lost)])


@pytest.mark.parametrize("capacity", [12_345.0, 100_000.0, 987_654.0])
def test_the_search_finds_the_capacity(capacity: float) -> None:
    under_test = Device(capacity)
    found = find_rate(Search(1_000, 1_000_000, relative_width=0.01), STRICT, under_test.run)
    assert found.outcome is Outcome.PASS
    assert found.rate_pps is not None
    assert found.upper_pps is not None
    assert found.rate_pps <= capacity <= found.upper_pps
    assert found.rate_pps == pytest.approx(capacity, rel=0.011)
    assert len(found.trials) == len(under_test.asked) < 40


def test_a_device_faster_than_the_search_is_said_to_be() -> None:
    found = find_rate(Search(1_000, 50_000), STRICT, Device(1e9).run)
    assert (found.outcome, found.rate_pps, found.upper_pps) == (Outcome.PASS, 50_000, None)
    assert "at least 50,000 pps" in found.reason


def test_a_device_slower_than_the_search_fails() -> None:
    found = find_rate(Search(1_000, 50_000), STRICT, Device(10).run)
    assert (found.outcome, found.rate_pps) == (Outcome.FAIL, None)
    assert "not met even at 1,000 pps" in found.reason


def test_a_slow_generator_is_no_loss() -> None:
    under_test = Device(1e9, generator=20_000)
    found = find_rate(Search(1_000, 50_000), STRICT, under_test.run)
    assert (found.outcome, found.upper_pps) == (Outcome.PASS, None)
    assert found.rate_pps == pytest.approx(18_000)
    assert "at least 18,000 pps; the generator could offer no more" in found.reason
    assert under_test.asked[:2] == [50_000, 50_000], "an invalid trial is tried once more"
    assert [t.valid for t in found.trials[:3]] == [False, False, True]


def test_a_generator_slower_than_the_search_is_invalid() -> None:
    found = find_rate(Search(1_000, 50_000), STRICT, Device(1e9, generator=900).run)
    assert (found.outcome, found.rate_pps) == (Outcome.INVALID, None)
    assert "generator was the limit" in found.reason


def test_a_device_below_a_slow_generator_is_found() -> None:
    found = find_rate(
        Search(1_000, 500_000, relative_width=0.01), STRICT, Device(77_000, generator=200_000).run
    )
    assert found.outcome is Outcome.PASS
    assert found.rate_pps == pytest.approx(77_000, rel=0.011)
    assert "at least" not in found.reason


def test_a_search_without_end_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000, 3))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    found = find_rate(Search(1_000, 1_000_000, limit_s=10), STRICT, Device(5_000).run)
    assert found.outcome is Outcome.INVALID
    assert "given up after 10 s" in found.reason


def test_a_tolerated_loss_ratio_raises_the_rate() -> None:
    found = find_rate(Search(1_000, 200_000, relative_width=0.01), Goal(loss_ratio=0.1), Device(90_000).run)
    assert found.rate_pps == pytest.approx(100_000, rel=0.02)


# series


def test_series_are_summed_into_longer_intervals() -> None:
    fine = Series(0.1, *(np.arange(25, dtype=np.int64) for _ in range(4)))
    coarse = fine.per(1.0)
    assert coarse.interval_s == pytest.approx(1.0)
    assert coarse.sent.tolist() == [sum(range(10)), sum(range(10, 20)), sum(range(20, 25))]
    empty = Series(0.1, *(np.empty(0, np.int64) for _ in range(4))).per(1.0)
    assert len(empty.lost) == 0
