"""Kernel forwarding and VPP forwarding in one run: how fast each is, and how steady.

Each is measured the same way, with the same frames and the same table:

1. The offered load rises until no more comes out, whatever is lost: the maximum forwarding rate (RFC 2285
   3.6.2). If the generator is exhausted before the device is, that is said, and the rate is a lower bound.
2. A part of that rate is offered for some seconds. What is lost there, and how the packets received in each
   100 ms vary, shows which one is steady.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router_agent.traffic.counters.source import Side
from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.judgement.culprits import name_culprits
from router_agent.traffic.judgement.ledger import Ledger
from router_agent.traffic.judgement.prediction import cycles
from router_agent.traffic.judgement.verdict import judge_trial
from router_agent.traffic.measurements.results import ForwardingRun
from router_agent.traffic.measurements.soak import variation_of
from router_agent.traffic.measurements.trial import Explain, Progress, RunTrial, offered_pps, silent
from router_agent.traffic.scenario import FrameSizes, Goal

INTERVAL_S = 0.1
"""Resolution of the series that are compared."""

_SIGNIFICANT = 0.01
"""Part of the packets sent that is too much to be a chance loss."""

_FACTOR = 1.5
_LEAST_GROWTH = 1.05
"""A load that brings out less than so many times the best so far is beyond what the device does."""
_PATIENCE = 2
"""Loads in turn that bring out no more, before the last word is spoken."""


@dataclass(frozen=True)
class Peak:
    """The maximum forwarding rate.

    Attributes:
        pps: packets a second.
        limit: what it was limited by, in words.
        cycles: of the device's graph nodes for each packet meanwhile; None where nobody counts them.
    """

    pps: float
    limit: str
    cycles: float | None = None


def compare_one(
    run: RunTrial,
    sizes: FrameSizes,
    *,
    forwarder: str,
    wires: str,
    routes: int,
    first_pps: float,
    most_pps: float,
    ramp_s: float = 0.5,
    steady_s: float = 5.0,
    share: float = 0.7,
    goal: Goal,
    explain: Explain = name_culprits,
    progress: Progress = silent,
) -> ForwardingRun:
    """Measure one forwarder with one table.

    Args:
        run: runs a trial; its series must be no coarser than `INTERVAL_S`.
        sizes: frame sizes.
        forwarder: "kernel" or "VPP".
        wires: what its ports are made of, in words.
        routes: routes in its table.
        first_pps: the first load.
        most_pps: no load is higher.
        ramp_s: length of the trials that look for the highest rate.
        steady_s: length of the steady trial.
        share: its part of the highest rate.
        goal: what the steady trial is judged by.
        explain: names culprits.
        progress: told what is going on.
    """
    what = f"{forwarder} by {wires}, {routes:,} routes"
    peak = highest_rate(
        run, first_pps=first_pps, most_pps=most_pps, trial_s=ramp_s, what=what, progress=progress
    )
    rate_pps = max(1.0, share * peak.pps)
    progress("comparison", 0.5, f"{what}: {rate_pps:,.0f} pps for {steady_s:g} s")
    trial, ledger = run(rate_pps, steady_s)
    return ForwardingRun(
        forwarder=forwarder,
        wires=wires,
        routes=routes,
        sizes=sizes,
        highest_pps=peak.pps,
        limit=peak.limit,
        share=share,
        trial=trial,
        ledger=ledger,
        variation=variation_of(trial.series.per(INTERVAL_S)),
        verdict=judge_trial(trial, ledger, goal),
        culprits=tuple(explain(trial, ledger)),
        cycles=peak.cycles,
    )


def highest_rate(
    run: RunTrial,
    *,
    first_pps: float,
    most_pps: float,
    trial_s: float,
    what: str = "",
    progress: Progress = silent,
) -> Peak:
    """Raise the load until no more comes out; see the module's text.

    Args:
        run: runs a trial.
        first_pps: the first load; each is half as high again as the last.
        most_pps: no load is higher.
        trial_s: length of a trial.
        what: what is measured, for `progress`.
        progress: told the rate of each trial.
    """
    best, in_vain = Peak(0.0, "no load was offered"), 0
    rate_pps = first_pps
    while rate_pps <= most_pps and in_vain < _PATIENCE:
        progress("comparison", 0.0, f"{what}: {rate_pps:,.0f} pps")
        trial, ledger = run(rate_pps, trial_s)
        received_pps = trial.received / trial.offered_s if trial.offered_s > 0 else 0.0
        in_vain = 0 if received_pps > _LEAST_GROWTH * best.pps else in_vain + 1
        if received_pps > best.pps:
            cost = cycles(ledger.moved)
            best = Peak(
                received_pps, _limit(trial, ledger, most_pps), None if cost is None else cost.per_packet
            )
        rate_pps *= _FACTOR
    return best


def _limit(trial: TrialResult, ledger: Ledger, most_pps: float) -> str:
    """Return what bounded the best trial: who lost packets; without loss, who could not send more."""
    tester = ledger.dropped(Side.TESTER)
    if trial.lost > max(tester, _SIGNIFICANT * trial.sent):
        return f"the device: {trial.loss_ratio:.1%} of {offered_pps(trial):,.0f} pps were lost"
    if tester > _SIGNIFICANT * trial.sent:
        return "the generator's receiving side; the rate is a lower bound"
    if trial.unsent_ratio > Goal().unsent_ratio:
        return (
            f"the generator: {offered_pps(trial):,.0f} of {trial.rate_pps:,.0f} pps offered; the rate is a "
            "lower bound"
        )
    return f"the device: loads above {trial.rate_pps:,.0f} pps, up to {most_pps:,.0f}, brought out no more"


def gains(runs: Sequence[ForwardingRun]) -> dict[int, float]:
    """Return, by routes in the table, how many times the kernel's highest rate is VPP's."""
    rates = {(run.forwarder, run.routes): run.highest_pps for run in runs}
    return {
        routes: rates["VPP", routes] / pps
        for (forwarder, routes), pps in rates.items()
        if forwarder == "kernel" and pps and ("VPP", routes) in rates
    }
