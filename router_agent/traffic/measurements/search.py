"""The highest rates that meet some goals, found in one search by MLRsearch (RFC 9971, PyPI ``MLRsearch``).

The algorithm asks for trials at loads of its choice; `TrialMeasurer` runs them and passes on what was
offered and what was lost. A trial the tester could not offer or take in is no measurement of the device: it
is tried once more, and then the search begins again below what the tester can do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from MLRsearch import AbstractMeasurer, Config, MeasurementResult, MultipleLossRatioSearch, SearchGoal

from router_agent.traffic.counters.source import Side
from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.judgement.ledger import Ledger
from router_agent.traffic.judgement.verdict import Outcome, judge_trial
from router_agent.traffic.measurements.trial import RunTrial, offered_pps
from router_agent.traffic.scenario import Goal, ScenarioError, Search

_BELOW_TESTER = 0.9
"""The upper bound is put so far below what the tester reached."""

_ROUNDS_LEFT = 4
"""A search is begun again only when there is time for so many trials."""

_LONG_S = 2.0
"""Before trials longer than this a short one finds out whether the tester can do the highest rate at all."""


@dataclass(frozen=True)
class RateGoal:
    """One goal of a search (RFC 9971, "Search Goal").

    Attributes:
        name: in reports.
        loss_ratio: lost / sent that a trial may have; one above it is a bad trial.
        exceed_ratio: part of `duration_sum_s` that bad trials may take at a load that still meets the goal.
        initial_trial_s: length of the first, coarse trials.
        final_trial_s: length of the trials that decide.
        duration_sum_s: trials of the final length that decide about a load, together.
        relative_width: how near the answer shall be, as a part of it.
    """

    name: str
    loss_ratio: float
    exceed_ratio: float
    initial_trial_s: float
    final_trial_s: float
    duration_sum_s: float
    relative_width: float

    def __post_init__(self) -> None:
        if not 0 < self.initial_trial_s <= self.final_trial_s <= self.duration_sum_s:
            raise ScenarioError(
                f"{self.name}: trials of {self.initial_trial_s:g} to {self.final_trial_s:g} s, together "
                f"{self.duration_sum_s:g} s: expected 0 < initial <= final <= sum"
            )
        for name in ("loss_ratio", "exceed_ratio"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ScenarioError(
                    f"{self.name}: {name} is {getattr(self, name)}, expected at least 0 and below 1"
                )
        if not 0.0 < self.relative_width < 1.0:
            raise ScenarioError(
                f"{self.name}: relative_width is {self.relative_width}, expected between 0 and 1"
            )


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
    """Outcome of a search for one goal.

    Attributes:
        outcome: PASS when the rate was found, FAIL when even `min_pps` does not meet the goal, INVALID when
            the generator or the tester was the limit, or time ran out.
        reason: in words.
        rate_pps: the highest rate that meets the goal (the relevant lower bound); None when there is none.
        upper_pps: the lowest rate found not to meet it; None when every rate tried does.
        trials: every trial, those that were run for other goals of the same search among them.
        forwarded_pps: RFC 9971's conditional throughput: what the device forwarded at that rate, by the
            trial that decided; None where no rate was found.
        limit: what the tester could not do at the highest rate that was asked for, in words; empty when it
            could.
    """

    outcome: Outcome
    reason: str
    rate_pps: float | None
    upper_pps: float | None
    trials: tuple[SearchTrial, ...]
    forwarded_pps: float | None = None
    limit: str = ""


class InvalidTrialError(Exception):
    """A trial says nothing about the device, twice in a row.

    Attributes:
        rate_pps: the load that was asked for.
        managed_pps: what the tester offered and took in.
        limit: what it could not do, in words.
    """

    def __init__(self, rate_pps: float, managed_pps: float, limit: str, reason: str) -> None:
        super().__init__(reason)
        self.rate_pps = rate_pps
        self.managed_pps = managed_pps
        self.limit = limit


class TrialMeasurer(AbstractMeasurer):  # type: ignore[misc]
    """MLRsearch's view of our trials; `goal` is that of the strictest."""

    def __init__(self, run: RunTrial, goal: Goal) -> None:
        self._run = run
        self._goal = goal
        self.trials: list[SearchTrial] = []

    def measure(self, intended_duration: float, intended_load: float) -> Any:
        """Run one trial; see ``AbstractMeasurer.measure``.

        Raises:
            InvalidTrialError: the trial was invalid, twice.
        """
        managed_pps, limit, reason = 0.0, "", ""
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
            managed_pps = max(managed_pps, _managed_pps(trial, ledger))
            offered = trial.unsent_ratio <= self._goal.unsent_ratio
            limit = "the tester could take in no more" if offered else "the generator could offer no more"
        raise InvalidTrialError(intended_load, managed_pps, limit, reason)


def find_rate(search: Search, goal: Goal, run: RunTrial) -> SearchResult:
    """Search for the highest rate that meets one goal in every trial; see `find_rates`."""
    only = RateGoal(
        name="loss-free rate" if goal.loss_ratio == 0 else "rate",
        loss_ratio=goal.loss_ratio,
        exceed_ratio=0.0,
        initial_trial_s=min(search.trial_s, max(0.1, search.trial_s / 4)),
        final_trial_s=search.trial_s,
        duration_sum_s=search.trial_s,
        relative_width=search.relative_width,
    )
    return find_rates(search, (only,), run, unsent_ratio=goal.unsent_ratio)[0]


def find_rates(
    search: Search, goals: Sequence[RateGoal], run: RunTrial, *, unsent_ratio: float = Goal().unsent_ratio
) -> tuple[SearchResult, ...]:
    """Search for the highest rate that meets each of some goals, in one search.

    A tester that cannot offer or take in the highest rate lowers it, and the answers then say "at least".

    Args:
        search: bounds of the load, and how long it may take; its other fields are the goals' here.
        goals: what to look for; they may differ in loss ratio, durations and width.
        run: runs a trial.
        unsent_ratio: see `Goal`.

    Returns:
        One result for each goal, in their order.
    """
    strictest = Goal(loss_ratio=min(goal.loss_ratio for goal in goals), unsent_ratio=unsent_ratio)
    measurer = TrialMeasurer(run, strictest)
    shortest = min(goal.final_trial_s for goal in goals)
    longest = max(goal.final_trial_s for goal in goals)
    started = time.monotonic()
    top, limit, tried = search.max_pps, "", longest <= _LONG_S
    while True:
        left_s = search.limit_s - (time.monotonic() - started)
        try:
            if not tried:
                measurer.measure(min(goal.initial_trial_s for goal in goals), top)
                tried = True
            bounds = _bounds((search.min_pps, top), left_s, goals, measurer)
            break
        except InvalidTrialError as error:
            lowered = _BELOW_TESTER * min(error.managed_pps, error.rate_pps)
            if lowered > search.min_pps and left_s > _ROUNDS_LEFT * shortest:
                top, limit = lowered, error.limit
                continue
            reason = f"the search could not be finished at {error.rate_pps:,.0f} pps: {error}"
        except RuntimeError as error:
            reason = f"the search was given up after {search.limit_s:.0f} s: {error}"
        trials = tuple(measurer.trials)
        return tuple(_unfinished(reason, goal, trials, limit=limit) for goal in goals)
    trials = tuple(measurer.trials)
    return tuple(
        _finished(search, goal, found, trials, limit=limit) for goal, found in zip(goals, bounds, strict=True)
    )


@dataclass(frozen=True)
class _Bounds:
    """Highest load that meets a goal, lowest that does not, and what was forwarded at the former."""

    lower: float | None
    upper: float | None
    forwarded: float | None


def _bounds(
    loads: tuple[float, float], limit_s: float, goals: Sequence[RateGoal], measurer: TrialMeasurer
) -> list[_Bounds]:
    """Return the bounds of each goal within loads, lowest and highest.

    Raises:
        InvalidTrialError: see `TrialMeasurer`.
        RuntimeError: the search took too long.
    """
    wanted = [
        SearchGoal(
            loss_ratio=goal.loss_ratio,
            exceed_ratio=goal.exceed_ratio,
            relative_width=goal.relative_width,
            initial_trial_duration=goal.initial_trial_s,
            final_trial_duration=goal.final_trial_s,
            duration_sum=goal.duration_sum_s,
            preceding_targets=2,
            fail_fast=False,
        )
        for goal in goals
    ]
    config = Config()
    config.goals = wanted
    # each bound is checked against the present value of the other, so the order matters
    config.max_load = max(loads[1], 2 * config.min_load)
    config.min_load, config.max_load = loads
    config.search_duration_max = limit_s
    config.warmup_duration = 0.0
    found = MultipleLossRatioSearch(config=config).search(measurer=measurer, debug=_ignore)
    results = [found[goal] for goal in wanted]
    return [
        _Bounds(
            _load(result.relevant_lower_bound),
            _load(result.relevant_upper_bound),
            _load(result.conditional_throughput),
        )
        for result in results
    ]


def _finished(
    search: Search, goal: RateGoal, found: _Bounds, trials: tuple[SearchTrial, ...], *, limit: str
) -> SearchResult:
    ratio = f"a loss ratio of {goal.loss_ratio:g}"
    if found.lower is None:
        reason = f"{ratio} is not met even at {search.min_pps:,.0f} pps"
        return SearchResult(Outcome.FAIL, reason, None, found.upper, trials, limit=limit)
    at_least = "" if found.upper is not None else "at least "
    why = f"; {limit}" if limit and found.upper is None else ""
    reason = f"{ratio} is met up to {at_least}{found.lower:,.0f} pps{why}"
    return SearchResult(
        Outcome.PASS, reason, found.lower, found.upper, trials, forwarded_pps=found.forwarded, limit=limit
    )


def _unfinished(reason: str, goal: RateGoal, trials: tuple[SearchTrial, ...], *, limit: str) -> SearchResult:
    """Return the result of a search that ended early; what a trial showed is said, but no bound."""
    met = [t.rate_pps for t in trials if t.valid and t.sent and t.lost <= goal.loss_ratio * t.sent]
    best = max(met, default=None)
    known = f"; {best:,.0f} pps is met in one trial" if best else ""
    return SearchResult(Outcome.INVALID, reason + known, best, None, trials, limit=limit)


def _managed_pps(trial: TrialResult, ledger: Ledger) -> float:
    """Return the rate that the tester offered and took in."""
    if trial.offered_s <= 0:
        return 0.0
    taken = 1.0 - ledger.dropped(Side.TESTER) / trial.sent if trial.sent else 0.0
    return offered_pps(trial) * max(0.0, taken)


def _load(bound: Any) -> float | None:
    return None if bound is None else float(bound)


def _ignore(_: str) -> None:
    """MLRsearch's debug output is not needed: every trial is in the result."""
