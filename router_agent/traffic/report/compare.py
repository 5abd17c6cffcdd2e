"""Two reports side by side: what became worse, and whether that is more than chance.

Figures are compared only where both reports measured the same thing, on the same tier. What differs between
the two checks themselves (what was asked, destinations, hosts, versions, configurations) is said first: then
it may be that, and not the router.

A figure has become worse when it differs by more than its tolerance, which is the largest of the one asked
for, the width of a search's answer (its two bounds), and twice the standard error that the figure's own
variation gives (repetitions of a burst, seconds of a soak).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from statistics import fmean, stdev
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.report.environment import Environment
from router_agent.traffic.report.model import (
    BackToBackReport,
    ChurnReport,
    LatencyReport,
    LatencyRunReport,
    LossCurveReport,
    MeasurementReport,
    RateSearchReport,
    SeriesReport,
    SoakReport,
    TargetReport,
    TrafficReport,
    TrialReport,
    title_of,
)

TOLERANCE = 0.05
"""Relative; what two runs on one quiet machine differ by."""

LATENCY_TOLERANCE = 0.25
"""Of latencies: percentiles wander more than rates do."""

_LEAST_LATENCY_NS = 2_000
"""Latencies that differ by less do not: the clocks of software time stamps are no better."""

_LEAST_LOSS = 1e-6
"""Loss ratios that differ by less do not: one packet in a million."""

_ERRORS = 2.0
"""Standard errors between two figures that are no chance."""

_PERCENTILES = (50.0, 99.0, 99.9)


class Change(StrEnum):
    """What became of a figure."""

    SAME = "same"
    BETTER = "better"
    WORSE = "WORSE"
    INCOMPARABLE = "not comparable"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Difference(_Model):
    """One figure of two reports; `change` says what became of it, `note` why it cannot be compared."""

    frames: str
    measurement: str
    figure: str
    unit: str
    before: float | None
    after: float | None
    tolerance: float | None = None
    change: Change
    note: str = ""


class Comparison(_Model):
    """Two reports side by side.

    Attributes:
        refused: why the reports say nothing about each other; None when they do.
        context: what differs between the two checks, in words.
        differences: every figure, in the order of the first report.
    """

    schema_: Literal["router-agent/traffic-comparison/1"] = Field(
        alias="schema", default="router-agent/traffic-comparison/1"
    )
    before: str
    after: str
    refused: str | None
    context: list[str]
    differences: list[Difference]

    @property
    def worse(self) -> list[Difference]:
        """Figures that became worse."""
        return [d for d in self.differences if d.change is Change.WORSE]

    @property
    def incomparable(self) -> list[Difference]:
        """Figures of the first report that the second does not have, or not validly."""
        return [d for d in self.differences if d.change is Change.INCOMPARABLE]

    @property
    def exit_code(self) -> int:
        """0: nothing became worse; 1: something did; 2: they cannot be compared, or not in everything."""
        if self.refused is None and self.worse:
            return 1
        return 2 if self.refused is not None or self.incomparable else 0


@dataclass(frozen=True)
class _Figure:
    """A figure with how far chance may move it (an absolute amount), and which way is better."""

    name: str
    unit: str
    value: float | None
    noise: float = 0.0
    higher_is_better: bool = False
    relative: float | None = None
    """Its own relative tolerance, unless the one asked for is larger; None takes that."""
    least: float = 0.0
    """Absolute amount below which two of them do not differ."""
    open_ended: bool = False
    """The device may do more: the tester, or what it was told, was the limit."""


def compare(before: TrafficReport, after: TrafficReport, *, tolerance: float = TOLERANCE) -> Comparison:
    """Compare two reports.

    Args:
        before: the report that is taken for good.
        after: the one in question.
        tolerance: relative; figures that differ by less are the same.
    """
    refused = None
    if before.tier is not after.tier:
        refused = (
            f"the first report is of tier {before.tier.value!r}, the second of tier {after.tier.value!r}: "
            "no tier says anything about another; compare reports of one tier"
        )
    elif not before.measurements or not after.measurements:
        which = "first" if not before.measurements else "second"
        refused = f"the {which} report has no measurement; expected two reports of checks that ran"
    differences = [] if refused else list(_differences(before, after, tolerance))
    if not refused and all(d.change is Change.INCOMPARABLE for d in differences if d.frames):
        refused = "nothing was measured validly in both; expected the same frame sizes and measurements"
    return Comparison(
        before=_called(before),
        after=_called(after),
        refused=refused,
        context=list(_context(before, after)),
        differences=differences,
    )


def _called(report: TrafficReport) -> str:
    at = report.started.strftime("%Y-%m-%d %H:%M:%S")
    return f"{report.scenario.name}, {at} UTC, {report.verdict.outcome.value}"


def _context(before: TrafficReport, after: TrafficReport) -> Iterator[str]:
    first, second = before.scenario, after.scenario
    if first.sha256 != second.sha256:
        yield "what was asked for differs: the two scenarios are not the same"
    if first.destinations_sha256 != second.destinations_sha256:
        yield f"the destinations differ: {first.destinations:,} before, {second.destinations:,} after"
    if first.generator != second.generator:
        yield f"the generator differs: {first.generator} before, {second.generator} after"
    yield from _between("tester", before.tester, after.tester)
    if before.device and after.device:
        yield from _between("device", before.device, after.device)
    elif before.device or after.device:
        yield "only one of the reports knows the device's host"


def _between(whose: str, first: Environment, second: Environment) -> Iterator[str]:
    for what, old, new in (
        ("host", first.host, second.host),
        ("kernel", first.kernel, second.kernel),
        ("processor", first.processor, second.processor),
        ("CPUs", first.cpus, second.cpus),
        ("kernel arguments", " ".join(first.kernel_arguments), " ".join(second.kernel_arguments)),
        ("governor", first.cpu and first.cpu.governor, second.cpu and second.cpu.governor),
        ("turbo", first.cpu and first.cpu.turbo, second.cpu and second.cpu.turbo),
        ("SMT", first.cpu and first.cpu.smt, second.cpu and second.cpu.smt),
    ):
        if old != new:
            yield f"{whose}: {what} differs: {_shown(old)} before, {_shown(new)} after"
    for name in sorted(first.versions.keys() | second.versions.keys()):
        old, new = first.versions.get(name), second.versions.get(name)
        if old != new:
            yield f"{whose}: {name} differs: {_shown(old)} before, {_shown(new)} after"
    for path in sorted(first.configurations.keys() | second.configurations.keys()):
        if first.configurations.get(path) != second.configurations.get(path):
            yield f"{whose}: {path} differs"
    nics = [{nic.name: nic for nic in host.nics} for host in (first, second)]
    for name in sorted(nics[0].keys() | nics[1].keys()):
        if nics[0].get(name) != nics[1].get(name):
            yield f"{whose}: NIC {name} differs in driver, firmware, link, rings or queues, or is not there"


def _shown(value: object) -> str:
    return "unknown" if value is None else "none" if value == "" else str(value)


def _differences(before: TrafficReport, after: TrafficReport, tolerance: float) -> Iterator[Difference]:
    if before.proof is not None:
        yield _proof(before, after)
    others = {_key(measurement): measurement for measurement in after.measurements}
    for first in before.measurements:
        second = others.get(_key(first))
        frames, name = first.sizes.label, title_of(first)
        reason = _unfit(first, second)
        if reason:
            yield Difference(
                frames=frames,
                measurement=name,
                figure="",
                unit="",
                before=None,
                after=None,
                change=Change.INCOMPARABLE,
                note=reason,
            )
            continue
        assert second is not None
        yield from _verdicts(first, second)
        pairs = {figure.name: figure for figure in _figures(second)}
        for figure in _figures(first):
            yield _difference(frames, name, figure, pairs.get(figure.name), tolerance)
        note = _loads(first, second)
        if note:
            yield Difference(
                frames=frames,
                measurement=name,
                figure="",
                unit="",
                before=None,
                after=None,
                change=Change.SAME,
                note=note,
            )


def _key(measurement: MeasurementReport) -> tuple[str, str, str]:
    share = f"{measurement.share:.6g}" if isinstance(measurement, LatencyRunReport) else ""
    return measurement.kind, f"{title_of(measurement)} {share}", str(measurement.sizes.shares)


def _unfit(first: MeasurementReport, second: MeasurementReport | None) -> str:
    """Return why two measurements cannot be compared; empty when they can."""
    if second is None:
        return "not measured in the second report"
    for which, found in (("first", first), ("second", second)):
        if found.verdict.outcome is Outcome.INVALID:
            return f"INVALID in the {which} report: {found.verdict.reason}"
    if isinstance(first, (TargetReport, SoakReport, ChurnReport)) and isinstance(second, type(first)):
        return _unlike(first.trial, second.trial)
    return ""


def _unlike(first: TrialReport, second: TrialReport) -> str:
    if abs(first.rate_pps - second.rate_pps) > 0.001 * first.rate_pps:
        return f"offered {first.rate_pps:,.0f} pps before and {second.rate_pps:,.0f} pps after"
    return ""


def _loads(first: MeasurementReport, second: MeasurementReport) -> str:
    """Return in words that a load which is a part of the rate found is another one; empty when it is not."""
    if not isinstance(first, LatencyRunReport) or not isinstance(second, LatencyRunReport):
        return ""
    if abs(first.rate_pps - second.rate_pps) <= 0.01 * first.rate_pps:
        return ""
    return f"measured at {first.rate_pps:,.0f} pps before and at {second.rate_pps:,.0f} pps after"


def _verdicts(first: MeasurementReport, second: MeasurementReport) -> Iterator[Difference]:
    """Return a line where the verdict changed: a figure within its tolerance may still miss the goal."""
    old, new = first.verdict.outcome, second.verdict.outcome
    if old is not new:
        yield Difference(
            frames=first.sizes.label,
            measurement=title_of(first),
            figure="verdict",
            unit="",
            before=None,
            after=None,
            change=Change.WORSE if new is Outcome.FAIL else Change.BETTER,
            note=f"{old.value} before, {new.value} after: {second.verdict.reason}",
        )


def _proof(before: TrafficReport, after: TrafficReport) -> Difference:
    first, second = before.proof, after.proof
    assert first is not None
    missed = (first.prefixes - first.right) / max(1, first.prefixes)
    figure = _Figure("prefixes not by their port", "ratio", missed, relative=0.0)
    if second is None:
        return _difference("", "port proof", figure, None, 0.0)
    other = _Figure(figure.name, figure.unit, (second.prefixes - second.right) / max(1, second.prefixes))
    return _difference("", "port proof", figure, other, 0.0)


def _difference(
    frames: str, measurement: str, first: _Figure, second: _Figure | None, tolerance: float
) -> Difference:
    old, new = first.value, None if second is None else second.value
    change, allowed, note = Change.INCOMPARABLE, None, "not known in one of the reports"
    if old is not None and new is not None and second is not None:
        relative = tolerance if first.relative is None else max(first.relative, tolerance)
        noise = sqrt(first.noise**2 + second.noise**2)
        allowed = max(relative * abs(old), noise, first.least)
        gain = new - old if first.higher_is_better else old - new
        change = Change.SAME if abs(gain) <= allowed else Change.BETTER if gain > 0 else Change.WORSE
        note = ""
        if change is Change.WORSE and second.open_ended:
            change = Change.INCOMPARABLE
            note = "the second is a lower bound only: the device may do more than was offered"
        elif change is Change.BETTER and first.open_ended:
            change, note = Change.SAME, "the first is a lower bound only: the device may have done more"
    return Difference(
        frames=frames,
        measurement=measurement,
        figure=first.name,
        unit=first.unit,
        before=old,
        after=new,
        tolerance=allowed,
        change=change,
        note=note,
    )


def _figures(measurement: MeasurementReport) -> list[_Figure]:
    """Return the figures of a measurement that say how good the device is."""
    match measurement:
        case TargetReport():
            return [_loss(measurement.trial), *_latencies(measurement.trial.latency)]
        case RateSearchReport():
            return [_rate(measurement)]
        case LossCurveReport():
            return [
                _Figure(
                    f"loss ratio at {point.share:.0%}", "ratio", point.lost / point.sent, least=_LEAST_LOSS
                )
                for point in measurement.points
                if point.valid and point.sent
            ]
        case BackToBackReport():
            return [_bursts(measurement.bursts)]
        case LatencyRunReport():
            return _latencies(measurement.latency)
        case SoakReport():
            steady = _Figure("variation", "ratio", measurement.variation, relative=0.5, least=0.002)
            return [_loss(measurement.trial), _received(measurement.trial.series), steady]
        case ChurnReport():
            return _churn(measurement)


def _loss(trial: TrialReport) -> _Figure:
    return _Figure("loss ratio", "ratio", trial.loss_ratio, least=_LEAST_LOSS)


def _rate(search: RateSearchReport) -> _Figure:
    """Return the rate found, with the distance of its bounds as what chance may do."""
    found = search.found
    width = found.upper_pps - found.rate_pps if found.upper_pps and found.rate_pps else 0.0
    return _Figure(
        "rate",
        "pps",
        found.rate_pps,
        max(0.0, width),
        higher_is_better=True,
        open_ended=found.upper_pps is None,
    )


def _bursts(bursts: Sequence[int]) -> _Figure:
    mean = fmean(bursts) if bursts else None
    return _Figure("mean burst", "frames", mean, _chance(bursts), higher_is_better=True)


def _received(series: SeriesReport) -> _Figure:
    """Return the mean rate received while the stream was sent; its last interval may be a short one."""
    last = max((i for i, n in enumerate(series.intended) if n), default=0)
    rates = [count / series.interval_s for count in series.received[:last]]
    mean = fmean(rates) if rates else None
    return _Figure("received", "pps", mean, _chance(rates), higher_is_better=True, relative=0.0)


def _latencies(found: LatencyReport | None) -> list[_Figure]:
    if found is None:
        return []
    return [
        _Figure(
            f"{percent:g} % within",
            "ns",
            float(found.percentiles[percent]),
            relative=LATENCY_TOLERANCE,
            least=_LEAST_LATENCY_NS,
        )
        for percent in _PERCENTILES
        # a percentile needs ten packets beyond it to be more than the accident of one of them
        if percent in found.percentiles and found.packets * (1 - percent / 100) >= 10
    ]


def _churn(run: ChurnReport) -> list[_Figure]:
    step = run.trial.series.interval_s
    slowest = dict(run.convergence_s.quantiles)
    return [
        _Figure("lost", "packets", float(run.lost), relative=0.2, least=10.0),
        _Figure("blocked", "s", run.blocked_s, least=max(run.blocked_resolution_s, step)),
        _Figure(
            "99 % of prefixes converged within",
            "s",
            slowest.get(99.0, 0.0),
            relative=LATENCY_TOLERANCE,
            least=run.convergence_resolution_s,
        ),
    ]


def _chance(values: Sequence[float]) -> float:
    """Return how far chance may move the mean of these values: `_ERRORS` standard errors."""
    return _ERRORS * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
