"""The verdict on a terminal, with rich."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from router_agent.traffic.judgement.verdict import Outcome, Verdict
from router_agent.traffic.measurements.check import CheckResult

_STYLE = {Outcome.PASS: "bold green", Outcome.FAIL: "bold red", Outcome.INVALID: "bold yellow"}


def render_terminal(result: CheckResult, console: Console | None = None) -> None:
    """Print the verdict, its parts, the ledger and where the reports are."""
    (console or Console()).print(panel_of(result))


def panel_of(result: CheckResult) -> RenderableType:
    """Return what `render_terminal` prints."""
    rows: list[RenderableType] = [_headline(result.verdict), Text(), _parts(result)]
    if result.ledger is not None:
        rows += [Text(), _ledger(result)]
    rows += [Text(f"note: {note}", style="dim") for note in result.verdict.notes]
    rows += [Text(f"{kind}: {path}", style="dim") for kind, path in result.reports.items()]
    style = _STYLE[result.verdict.outcome].removeprefix("bold ")
    return Panel(Group(*rows), title=f"traffic check: {result.check.name}", border_style=style)


def _headline(verdict: Verdict) -> Text:
    return Text.assemble((verdict.outcome.value, _STYLE[verdict.outcome]), "  ", verdict.reason)


def _parts(result: CheckResult) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    table.add_column("verdict")
    table.add_column("measured", overflow="fold")
    for part in result.parts:
        outcome = part.verdict.outcome
        table.add_row(part.name, Text(outcome.value, style=_STYLE[outcome]), part.verdict.reason)
    return table


def _ledger(result: CheckResult) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("packets of the trial")
    table.add_column("count", justify="right")
    table.add_column("counter", style="dim")
    ledger, trial = result.ledger, result.trial
    if ledger is None or trial is None:
        return table
    table.add_row("intended", f"{trial.intended:,}", "")
    table.add_row("sent", f"{ledger.sent:,}", "tester's port")
    table.add_row("received", f"{ledger.received:,}", "tester's ports, distinct")
    for drop in ledger.drops:
        table.add_row(f"{drop.side.value}: {drop.name}", f"{drop.count:,}", drop.source)
    if ledger.unaccounted < 0:
        table.add_row("drops of packets not of the test", f"{ledger.unaccounted:,}", "in the counters above")
    table.add_row("unaccounted", f"{max(0, ledger.unaccounted):,}", "")
    return table
