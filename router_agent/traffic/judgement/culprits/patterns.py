"""Where and when packets were lost: load that is too high spares no prefix and no moment."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from router_agent.traffic.judgement.culprits.case import Case, Culprit, Rule

_FEW_INTERVALS = 0.05
_LEAST_INTERVALS = 20
_ALMOST_ALL = 0.95
_SHOWN = 3


def _restarts(case: Case) -> Iterator[Culprit]:
    for name in case.ledger.restarted:
        yield Culprit(
            case.trial.lost, f"{name} counts anew: it was restarted, or its ports were, during the trial"
        )


def _route_changes(case: Case) -> Iterator[Culprit]:
    for change in case.changes:
        if not change.blocked_s and not change.lost:
            continue
        blocked = f", {change.blocked_s * 1000:.0f} ms blocked" if change.blocked_s else ""
        lost = f", {change.lost:,} packets lost" if change.lost else ""
        yield Culprit(change.lost, f"route change at {change.at_s:.1f} s ({change.what}){blocked}{lost}")


def _few_destinations(case: Case) -> Iterator[Culprit]:
    trial = case.trial
    if trial.by_destination is None or trial.lost <= 0:
        return
    sent = trial.sent_to
    lost = sent - trial.arrived.sum(axis=0).clip(max=sent)
    dead = (sent > 1) & (lost == sent)
    count, of = int(dead.sum()), int((sent > 0).sum())
    if 0 < count < of and lost[dead].sum() >= _ALMOST_ALL * trial.lost:
        yield Culprit(
            trial.lost,
            f"{count:,} of {of:,} prefixes lost every packet and the others next to none: look at their "
            "routes, not at the load",
        )


def _few_moments(case: Case) -> Iterator[Culprit]:
    series = case.trial.series
    n = len(series.lost)
    if case.trial.by_destination is None or case.trial.lost <= 0 or n < _LEAST_INTERVALS or case.changes:
        return
    worst = np.argsort(series.lost)[::-1][: max(1, int(_FEW_INTERVALS * n))]
    if series.lost[worst].sum() < _ALMOST_ALL * case.trial.lost:
        return
    hit = np.sort(worst[series.lost[worst] > 0])
    shown = ", ".join(f"{row * series.interval_s:.2f} s" for row in hit[:_SHOWN])
    more = f" and {len(hit) - _SHOWN} more" if len(hit) > _SHOWN else ""
    yield Culprit(
        case.trial.lost,
        f"packets were lost in {len(hit)} of {n} intervals of {series.interval_s * 1000:g} ms only, at "
        f"{shown}{more}: a stall or a burst, not the load",
    )


def _unaccounted(case: Case) -> Iterator[Culprit]:
    gone = case.ledger.unaccounted
    if gone > 0:
        yield Culprit(
            gone,
            f"{gone:,} packets are in no counter that was read: look between the ports (cable, switch), or "
            "at counters that nobody reads",
        )


RULES: tuple[Rule, ...] = (_restarts, _route_changes, _few_destinations, _few_moments, _unaccounted)
