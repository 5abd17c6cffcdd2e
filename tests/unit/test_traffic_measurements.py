"""Loss curve, back-to-back frames, latency and soak: what they find of a device whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.generators.latency import Latency
from router_agent.traffic.judgement.ledger import Ledger
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.back_to_back import corrected_buffer_s, measure_back_to_back
from router_agent.traffic.measurements.latency import judge_latency, measure_latency
from router_agent.traffic.measurements.loss_curve import measure_loss_curve
from router_agent.traffic.measurements.soak import soak, variation_of
from router_agent.traffic.scenario import FrameSizes, Goal, LatencyBound, ScenarioError
from simulated_device import SimulatedDevice, series

SIZES = FrameSizes.of(64)


# the loss curve


@settings(max_examples=50, deadline=None)
@given(st.floats(0.15, 1.2))
def test_a_loss_curve_falls_until_two_trials_lose_nothing(capacity: float) -> None:
    device = SimulatedDevice(capacity * 100_000)
    curve = measure_loss_curve(device.run, SIZES, 100_000, 1.0)
    shares = [round(point.share, 6) for point in curve.points]
    assert shares == [round(1 - i / 10, 6) for i in range(len(shares))]
    for point in curve.points:
        assert point.lost == pytest.approx(max(0.0, point.rate_pps - device.capacity), abs=2)
    free = [point.lost == 0 for point in curve.points]
    enough = [i for i in range(1, len(free)) if free[i] and free[i - 1]]
    assert enough[:1] in ([], [len(free) - 1]), "it ends after the second"
    assert bool(enough) or len(free) == 10
    assert curve.verdict.outcome is Outcome.PASS


def test_a_curve_says_where_loss_ends_and_begins() -> None:
    curve = measure_loss_curve(SimulatedDevice(50_000).run, SIZES, 100_000, 1.0)
    assert curve.verdict.reason == "no loss at 50% (50,000 pps), 50.000% lost at 100 %"
    assert len(curve.points) == 7


def test_a_device_that_never_loses_says_so_after_two_trials() -> None:
    curve = measure_loss_curve(SimulatedDevice(1e9).run, SIZES, 100_000, 1.0)
    assert (curve.verdict.reason, len(curve.points)) == ("no loss even at 100 % (100,000 pps)", 2)


def test_a_device_that_always_loses_fails() -> None:
    curve = measure_loss_curve(SimulatedDevice(5_000).run, SIZES, 100_000, 1.0)
    assert curve.verdict.outcome is Outcome.FAIL
    assert "lost even at 10% (10,000 pps)" in curve.verdict.reason
    assert len(curve.points) == 10


def test_a_curve_beyond_the_generator_is_invalid() -> None:
    curve = measure_loss_curve(SimulatedDevice(1e9, generator=85_000).run, SIZES, 100_000, 1.0)
    assert curve.verdict.outcome is Outcome.INVALID
    assert "the tester was the limit at 100%, 90% of 100,000 pps" in curve.verdict.reason
    assert [point.valid for point in curve.points] == [False, False, True, True]


def test_steps_coarser_than_rfc_2544_allows_are_refused() -> None:
    for step in (0.2, 0.0):
        with pytest.raises(ScenarioError, match=r"26\.3"):
            measure_loss_curve(SimulatedDevice(1).run, SIZES, 1, step=step)


# back to back


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 0.95), st.integers(1, 20_000), st.integers(1, 4))
def test_the_buffer_is_found_behind_the_burst(share: float, buffer: int, repetitions: int) -> None:
    rate = 1e6
    device = SimulatedDevice(share * rate, buffer)
    found = measure_back_to_back(
        device.run, SIZES, rate, throughput_pps=device.capacity, repetitions=repetitions
    )
    assert found.verdict.outcome is Outcome.PASS
    longest = buffer / (1 - share)
    if longest >= 2 * rate:
        assert (found.bursts, found.longest_frames) == ((2_000_000,), 2_000_000)
        assert "keeps up with that rate" in found.verdict.reason
        return
    assert len(found.bursts) == repetitions
    slack = 3 + 0.011 * longest
    assert longest - slack <= found.least <= found.average <= found.most <= longest + 3
    assert found.corrected_buffer_s is not None
    assert found.corrected_buffer_s == pytest.approx(buffer / rate, abs=(slack + 1) / rate)
    assert found.implied_buffer_s == pytest.approx(found.average / rate)


class Noisy(SimulatedDevice):
    """Loses a packet in every fifth burst for no reason."""

    def run(self, rate_pps: float, duration_s: float) -> tuple[TrialResult, Ledger]:
        trial, ledger = super().run(rate_pps, duration_s)
        if len(self.asked) % 5 == 0 and trial.received:
            trial = replace(trial, received=trial.received - 1)
        return trial, ledger


def test_a_hiccup_is_no_full_buffer() -> None:
    found = measure_back_to_back(Noisy(500_000, 1_000).run, SIZES, 1e6, repetitions=10)
    assert found.least >= 1_970
    assert found.most <= 2_001
    assert found.corrected_buffer_s is None
    assert found.deviation < 20


def test_a_generator_too_slow_for_a_burst_is_the_limit() -> None:
    found = measure_back_to_back(SimulatedDevice(1e5, 10, generator=9e5).run, SIZES, 1e6)
    assert (found.verdict.outcome, found.bursts) == (Outcome.INVALID, ())
    assert "the generator was the limit" in found.verdict.reason


class Stretching(SimulatedDevice):
    """A generator that sends every packet, but takes longer for it than it was told."""

    def run(self, rate_pps: float, duration_s: float) -> tuple[TrialResult, Ledger]:
        trial, ledger = super().run(rate_pps, duration_s)
        return replace(trial, offered_s=2 * trial.offered_s), ledger


def test_a_stretched_burst_is_none() -> None:
    found = measure_back_to_back(Stretching(1e9).run, SIZES, 1e6)
    assert found.verdict.outcome is Outcome.INVALID
    assert "went out at 500,000 pps, expected 1,000,000" in found.verdict.reason


def test_a_device_without_any_buffer_fails() -> None:
    found = measure_back_to_back(SimulatedDevice(0, 0).run, SIZES, 1e6, repetitions=2)
    assert (found.verdict.outcome, found.bursts) == (Outcome.FAIL, (0, 0))


def test_the_correction_of_rfc_9004() -> None:
    assert corrected_buffer_s(26_000, 14_880_952, 13_000_000) == pytest.approx(220.8e-6, rel=0.01)
    assert corrected_buffer_s(100, 1e6, 2e6) == 0
    with pytest.raises(ScenarioError, match="at least one of each"):
        measure_back_to_back(SimulatedDevice(1).run, SIZES, 1e6, repetitions=0)


# latency


def test_latency_is_measured_at_parts_of_the_rate() -> None:
    device = SimulatedDevice(100_000, 1_000, delay_ns=20_000)
    runs = measure_latency(device.run, SIZES, 110_000, 1.0, goal=Goal())
    assert [round(rate) for rate, _ in device.asked] == [11_000, 55_000, 99_000]
    assert [run.verdict.outcome for run in runs] == [Outcome.PASS] * 3
    assert "p50 20.0 µs, p99 20.0 µs of 10,000 packets" in runs[0].verdict.reason


@pytest.mark.parametrize(
    ("device", "bounds", "outcome", "words"),
    [
        (SimulatedDevice(1e6, delay_ns=20_000), [(99.0, 20_100)], "PASS", "p99 20.0 µs"),
        (SimulatedDevice(1e6, delay_ns=20_000), [(99.0, 19_000)], "FAIL", "allowed 19.0 µs"),
        (SimulatedDevice(1e6), [], "INVALID", "measured no latency"),
        (SimulatedDevice(1e6, generator=1_000, delay_ns=1), [], "INVALID", "generator was the limit"),
        (SimulatedDevice(1_000, delay_ns=1), [], "FAIL", "packets lost"),
    ],
)
def test_latency_is_judged_by_bounds_and_loss(
    device: SimulatedDevice, bounds: list[tuple[float, int]], outcome: str, words: str
) -> None:
    goal = Goal(latency=tuple(LatencyBound(*bound) for bound in bounds))
    (run,) = measure_latency(device.run, SIZES, 10_000, 1.0, shares=(0.5,), goal=goal)
    assert run.verdict.outcome == outcome
    assert words in run.verdict.reason


def test_a_percentile_of_too_few_packets_is_noted() -> None:
    latency = Latency("test")
    latency.add(np.arange(1, 501, dtype=np.int64) * 1_000)
    verdict = judge_latency(latency, [LatencyBound(99.99, 400_000), LatencyBound(99, 500_000)])
    assert verdict.outcome is Outcome.FAIL
    assert verdict.notes == ("p99.99 of 500 packets is the highest latency of all",)


# soak


def test_a_soak_says_how_steady_it_was() -> None:
    found = soak(SimulatedDevice(1e6).run, SIZES, 10_000, 30.0, goal=Goal())
    assert (found.verdict.outcome, found.worst_second_lost, found.verdict.notes) == (Outcome.PASS, 0, ())
    assert found.variation == pytest.approx(0, abs=1e-3)
    assert found.trial.sent == 300_000


def test_the_worst_second_is_named() -> None:
    class OneBadSecond(SimulatedDevice):
        def run(self, rate_pps: float, duration_s: float) -> tuple[TrialResult, Ledger]:
            trial, ledger = super().run(rate_pps, duration_s)
            lost = np.zeros(30, np.int64)
            lost[17] = 500
            both = replace(trial.series, lost=lost, received=trial.series.received - lost)
            return replace(trial, received=trial.received - 500, series=both), replace(
                ledger, received=ledger.received - 500
            )

    found = soak(
        OneBadSecond(1e6).run,
        SIZES,
        10_000,
        30.0,
        goal=Goal(loss_ratio=0.01),
        explain=lambda trial, ledger: ["culprit"],
    )
    assert found.verdict.outcome is Outcome.PASS
    assert found.verdict.notes == ("the worst second is the one from 17 s on: 500 packets lost",)
    assert found.worst_second_lost == 500
    assert found.variation == pytest.approx(500 / 10_000 * np.sqrt(29) / 30, rel=0.02)
    assert found.culprits == ("culprit",)


def test_the_variation_leaves_the_rest_of_a_second_out() -> None:
    assert variation_of(series(1.0, [100, 100, 100, 3], [90, 110, 100, 10], [0, 0, 0, 0])) == pytest.approx(
        np.std([90, 110, 100]) / 100
    )
    assert variation_of(series(1.0, [100], [100], [0])) == 0
