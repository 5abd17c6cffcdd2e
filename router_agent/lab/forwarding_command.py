"""``router-agent traffic compare-forwarding``: kernel and VPP forwarding on this machine, in one run."""

from __future__ import annotations

import json as jsonlib
import os
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from router_agent.lab.errors import LabError
from router_agent.lab.forwarding import Plan, compare_forwarding
from router_agent.lab.plane import vpp_available
from router_agent.traffic.counters.source import CounterError
from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.measurements.results import Comparison, ForwardingRun
from router_agent.traffic.scenario import FrameSizes

SCHEMA = "router-agent/forwarding-comparison/1"


class CommandError(Exception):
    """The comparison cannot be made; the message says what to do."""


def compare(
    *, routes: list[int], frame: int, destinations: int, seconds: float, json: bool, console: Console
) -> None:
    """Compare, and print a table, or JSON on standard output.

    Args:
        routes: of each table.
        frame: size in bytes with FCS.
        destinations: prefixes that packets go to.
        seconds: length of the steady trials.
        json: print JSON.
        console: told what is going on.

    Raises:
        CommandError: this machine cannot, or something failed on the way.
    """
    if os.geteuid() != 0:
        raise CommandError("network namespaces need root; run as root")
    if not vpp_available():
        raise CommandError("`vpp` and `vppctl` are not on PATH; install VPP")
    plan = Plan(tables=routes, sizes=FrameSizes.of(frame), destinations=destinations, steady_s=seconds)
    try:
        with console.status("comparing") as status:
            found = compare_forwarding(plan, lambda _stage, _done, text: status.update(text))
    except (LabError, GeneratorError, CounterError) as error:
        raise CommandError(str(error)) from error
    if json:
        print(jsonlib.dumps(as_data(found), indent=2))
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


def as_data(found: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON has it."""
    return {
        "schema": SCHEMA,
        "frames": found.sizes.label,
        "runs": [_run(run) for run in found.runs],
        "gain": {str(routes): gain for routes, gain in found.gain.items()},
    }


def _run(run: ForwardingRun) -> dict[str, Any]:
    series = run.trial.series
    return {
        "forwarder": run.forwarder,
        "wires": run.wires,
        "routes": run.routes,
        "highest_pps": run.highest_pps,
        "limit": run.limit,
        "cycles": run.cycles,
        "variation": run.variation,
        "steady": {
            "share": run.share,
            "rate_pps": run.trial.rate_pps,
            "sent": run.trial.sent,
            "received": run.trial.received,
            "lost": run.trial.lost,
            "unsent": run.trial.unsent,
            "interval_s": series.interval_s,
            "received_per_interval": series.received.tolist(),
            "lost_per_interval": series.lost.tolist(),
            "verdict": run.verdict.outcome.value,
            "reason": run.verdict.reason,
            "culprits": list(run.culprits),
        },
    }
