"""Throughput in the field's terms: NDR and PDR in one search (RFC 9971), and RFC 2544's throughput.

NDR and PDR are FD.io CSIT's goals: trials of one second, 21 s of them decide about a load, and up to half of
these may be bad, so that one hiccup of a machine does not decide. RFC 2544 (26.1) wants trials of 60 s and
forgives nothing. Shorter ones are another goal, and are called so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.judgement.culprits import name_culprits
from router_agent.traffic.judgement.ledger import Ledger
from router_agent.traffic.judgement.verdict import Outcome, Verdict
from router_agent.traffic.measurements.results import RateSearch
from router_agent.traffic.measurements.search import RateGoal, SearchResult, find_rates
from router_agent.traffic.measurements.trial import Explain, Progress, RunTrial, silent
from router_agent.traffic.scenario import FrameSizes, Goal, Search

_WIDTH = 0.005
_CSIT_TRIAL_S, _CSIT_SUM_S, _CSIT_EXCEED = 1.0, 21.0, 0.5
_RFC2544_TRIAL_S = 60.0

NDR = RateGoal("NDR", 0.0, _CSIT_EXCEED, _CSIT_TRIAL_S, _CSIT_TRIAL_S, _CSIT_SUM_S, _WIDTH)
"""Non-drop rate: no loss."""

PDR = replace(NDR, name="PDR", loss_ratio=0.005)
"""Partial drop rate: half a percent lost."""

RFC2544_THROUGHPUT = RateGoal(
    "RFC 2544 throughput", 0.0, 0.0, 1.0, _RFC2544_TRIAL_S, _RFC2544_TRIAL_S, _WIDTH
)
"""The throughput of RFC 2544 26.1, as a goal of RFC 9971."""


def shortened(
    goal: RateGoal,
    *,
    trial_s: float | None = None,
    duration_sum_s: float | None = None,
    relative_width: float | None = None,
) -> RateGoal:
    """Return a goal with other durations or another width, and with a name that says so.

    Args:
        goal: `NDR`, `PDR`, `RFC2544_THROUGHPUT` or one of your own.
        trial_s: length of the trials that decide.
        duration_sum_s: those of one load together; at least one trial.
        relative_width: how near the answer shall be.

    Raises:
        ScenarioError: the durations make no sense.
    """
    final = goal.final_trial_s if trial_s is None else trial_s
    ratio = goal.duration_sum_s / goal.final_trial_s
    total = final * ratio if duration_sum_s is None else duration_sum_s
    width = goal.relative_width if relative_width is None else relative_width
    changed = [
        *(
            [f"trials of {final:g} s instead of {goal.final_trial_s:g} s"]
            if final != goal.final_trial_s
            else []
        ),
        *(
            [f"{total:g} s instead of {goal.duration_sum_s:g} s a load"]
            if total != goal.duration_sum_s
            else []
        ),
        *([f"width {width:g}"] if width != goal.relative_width else []),
    ]
    return replace(
        goal,
        name=f"{goal.name} ({', '.join(changed)})" if changed else goal.name,
        initial_trial_s=min(goal.initial_trial_s, final),
        final_trial_s=final,
        duration_sum_s=total,
        relative_width=width,
    )


def search_rates(
    run: RunTrial,
    sizes: FrameSizes,
    search: Search,
    goals: Sequence[RateGoal] = (NDR, PDR),
    *,
    wanted_pps: float | None = None,
    unsent_ratio: float = Goal().unsent_ratio,
    explain: Explain = name_culprits,
    progress: Progress = silent,
) -> tuple[RateSearch, ...]:
    """Search for the rates of all goals at once and judge them.

    Args:
        run: runs a trial.
        sizes: frame sizes, for the report.
        search: bounds of the load and the time it may take.
        goals: what to look for.
        wanted_pps: the rate that each must reach to pass; None passes whatever is found.
        unsent_ratio: see `Goal`.
        explain: names the culprits of the slowest trial that missed a goal.
        progress: told of every trial; its done share is that of the time allowed.

    Returns:
        One for each goal, in their order.
    """
    count, seconds = 0, 0.0
    slowest: dict[RateGoal, tuple[TrialResult, Ledger]] = {}

    def told(rate_pps: float, duration_s: float) -> tuple[TrialResult, Ledger]:
        nonlocal count, seconds
        count += 1
        done = min(1.0, seconds / search.limit_s)
        progress("search", done, f"trial {count} at {rate_pps:,.0f} pps for {duration_s:g} s")
        seconds += duration_s
        trial, ledger = run(rate_pps, duration_s)
        for goal in goals:
            missed = trial.unsent_ratio <= unsent_ratio and trial.loss_ratio > goal.loss_ratio
            if missed and (goal not in slowest or rate_pps < slowest[goal][0].rate_pps):
                slowest[goal] = trial, ledger
        return trial, ledger

    found = find_rates(search, goals, told, unsent_ratio=unsent_ratio)
    progress("search", 1.0, "; ".join(f"{g.name}: {f.reason}" for g, f in zip(goals, found, strict=True)))
    return tuple(
        RateSearch(
            goal.name,
            sizes,
            goal.loss_ratio,
            goal.final_trial_s,
            result,
            judge_rate(result, wanted_pps),
            tuple(explain(*slowest[goal])) if goal in slowest else (),
            goal.exceed_ratio,
            goal.duration_sum_s,
            goal.relative_width,
        )
        for goal, result in zip(goals, found, strict=True)
    )


def judge_rate(found: SearchResult, wanted_pps: float | None) -> Verdict:
    """Judge what a search found by the rate that is wanted; never better than what was shown.

    A search that the tester ended below the wanted rate is INVALID: nobody knows what the device would do.
    """
    if found.outcome is Outcome.INVALID or wanted_pps is None:
        return Verdict(found.outcome, found.reason)
    if found.rate_pps is not None and found.rate_pps >= wanted_pps:
        return Verdict(Outcome.PASS, f"{found.reason}; {wanted_pps:,.0f} pps is wanted")
    wanted = f"{found.reason}, below the {wanted_pps:,.0f} pps that are wanted"
    if found.outcome is Outcome.PASS and found.upper_pps is None:
        why = found.limit or "the search was told to go no higher"
        return Verdict(Outcome.INVALID, f"{wanted}: {why}")
    return Verdict(Outcome.FAIL, wanted)
