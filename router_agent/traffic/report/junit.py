"""The report for CI: one test case for each part and frame size; FAIL is a failure, INVALID an error."""

from __future__ import annotations

from collections.abc import Iterator

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.report.model import PartReport, TrafficReport, culprits_of

MEASURED = (
    "port proof",
    "target",
    "NDR",
    "PDR",
    "RFC 2544 throughput",
    "loss curve",
    "back-to-back",
    "latency",
    "soak",
    "churn",
)
"""Every part that a check may have (`measurements.check.Part`): one not asked for is a skipped case."""


def junit_of(report: TrafficReport) -> JUnitXml:
    """Return the JUnit form of a report."""
    suite = TestSuite(f"traffic check: {report.scenario.name}")
    suite.timestamp = report.started.isoformat(timespec="seconds")
    for name, value in (
        ("schema", report.schema_),
        ("tier", report.tier.value),
        ("verdict", report.verdict.outcome.value),
        ("host", report.tester.host),
    ):
        suite.add_property(name, value)
    for case in _cases(report):
        suite.add_testcase(case)
    xml = JUnitXml("router-agent traffic check")
    xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    suite.time = report.seconds
    return xml


def _cases(report: TrafficReport) -> Iterator[TestCase]:
    for part in report.parts:
        yield _case(part, _culprits(report, part))
    done = {part.what for part in report.parts}
    for what in MEASURED:
        if what not in done:
            case = TestCase(what, classname="traffic")
            case.result = [Skipped("not asked for")]
            yield case


def _case(part: PartReport, culprits: list[str]) -> TestCase:
    verdict = part.verdict
    case = TestCase(part.name, classname="traffic")
    if verdict.outcome is Outcome.FAIL:
        case.result = [Failure(verdict.reason, "FAIL")]
    elif verdict.outcome is Outcome.INVALID:
        case.result = [Error(verdict.reason, "INVALID")]
    case.system_out = "\n".join([verdict.reason, *culprits, *verdict.notes])
    return case


def _culprits(report: TrafficReport, part: PartReport) -> list[str]:
    """Return the culprits of what was measured in a part: the measurements that share its verdict."""
    found = (m for m in report.measurements if m.sizes.label == part.frames)
    return [line for m in found if m.verdict.reason in part.verdict.reason for line in culprits_of(m)]
