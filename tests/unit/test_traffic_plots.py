"""Plots stay inside their frames, whatever the values, and say in words what they show."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import traffic_reports
from router_agent.traffic.report import figures
from router_agent.traffic.report.axes import (
    Axis,
    categories,
    duration,
    linear,
    logarithmic,
    percentiles,
    short,
    time,
)
from router_agent.traffic.report.model import ChurnReport, LossCurveReport, RateSearchReport, TargetReport
from router_agent.traffic.report.plots import Curve, Event, Plot, Shape, key, svg

finite = st.floats(0, 1e12, allow_nan=False)
positive = st.floats(1e-3, 1e12, allow_nan=False)


def drawn(plot: Plot) -> list[ET.Element]:
    return list(ET.fromstring(f"<div>{svg(plot)}</div>"))


def points_of(element: ET.Element) -> list[tuple[float, float]]:
    """Return the absolute points of lines, and the corners of bars."""
    found: list[tuple[float, float]] = []
    for path in element.iter("path"):
        if path.get("class", "").startswith("curve"):
            numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", path.get("d", ""))]
            found += list(zip(numbers[::2], numbers[1::2], strict=True))
    for bar in element.iter("rect"):
        x, y, width, height = (float(bar.get(name, "-1")) for name in ("x", "y", "width", "height"))
        found += [(x, y), (x + width, y + height)]
    return found


@given(st.lists(finite, min_size=1, max_size=40), st.sampled_from([Shape.LINE, Shape.BARS]))
def test_values_of_any_size_stay_inside_the_frame(values: list[float], shape: Shape) -> None:
    curve = Curve("x", "sent", [(float(i), v) for i, v in enumerate(values)], shape)
    y = linear("packets/s", 0.0, max(values))
    for element in drawn(Plot("t", "s", time("seconds", float(len(values))), y, (curve,))):
        _, _, width, height = (float(n) for n in element.get("viewBox", "").split())
        for x, y_ in points_of(element):
            assert 0 <= x <= width
            assert 0 <= y_ <= height


@given(finite, finite)
def test_linear_axes_cover_their_values_in_few_round_steps(one: float, other: float) -> None:
    low, high = sorted((one, other))
    axis = linear("x", low, high)
    ticks = [value for value, _ in axis.ticks]
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low * (1 + 1e-6)
    assert ticks[-1] >= high * (1 - 1e-6)
    rising(axis)


@given(positive, positive)
def test_logarithmic_axes_cover_their_values(one: float, other: float) -> None:
    low, high = sorted((one, other))
    axis = logarithmic("x", low, high)
    assert axis.ticks[0][0] <= low * (1 + 1e-6)
    assert axis.ticks[-1][0] >= high * (1 - 1e-6)
    rising(axis)


@given(st.floats(1e-3, 1e6))
def test_time_axes_end_where_the_trial_ends(seconds: float) -> None:
    axis = time("seconds", seconds)
    assert axis.place(seconds) == 1.0
    assert 2 <= len(axis.ticks) <= 10
    rising(axis)


def test_each_nine_of_a_percentile_axis_takes_as_much_room() -> None:
    axis = percentiles("percent", 99.99)
    assert [text for _, text in axis.ticks] == ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
    places = [axis.place(percent) for percent in (0.0, 90.0, 99.0, 99.9, 99.99)]
    assert [b - a for a, b in pairwise(places)] == pytest.approx([0.25] * 4)
    assert axis.place(100.0) == 1.0


def rising(axis: Axis) -> None:
    places = [axis.place(value) for value, _ in axis.ticks]
    assert places == sorted(places)
    assert len(set(places)) == len(places)
    assert 0.0 <= places[0] <= places[-1] <= 1.0


def test_categories_lie_in_the_middle_of_their_room() -> None:
    axis = categories("frames", ["64", "imix"])
    assert [axis.place(value) for value, _ in axis.ticks] == [0.25, 0.75]


@pytest.mark.parametrize(
    ("value", "text"),
    [(999, "999 ns"), (1_000, "1 µs"), (2_345_678, "2.346 ms"), (3e9, "3 s"), (0, "0 ns")],
)
def test_latencies_have_the_unit_that_fits(value: float, text: str) -> None:
    assert duration(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (999, "999"), (14_880_952, "14.88 M"), (1e9, "1 G")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_a_plot_is_drawn_for_wide_and_narrow_screens_and_named() -> None:
    plot = Plot("Rate & loss", "It fell.", time("s", 1.0), linear("pps", 0, 1), ())
    for element, css in zip(drawn(plot), ("wide", "narrow"), strict=True):
        assert css in element.get("class", "")
        assert element.get("role") == "img"
        assert element.get("aria-label") == "Rate & loss"


def test_ticks_and_labels_of_events_do_not_overlap() -> None:
    events = tuple(Event(0.01 * i, f"event {i}") for i in range(100))
    axis = categories("frames", [f"a long name {i}" for i in range(30)])
    for element in drawn(Plot("t", "s", axis, linear("y", 0, 1), (), events)):
        for name in ("mid", "event-label"):
            texts = [t for t in element.iter("text") if t.get("class", "").split()[-1] == name]
            spans = [(float(t.get("x", "0")), len(t.text or "") * 6.0) for t in texts]
            assert spans
            for (left, width), (right, other) in pairwise(spans):
                assert left + width / 2 <= right - other / 2


def test_curves_differ_without_colour() -> None:
    curves = [Curve(m, m, [(0.0, 0.0)], Shape.POINTS, m) for m in ("circle", "square", "diamond", "triangle")]
    shapes = {re.sub(r'(class|c?x|c?y|d)="[^"]*"', "", key(curve)) for curve in curves}
    assert len(shapes) >= 3
    assert len({key(curve) for curve in curves}) == 4


def test_figures_say_what_they_show() -> None:
    report = traffic_reports.report()
    target = next(m for m in report.measurements if isinstance(m, TargetReport))
    assert f"{target.trial.lost:,} packets lost" in figures.loss_over_time(target.trial).summary
    rate = figures.rate_over_time(target.trial)
    assert {curve.label for curve in rate.curves} == {"intended", "sent", "received"}
    curve = next(m for m in report.measurements if isinstance(m, LossCurveReport))
    loss = figures.loss_curve(curve)
    assert "No loss at 600,000 packets/s" in loss.summary
    assert "Invalid and not shown: 1." in loss.summary
    assert len(loss.curves[0].points) == len(curve.points) - 1
    churn = next(m for m in report.measurements if isinstance(m, ChurnReport))
    assert [event.label for event in figures.churn_events(churn)] == ["1", "2", "3", "4"]
    search = next(m for m in report.measurements if isinstance(m, RateSearchReport))
    assert [len(c.points) for c in figures.search_trials(search).curves] == [2, 4, 1]


def test_a_short_last_interval_is_no_drop_of_the_rate() -> None:
    trial = traffic_reports.report().measurements[0]
    assert isinstance(trial, TargetReport)
    column = [100] * 10 + [20]
    series = trial.trial.series.model_copy(
        update={"intended": column, "sent": column, "received": column, "lost": [0] * 11, "interval_s": 1.0}
    )
    plot = figures.rate_over_time(trial.trial.model_copy(update={"series": series, "duration_s": 10.2}))
    for curve in plot.curves:
        assert {pps for _, pps in curve.points} == {100.0}


def test_one_frame_size_needs_no_overview() -> None:
    one = traffic_reports.report(found=traffic_reports.measurements()[:3])
    assert figures.rates_by_size(one) is None
    many = figures.rates_by_size(traffic_reports.report())
    assert many is not None
    assert {curve.label for curve in many.curves} == {
        "asked for",
        "predicted",
        "found without loss",
        "found with some loss",
    }
