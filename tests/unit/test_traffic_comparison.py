"""Kernel and VPP compared: the highest rate of a device with a known capacity, gains, cycles per packet."""

from __future__ import annotations

import numpy as np
import pytest

from router_agent.traffic.counters.source import DropClass, Side
from router_agent.traffic.generators.generator import Series, TrialResult
from router_agent.traffic.judgement.ledger import Ledger, balance
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.comparison import compare_one, gains, highest_rate
from router_agent.traffic.measurements.trial import RunTrial
from router_agent.traffic.scenario import FrameSizes, Goal


def machine(
    capacity: float, offerable: float, *, side: Side = Side.DEVICE, uneven: bool = False
) -> tuple[RunTrial, list[float]]:
    """A device that forwards so many packets a second, and a generator that offers no more than it can."""
    rates: list[float] = []

    def run(rate_pps: float, duration_s: float) -> tuple[TrialResult, Ledger]:
        rates.append(rate_pps)
        n = round(duration_s / 0.1)
        sent = np.full(n, round(0.1 * min(rate_pps, offerable)), np.int64)
        received = np.minimum(sent, round(0.1 * capacity))
        if uneven:
            received[::2] //= 2
        intended = np.full(n, round(0.1 * rate_pps), np.int64)
        trial = TrialResult(
            rate_pps=rate_pps,
            duration_s=duration_s,
            offered_s=duration_s,
            intended=int(intended.sum()),
            sent=int(sent.sum()),
            received=int(received.sum()),
            received_by_port=(int(received.sum()),),
            series=Series(0.1, intended, sent, received, sent - received),
        )
        drops = [DropClass("queue full", trial.lost, side, "queue")]
        moved = {"device": {"/sys/node/vectors/1/ip4-lookup": 10, "/sys/node/clocks/1/ip4-lookup": 700}}
        return trial, balance(trial.sent, trial.received, drops, moved)

    return run, rates


def test_the_load_rises_until_no_more_comes_out() -> None:
    run, rates = machine(2e6, 100e6)
    peak = highest_rate(run, first_pps=1e5, most_pps=60e6, trial_s=0.5)
    assert peak.pps == pytest.approx(2e6)
    assert peak.limit.startswith("the device: ")
    assert "were lost" in peak.limit
    assert rates == sorted(rates)
    assert 2e6 * 1.5 < rates[-1] < 60e6
    assert peak.cycles == 70


def test_a_generator_that_is_exhausted_first_is_named() -> None:
    run, _ = machine(2e6, 5e5)
    peak = highest_rate(run, first_pps=1e5, most_pps=60e6, trial_s=0.5)
    assert peak.pps == pytest.approx(5e5)
    assert peak.limit.startswith("the generator: 500,000 of")
    assert "lower bound" in peak.limit


def test_a_tester_that_cannot_receive_is_named() -> None:
    run, _ = machine(2e6, 100e6, side=Side.TESTER)
    peak = highest_rate(run, first_pps=1e5, most_pps=60e6, trial_s=0.5)
    assert peak.limit == "the generator's receiving side; the rate is a lower bound"


def test_no_load_is_above_the_most() -> None:
    run, rates = machine(1e9, 1e9)
    peak = highest_rate(run, first_pps=1e5, most_pps=1e6, trial_s=0.5)
    assert max(rates) <= 1e6
    assert peak.pps == pytest.approx(max(rates), rel=1e-3)


@pytest.mark.parametrize(("uneven", "outcome"), [(False, Outcome.PASS), (True, Outcome.FAIL)])
def test_the_steady_trial_offers_a_part_and_tells_variation(uneven: bool, outcome: Outcome) -> None:
    run, rates = machine(2e6, 100e6, uneven=uneven)
    found = compare_one(
        run, FrameSizes.of(64), forwarder="VPP", wires="memif", routes=10, first_pps=1e5, most_pps=60e6,
        steady_s=2.0, share=0.5, goal=Goal(),
    )  # fmt: skip
    assert rates[-1] == pytest.approx(0.5 * found.highest_pps)
    assert found.verdict.outcome is outcome
    assert (found.variation > 0.3) is uneven
    assert found.cycles == 70


def test_gains_are_by_table_and_only_where_both_were_measured() -> None:
    def found(forwarder: str, routes: int, pps: float) -> object:
        run, _ = machine(pps, 1e9)
        return compare_one(
            run, FrameSizes.of(64), forwarder=forwarder, wires="", routes=routes, first_pps=1e4,
            most_pps=60e6, goal=Goal(),
        )  # fmt: skip

    runs = [found("kernel", 1, 1e6), found("VPP", 1, 9e6), found("kernel", 9, 1e6)]
    assert gains(runs) == {1: pytest.approx(9.0, rel=0.01)}  # type: ignore[arg-type]
