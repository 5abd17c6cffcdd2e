"""The report on a terminal, with rich: verdict and tier first, then what was found, then why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.check import CheckResult
from router_agent.traffic.report.compare import Change, Comparison, Difference
from router_agent.traffic.report.model import (
    ChurnReport,
    MeasurementReport,
    PredictionReport,
    SoakReport,
    TargetReport,
    TrafficReport,
    title_of,
)
from router_agent.traffic.report.record import report_of
from router_agent.traffic.report.words import CLAIMS, chief_culprits, duration, rate

_STYLE = {Outcome.PASS: "bold green", Outcome.FAIL: "bold red", Outcome.INVALID: "bold yellow"}
_CHANGED = {
    Change.SAME: "",
    Change.BETTER: "green",
    Change.WORSE: "bold red",
    Change.INCOMPARABLE: "yellow",
}
_PIPE_WIDTH = 140
"""Of what is written to a file or a pipe, which have no width of their own."""


def render_terminal(result: CheckResult, console: Console | None = None) -> None:
    """Print the report of a check and where its files are."""
    show(report_of(result), console, result.reports)


def show(
    report: TrafficReport, console: Console | None = None, files: Mapping[str, Path] | None = None
) -> None:
    """Print a report."""
    (console or _console()).print(panel_of(report, files or {}))


def show_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print a comparison: what differs between the checks, then the figures."""
    out = console or _console()
    out.print(Text(f"before  {comparison.before}"), Text(f"after   {comparison.after}"), sep="\n")
    for line in comparison.context:
        out.print(Text(f"note: {line}", style="yellow"))
    if comparison.refused is not None:
        out.print(Text(f"NOT COMPARABLE  {comparison.refused}", style="bold yellow"))
        return
    out.print(_differences(comparison.differences))
    for remark in _remarks(comparison.differences):
        out.print(remark)
    worse, unfit = len(comparison.worse), len(comparison.incomparable)
    words = f"{worse} became worse" if worse else "nothing became worse"
    words += f"; {unfit} could not be compared" if unfit else ""
    style = "bold red" if worse else "bold yellow" if unfit else "bold green"
    out.print(Text(words, style=style))


def panel_of(report: TrafficReport, files: Mapping[str, Path]) -> RenderableType:
    """Return what `show` prints."""
    style = _STYLE[report.verdict.outcome].removeprefix("bold ")
    rows = list(_rows(report, files))
    return Panel(Group(*rows), title=Text(f"traffic check: {report.scenario.name}"), border_style=style)


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def _rows(report: TrafficReport, files: Mapping[str, Path]) -> Iterator[RenderableType]:
    verdict = report.verdict
    yield Text.assemble(
        (verdict.outcome.value, _STYLE[verdict.outcome]), "  ", (f" tier: {report.tier.value} ", "reverse")
    )
    yield Text(verdict.reason)
    yield Text(CLAIMS[report.tier], style="dim")
    for number, line in enumerate(chief_culprits(report), 1):
        yield Text(f"{number}. {line}", style="bold")
    yield Text()
    yield _parts(report)
    chosen = _shown(report)
    if chosen is not None:
        yield Text()
        yield _ledger(chosen)
    for prediction in report.predictions:
        yield Text()
        yield _prediction(prediction)
    if verdict.notes or files:
        yield Text()
    for note in verdict.notes:
        yield Text(f"note: {note}", style="dim")
    for kind, path in files.items():
        yield Text(f"{kind}: {path}", style="dim")


def _parts(report: TrafficReport) -> Table:
    table = _table("part", "verdict", "measured")
    for part in report.parts:
        outcome = part.verdict.outcome
        cells = Text(part.name), Text(outcome.value, style=_STYLE[outcome]), Text(part.verdict.reason)
        table.add_row(*cells)
    return table


def _shown(report: TrafficReport) -> TargetReport | SoakReport | ChurnReport | None:
    """Return the measurement whose ledger is shown: the first that decided the verdict, else the first."""
    trials = [m for m in report.measurements if isinstance(m, (TargetReport, SoakReport, ChurnReport))]
    decided = [m for m in trials if m.verdict.outcome is report.verdict.outcome]
    return next(iter(decided or trials), None)


def _ledger(found: TargetReport | SoakReport | ChurnReport) -> Table:
    trial, ledger = found.trial, found.ledger
    table = _table(
        f"packets of the {title_of(found)}, {_frames(found)}", "count", "counter", numbers=("count",)
    )
    table.add_row("intended", f"{trial.intended:,}", "")
    table.add_row("sent", f"{ledger.sent:,}", "tester's port")
    table.add_row("received", f"{ledger.received:,}", "tester's ports, distinct")
    for drop in ledger.drops:
        name = f"{drop.side.value}: {drop.name}"
        table.add_row(Text(name), f"{drop.count:,}", Text(drop.source, style="dim"))
    if ledger.unaccounted < 0:
        table.add_row("drops of packets not of the test", f"{ledger.unaccounted:,}", "in the counters above")
    table.add_row("unaccounted", f"{max(0, ledger.unaccounted):,}", "")
    if trial.latency is not None:
        middle, most = (duration(trial.latency.percentiles[percent]) for percent in (50.0, 99.0))
        table.add_row("latency", "", f"half within {middle}, 99 % within {most}")
    return table


def _prediction(prediction: PredictionReport) -> Table:
    table = _table(f"predicted for {prediction.sizes.label}", "packets/s", numbers=("packets/s",))
    for limit in prediction.limits:
        table.add_row(Text(limit.what), rate(limit.pps))
    for what in prediction.unknown:
        table.add_row(Text(what), "not known")
    measured = "none" if prediction.measured_pps is None else rate(prediction.measured_pps)
    table.add_row(
        Text(f"measured: {prediction.difference}" if prediction.difference else "measured"), measured
    )
    return table


def _differences(differences: list[Difference]) -> Table:
    table = _table("measured", "before", "after", "change", "", numbers=("before", "after", "change"))
    for row in differences:
        if not row.figure or row.figure == "verdict":
            continue
        change = ""
        if row.before and row.after is not None and row.change is not Change.SAME:
            change = f"{100 * (row.after - row.before) / row.before:+.1f} %"
        cells = _value(row.before, row.unit), _value(row.after, row.unit), change
        table.add_row(Text(_measured(row)), *cells, Text(row.change.value, style=_CHANGED[row.change]))
    return table


def _remarks(differences: list[Difference]) -> Iterator[Text]:
    """Yield what has no figures, or more to say than those."""
    for row in differences:
        if row.note:
            change = "" if row.change is Change.SAME else f"{row.change.value}: "
            yield Text(f"{change}{_measured(row)}: {row.note}", style=_CHANGED[row.change])


def _measured(row: Difference) -> str:
    frames = f"{row.frames} bytes" if row.frames.isdecimal() else row.frames
    return ", ".join(part for part in (frames, row.measurement, row.figure) if part)


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    match unit:
        case "ns":
            return duration(value)
        case "s":
            return duration(value * 1e9)
        case "pps":
            return f"{rate(value)} pps"
        case "ratio":
            return "0" if value == 0 else f"{value:.3g}"
        case _:
            return f"{value:,.0f}"


def _frames(measurement: MeasurementReport) -> str:
    label = measurement.sizes.label
    return f"{label} bytes" if label.isdecimal() else label


def _table(*titles: str, numbers: tuple[str, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for title in titles:
        table.add_column(Text(title), justify="right" if title in numbers else "left", overflow="fold")
    return table
