"""Route changes under load: what they cost in packets, in time without any, and prefix by prefix.

Convergence is measured by loss (RFC 6413, "loss-derived method"; RFC 7747 applies it to BGP's data plane): a
prefix whose packets go out evenly was unreachable for as long as it lost packets. So every prefix is sent to
all the time, and one that gets a packet a second is known to within a second: the resolution is part of the
result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import ceil
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_agent.model import I64, Mask
from router_agent.traffic.counters.source import Side
from router_agent.traffic.generators.generator import Generator, GeneratorError, Running, Series, TrialResult
from router_agent.traffic.judgement.culprits import name_culprits
from router_agent.traffic.judgement.ledger import Ledger, LedgerKeeper
from router_agent.traffic.judgement.route_change import RouteChange
from router_agent.traffic.judgement.verdict import Outcome, Verdict, judge_trial, offered
from router_agent.traffic.measurements.results import Batch, Blocked, ChurnRun
from router_agent.traffic.measurements.trial import Progress, silent
from router_agent.traffic.scenario import ChurnBudget, FrameSizes, Goal

Clock: TypeAlias = Callable[[], float]
"""Returns the seconds since the first packet."""

MakeChanges: TypeAlias = Callable[[Clock], Iterable[Batch]]
"""Makes route changes, one batch after the other, and says of each when it was made, by the clock.

It may be a generator function that makes a batch before it yields it, or one that replays a whole stream and
then returns its batches. Traffic flows until it is exhausted, and for a while after.
"""

BEFORE_S, AFTER_S = 1.0, 2.0
"""Traffic without changes before the first batch and after the last; packets are still lost for a while."""

MOST_S = 600.0
_FLOW_S = 20.0
_LOOK_S = 0.02
_PACKETS_PER_INTERVAL = 10


def measure_churn(
    generator: Generator,
    keeper: LedgerKeeper,
    sizes: FrameSizes,
    rate_pps: float,
    changes: MakeChanges,
    *,
    goal: Goal,
    before_s: float = BEFORE_S,
    after_s: float = AFTER_S,
    most_s: float = MOST_S,
    progress: Progress = silent,
) -> ChurnRun:
    """Send traffic while routes are changed.

    The caller puts the routes back, whatever happens in here. The intervals of the generator's scenario are
    the resolution of blocked times; a millisecond is a good choice.

    Args:
        generator: open, and with the prefixes that change among its destinations.
        keeper: reads the counters around the trial.
        sizes: frame sizes, for the report.
        rate_pps: offered load; with fewer packets a second than prefixes, prefixes are known only to within
            more than a second.
        changes: makes the changes.
        goal: its churn budget; its loss ratio is not used.
        before_s: how long traffic flows before the first change.
        after_s: how long it flows after the last.
        most_s: the traffic ends by itself after so long.
        progress: told of every batch.

    Raises:
        GeneratorError: the generator failed, nothing arrived, or the changes took longer than `most_s`.
        CounterError: counters cannot be read.
        Exception: whatever `changes` raises.
    """
    keeper.open()
    running = generator.start(rate_pps, most_s)
    try:
        batches = _change(running, changes, before_s, after_s, progress)
        elapsed = running.snapshot().elapsed_s
    except BaseException:
        running.stop()
        raise
    trial = running.stop()
    if elapsed > most_s:
        raise GeneratorError(
            f"traffic ended by itself after {most_s:g} s, {elapsed - most_s:.1f} s before the route changes "
            "were over: make fewer changes, or let it last longer"
        )
    return analyse(sizes, trial, keeper.close(trial), batches, goal)


def analyse(
    sizes: FrameSizes,
    trial: TrialResult,
    ledger: Ledger,
    batches: Sequence[Batch],
    goal: Goal,
) -> ChurnRun:
    """Return what route changes cost, of a trial that ran meanwhile; see `measure_churn`."""
    batches = tuple(sorted(batches, key=lambda batch: batch.at_s))
    followed = trial.by_destination is not None
    excused = _excused(trial, batches)
    blocked, blocked_resolution_s = blocked_times(_without(trial, excused), followed=followed)
    faults = lost_by_fault(trial, batches)
    convergence, resolution_s = _convergence(trial, faults)
    lost = trial.lost if faults is None else int(faults.sum())
    budget = goal.churn or ChurnBudget()
    run = ChurnRun(
        sizes=sizes,
        trial=trial,
        ledger=ledger,
        batches=batches,
        blocked_s=sum(time.seconds for time in blocked),
        convergence_s=convergence,
        budget_lost=budget.lost,
        verdict=Verdict(Outcome.PASS, ""),
        blocked=blocked,
        blocked_resolution_s=blocked_resolution_s,
        convergence_resolution_s=resolution_s,
        lost=lost,
        budget=goal.churn,
    )
    return replace(
        run,
        verdict=_judge(run, goal),
        culprits=name_culprits(trial, ledger, route_changes(run)) if lost or blocked else (),
    )


def blocked_times(series: Series, *, followed: bool = True) -> tuple[tuple[Blocked, ...], float]:
    """Return the times in which packets were under way and none arrived, and their resolution in seconds.

    An interval is blocked when nothing arrived in it although packets of earlier ones were still under way,
    or although some were sent in it and all of those are lost. Intervals too short for the rate are joined.

    Args:
        series: of a trial.
        followed: whether its losses are entered where the packets were sent, see `TrialResult`.
    """
    sending = series.sent[series.intended > 0]
    mean = float(sending.mean()) if len(sending) else 0.0
    if not mean or not series.received.any():
        return (), series.interval_s
    joined = series.per(ceil(_PACKETS_PER_INTERVAL / mean) * series.interval_s)
    empty = (joined.received == 0) & (joined.sent > 0)
    if followed:
        under_way = np.cumsum(joined.sent - joined.lost - joined.received)
        held = (joined.received == 0) & (np.concatenate(([0], under_way[:-1])) > 0)
        # what is held in one interval was sent in the one before, and not let through there either
        held[:-1] |= empty[:-1] & held[1:]
        empty = held | (empty & (joined.lost >= joined.sent))
    arrived = np.flatnonzero(joined.received)
    empty[: arrived[0]] = False
    empty[arrived[-1] :] = False
    edges = np.flatnonzero(np.diff(np.concatenate(([0], empty.astype(np.int8), [0]))))
    return tuple(
        Blocked(float(begin * joined.interval_s), float((end - begin) * joined.interval_s))
        for begin, end in edges.reshape(-1, 2)
    ), joined.interval_s


def lost_by_fault(trial: TrialResult, batches: Sequence[Batch]) -> I64 | None:
    """Return the packets lost to each destination while it should have been reachable, (d,).

    None where that is not known: the generator follows no packets, or a batch made destinations unreachable
    and there are too many losses to list.
    """
    if trial.by_destination is None:
        return None
    lost: I64 = trial.sent_to - trial.arrived.sum(axis=0).clip(max=trial.sent_to)
    if all(batch.reachable for batch in batches):
        return lost
    if trial.losses is None:
        return None
    faults = np.bincount(trial.losses.rows[~_excused(trial, batches)], minlength=len(lost))
    return np.asarray(faults, np.int64)


def _excused(trial: TrialResult, batches: Sequence[Batch]) -> Mask:
    """Tell which of the listed losses are to destinations that a batch had made unreachable."""
    if trial.losses is None:
        return np.zeros(0, np.bool_)
    excused: Mask = np.zeros(len(trial.losses.rows), np.bool_)
    at_s = (trial.losses.intervals + 1) * trial.series.interval_s
    unreachable = np.zeros(len(trial.sent_to), np.bool_)
    for number, batch in enumerate(batches):
        until = batches[number + 1].at_s if number + 1 < len(batches) else np.inf
        unreachable[slice(None) if batch.rows is None else batch.rows] = not batch.reachable
        excused |= (at_s > batch.at_s) & (at_s <= until) & unreachable[trial.losses.rows]
    return excused


def _without(trial: TrialResult, excused: Mask) -> Series:
    """Return the series as if excused packets had not been sent: withdrawn prefixes do not block others."""
    series = trial.series
    if trial.losses is None or not excused.any():
        return series
    gone = np.bincount(trial.losses.intervals[excused], minlength=len(series.sent))[: len(series.sent)]
    return replace(series, sent=series.sent - gone, lost=series.lost - gone)


def route_changes(run: ChurnRun) -> tuple[RouteChange, ...]:
    """Return the batches with what followed each until the next one."""
    ends = [*(batch.at_s for batch in run.batches[1:]), float("inf")]
    changes: list[RouteChange] = []
    for batch, end, lost in zip(run.batches, ends, lost_after(run), strict=True):
        # a time may have begun within the resolution before the batch that it is due to
        begin = batch.at_s - run.blocked_resolution_s
        blocked = [b.seconds for b in run.blocked if begin <= b.at_s < end - run.blocked_resolution_s]
        what = f"{batch.changes:,} {batch.what}"
        changes.append(RouteChange(batch.at_s, what, max(blocked, default=0.0), lost))
    return tuple(changes)


def lost_after(run: ChurnRun) -> tuple[int, ...]:
    """Return the packets lost from each batch to the next one, by the time they were sent."""
    series = run.trial.series
    edges = [int(batch.at_s / series.interval_s) for batch in run.batches]
    ends = [*edges[1:], len(series.lost)]
    return tuple(int(series.lost[begin:end].sum()) for begin, end in zip(edges, ends, strict=True))


def _change(
    running: Running, changes: MakeChanges, before_s: float, after_s: float, progress: Progress
) -> list[Batch]:
    _wait(running, before_s, flowing=True)
    began = time.monotonic() - running.snapshot().elapsed_s

    def clock() -> float:
        return time.monotonic() - began

    batches: list[Batch] = []
    for batch in changes(clock):
        batches.append(batch)
        progress("churn", 0.0, f"{batch.changes:,} {batch.what} at {batch.at_s:.1f} s")
    _wait(running, clock() + after_s, flowing=False)
    progress("churn", 1.0, f"{len(batches)} batches")
    return batches


def _wait(running: Running, until_s: float, *, flowing: bool) -> None:
    """Wait until the stream is that old, and, if it is to be flowing, until packets arrive."""
    pause, limit = threading.Event(), time.monotonic() + until_s + _FLOW_S
    while True:
        now = running.snapshot()
        if now.elapsed_s >= until_s and (now.received > 0 or not flowing):
            return
        if time.monotonic() > limit:
            raise GeneratorError(
                f"{now.sent:,} packets were sent and {now.received:,} arrived in {now.elapsed_s:.0f} s, "
                "expected traffic to flow before routes are changed: check ports and routes first"
            )
        pause.wait(_LOOK_S)


def _convergence(trial: TrialResult, faults: I64 | None) -> tuple[tuple[float, ...], float]:
    """Return the time each prefix lost packets, ascending, and the resolution."""
    if trial.by_destination is None or not trial.sent:
        return (), 0.0
    seconds = trial.offered_s
    resolution_s = seconds * len(trial.sent_to) / trial.sent
    if faults is None:
        return (), resolution_s
    hit = np.flatnonzero(faults)
    times: NDArray[np.float64] = np.sort(faults[hit] * seconds / trial.sent_to[hit])
    return tuple(times.tolist()), resolution_s


def _judge(run: ChurnRun, goal: Goal) -> Verdict:
    """Judge a run by its budget; INVALID where the tester was the limit, or does not see what is bounded."""
    budget = goal.churn or ChurnBudget()
    if not offered(run.trial, goal):
        return judge_trial(run.trial, run.ledger, goal)
    notes = _notes(run)
    tester = run.ledger.dropped(Side.TESTER)
    if budget.lost is not None and run.lost > budget.lost >= run.lost - tester:
        reason = f"the tester was the limit: of {run.lost:,} packets missing it dropped {tester:,} itself"
        return Verdict(Outcome.INVALID, reason, notes)
    blind = _blind(run, budget)
    if blind:
        return Verdict(Outcome.INVALID, blind, notes)
    over = _over(run, budget)
    if over:
        return Verdict(Outcome.FAIL, f"{_cost(run)}; allowed: {', '.join(over)}", notes)
    return Verdict(Outcome.PASS, _cost(run), notes)


def _cost(run: ChurnRun) -> str:
    changes = sum(batch.changes for batch in run.batches)
    cost = (
        f"{changes:,} route changes cost {run.lost:,} of {run.trial.sent:,} packets, and "
        f"{run.longest_blocked_s * 1000:,.0f} ms without any at the longest"
    )
    if not run.convergence_s:
        return cost
    prefixes, p99_ms = len(run.convergence_s), run.convergence_p99_s * 1000
    return f"{cost}; {prefixes:,} prefixes lost packets, 99 % of them for at most {p99_ms:,.0f} ms"


def _over(run: ChurnRun, budget: ChurnBudget) -> list[str]:
    over: list[str] = []
    if budget.lost is not None and run.lost > budget.lost:
        over.append(f"{budget.lost:,} packets")
    if budget.blocked_s is not None and run.longest_blocked_s > budget.blocked_s:
        over.append(f"{budget.blocked_s * 1000:,.0f} ms without any")
    if budget.convergence_s is not None and run.convergence_p99_s > budget.convergence_s:
        over.append(f"{budget.convergence_s * 1000:,.0f} ms for 99 % of the prefixes")
    return over


def _blind(run: ChurnRun, budget: ChurnBudget) -> str:
    """Return what is bounded and cannot be seen, in words; empty when there is nothing like that."""
    if budget.blocked_s is not None and run.blocked_resolution_s > budget.blocked_s:
        return (
            f"blocked times are seen from {run.blocked_resolution_s * 1000:,.1f} ms on, and "
            f"{budget.blocked_s * 1000:,.1f} ms are allowed: raise the rate or shorten the intervals"
        )
    if budget.convergence_s is None:
        return ""
    if not run.convergence_resolution_s:
        return "the generator follows no single packets, so it does not see prefixes converge: take another"
    if run.convergence_resolution_s > budget.convergence_s:
        return (
            f"a prefix gets a packet every {run.convergence_resolution_s * 1000:,.0f} ms, and "
            f"{budget.convergence_s * 1000:,.0f} ms are allowed: raise the rate, or send to fewer prefixes"
        )
    if run.trial.losses is None and any(not batch.reachable for batch in run.batches):
        return "too many packets were lost to tell those to withdrawn prefixes from the others"
    return ""


def _notes(run: ChurnRun) -> tuple[str, ...]:
    notes: list[str] = []
    if run.convergence_resolution_s > 1.0:
        notes.append(
            f"a prefix gets a packet every {run.convergence_resolution_s:,.1f} s only, and its convergence "
            "is known to within that: send as many packets a second as there are prefixes, or more"
        )
    if run.trial.by_destination is not None and not run.trial.sent_to.all():
        notes.append(f"{int((run.trial.sent_to == 0).sum()):,} prefixes got no packet at all")
    if run.trial.lost > run.lost:
        notes.append(f"{run.trial.lost - run.lost:,} packets to withdrawn prefixes are left out")
    return tuple(notes)
