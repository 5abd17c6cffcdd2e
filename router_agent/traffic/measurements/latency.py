"""Latency percentiles at parts of a rate (after RFC 2544 26.2), judged by bounds.

At the throughput itself every queue is full, and the figure says how long the queues are; at a tenth of it,
what forwarding takes. Hence several parts.
"""

from __future__ import annotations

from collections.abc import Sequence

from router_agent.traffic.generators.latency import Latency
from router_agent.traffic.judgement.verdict import Outcome, Verdict, judge_trial
from router_agent.traffic.measurements.results import LatencyRun
from router_agent.traffic.measurements.trial import Progress, RunTrial, silent
from router_agent.traffic.scenario import FrameSizes, Goal, LatencyBound

SHARES = (0.1, 0.5, 0.9)
"""Parts of the rate at which latency is measured."""


def measure_latency(
    run: RunTrial,
    sizes: FrameSizes,
    rate_pps: float,
    duration_s: float = 10.0,
    *,
    shares: Sequence[float] = SHARES,
    goal: Goal,
    progress: Progress = silent,
) -> tuple[LatencyRun, ...]:
    """Measure latencies at parts of a rate.

    Args:
        run: runs a trial, whose result has latencies.
        sizes: frame sizes, for the report.
        rate_pps: 100 %: the rate that was found, or that is asked for.
        duration_s: of each trial.
        shares: the parts.
        goal: its bounds and its loss ratio, as lost packets have no latency.
        progress: told of every trial.
    """
    runs: list[LatencyRun] = []
    for number, share in enumerate(shares):
        rate = share * rate_pps
        progress("latency", number / len(shares), f"{share:.0%}, {rate:,.0f} pps")
        trial, ledger = run(rate, duration_s)
        verdict = judge_trial(trial, ledger, goal)
        if verdict.outcome is Outcome.PASS:
            verdict = judge_latency(trial.latency, goal.latency, verdict.notes)
        runs.append(LatencyRun(sizes, share, rate, trial.latency, verdict, trial.duration_s))
    progress("latency", 1.0, "; ".join(f"{run.share:.0%}: {run.verdict.reason}" for run in runs))
    return tuple(runs)


def judge_latency(
    latency: Latency | None, bounds: Sequence[LatencyBound], notes: tuple[str, ...] = ()
) -> Verdict:
    """Judge latencies by their bounds; without any, whether there are latencies.

    A percentile of too few packets is the highest latency of them, which is never too good. That is noted.
    """
    if latency is None or not len(latency):
        return Verdict(Outcome.INVALID, "the generator measured no latency", notes)
    coarse = [
        b.percentile for b in bounds if len(latency) * (1 - b.percentile / 100) < 1 and b.percentile < 100
    ]
    notes += tuple(f"p{p:g} of {len(latency):,} packets is the highest latency of all" for p in coarse)
    over = [b for b in bounds if latency.percentile(b.percentile) > b.most_ns]
    if over:
        found = ", ".join(
            f"p{b.percentile:g} is {microseconds(latency.percentile(b.percentile))}, allowed "
            f"{microseconds(b.most_ns)}"
            for b in over
        )
        return Verdict(Outcome.FAIL, found, notes)
    shown = sorted({50.0, 99.0, *(b.percentile for b in bounds)})
    figures = ", ".join(f"p{p:g} {microseconds(latency.percentile(p))}" for p in shown)
    return Verdict(Outcome.PASS, f"{figures} of {len(latency):,} packets", notes)


def microseconds(nanoseconds: float) -> str:
    """Return a latency in words."""
    return f"{nanoseconds / 1000:,.1f} µs"
