"""Writes the reports of a check: JSON for programs, JUnit XML for CI, one HTML page for people.

The page needs nothing but itself: style and plots are inside it, and it loads no other resource.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.check import CheckResult
from router_agent.traffic.report.model import TrafficReport, report_json, report_of
from router_agent.traffic.report.plots import Curve, bars, lines

TEMPLATE = "traffic_report.html.j2"
_MOST_BARS = 600


def templates_dir() -> Path:
    """Return the directory of templates: the checkout's, or the one installed with the package.

    Raises:
        FileNotFoundError: the report's template is in neither.
    """
    package = Path(__file__).resolve().parents[2]
    for directory in (package.parent / "templates", package / "templates"):
        if (directory / TEMPLATE).is_file():
            return directory
    raise FileNotFoundError(
        f"there is no {TEMPLATE} in {package.parent / 'templates'} or {package / 'templates'}: "
        "run from a checkout, or install a package that has the templates"
    )


def write_reports(result: CheckResult, directory: Path) -> dict[str, Path]:
    """Write report.json, report.xml and report.html into a directory and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    report = report_of(result)
    paths = {kind: directory / f"report.{suffix}" for kind, suffix in _SUFFIXES.items()}
    paths["json"].write_text(report_json(report) + "\n")
    paths["html"].write_text(html_of(report))
    junit_of(report).write(str(paths["junit"]), pretty=True)
    return paths


_SUFFIXES = {"json": "json", "junit": "xml", "html": "html"}


def html_of(report: TrafficReport) -> str:
    """Return the HTML page of a report."""
    environment = Environment(
        loader=FileSystemLoader(templates_dir()),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["rate"] = lambda value: f"{value:,.0f}"
    environment.filters["share"] = lambda part, whole: f"{part / whole:.4%}" if whole else "0 %"
    return environment.get_template(TEMPLATE).render(report=report, plots=_plots(report))


def junit_of(report: TrafficReport) -> JUnitXml:
    """Return the JUnit form: one test case a part; FAIL is a failure, INVALID an error."""
    suite = TestSuite(f"traffic check: {report.scenario.name}")
    suite.timestamp = report.started.isoformat(timespec="seconds")
    suite.add_property("schema", report.schema_)
    suite.add_property("verdict", report.verdict.outcome.value)
    for name, part in report.parts.items():
        case = TestCase(name, classname="traffic")
        if part.outcome is Outcome.FAIL:
            case.result = [Failure(part.reason, "FAIL")]
        elif part.outcome is Outcome.INVALID:
            case.result = [Error(part.reason, "INVALID")]
        case.system_out = "\n".join([part.reason, *part.notes])
        suite.add_testcase(case)
    xml = JUnitXml("router-agent traffic check")
    xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    suite.time = (report.ended - report.started).total_seconds()
    return xml


def _plots(report: TrafficReport) -> dict[str, str]:
    trial = report.trial
    if trial is None or not trial.series.sent:
        return {}
    series = trial.series if len(trial.series.sent) <= _MOST_BARS else trial.per_second
    per_second = 1 / series.interval_s

    planned = max((i + 1 for i, n in enumerate(series.intended) if n), default=0)

    def rates(values: list[int]) -> list[float]:
        return [value * per_second for value in values[:planned]]

    curves = (
        Curve("intended", "intended", rates(series.intended)),
        Curve("sent", "sent", rates(series.sent)),
        Curve("received", "received", rates(series.received)),
    )
    return {
        "rate": lines(
            "Packets a second: intended, sent and received",
            curves,
            interval_s=series.interval_s,
            unit="packets/s",
        ),
        "loss": bars(
            "Packets lost, by the time they were sent",
            Curve("lost", "lost", [float(value) for value in series.lost]),
            interval_s=series.interval_s,
            unit=f"packets lost per {series.interval_s:g} s",
        ),
    }
