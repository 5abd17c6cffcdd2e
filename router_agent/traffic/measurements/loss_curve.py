"""Frame loss rate at falling rates (RFC 2544 26.3): what the device does beyond its throughput.

From the highest rate down in equal steps, until two successive trials lose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from router_agent.traffic.judgement.verdict import Outcome, Verdict, judge_trial
from router_agent.traffic.measurements.results import LossCurve, LossPoint
from router_agent.traffic.measurements.trial import Progress, RunTrial, silent
from router_agent.traffic.scenario import FrameSizes, Goal, ScenarioError

COARSEST_STEP = 0.1
"""RFC 2544 26.3: at most 10 % of the highest rate."""

_LOSS_FREE_ENOUGH = 2


def measure_loss_curve(
    run: RunTrial,
    sizes: FrameSizes,
    highest_pps: float,
    duration_s: float = 60.0,
    *,
    step: float = COARSEST_STEP,
    unsent_ratio: float = Goal().unsent_ratio,
    progress: Progress = silent,
) -> LossCurve:
    """Measure the loss at falling rates.

    Args:
        run: runs a trial.
        sizes: frame sizes, for the report.
        highest_pps: 100 %: the highest rate of the medium, or of what is to be shown.
        duration_s: of each trial.
        step: by which part of the highest rate each trial is slower; at most `COARSEST_STEP`.
        unsent_ratio: see `Goal`.
        progress: told of every trial.

    Raises:
        ScenarioError: the step is none.
    """
    if not 0 < step <= COARSEST_STEP:
        raise ScenarioError(
            f"a loss curve with steps of {step:g} of the highest rate: expected above 0 and at most "
            f"{COARSEST_STEP:g} (RFC 2544 26.3)"
        )
    goal = Goal(unsent_ratio=unsent_ratio)
    points: list[LossPoint] = []
    count = round(1 / step)
    for number in range(count):
        share = 1 - number * step
        rate = share * highest_pps
        progress("loss curve", number / count, f"{share:.0%}, {rate:,.0f} pps")
        trial, ledger = run(rate, duration_s)
        valid = judge_trial(trial, ledger, goal).outcome is not Outcome.INVALID
        points.append(LossPoint(share, rate, trial.sent, trial.lost, valid))
        if _finished(points):
            break
    verdict = _judge(points, highest_pps)
    progress("loss curve", 1.0, verdict.reason)
    return LossCurve(sizes, tuple(points), verdict)


def _loss_free(point: LossPoint) -> bool:
    return point.valid and point.lost == 0


def _finished(points: Sequence[LossPoint]) -> bool:
    last = points[-_LOSS_FREE_ENOUGH:]
    return len(last) == _LOSS_FREE_ENOUGH and all(map(_loss_free, last))


def _judge(points: Sequence[LossPoint], highest_pps: float) -> Verdict:
    """Judge whether there is a curve: what it shows passes no sentence on the device.

    Points that the tester could not offer are no part of it, so a curve that lacks them is INVALID.
    """
    missing = [point for point in points if not point.valid]
    first = next((point for point in points if _loss_free(point)), None)
    if missing:
        shares = ", ".join(f"{point.share:.0%}" for point in missing)
        return Verdict(
            Outcome.INVALID,
            f"the tester was the limit at {shares} of {highest_pps:,.0f} pps: lower the highest rate",
        )
    if first is None:
        last = points[-1]
        return Verdict(
            Outcome.FAIL,
            f"{last.lost:,} of {last.sent:,} packets lost even at {last.share:.0%} "
            f"({last.rate_pps:,.0f} pps)",
        )
    if first is points[0]:
        return Verdict(Outcome.PASS, f"no loss even at 100 % ({highest_pps:,.0f} pps)")
    worst = points[0]
    ratio = worst.lost / worst.sent
    return Verdict(
        Outcome.PASS,
        f"no loss at {first.share:.0%} ({first.rate_pps:,.0f} pps), {ratio:.3%} lost at 100 %",
    )
