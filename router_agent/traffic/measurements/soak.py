"""A long trial: whether the goal is met for as long as that, and how steadily.

One lossy second in an hour is 0.03 %: the ratio hides it, the worst second does not.
"""

from __future__ import annotations

import numpy as np

from router_agent.traffic.generators.generator import Series
from router_agent.traffic.judgement.culprits import name_culprits
from router_agent.traffic.judgement.verdict import Outcome, Verdict, judge_trial
from router_agent.traffic.measurements.results import Soak
from router_agent.traffic.measurements.trial import Explain, Progress, RunTrial, silent
from router_agent.traffic.scenario import FrameSizes, Goal

SOAK_S = 600.0
_SECOND = 1.0
_LEAST_SECONDS = 2
_WHOLE = 0.99
"""A second in which less than this part of the most was to be sent is the rest of a trial."""


def soak(
    run: RunTrial,
    sizes: FrameSizes,
    rate_pps: float,
    duration_s: float = SOAK_S,
    *,
    goal: Goal,
    explain: Explain = name_culprits,
    progress: Progress = silent,
) -> Soak:
    """Offer a rate for long and judge it.

    Args:
        run: runs a trial.
        sizes: frame sizes, for the report.
        rate_pps: offered load.
        duration_s: how long.
        goal: what is good enough.
        explain: names culprits.
        progress: told of the beginning and the end.
    """
    progress("soak", 0.0, f"{rate_pps:,.0f} pps for {duration_s:g} s")
    trial, ledger = run(rate_pps, duration_s)
    seconds = trial.series.per(_SECOND)
    worst = int(np.argmax(seconds.lost)) if len(seconds.lost) else 0
    lost = int(seconds.lost[worst]) if len(seconds.lost) else 0
    verdict = judge_trial(trial, ledger, goal)
    if lost and verdict.outcome is not Outcome.INVALID:
        note = (
            f"the worst second is the one from {worst * seconds.interval_s:.0f} s on: {lost:,} packets lost"
        )
        verdict = Verdict(verdict.outcome, verdict.reason, (*verdict.notes, note))
    progress("soak", 1.0, verdict.reason)
    return Soak(
        sizes,
        trial,
        ledger,
        variation_of(seconds),
        max(0, lost),
        verdict,
        tuple(explain(trial, ledger)),
    )


def variation_of(seconds: Series) -> float:
    """Return standard deviation over mean of the packets received in whole seconds; 0 of fewer than two."""
    whole = seconds.intended >= _WHOLE * seconds.intended.max(initial=0)
    received = seconds.received[whole & (seconds.intended > 0)]
    if len(received) < _LEAST_SECONDS or not received.any():
        return 0.0
    return float(received.std() / received.mean())
