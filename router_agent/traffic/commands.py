"""What ``router-agent traffic check`` and ``explain`` do; the command line only calls it.

Nothing of a check is left behind when it is cancelled: generators end with their blocks, connections are
closed, and routes that were withdrawn for a churn measurement are announced again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.status import Status

from router_agent.traffic.judgement.prediction import Processor, predict, sending
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.check import CheckResult, run_check
from router_agent.traffic.measurements.trial import Progress, silent
from router_agent.traffic.plan import steps
from router_agent.traffic.prepare import Prepared, choose_tier, ports_of, prepared
from router_agent.traffic.reach import ReachError
from router_agent.traffic.report.environment import Environment
from router_agent.traffic.report.files import write_reports
from router_agent.traffic.scenario import MEASUREMENTS, Document, ScenarioError, Tier
from router_agent.traffic.scenario.document import load
from router_agent.traffic.scenario.offered import notes_on, offered
from router_agent.traffic.tables.live import TableError
from router_agent.traffic.tester import tester_environment

TARGET = "target"


class Exit(IntEnum):
    """Exit codes of a check.

    PASS and FAIL are the device's. USAGE: the command line or the scenario cannot be used, trying again does
    not help. INVALID: the check ran and says nothing about the device, the tester was the limit. UNDONE: it
    could not be carried out: a host that cannot be reached, a generator that failed, counters that cannot be
    read.
    """

    PASS = 0
    FAIL = 1
    USAGE = 2
    INVALID = 3
    UNDONE = 4


class CommandError(Exception):
    """A command cannot do what it is asked.

    Attributes:
        code: to exit with.
    """

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


def exit_code(result: CheckResult) -> Exit:
    """Return the exit code of a check."""
    outcome = result.verdict.outcome
    if outcome is Outcome.INVALID and any(part.what == "check" for part in result.parts):
        return Exit.UNDONE
    return {Outcome.PASS: Exit.PASS, Outcome.FAIL: Exit.FAIL, Outcome.INVALID: Exit.INVALID}[outcome]


def check(
    path: Path,
    *,
    tier: str | None,
    only: Sequence[str] = (),
    report: Path | None = None,
    console: Console | None = None,
) -> CheckResult:
    """Run the check of a scenario file.

    Args:
        path: the file.
        tier: by name; None takes the only one that is bound.
        only: measurements to make in place of those the file asks for; "target" is always made.
        report: directory for reports.
        console: where progress is shown; None shows none.

    Raises:
        CommandError: it cannot be run.
    """
    with _refusals(), _cancellable():
        document = narrowed(load(path), only)
        chosen = choose_tier(document, tier_named(tier))
        with prepared(document, chosen) as ready, _progress(console) as progress:
            return _checked(ready, report, progress)


def _checked(ready: Prepared, report: Path | None, progress: Progress) -> CheckResult:
    """Run a check around which the device is left as it was found, and write its reports."""
    with ExitStack() as stack:
        environment = ready.device.environment() if ready.device else None
        tester = _other_tester(ready)
        left = stack.enter_context(ready.device.as_found()) if ready.device else None
        result = run_check(
            ready.check,
            ready.endpoints,
            ready.counters,
            progress=progress,
            changes=ready.changes,
            processor=ready.device.processor() if ready.device else None,
        )
    notes = left.notes if left is not None else ()
    verdict = replace(result.verdict, notes=(*result.verdict.notes, *notes))
    result = replace(result, verdict=verdict, device=environment, environment=tester or result.environment)
    if report is None:
        return result
    return replace(result, reports=write_reports(result, report))


def _other_tester(ready: Prepared) -> Environment | None:
    """Return what the generator's host is, where it is another one."""
    generator = ready.check.generator
    return tester_environment(generator, ready.endpoints) if generator.host is not None else None


def explain(path: Path, *, tier: str | None, only: Sequence[str] = (), console: Console) -> None:
    """Print what a check would do. Nothing is sent, and the device is not asked anything.

    Raises:
        CommandError: it could not be run.
    """
    from rich import box
    from rich.table import Table

    with _refusals():
        document = narrowed(load(path), only)
        chosen = choose_tier(document, tier_named(tier))
        binding = document.tiers[chosen]
        ports = ports_of(chosen, binding)
        plans = offered(document, chosen, binding, ports.endpoints)
        table = Table(title=f"{document.name}: tier {chosen}", title_justify="left", box=box.SIMPLE_HEAD)
        for column in ("frames", "measurement", "offered load", "trials", "when"):
            table.add_column(column, overflow="fold")
        table.add_column("at most", justify="right")
        for step in steps(document, plans):
            most = f"{step.most_s:,.0f} s" if step.most_s else "?"
            table.add_row(step.frames, step.what, step.rate, step.trials, step.when, most)
        console.print(table)
        for port, found in zip(ports.endpoints.ports, ports.wirings, strict=True):
            speed = f", {found.link_bps / 1e9:g} Gbit/s" if found.link_bps else ""
            console.print(f"port {port.name}: {found.what}{speed}", markup=False)
        own = ports.endpoints
        senders = [own.ports[own.position(name)] for name in document.direction.senders]
        for plan in plans:
            for limit in predict(plan.sizes, sending(senders), (), Processor()).limits:
                words = f"at most {limit.pps:,.0f} pps with {plan.sizes.label}: {limit.what}"
                console.print(words, markup=False)
        for note in notes_on(document, chosen, binding, plans):
            console.print(f"note: {note}", markup=False)


def narrowed(document: Document, only: Sequence[str]) -> Document:
    """Return a document that asks for these measurements alone; for its own when there are none.

    Raises:
        ScenarioError: there is no measurement of a name.
    """
    names = [name.replace("-", "_") for name in only]
    unknown = [name for name in names if name not in (*MEASUREMENTS, TARGET)]
    if unknown:
        raise ScenarioError(
            f"there is no measurement {unknown[0]!r}, expected one of {', '.join((TARGET, *MEASUREMENTS))}"
        )
    if not names:
        return document
    asked = document.measurements.only([name for name in MEASUREMENTS if name in names])
    data = document.model_dump(mode="json", by_alias=True) | {
        "measurements": asked.model_dump(mode="json", exclude_none=True)
    }
    return Document.model_validate(data)


def tier_named(name: str | None) -> Tier | None:
    """Return the tier of a name, in which hyphens may stand for blanks.

    Raises:
        ScenarioError: there is none.
    """
    if name is None:
        return None
    known = {tier.value.replace(" ", "-"): tier for tier in Tier}
    found = known.get(name.replace(" ", "-"))
    if found is None:
        raise ScenarioError(f"there is no tier {name!r}, expected one of {', '.join(known)}")
    return found


@contextmanager
def _refusals() -> Iterator[None]:
    """Say with which code what went wrong ends the command."""
    try:
        yield
    except ScenarioError as error:
        raise CommandError(Exit.USAGE, str(error)) from error
    except (ReachError, TableError) as error:
        raise CommandError(Exit.UNDONE, str(error)) from error


@contextmanager
def _cancellable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a check as Ctrl-C does: every block is left, and what it made with it."""
    former = {number: signal.signal(number, _cancel) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _cancel(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Told:
    """Shows where a check is: a line that changes on a terminal, a line for each stage elsewhere."""

    def __init__(self, console: Console, status: Status) -> None:
        self._console = console
        self._status = status
        self._stage = ""

    def __call__(self, stage: str, share: float, text: str) -> None:
        if self._console.is_terminal:
            self._status.update(f"{stage} {share:.0%}, {text}")
        elif stage != self._stage:
            self._console.print(f"{stage} ...", markup=False)
        self._stage = stage


@contextmanager
def _progress(console: Console | None) -> Iterator[Progress]:
    if console is None:
        yield silent
        return
    with console.status("getting ready") as status:
        yield _Told(console, status)
