"""Which plots a report shows: each one from the data of report.json, with what it says in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from router_agent.traffic.report.axes import (
    categories,
    duration,
    linear,
    logarithmic,
    percentiles,
    short,
    time,
)
from router_agent.traffic.report.model import (
    ChurnReport,
    ForwardingRunReport,
    LatencyReport,
    LossCurveReport,
    PredictionReport,
    RateSearchReport,
    SeriesReport,
    TargetReport,
    TrafficReport,
    TrialReport,
)
from router_agent.traffic.report.plots import Curve, Event, Plot, Shape
from router_agent.traffic.report.words import routes

_MOST_POINTS = 300
"""Of a curve over time: more of them than a narrow screen has pixels."""

_APART = 0.12
"""Between markers of one category, as a part of a category's width."""

_FAR = 8
"""Rates that differ by more than this need decades to be told apart."""

_STYLES = (("first", "circle"), ("second", "square"), ("third", "diamond"), ("fourth", "triangle"))


def rate_over_time(trial: TrialReport, events: Sequence[Event] = ()) -> Plot:
    """Return packets a second, intended, sent and received, over a trial."""
    series = _summed(trial.series)
    last = max((i + 1 for i, n in enumerate(series.intended) if n), default=0)
    # the last interval may be a short one, and that is no drop of the rate
    spans = [min(series.interval_s, trial.duration_s - i * series.interval_s) for i in range(last)]
    whole = [i for i, span in enumerate(spans) if span > series.interval_s / 2]
    columns = {
        name: [(i * series.interval_s + spans[i] / 2, values[i] / spans[i]) for i in whole]
        for name, values in (
            ("intended", series.intended),
            ("sent", series.sent),
            ("received", series.received),
        )
    }
    top = max((pps for points in columns.values() for _, pps in points), default=0.0)
    return Plot(
        "Packets a second over time",
        _spread("received", [pps for _, pps in columns["received"]]),
        time("seconds", last * series.interval_s),
        linear("packets/s", 0.0, top),
        tuple(Curve(name, name, points) for name, points in columns.items()),
        tuple(events),
    )


def loss_over_time(trial: TrialReport, events: Sequence[Event] = ()) -> Plot:
    """Return packets lost in each interval of a trial."""
    series = _summed(trial.series)
    lost = [max(0, n) for n in series.lost]
    worst = max(range(len(lost)), key=lost.__getitem__, default=0)
    summary = (
        f"{sum(lost):,} packets lost, in {sum(n > 0 for n in lost):,} of {len(lost):,} intervals of "
        f"{series.interval_s:g} s; the most, {lost[worst]:,}, at {worst * series.interval_s:.4g} s."
        if any(lost)
        else "No packet was lost."
    )
    points = [(i * series.interval_s, float(n)) for i, n in enumerate(lost)]
    return Plot(
        "Packets lost over time",
        summary,
        time("seconds", len(lost) * series.interval_s),
        linear(f"packets lost per {series.interval_s:g} s", 0.0, float(max(lost, default=0)) or 4.0),
        (Curve("lost", "lost", points, Shape.BARS),),
        tuple(events),
        bar_width=series.interval_s,
    )


def latency(runs: Sequence[tuple[str, LatencyReport]]) -> Plot:
    """Return latency over percentile, a curve for each labelled histogram."""
    curves = [
        Curve(label, css, [(percent, float(ns)) for percent, ns in found.curve], marker=marker)
        for (label, found), (css, marker) in zip(runs, _cycled(len(runs)), strict=True)
    ]
    values = [ns for curve in curves for _, ns in curve.points]
    highest = max(
        (percent for curve in curves for percent, _ in curve.points if percent < 100.0), default=99.0
    )
    summary = "; ".join(
        f"{label}: half of the packets within {duration(_at(found, 50.0))}, 99 % within "
        f"{duration(_at(found, 99.0))}, the slowest {duration(_at(found, 100.0))}"
        for label, found in runs
    )
    return Plot(
        "Latency by percentile",
        f"{summary}.",
        percentiles("percent of packets", highest),
        logarithmic("latency", min(values, default=1.0), max(values, default=10.0), words=duration),
        tuple(curves),
    )


def loss_curve(curve: LossCurveReport) -> Plot:
    """Return the frame loss rate over the offered rate."""
    points = sorted((p.rate_pps, 100.0 * p.lost / p.sent) for p in curve.points if p.valid and p.sent)
    invalid = sum(not p.valid for p in curve.points)
    free = max((rate for rate, lost in points if lost == 0), default=None)
    summary = "No rate was free of loss." if free is None else f"No loss at {free:,.0f} packets/s and below."
    if invalid:
        summary += f" Invalid and not shown: {invalid}."
    return Plot(
        "Loss over the offered rate",
        summary,
        linear("packets/s offered", 0.0, max((rate for rate, _ in points), default=1.0), ticks=7),
        linear("% of packets lost", 0.0, max((lost for _, lost in points), default=0.0) or 1.0),
        (Curve("lost", "lost", points, Shape.MARKED),),
    )


def search_trials(search: RateSearchReport) -> Plot:
    """Return the trials of a search in their order: those that met the loss ratio, and the others."""
    trials = search.found.trials

    def chosen(keep: Iterable[bool]) -> list[tuple[float, float]]:
        return [(float(i + 1), t.rate_pps) for i, (t, k) in enumerate(zip(trials, keep, strict=True)) if k]

    met = [t.valid and t.lost <= search.loss_ratio * t.sent for t in trials]
    curves = (
        Curve("within the loss ratio", "received", chosen(met), Shape.POINTS),
        Curve(
            "above it",
            "lost",
            chosen(t.valid and not m for t, m in zip(trials, met, strict=True)),
            Shape.POINTS,
            "triangle",
        ),
        Curve("invalid", "intended", chosen(not t.valid for t in trials), Shape.POINTS, "cross"),
    )
    return Plot(
        f"Trials of the search for {search.name}",
        f"{search.found.reason}.",
        linear("trial", 0.0, float(len(trials) + 1), ticks=8, least=1.0),
        linear("packets/s", 0.0, max((t.rate_pps for t in trials), default=1.0)),
        tuple(curve for curve in curves if curve.points),
    )


def rates_by_size(report: TrafficReport) -> Plot | None:
    """Return what was asked for, predicted and found at each frame size; None of one size alone."""
    labels = list(dict.fromkeys(m.sizes.label for m in report.measurements))
    if len(labels) < 2:
        return None
    kinds = [
        (name, css, marker, points)
        for name, css, marker, points in (
            ("asked for", "intended", "square", _asked(report, labels)),
            ("predicted", "second", "diamond", _predicted(report.predictions, labels)),
            ("found without loss", "received", "circle", _found(report, labels, strict=True)),
            ("found with some loss", "fourth", "triangle", _found(report, labels, strict=False)),
        )
        if points
    ]
    # beside each other, or equal ones would hide each other
    curves = [
        Curve(
            name, css, [(x + _APART * (i - (len(kinds) - 1) / 2), y) for x, y in points], Shape.POINTS, marker
        )
        for i, (name, css, marker, points) in enumerate(kinds)
    ]
    rates = [pps for *_, points in kinds for _, pps in points]
    far = max(rates) > _FAR * min(rates)
    return Plot(
        "Rate by frame size",
        "; ".join(
            f"{name}: " + ", ".join(f"{labels[int(x)]}: {short(pps)}" for x, pps in points)
            for name, _, _, points in kinds
        )
        + ".",
        categories("bytes with FCS", labels),
        logarithmic("packets/s", min(rates), max(rates)) if far else linear("packets/s", 0.0, max(rates)),
        tuple(curves),
    )


def churn_events(run: ChurnReport) -> tuple[Event, ...]:
    """Return the batches of route changes, numbered as the table below the plot has them."""
    return tuple(Event(batch.at_s, str(i)) for i, batch in enumerate(run.batches, 1))


def convergence(run: ChurnReport) -> Plot | None:
    """Return how long prefixes were without packets; None when none was."""
    quantiles = run.convergence_s.quantiles
    if not quantiles:
        return None
    points = [(percent, seconds * 1e9) for percent, seconds in quantiles if seconds > 0]
    values = [ns for _, ns in points]
    half = dict(quantiles).get(50.0, 0.0)
    return Plot(
        "Convergence by prefix",
        f"{run.convergence_s.prefixes:,} prefixes lost packets; half of them for {duration(half * 1e9)} or "
        f"less, the slowest for {duration(max(values, default=0.0))}.",
        percentiles("percent of the prefixes that lost packets", 99.9),
        logarithmic(
            "time without packets", min(values, default=1.0), max(values, default=10.0), words=duration
        ),
        (Curve("convergence", "first", points, Shape.MARKED),),
    )


def steadiness(runs: Sequence[ForwardingRunReport]) -> Plot:
    """Return what each forwarder received over time, in percent of its own mean: the flat one is steady."""
    curves: list[Curve] = []
    for run, (css, marker) in zip(runs, _cycled(len(runs)), strict=True):
        plot = rate_over_time(run.trial)
        received = next(curve.points for curve in plot.curves if curve.label == "received")
        mean = fmean(pps for _, pps in received) if received else 0.0
        points = [(x, 100.0 * pps / mean) for x, pps in received] if mean else []
        curves.append(Curve(f"{run.forwarder}, {routes(run.routes)}", css, points, marker=marker))
    values = [share for curve in curves for _, share in curve.points]
    end = max((x for curve in curves for x, _ in curve.points), default=1.0)
    return Plot(
        "Packets received, each in percent of its own mean",
        "; ".join(
            f"{run.forwarder} with {routes(run.routes)} varies by {100 * run.variation:.2f} %" for run in runs
        )
        + ".",
        time("seconds", end),
        linear("% of the mean", min(values, default=0.0), max(values, default=100.0)),
        tuple(curves),
    )


def rates_by_routes(runs: Sequence[ForwardingRunReport]) -> Plot:
    """Return the highest rate of each forwarder by the routes in its table."""
    counts = sorted({run.routes for run in runs})
    names = list(dict.fromkeys(run.forwarder for run in runs))
    curves = [
        Curve(
            name,
            css,
            sorted(
                (float(counts.index(run.routes)), run.highest_pps) for run in runs if run.forwarder == name
            ),
            Shape.MARKED,
            marker,
        )
        for name, (css, marker) in zip(names, _cycled(len(names)), strict=True)
    ]
    rates = [run.highest_pps for run in runs if run.highest_pps > 0] or [1.0]
    far = max(rates) > _FAR * min(rates)
    return Plot(
        "Highest rate by routes in the table",
        "; ".join(
            f"{run.forwarder} with {routes(run.routes)}: {short(run.highest_pps)} packets/s" for run in runs
        )
        + ".",
        categories("routes", [f"{count:,}" for count in counts]),
        logarithmic("packets/s", min(rates), max(rates)) if far else linear("packets/s", 0.0, max(rates)),
        tuple(curves),
    )


def _asked(report: TrafficReport, labels: list[str]) -> list[tuple[float, float]]:
    found = {m.sizes.label: m.trial.rate_pps for m in report.measurements if isinstance(m, TargetReport)}
    return [(float(i), found[label]) for i, label in enumerate(labels) if label in found]


def _predicted(predictions: Sequence[PredictionReport], labels: list[str]) -> list[tuple[float, float]]:
    found = {p.sizes.label: p.limits[0].pps for p in predictions if p.limits}
    return [(float(i), found[label]) for i, label in enumerate(labels) if label in found]


def _found(report: TrafficReport, labels: list[str], *, strict: bool) -> list[tuple[float, float]]:
    searches = (m for m in report.measurements if isinstance(m, RateSearchReport))
    rates = [
        (float(labels.index(s.sizes.label)), s.found.rate_pps)
        for s in searches
        if (s.loss_ratio == 0) is strict and s.found.rate_pps is not None
    ]
    return sorted(rates)


def _cycled(count: int) -> list[tuple[str, str]]:
    return [_STYLES[i % len(_STYLES)] for i in range(count)]


def _at(found: LatencyReport, percent: float) -> float:
    return float(found.percentiles.get(percent, 0))


def _spread(what: str, values: Sequence[float]) -> str:
    if not values:
        return "Nothing was sent."
    return (
        f"{what.capitalize()} packets a second: mean {fmean(values):,.0f}, least {min(values):,.0f}, most "
        f"{max(values):,.0f}."
    )


def _summed(series: SeriesReport) -> SeriesReport:
    """Return the series in intervals so long that a plot can show each of them."""
    step = -(-len(series.sent) // _MOST_POINTS) if series.sent else 1
    if step == 1:
        return series

    def summed(column: list[int]) -> list[int]:
        return [sum(column[i : i + step]) for i in range(0, len(column), step)]

    return SeriesReport(
        interval_s=series.interval_s * step,
        intended=summed(series.intended),
        sent=summed(series.sent),
        received=summed(series.received),
        lost=summed(series.lost),
    )
