"""``router-agent traffic compare-forwarding``: kernel and VPP forwarding on this machine, in one run."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from router_agent.lab.errors import LabError
from router_agent.lab.forwarding import Plan, compare_forwarding
from router_agent.lab.plane import vpp_available
from router_agent.traffic.counters.source import CounterError
from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.measurements.results import Comparison
from router_agent.traffic.report.environment import this_host
from router_agent.traffic.report.model import (
    ForwardingReport,
    ForwardingRunReport,
    SizesReport,
    report_json,
)
from router_agent.traffic.report.page import forwarding_html
from router_agent.traffic.scenario import FrameSizes

_PORTS = ["west", "east"]


class CommandError(Exception):
    """The comparison cannot be made; the message says what to do."""


def compare(
    *,
    routes: list[int],
    frame: int,
    destinations: int,
    seconds: float,
    json: bool,
    directory: Path | None,
    console: Console,
) -> None:
    """Compare, and print a table, or JSON on standard output.

    Args:
        routes: of each table.
        frame: size in bytes with FCS.
        destinations: prefixes that packets go to.
        seconds: length of the steady trials.
        json: print JSON.
        directory: where to write report.json and report.html; None writes none.
        console: told what is going on.

    Raises:
        CommandError: this machine cannot, or something failed on the way.
    """
    if os.geteuid() != 0:
        raise CommandError("network namespaces need root; run as root")
    if not vpp_available():
        raise CommandError("`vpp` and `vppctl` are not on PATH; install VPP")
    plan = Plan(tables=routes, sizes=FrameSizes.of(frame), destinations=destinations, steady_s=seconds)
    started = datetime.now(UTC)
    try:
        with console.status("comparing") as status:
            found = compare_forwarding(plan, lambda _stage, _done, text: status.update(text))
    except (LabError, GeneratorError, CounterError) as error:
        raise CommandError(str(error)) from error
    report = report_of(found, started)
    if directory is not None:
        write(report, directory)
    if json:
        print(report_json(report))
        return
    show(found, Console(highlight=False))


def show(found: Comparison, console: Console) -> None:
    """Print a comparison for people."""
    table = Table(box=box.SIMPLE_HEAD, title=f"Frames of {found.sizes.label} bytes", title_justify="left")
    table.add_column("forwarding")
    for heading in ("routes", "highest pps", "cycles/packet", "steady pps", "lost", "variation"):
        table.add_column(heading, justify="right")
    for run in found.runs:
        table.add_row(
            f"{run.forwarder}, {run.wires}",
            f"{run.routes:,}",
            f"{run.highest_pps:,.0f}",
            "" if run.cycles is None else f"{run.cycles:,.0f}",
            f"{run.trial.rate_pps:,.0f}",
            f"{run.trial.loss_ratio:.3%}",
            f"{run.variation:.1%}",
        )
    console.print(table)
    for run in found.runs:
        console.print(f"{run.forwarder}, {run.routes:,} routes: limited by {run.limit}", soft_wrap=True)
    for routes, gain in found.gain.items():
        console.print(f"with {routes:,} routes VPP forwards {gain:.1f} times what the kernel does")
    for run in found.runs:
        if run.verdict.outcome.exit_code:
            console.print(f"{run.forwarder}, {run.routes:,} routes: {run.verdict.reason}", soft_wrap=True)


def report_of(found: Comparison, started: datetime) -> ForwardingReport:
    """Return the report of a comparison that has just ended."""
    return ForwardingReport(
        started=started,
        ended=datetime.now(UTC),
        sizes=SizesReport.model_validate(found.sizes),
        runs=[ForwardingRunReport.model_validate(run, context={"ports": _PORTS}) for run in found.runs],
        gain=found.gain,
        tester=this_host(),
    )


def write(report: ForwardingReport, directory: Path) -> None:
    """Write report.json and report.html.

    Raises:
        CommandError: they cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "report.json").write_text(report_json(report) + "\n")
        (directory / "report.html").write_text(forwarding_html(report))
    except OSError as error:
        raise CommandError(f"{directory}: {error.strerror}; expected a directory to write into") from error
