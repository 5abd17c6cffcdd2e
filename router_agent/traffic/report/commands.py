"""``router-agent traffic show`` and ``compare``: what is done with reports that are there already.

Heavy modules are imported by the commands that need them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from router_agent.traffic.report.model import TrafficReport

USAGE = 2
"""Exit code of what cannot be used; see `router_agent.cli`. `compare` ends with it, too, when two reports
cannot be compared."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def show(
    report: Annotated[Path, typer.Argument(help="report.json, or the directory it is in.")],
    html: Annotated[Path | None, typer.Option(help="Write the page for people here.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    textfile: Annotated[
        Path | None,
        typer.Option(
            help="Write Prometheus' text format here, as node_exporter's textfile collector reads it."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show the report of a traffic check, or write another form of it. Says nothing by its exit code."""
    found = _read(report)
    written = False
    if html is not None:
        from router_agent.traffic.report.page import html_of

        written = _written(html, html_of(found))
    if junit is not None:
        from router_agent.traffic.report.junit import junit_of

        written = _written(junit, junit_of(found).tostring().decode())  # type: ignore[no-untyped-call]
    if textfile is not None:
        from router_agent.traffic.report.prometheus import write_textfile

        try:
            write_textfile(found, textfile)
        except OSError as error:
            _fail(f"{textfile}: {error.strerror}; expected a file name in a directory that may be written")
        written = True
    if json:
        from router_agent.traffic.report.model import report_json

        print(report_json(found))
    elif not written:
        from router_agent.traffic.report.terminal import show as show_report

        show_report(found)


def compare(
    before: Annotated[Path, typer.Argument(help="The report that is taken for good.")],
    after: Annotated[Path, typer.Argument(help="The one in question.")],
    tolerance: Annotated[
        float, typer.Option(help="Relative; figures that differ by less are the same.", min=0.0, max=1.0)
    ] = 0.05,
    json: Json = False,
) -> None:
    """Compare two reports: what differs between the checks, then what became worse.

    Exits 0 when nothing became worse, 1 when something did, 2 when they cannot be compared in everything.
    """
    first, second = _read(before), _read(after)
    from router_agent.traffic.report.compare import compare as compared

    found = compared(first, second, tolerance=tolerance)
    if json:
        print(found.model_dump_json(indent=2, by_alias=True))
    else:
        from router_agent.traffic.report.terminal import show_comparison

        show_comparison(found)
    raise typer.Exit(found.exit_code)


def _read(path: Path) -> TrafficReport:
    try:
        from router_agent.traffic.report.files import ReportError, read_report
    except ModuleNotFoundError as error:
        _fail(f"found no package {error.name!r}, expected it: pip install 'router-agent[traffic]'")
    try:
        return read_report(path)
    except ReportError as error:
        _fail(str(error))


def _written(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError as error:
        _fail(f"{path}: {error.strerror}; expected a file name in a directory that may be written")
    return True


def _fail(problem: str) -> NoReturn:
    print(problem, file=sys.stderr)
    raise typer.Exit(USAGE)
