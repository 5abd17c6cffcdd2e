"""Target check, NDR and PDR, RFC 2544 throughput: what they find of a device whose answer is known."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.judgement.ledger import Ledger
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.rates import (
    NDR,
    PDR,
    RFC2544_THROUGHPUT,
    judge_rate,
    search_rates,
    shortened,
)
from router_agent.traffic.measurements.search import RateGoal, SearchResult, find_rates
from router_agent.traffic.measurements.target import RFC2544_S, check_target
from router_agent.traffic.scenario import FrameSizes, Goal, ScenarioError, Search
from simulated_device import SimulatedDevice

SIZES = FrameSizes.of(64)
WIDE = Search(1_000, 1_000_000, limit_s=600)


def test_a_target_that_is_met_passes_in_one_trial() -> None:
    device = SimulatedDevice(100_000)
    told: list[tuple[str, float]] = []
    target = check_target(
        device.run,
        SIZES,
        90_000,
        RFC2544_S,
        goal=Goal(),
        progress=lambda stage, done, _: told.append((stage, done)),
    )
    assert (target.verdict.outcome, target.trial.sent) == (Outcome.PASS, 5_400_000)
    assert device.asked == [(90_000, 60.0)]
    assert told == [("trial", 0.0), ("trial", 1.0)]


def test_a_target_that_is_missed_fails_with_its_culprits() -> None:
    target = check_target(
        SimulatedDevice(100_000).run,
        SIZES,
        110_000,
        goal=Goal(),
        explain=lambda trial, ledger: [f"{ledger.drops[0].name} at {trial.rate_pps:,.0f} pps"],
    )
    assert target.verdict.outcome is Outcome.FAIL
    assert target.trial.lost == 12 * 10_000
    assert target.culprits == ("queue full at 110,000 pps",)


def test_a_target_beyond_the_generator_is_invalid() -> None:
    target = check_target(SimulatedDevice(1e9, generator=50_000).run, SIZES, 60_000, goal=Goal())
    assert target.verdict.outcome is Outcome.INVALID
    assert "generator was the limit" in target.verdict.reason


@settings(max_examples=25, deadline=None)
@given(st.floats(2_000, 900_000), st.integers(0, 500))
def test_ndr_and_pdr_are_found_within_their_width_in_one_search(capacity: float, buffer: int) -> None:
    device = SimulatedDevice(capacity, buffer)
    ndr, pdr = search_rates(device.run, SIZES, WIDE)
    assert (ndr.name, pdr.name) == ("NDR", "PDR")
    for found, best in ((ndr.found, capacity + buffer), (pdr.found, (capacity + buffer) / 0.995)):
        assert found.rate_pps is not None
        assert found.upper_pps is not None
        # a trial's packets are whole
        assert found.rate_pps <= best + 2
        assert found.upper_pps >= best - 2
        assert (found.upper_pps - found.rate_pps) / found.upper_pps <= 0.0051
        assert found.forwarded_pps == pytest.approx(min(found.rate_pps, capacity + buffer), rel=0.01)
    assert ndr.found.rate_pps is not None
    assert pdr.found.rate_pps is not None
    assert ndr.found.rate_pps <= pdr.found.rate_pps
    assert ndr.found.trials is pdr.found.trials
    assert len(ndr.found.trials) == len(device.asked)


def test_one_search_takes_fewer_trials_than_two() -> None:
    together, apart = SimulatedDevice(345_678), SimulatedDevice(345_678)
    search_rates(together.run, SIZES, WIDE)
    for goal in (NDR, PDR):
        search_rates(apart.run, SIZES, WIDE, (goal,))
    assert len(together.asked) < len(apart.asked)


class Hiccups(SimulatedDevice):
    """Loses one packet every three seconds of traffic, whatever its rate."""

    def run(self, rate_pps: float, duration_s: float) -> tuple[TrialResult, Ledger]:
        before = sum(seconds for _, seconds in self.asked) // 3
        trial, ledger = super().run(rate_pps, duration_s)
        gone = int(sum(seconds for _, seconds in self.asked) // 3 - before)
        return replace(trial, received=trial.received - gone), replace(
            ledger, received=ledger.received - gone
        )


def test_csit_goals_forgive_a_hiccup_and_rfc_2544_does_not() -> None:
    (ndr,) = search_rates(Hiccups(200_000).run, SIZES, WIDE, (NDR,))
    assert ndr.found.rate_pps == pytest.approx(200_000, rel=0.006)
    (throughput,) = search_rates(Hiccups(200_000).run, SIZES, WIDE, (RFC2544_THROUGHPUT,))
    assert (throughput.found.outcome, throughput.found.rate_pps) == (Outcome.FAIL, None)


def test_rfc_2544_takes_trials_of_a_minute_and_decides_by_one() -> None:
    device = SimulatedDevice(50_000)
    (found,) = search_rates(device.run, SIZES, WIDE, (RFC2544_THROUGHPUT,))
    assert found.found.rate_pps == pytest.approx(50_000, rel=0.006)
    assert found.trial_s == 60.0
    assert {duration for rate, duration in device.asked if rate == found.found.rate_pps} >= {60.0}
    assert device.asked[0] == (1_000_000, 1.0), "a short trial shows first whether the generator can"


def test_a_goal_with_other_durations_is_called_so() -> None:
    assert shortened(NDR) == NDR
    changed = shortened(RFC2544_THROUGHPUT, trial_s=10)
    assert changed.name == (
        "RFC 2544 throughput (trials of 10 s instead of 60 s, 10 s instead of 60 s a load)"
    )
    assert (changed.final_trial_s, changed.duration_sum_s, changed.loss_ratio) == (10, 10, 0.0)
    assert shortened(PDR, duration_sum_s=5).name == "PDR (5 s instead of 21 s a load)"
    assert shortened(NDR, trial_s=0.5).duration_sum_s == 10.5
    with pytest.raises(ScenarioError, match="expected 0 < initial <= final <= sum"):
        shortened(NDR, duration_sum_s=0.5)
    with pytest.raises(ScenarioError, match=r"relative_width is 1\.5"):
        shortened(NDR, relative_width=1.5)
    with pytest.raises(ScenarioError, match=r"loss_ratio is 1\.0"):
        RateGoal("x", 1.0, 0.0, 1, 1, 1, 0.1)


def test_a_tester_that_takes_in_too_little_lowers_the_search() -> None:
    device = SimulatedDevice(1e9, tester=300_000)
    (ndr,) = find_rates(WIDE, (NDR,), device.run)
    assert ndr.rate_pps == pytest.approx(270_000)
    assert (ndr.upper_pps, ndr.limit) == (None, "the tester could take in no more")
    assert "at least 270,000 pps; the tester could take in no more" in ndr.reason


def test_culprits_are_those_of_the_slowest_trial_that_missed() -> None:
    (ndr,) = search_rates(
        SimulatedDevice(123_456).run,
        SIZES,
        WIDE,
        (NDR,),
        explain=lambda trial, ledger: [f"{trial.rate_pps:.0f}"],
    )
    assert ndr.found.upper_pps is not None
    assert ndr.culprits == (f"{ndr.found.upper_pps:.0f}",)


def found(outcome: Outcome, rate: float | None, upper: float | None, limit: str = "") -> SearchResult:
    return SearchResult(outcome, "found", rate, upper, (), limit=limit)


@pytest.mark.parametrize(
    ("result", "wanted", "outcome", "words"),
    [
        (found(Outcome.PASS, 100, 101), None, "PASS", "found"),
        (found(Outcome.PASS, 100, 101), 100, "PASS", "100 pps is wanted"),
        (found(Outcome.PASS, 100, 101), 150, "FAIL", "below the 150 pps"),
        (
            found(Outcome.PASS, 100, None, "the generator could offer no more"),
            150,
            "INVALID",
            "offer no more",
        ),
        (found(Outcome.PASS, 100, None), 150, "INVALID", "told to go no higher"),
        (found(Outcome.PASS, 200, None, "the generator could offer no more"), 150, "PASS", "is wanted"),
        (found(Outcome.FAIL, None, 10), 150, "FAIL", "below"),
        (found(Outcome.FAIL, None, 10), None, "FAIL", "found"),
        (found(Outcome.INVALID, 100, None), 50, "INVALID", "found"),
    ],
)
def test_a_rate_is_judged_by_what_was_shown(
    result: SearchResult, wanted: float | None, outcome: str, words: str
) -> None:
    verdict = judge_rate(result, wanted)
    assert verdict.outcome == outcome
    assert words in verdict.reason


def test_a_search_that_begins_again_has_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less is left than a trial of the search's own length; the goals' trials are shorter."""
    clock = iter([0.0, 0.0, 9.5] + [9.5] * 10_000)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    goal = shortened(NDR, trial_s=0.1, duration_sum_s=0.1, relative_width=0.1)
    search = Search(1_000, 1_000_000, limit_s=10)
    (found,) = find_rates(search, (goal,), SimulatedDevice(1e9, generator=50_000).run)
    assert found.outcome is Outcome.PASS, found.reason
    assert found.rate_pps == pytest.approx(45_000)
