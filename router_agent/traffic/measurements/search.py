"""The highest rate that meets the goal, found by MLRsearch (RFC 9971, PyPI ``MLRsearch``).

The algorithm asks for trials at loads of its choice; `TrialMeasurer` runs them and passes on what was
offered and what was lost. A trial the generator could not offer is no measurement of the device: it is tried
once more, and then the search begins again below what the generator can do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from MLRsearch import AbstractMeasurer, Config, MeasurementResult, MultipleLossRatioSearch, SearchGoal

from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.judgement.ledger import Ledger
from router_agent.traffic.judgement.verdict import Outcome, judge_trial
from router_agent.traffic.scenario import Goal, Search

_BELOW_GENERATOR = 0.9
"""The upper bound is put so far below what the generator reached."""

_ROUNDS_LEFT = 4
"""A search is begun again only when there is time for so many trials."""

RunTrial = Callable[[float, float], tuple[TrialResult, Ledger]]
"""Runs one trial of (rate in pps, duration in seconds)."""


@dataclass(frozen=True)
class SearchTrial:
    """One trial of a search, in the order they were run."""

    rate_pps: float
    duration_s: float
    sent: int
    lost: int
    unsent: int
    valid: bool


@dataclass(frozen=True)
class SearchResult:
    """Outcome of a search.

    Attributes:
        outcome: PASS when the rate was found, FAIL when even `min_pps` does not meet the goal, INVALID when
            the generator or the tester was the limit, or time ran out.
        reason: in words.
        rate_pps: the highest rate that meets the goal (the relevant lower bound); None when there is none.
        upper_pps: the lowest rate found not to meet it; None when every rate tried does.
        trials: every trial.
    """

    outcome: Outcome
    reason: str
    rate_pps: float | None
    upper_pps: float | None
    trials: tuple[SearchTrial, ...]


class InvalidTrialError(Exception):
    """A trial says nothing about the device, twice in a row.

    Attributes:
        rate_pps: the load that was asked for.
        offered_pps: what the generator reached, when that was the reason; else 0.
    """

    def __init__(self, rate_pps: float, offered_pps: float, reason: str) -> None:
        super().__init__(reason)
        self.rate_pps = rate_pps
        self.offered_pps = offered_pps


class TrialMeasurer(AbstractMeasurer):  # type: ignore[misc]
    """MLRsearch's view of our trials."""

    def __init__(self, run: RunTrial, goal: Goal) -> None:
        self._run = run
        self._goal = goal
        self.trials: list[SearchTrial] = []

    def measure(self, intended_duration: float, intended_load: float) -> Any:
        """Run one trial; see ``AbstractMeasurer.measure``.

        Raises:
            InvalidTrialError: the trial was invalid, twice.
        """
        offered_pps, reason = 0.0, ""
        for _ in range(2):
            trial, ledger = self._run(intended_load, intended_duration)
            verdict = judge_trial(trial, ledger, self._goal)
            valid = verdict.outcome is not Outcome.INVALID
            self.trials.append(
                SearchTrial(intended_load, intended_duration, trial.sent, trial.lost, trial.unsent, valid)
            )
            if valid:
                return MeasurementResult(
                    intended_duration=intended_duration,
                    intended_load=intended_load,
                    offered_count=trial.sent,
                    loss_count=trial.lost,
                    offered_duration=trial.offered_s,
                )
            reason = verdict.reason
            if trial.unsent_ratio > self._goal.unsent_ratio and trial.offered_s > 0:
                offered_pps = max(offered_pps, trial.sent / trial.offered_s)
        raise InvalidTrialError(intended_load, offered_pps, reason)


def find_rate(search: Search, goal: Goal, run: RunTrial) -> SearchResult:
    """Search for the highest rate that meets the goal.

    A generator that cannot reach the upper bound lowers it, and the answer then says "at least".
    """
    measurer = TrialMeasurer(run, goal)
    started = time.monotonic()
    top, limited = search.max_pps, False
    while True:
        left_s = search.limit_s - (time.monotonic() - started)
        try:
            lower, upper = _bounds(replace(search, max_pps=top, limit_s=left_s), goal, measurer)
            break
        except InvalidTrialError as error:
            lowered = _BELOW_GENERATOR * min(error.offered_pps, error.rate_pps)
            if lowered > search.min_pps and left_s > _ROUNDS_LEFT * search.trial_s:
                top, limited = lowered, True
                continue
            reason = f"the search could not be finished at {error.rate_pps:,.0f} pps: {error}"
        except RuntimeError as error:
            reason = f"the search was given up after {search.limit_s:.0f} s: {error}"
        best = _best(measurer.trials, goal)
        known = f"; {best:,.0f} pps is met" if best else ""
        return SearchResult(Outcome.INVALID, reason + known, best, None, tuple(measurer.trials))
    trials = tuple(measurer.trials)
    ratio = f"a loss ratio of {goal.loss_ratio:g}"
    if lower is None:
        return SearchResult(
            Outcome.FAIL, f"{ratio} is not met even at {search.min_pps:,.0f} pps", None, upper, trials
        )
    at_least = "" if upper is not None else "at least "
    why = "; the generator could offer no more" if limited and upper is None else ""
    reason = f"{ratio} is met up to {at_least}{lower:,.0f} pps{why}"
    return SearchResult(Outcome.PASS, reason, lower, upper, trials)


def _bounds(search: Search, goal: Goal, measurer: TrialMeasurer) -> tuple[float | None, float | None]:
    """Return the highest load that meets the goal and the lowest that does not.

    Raises:
        InvalidTrialError: see `TrialMeasurer`.
        RuntimeError: the search took too long.
    """
    wanted = SearchGoal(
        loss_ratio=goal.loss_ratio,
        exceed_ratio=0.0,
        relative_width=search.relative_width,
        initial_trial_duration=min(search.trial_s, max(0.1, search.trial_s / 4)),
        final_trial_duration=search.trial_s,
        duration_sum=search.trial_s,
        preceding_targets=2,
        fail_fast=False,
    )
    config = Config()
    config.goals = (wanted,)
    # each bound is checked against the present value of the other, so the order matters
    config.max_load = max(search.max_pps, 2 * config.min_load)
    config.min_load = search.min_pps
    config.max_load = search.max_pps
    config.search_duration_max = search.limit_s
    config.warmup_duration = 0.0
    found = MultipleLossRatioSearch(config=config).search(measurer=measurer, debug=_ignore)[wanted]
    lower, upper = found.relevant_lower_bound, found.relevant_upper_bound
    return None if lower is None else float(lower), None if upper is None else float(upper)


def _best(trials: list[SearchTrial], goal: Goal) -> float | None:
    """Return the highest rate of a valid trial that met the goal."""
    met = [t.rate_pps for t in trials if t.valid and t.sent and t.lost <= goal.loss_ratio * t.sent]
    return max(met, default=None)


def _ignore(_: str) -> None:
    """MLRsearch's debug output is not needed: every trial is in the result."""
