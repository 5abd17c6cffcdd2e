"""The command line: run the agent, or ask a running one.

Exit codes, the same for every command and stable across versions:

    0  done, and the answer is yes: in sync, no drift, forwarded, found, valid
    1  done, and the answer is no: not in sync, drift, not forwarded, nothing found
    2  wrong usage, or a configuration that cannot be used; trying again does not help
    3  no agent answers on the control socket
    4  the agent failed, or says why it cannot answer

``--json`` prints one JSON object, or for routes and neighbours one object a line, in the shapes of
`router_agent.observe.answers`. Errors go to standard error and nothing else does.

Heavy modules are imported by the commands that need them: asking for the version must not load NumPy.
"""

from __future__ import annotations

import json as jsonlib
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from ipaddress import ip_network
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from router_agent import __version__
from router_agent.drain import cli as draining
from router_agent.host_reader.cli import host_reader
from router_agent.lastgood.cli import last_good
from router_agent.snapshot.cli import snapshot
from router_agent.support.cli import support_bundle
from router_agent.terminal import new_table, print_tables
from router_agent.traffic.cli import traffic
from router_agent.web.cli import web

if TYPE_CHECKING:
    from pydantic import BaseModel

    from router_agent.config import Config
    from router_agent.control import ControlClient
    from router_agent.observe.answers import (
        Audit,
        Explanation,
        PipelineAudit,
        PipelineStatus,
        RouteRow,
        Status,
        Step,
    )

CONFIG = Path("/etc/router-agent/agent.yaml")
SOCKET = Path("/run/router-agent/control.sock")
_BATCH = 256
"""Rows that are laid out and written together."""


class Exit(IntEnum):
    """Exit codes; see the module's documentation."""

    OK = 0
    NO = 1
    USAGE = 2
    UNREACHABLE = 3
    AGENT = 4


app = typer.Typer(
    name="router-agent",
    help="Follows BGP routes into a VPP or kernel FIB, and keeps it true.",
    epilog="Exit codes: 0 yes, 1 no, 2 wrong usage or configuration, 3 no agent answers, 4 the agent failed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
show = typer.Typer(help="Show what a running agent knows.", no_args_is_help=True)
app.add_typer(show, name="show")
app.add_typer(traffic, name="traffic")
app.command("web")(web)
app.add_typer(snapshot, name="snapshot")
app.command("support-bundle")(support_bundle)
draining.add_to(app)
app.command("host-reader")(host_reader)
app.command(
    "last-good",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(last_good)

Socket = Annotated[
    Path, typer.Option("--socket", envvar="ROUTER_AGENT_SOCKET", help="Control socket of the agent.")
]
Vtysh = Annotated[str, typer.Option(envvar="ROUTER_AGENT_VTYSH", help="The command that runs FRR's vtysh.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _prefix(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise typer.BadParameter(
            f"{error}; expected a prefix such as 192.0.2.0/24 or 2001:db8::/32"
        ) from error


@app.command()
def run(
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration.")] = CONFIG,
) -> None:
    """Run the agent in the foreground, until SIGTERM or SIGINT. What the FIB holds stays."""
    import asyncio
    import logging

    from router_agent import logs
    from router_agent.config import ConfigError, LogConfig, load
    from router_agent.control import ControlError
    from router_agent.events import Event, about

    log = logging.getLogger("router_agent")
    in_journal = logs.to_journal(sys.stderr)
    try:
        checked = load(config)
    except ConfigError as error:
        if not in_journal:
            _fail(Exit.USAGE, *error.problems)
        logs.set_up(LogConfig())
        log.critical(
            "the configuration cannot be used, the agent does not start: %s",
            "; ".join(error.problems),
            extra=about(Event.CONFIGURATION_REFUSED, problems=error.problems),
        )
        raise typer.Exit(Exit.USAGE) from None
    logs.set_up(checked.log)
    log.info(
        "configuration %s: %s",
        *(config, ", ".join(f"{p.name} ({p.feed.kind} into {p.fib.kind})" for p in checked.pipelines)),
        extra=about(
            Event.CONFIGURED, file=str(config), pipelines=[pipeline.name for pipeline in checked.pipelines]
        ),
    )
    from router_agent import agent

    try:
        asyncio.run(agent.run(checked))
    except ControlError as error:
        if not in_journal:
            _fail(Exit.AGENT, str(error))
        log.critical("the agent does not start: %s", error, extra=about(Event.CONTROL_REFUSED))
        raise typer.Exit(Exit.AGENT) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Exception as error:  # the last chance to leave a trace in the log
        log.critical(
            "the agent failed and is started again; what the FIBs hold stays. Report this",
            exc_info=True,
            extra=about(Event.STOPPED_BY_FAULT),
        )
        raise typer.Exit(Exit.AGENT) from error


@show.command("status")
def show_status(socket: Socket = SOCKET, json: Json = False) -> None:
    """Show every pipeline with its counts. Exits 1 when one is not in sync."""
    with _asking():
        status = _client(socket).status()
        if json:
            print(status.model_dump_json(indent=2))
        else:
            _print_status(status)
        _answer(yes=status.in_sync)


@show.command("routes")
def show_routes(
    prefix: Annotated[
        str | None, typer.Argument(parser=_prefix, help="Only this prefix and what is inside it.")
    ] = None,
    table: Annotated[int | None, typer.Option(help="Only this kernel table.", min=0, max=0xFFFFFFFF)] = None,
    pipeline: Annotated[str | None, typer.Option(help="Only this pipeline.")] = None,
    absent: Annotated[bool, typer.Option("--absent", help="Only routes that are not in the FIB.")] = False,
    limit: Annotated[int | None, typer.Option(help="Stop after this many.", min=1)] = None,
    socket: Socket = SOCKET,
    json: Json = False,
) -> None:
    """List routes and whether the FIB holds them. Exits 1 when a prefix was given and nothing is there."""
    with _asking():
        wanted = {"prefix": prefix, "table": table, "pipeline": pipeline, "absent": absent, "limit": limit}
        if json:
            count = _write_lines(map(jsonlib.dumps, _client(socket).rows("routes", wanted)))
        else:
            from router_agent.observe.answers import RouteFilter

            rows = _client(socket).routes(RouteFilter.model_validate(wanted))
            titles = ("PREFIX", "IN FIB", "METRIC", "TABLE", "PIPELINE", "PATHS")
            count = _write_lines(_columns(titles, map(_route_cells, rows)))
        _answer(yes=count > 0 or prefix is None)


@show.command("neighbours")
def show_neighbours(socket: Socket = SOCKET, json: Json = False) -> None:
    """List the control plane's neighbours and where the FIB has them."""
    with _asking():
        if json:
            _write_lines(map(jsonlib.dumps, _client(socket).rows("neighbours")))
            return
        titles = ("ADDRESS", "MAC", "INTERFACE", "FIB INTERFACE", "PIPELINE")
        cells = (
            (row.address, row.mac, row.interface, row.fib_interface or "none", row.pipeline)
            for row in _client(socket).neighbours()
        )
        _write_lines(_columns(titles, cells))


@app.command()
def audit(
    now: Annotated[bool, typer.Option("--now", help="Look every prefix up now, and wait for it.")] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Read the FIB in one go, which also finds stale routes. VPP's main thread stands still "
            "meanwhile: 1.3 s at a million routes.",
        ),
    ] = False,
    bgp: Annotated[
        bool, typer.Option("--bgp", help="Compare BGP's own table with the kernel's, too.")
    ] = False,
    vtysh: Vtysh = "vtysh",
    socket: Socket = SOCKET,
    json: Json = False,
) -> None:
    """Tell what the audit of every FIB found, or audit now. Exits 1 when anything was wrong."""
    from router_agent.observe.answers import AuditRequest

    with _asking():
        answer = _client(socket).audit(AuditRequest(now=now, full=full))
        if bgp:
            answer = _with_bgp(answer, shlex.split(vtysh))
        if json:
            print(answer.model_dump_json(indent=2))
        else:
            _print_audit(answer)
        _answer(yes=answer.clean)


@app.command()
def explain(
    prefix: Annotated[str, typer.Argument(parser=_prefix, help="A prefix, or an address.")],
    vtysh: Vtysh = "vtysh",
    socket: Socket = SOCKET,
    json: Json = False,
) -> None:
    """Follow one prefix from BGP to the packets. Exits 1 when the FIB does not do what the feed wants.

    BGP, zebra and the kernel are asked with the rights of who runs this; what may not be asked is said to be
    unknown.
    """
    with _asking():
        explanation = _with_control_plane(_client(socket).explain(prefix), shlex.split(vtysh))
        if json:
            print(explanation.model_dump_json(indent=2))
        else:
            _print_explanation(explanation)
        _answer(yes=explanation.forwards)


@app.command()
def resync(
    wait: Annotated[bool, typer.Option("--wait", help="Return when all pipelines are in sync.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0.001, max=3600)] = 120.0,
    socket: Socket = SOCKET,
    json: Json = False,
) -> None:
    """Have every feed read again. Exits 1 when waiting was in vain."""
    with _asking():
        done = _client(socket).resync(wait=wait, timeout_seconds=timeout)
        if json:
            print(done.model_dump_json(indent=2))
        else:
            outcome = {None: "asked to read again", True: "in sync", False: "not in sync"}[done.in_sync]
            print(f"{', '.join(done.pipelines)}: {outcome} after {done.took_seconds:.2f} s")
        _answer(yes=done.in_sync is not False)


@app.command("check-config")
def check_config(
    file: Annotated[Path | None, typer.Argument(help="The configuration.", show_default=str(CONFIG))] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema instead.")] = False,
    json: Json = False,
) -> None:
    """Check a configuration and print what was understood."""
    if schema:
        from router_agent.config import schema as config_schema

        print(jsonlib.dumps(config_schema(), indent=2))
        return
    config = _load(file or CONFIG)
    if json:
        print(config.model_dump_json(indent=2, by_alias=True))
    else:
        _print_config(config)


@app.command()
def version(json: Json = False) -> None:
    """Print the version."""
    print(jsonlib.dumps({"version": __version__}) if json else __version__)


def main() -> None:
    """Enter here; the console script and ``python -m router_agent.cli`` do."""
    app()


def _client(socket: Path) -> ControlClient:
    from router_agent.control import ControlClient

    return ControlClient(socket)


def _load(path: Path) -> Config:
    from router_agent.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        _fail(Exit.USAGE, *error.problems)


def _answer(*, yes: bool) -> None:
    if not yes:
        raise typer.Exit(Exit.NO)


def _fail(code: Exit, *problems: str) -> NoReturn:
    for problem in problems:
        print(problem, file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def _asking() -> Iterator[None]:
    """Turn what can go wrong between us and the agent into messages and exit codes."""
    from router_agent.control import ControlError, RefusedError, UnreachableError
    from router_agent.observe.answers import ErrorKind

    try:
        yield
        sys.stdout.flush()
    except UnreachableError as error:
        _fail(Exit.UNREACHABLE, str(error))
    except RefusedError as error:
        wrong = error.kind in (ErrorKind.BAD_REQUEST, ErrorKind.FORBIDDEN)
        _fail(Exit.USAGE if wrong else Exit.AGENT, f"agent: {error}")
    except ControlError as error:
        _fail(Exit.AGENT, str(error))
    except BrokenPipeError:
        # The reader has seen enough (``| head``); Python would complain again when it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(Exit.OK) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _write_lines(lines: Iterable[str]) -> int:
    """Write lines as they come, in batches; return how many."""
    count, source = 0, iter(lines)
    while batch := list(islice(source, _BATCH)):
        sys.stdout.write("\n".join(batch) + "\n")
        count += len(batch)
    return count


def _columns(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lay out rows in columns without seeing all of them; columns widen as wider rows come."""
    widths, source, header = [len(title) for title in titles], iter(rows), [titles]
    while batch := list(islice(source, _BATCH)):
        for row in batch:
            widths = [max(width, len(cell)) for width, cell in zip(widths, row, strict=True)]
        for row in header + batch:
            yield "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        header = []


def _route_cells(row: RouteRow) -> tuple[str, ...]:
    in_fib = f"{row.in_fib}: {row.reason}" if row.reason else str(row.in_fib)
    paths = ", ".join(row.paths) + (f" ({row.detail})" if row.detail else "")
    return row.prefix, in_fib, str(row.metric), str(row.table), row.pipeline, paths


def _print_status(status: Status) -> None:
    process = f"process {status.pid}, up {status.uptime_seconds:.0f} s, {status.rss_bytes / 1e6:.0f} MB"
    title = f"router-agent {status.version}, {process}"
    pipelines = new_table(
        title,
        *("pipeline", "feed", "FIB", "state", "last resync"),
        numbers=("lag s", "resyncs", "overruns", "added", "replaced", "deleted", "refused", "neighbours"),
    )
    routes = new_table(
        "", "pipeline", "family", "reasons", numbers=("wanted", "in FIB", "pending", "not in FIB")
    )
    for pipeline in status.pipelines:
        pipelines.add_row(*_pipeline_cells(pipeline))
        for counts in pipeline.counts:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.not_in_fib.items() if count)
            numbers = (counts.desired, counts.in_fib, counts.pending, counts.absent)
            cells = [f"{number:,}" for number in numbers]
            if counts.unknown:
                cells[1:3] = ["unknown", "unknown"]
            routes.add_row(pipeline.name, counts.family.label, reasons, *cells)
    print_tables(pipelines, routes)
    for pipeline in status.pipelines:
        for trouble in _troubles(pipeline):
            print(f"{pipeline.name}: {trouble}")


def _troubles(pipeline: PipelineStatus) -> Iterator[str]:
    if pipeline.error:
        yield pipeline.error
    if told := pipeline.confirmations:
        yield (
            f"told the feed of {told.confirmed:,} routes in the FIB and {told.failed:,} that are not; "
            f"{told.waiting:,} wait"
        )
    if pipeline.passed_over:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(pipeline.passed_over.items()))
        yield f"passed over: {kinds}"
    if pipeline.mirror and pipeline.mirror.problem:
        yield f"interfaces are not mirrored: {pipeline.mirror.problem}"
    for words in pipeline.mirror.refused if pipeline.mirror else ():
        yield f"cannot {words}"
    capacity, audit = pipeline.capacity, pipeline.audit
    if capacity is not None and capacity.shortage:
        yield f"ALARM: {capacity.withheld:,} routes are not added: {capacity.shortage}"
    elif capacity is not None and capacity.unknown:
        yield f"the FIB's memory is not watched: {capacity.unknown}"
    if audit is not None and audit.standing:
        yield f"{audit.standing:,} routes are lost or altered and left so (audit.action is {audit.action})"
    if audit is not None and audit.unexplained:
        yield f"the FIB has {audit.unexplained:,} entries nobody accounts for; see router-agent audit --full"


def _pipeline_cells(pipeline: PipelineStatus) -> tuple[str, ...]:
    writes, last = pipeline.writes, pipeline.last_resync
    numbers = (
        pipeline.resyncs,
        pipeline.overruns,
        writes.added,
        writes.replaced,
        writes.deleted,
        writes.refused,
    )
    return (
        *(pipeline.name, pipeline.feed, pipeline.fib, str(pipeline.state)),
        last.isoformat(sep=" ", timespec="seconds") if last else "never",
        f"{pipeline.lag_seconds:.3f}",
        *(f"{number:,}" for number in (*numbers, pipeline.neighbours)),
    )


def _with_bgp(answer: Audit, vtysh: Sequence[str]) -> Audit:
    """Compare BGP's table with the kernel's main table, for every pipeline that follows it."""
    from router_agent.model import MAIN_TABLE, Family
    from router_agent.observe import bgp_table
    from router_agent.observe.control_plane import FEEDS_BEHIND_ZEBRA

    found = []
    for pipeline in answer.pipelines:
        compared = tuple(
            bgp_table.compare(family, vtysh=vtysh, table=MAIN_TABLE, namespace=pipeline.namespace)
            for family in Family
            if pipeline.feed in FEEDS_BEHIND_ZEBRA and MAIN_TABLE in pipeline.tables
        )
        found.append(pipeline.model_copy(update={"bgp": compared}))
    return answer.model_copy(update={"pipelines": tuple(found)})


def _print_audit(answer: Audit) -> None:
    counts = new_table(
        "",
        *("pipeline", "action", "last pass", "wrong in it"),
        numbers=("passes", "checked", "covered", "unexplained", "found", "repaired", "standing"),
    )
    rows = new_table("", "pipeline", "found at", "prefix", "reason", "wanted", "held", "then")
    for pipeline in answer.pipelines:
        status = pipeline.status
        age, took = status.last_pass_age_seconds, status.last_pass_seconds
        numbers = (
            *(status.passes, status.checked, status.covered, status.unexplained),
            *(sum(status.found.values()), status.repaired, status.standing),
        )
        counts.add_row(
            *(pipeline.pipeline, status.action),
            "none yet" if age is None or took is None else f"{age:.0f} s ago, took {took:.1f} s",
            _found_words(pipeline),
            *(f"{number:,}" for number in numbers),
        )
        for row in pipeline.rows:
            rows.add_row(
                *(
                    pipeline.pipeline,
                    row.at.isoformat(sep=" ", timespec="seconds"),
                    row.prefix,
                    str(row.reason),
                ),
                *(", ".join(row.wanted), ", ".join(row.held), "repaired" if row.repaired else "left so"),
            )
    bgp = new_table(
        "BGP's table against the kernel's",
        *("pipeline", "family", "first of them"),
        numbers=("chosen by BGP", "in the kernel", "missing", "extra"),
    )
    for pipeline in answer.pipelines:
        for found in pipeline.bgp:
            words = found.problem or ", ".join(found.missing_prefixes + found.extra_prefixes)
            four = (found.chosen, found.in_kernel, found.missing, found.extra)
            bgp.add_row(pipeline.pipeline, found.family.label, words, *(f"{number:,}" for number in four))
    print_tables(counts, *(table for table in (rows, bgp) if table.row_count))


def _with_control_plane(explanation: Explanation, vtysh: Sequence[str]) -> Explanation:
    """Put what BGP, zebra and the kernel say before what the agent says."""
    from router_agent.observe import control_plane

    found = []
    for pipeline in explanation.pipelines:
        before: tuple[Step, ...] = ()
        if pipeline.feed in control_plane.FEEDS_BEHIND_ZEBRA:
            before = tuple(
                control_plane.steps(
                    ip_network(pipeline.prefix or explanation.asked),
                    vtysh=vtysh,
                    table=pipeline.table,
                    namespace=pipeline.namespace,
                )
            )
        found.append(pipeline.model_copy(update={"steps": before + pipeline.steps}))
    return explanation.model_copy(update={"pipelines": tuple(found)})


def _found_words(pipeline: PipelineAudit) -> str:
    words = [f"{reason} {count:,}" for reason, count in pipeline.found.items()]
    words += [f"next-hop entries {pipeline.shared:,}"] if pipeline.shared else []
    return ", ".join(words) or "nothing"


def _print_explanation(explanation: Explanation) -> None:
    for pipeline in explanation.pipelines:
        found = f"{pipeline.match} match {pipeline.prefix}" if pipeline.prefix else "no match"
        print(f"{explanation.asked} in pipeline {pipeline.pipeline}, table {pipeline.table}: {found}")
        for step in pipeline.steps:
            mark = ("ok" if step.holds else "NO") if step.known else "??"
            print(f"  {mark}  {step.stage:<10} {step.words}")
        print(f"  {'=> ' if pipeline.forwards else '=> NOT FORWARDED: '}{pipeline.verdict}")


def _print_config(config: Config) -> None:
    table = new_table("", "pipeline", "feed", "FIB", "kernel table -> FIB table")
    for pipeline in config.pipelines:
        tables = ", ".join(f"{source} -> {target}" for source, target in pipeline.tables.items())
        table.add_row(pipeline.name, _settings(pipeline.feed), _settings(pipeline.fib), tables)
    print_tables(table)
    print(f"control: {_settings(config.control)}")
    print(f"log: {_settings(config.log)}")


def _settings(part: BaseModel) -> str:
    """Return the settings of a part of the configuration, the kind first and what is unset left out."""
    values = part.model_dump(mode="json", by_alias=True, exclude={"table_map", "tables"}, exclude_none=True)
    kind = values.pop("kind", "")
    words = (f"{key} {jsonlib.dumps(value)}" for key, value in values.items())
    return f"{kind}: {', '.join(words)}" if kind else ", ".join(words)


if __name__ == "__main__":
    main()
