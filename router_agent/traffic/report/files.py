"""Writes the reports of a check, and reads one again."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from router_agent.traffic.measurements.check import CheckResult
from router_agent.traffic.report.junit import junit_of
from router_agent.traffic.report.model import TrafficReport, report_json
from router_agent.traffic.report.page import html_of
from router_agent.traffic.report.prometheus import write_textfile
from router_agent.traffic.report.record import report_of


class ReportError(Exception):
    """A file is no report of ours; the message says what was found and what was expected."""


def write_reports(result: CheckResult, directory: Path) -> dict[str, Path]:
    """Write report.json, report.xml, report.html and report.prom into a directory and return their paths.

    The JSON comes first: the others are made from it, and it is there whatever becomes of them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    report = report_of(result)
    paths = {kind: directory / f"report.{suffix}" for kind, suffix in _SUFFIXES.items()}
    paths["json"].write_text(report_json(report) + "\n")
    paths["html"].write_text(html_of(report))
    junit_of(report).write(str(paths["junit"]), pretty=True)
    write_textfile(report, paths["prometheus"])
    return paths


_SUFFIXES = {"json": "json", "junit": "xml", "html": "html", "prometheus": "prom"}


def read_report(path: Path) -> TrafficReport:
    """Return the report in a file, or in report.json of a directory.

    Raises:
        ReportError: it cannot be read, or is something else.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        return TrafficReport.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ReportError(f"{file}: {error.strerror}; expected a report.json of a traffic check") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the file"
        raise ReportError(
            f"{file}: {where}: {first['msg']}; expected a report of schema router-agent/traffic-check/2"
        ) from error
