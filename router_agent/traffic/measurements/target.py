"""The target check: one trial at the rate that is asked for, long enough to mean something.

It comes first, because it answers the question of a gate in seconds; a search takes minutes.
"""

from __future__ import annotations

from router_agent.traffic.judgement.culprits import name_culprits
from router_agent.traffic.judgement.verdict import judge_trial
from router_agent.traffic.measurements.results import Target
from router_agent.traffic.measurements.trial import Explain, Progress, RunTrial, silent
from router_agent.traffic.scenario import FrameSizes, Goal

TARGET_S = 12.0
"""Shows rings that fill slowly and what a router does every ten seconds, and is soon over."""

RFC2544_S = 60.0
"""RFC 2544 section 24: the least duration of a trial."""


def check_target(
    run: RunTrial,
    sizes: FrameSizes,
    rate_pps: float,
    duration_s: float = TARGET_S,
    *,
    goal: Goal,
    explain: Explain = name_culprits,
    progress: Progress = silent,
) -> Target:
    """Offer the target rate once and judge it.

    Args:
        run: runs a trial.
        sizes: frame sizes, for the report.
        rate_pps: the target, all sending ports together.
        duration_s: `TARGET_S`, or `RFC2544_S` for a trial as RFC 2544 wants it.
        goal: what is good enough.
        explain: names culprits.
        progress: told of the beginning and the end.
    """
    progress("trial", 0.0, f"{rate_pps:,.0f} pps for {duration_s:g} s")
    trial, ledger = run(rate_pps, duration_s)
    verdict = judge_trial(trial, ledger, goal)
    progress("trial", 1.0, verdict.reason)
    return Target(sizes, trial, ledger, verdict, tuple(explain(trial, ledger)))
