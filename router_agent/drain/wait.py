"""Waiting until a drained router's traffic has gone, by its counters."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from router_agent.drain.settings import TrafficSettings
from router_agent.drain.traffic import Meter, Rate, Reading, TrafficError, rate

_NOT_READ_MOST = 5
"""Readings in a row that may fail: VPP changes its directory, a daemon restarts."""


@dataclass(frozen=True)
class Progress:
    """Where the wait is.

    Attributes:
        pps: packets a second in the last interval.
        threshold_pps: below this is no traffic.
        seconds: since the drain.
        quiet_seconds: how long it has been below.
    """

    pps: float
    threshold_pps: float
    seconds: float
    quiet_seconds: float


@dataclass(frozen=True)
class Outcome:
    """How the wait ended.

    Attributes:
        gone: whether the traffic is gone.
        words: the same in a sentence, with what is left and what to do.
        before_pps: packets a second before the drain; None when it was not measured.
        pps: at the end; None when it could not be measured.
        threshold_pps: below this is no traffic.
        seconds: how long it took.
    """

    gone: bool
    words: str
    before_pps: float | None
    pps: float | None
    threshold_pps: float
    seconds: float


def threshold(settings: TrafficSettings, before: Rate | None) -> float:
    """Return the packets a second below which there is no traffic."""
    return max(settings.below_pps, settings.below_share * (before.pps if before else 0.0))


def measure(meter: Meter, seconds: float, pause: Callable[[float], object]) -> Rate | None:
    """Return what comes in during some seconds; None when counters began anew meanwhile.

    Raises:
        TrafficError: it cannot be measured.
    """
    before = meter.read()
    pause(seconds)
    return rate(before, meter.read())


def wait_until_gone(
    meter: Meter,
    settings: TrafficSettings,
    *,
    before: Rate | None,
    in_force: Callable[[], bool],
    told: Callable[[Progress], None],
    pause: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Wait until traffic has been below the threshold for a while, or the limit of time has passed.

    Args:
        meter: reads the counters.
        settings: threshold and times.
        before: traffic before the drain, for a threshold that is a share of it.
        in_force: tells whether the drain is still in force.
        told: called after each interval.
        pause: called with seconds between two readings.
        clock: seconds.
    """
    began, limit = clock(), threshold(settings, before)
    quiet_since: float | None = None
    last: Reading | None = None
    found: Rate | None = None
    failures, problem = 0, ""

    def ended(*, gone: bool, words: str) -> Outcome:
        pps = found.pps if found else None
        return Outcome(gone, words, before.pps if before else None, pps, limit, clock() - began)

    while True:
        if not in_force():
            return ended(gone=False, words="somebody has undrained the router meanwhile")
        start = last.at if last else None
        try:
            reading = meter.read()
            found, failures = rate(last, reading) if last else None, 0
            last = reading
        except TrafficError as error:
            failures, problem, found, last = failures + 1, str(error), None, None
            if failures > _NOT_READ_MOST:
                return ended(gone=False, words=f"traffic cannot be measured: {problem}")
        if found is None or found.pps > limit:
            quiet_since = None
        elif quiet_since is None:
            quiet_since = start
        quiet = 0.0 if quiet_since is None or last is None else last.at - quiet_since
        if found is not None:
            told(Progress(found.pps, limit, clock() - began, quiet))
            if quiet >= settings.quiet_seconds:
                return ended(gone=True, words=_gone(found, limit, clock() - began))
        if clock() - began >= settings.seconds:
            return ended(gone=False, words=_left(found, problem, limit, settings))
        pause(settings.interval_seconds)


def _gone(found: Rate, limit: float, seconds: float) -> str:
    if not found.forwards:
        return "VPP does not run, so nothing is forwarded"
    return f"{found.pps:,.0f} pps come in, at most {limit:,.0f} are none, after {seconds:.0f} s"


def _left(found: Rate | None, problem: str, limit: float, settings: TrafficSettings) -> str:
    if found is None:
        why = problem or "counters began anew"
        return f"traffic could not be measured within {settings.seconds:.0f} s: {why}"
    if found.pps <= limit:
        return (
            f"traffic is at most {limit:,.0f} pps, but not yet for {settings.quiet_seconds:.0f} s, after "
            f"{settings.seconds:.0f} s: drain again to wait longer"
        )
    return (
        f"found {found.pps:,.0f} pps after {settings.seconds:.0f} s, expected at most {limit:,.0f}; they "
        f"come in by {found.words}. The router stays drained. Neighbours there do not honour RFC 8326, or "
        "have no other way: ask them, drain again to wait longer (--seconds), or take it back with "
        "'router-agent undrain'"
    )
