"""Reports hold what was measured, parse as what they claim to be, and load nothing."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from rich.console import Console

import traffic_reports
from router_agent.traffic.generators.generator import Series, TrialResult
from router_agent.traffic.judgement.ledger import balance
from router_agent.traffic.judgement.verdict import Outcome, Verdict
from router_agent.traffic.measurements.check import Part, overall
from router_agent.traffic.measurements.results import Measurement, Target
from router_agent.traffic.report.files import ReportError, read_report, write_reports
from router_agent.traffic.report.junit import junit_of
from router_agent.traffic.report.model import (
    ChurnReport,
    ForwardingReport,
    LatencyRunReport,
    TargetReport,
    TrafficReport,
    json_schema,
    report_json,
)
from router_agent.traffic.report.page import forwarding_html, html_of
from router_agent.traffic.report.record import measured
from router_agent.traffic.report.terminal import render_terminal
from router_agent.traffic.report.words import chief_culprits
from router_agent.traffic.scenario import FrameSizes, Tier

HOSTILE = '<script>alert("x")</script>'
SIZE = FrameSizes.of(64)
GOLDEN = Path(__file__).parent / "data" / "traffic-check-2.schema.json"


class Page(HTMLParser):
    """Collects tags, what they refer to, and text; wants every element closed in order."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.anchors: set[str] = set()
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "xlink:href", "action"):
                self.references.append(value or "")
            if name == "id":
                assert value not in self.anchors
                self.anchors.add(value or "")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def words(text: str) -> str:
    return " ".join(" ".join(Page(text.partition("<body>")[2].partition("</body>")[0]).words).split())


def test_json_holds_every_measurement_and_fits_its_schema() -> None:
    report = traffic_reports.report()
    text = report_json(report)
    data: dict[str, Any] = json.loads(text)
    jsonschema.validate(data, json_schema())
    assert data["schema"] == "router-agent/traffic-check/2"
    assert (data["tier"], data["verdict"]["outcome"]) == ("functional", "FAIL")
    kinds = [m["kind"] for m in data["measurements"]]
    assert set(kinds) == {"target", "rate", "loss curve", "back to back", "latency", "soak", "churn"}
    first = data["measurements"][0]
    assert first["trial"]["received_by_port"] == {"west": 0, "east": first["trial"]["received"]}
    assert first["trial"]["lost"] == sum(first["trial"]["series"]["lost"]) > 0
    assert first["ledger"]["sent"] == first["ledger"]["received"] + first["ledger"]["unaccounted"] + sum(
        drop["count"] for drop in first["ledger"]["drops"]
    )
    assert TrafficReport.model_validate_json(text) == report


def test_the_schema_is_what_was_promised() -> None:
    """A change of this file is a new version of the schema, unless it only adds fields that may be absent."""
    assert json_schema() == json.loads(GOLDEN.read_text())


def test_a_report_of_a_later_agent_is_refused_by_name(tmp_path: Path) -> None:
    data = json.loads(report_json(traffic_reports.report()))
    file = tmp_path / "report.json"
    file.write_text(json.dumps(data | {"schema": "router-agent/traffic-check/3"}))
    with pytest.raises(
        ReportError, match=r"schema.*expected a report of schema router-agent/traffic-check/2"
    ):
        read_report(tmp_path)
    file.write_text('{"a":')
    with pytest.raises(ReportError, match="expected a report of schema"):
        read_report(file)
    with pytest.raises(ReportError, match="No such file"):
        read_report(tmp_path / "absent.json")


def test_histograms_in_a_report_are_read_by_other_tools() -> None:
    runs = [m for m in traffic_reports.report().measurements if isinstance(m, LatencyRunReport)]
    for run in runs:
        assert run.latency is not None
        whole = HdrHistogram.decode(run.latency.histogram)
        assert whole.get_total_count() == run.latency.packets
        assert whole.get_value_at_percentile(99.0) == run.latency.percentiles[99.0]
        assert run.latency.curve == sorted(run.latency.curve)
        # 100,000 packets say something of the 99.999th percentile, and nothing of the one after
        assert max(percent for percent, _ in run.latency.curve if percent < 100) <= 99.9999


def test_a_long_series_is_reported_in_longer_intervals() -> None:
    count = 100_001
    column = np.ones(count, np.int64)
    series = Series(0.1, column, column, column, column * 0)
    trial = TrialResult(10.0, count / 10, count / 10, count, count, count, (0, count), series)
    target = Target(
        FrameSizes.of(64), trial, balance(count, count, []), Verdict(Outcome.PASS, "no packet lost")
    )
    report = measured(target, ["west", "east"])
    assert isinstance(report, TargetReport)
    assert report.trial.series.interval_s == pytest.approx(2.8)
    assert sum(report.trial.series.received) == count
    assert len(report.trial.series.sent) <= 3_600


def test_a_million_prefixes_converge_in_a_few_figures() -> None:
    run = traffic_reports.churn(FrameSizes.of(64), 1e4)
    report = measured(run, ["west", "east"])
    assert isinstance(report, ChurnReport)
    assert report.convergence_s.prefixes == len(run.convergence_s)
    assert dict(report.convergence_s.quantiles)[50.0] == pytest.approx(float(np.median(run.convergence_s)))
    assert dict(report.convergence_s.quantiles)[100.0] == max(run.convergence_s)


def test_junit_has_a_case_for_each_measurement_and_frame_size(tmp_path: Path) -> None:
    found: list[Measurement] = [
        traffic_reports.target(FrameSizes.of(64), 1e4, lost=0.1),
        Target(
            FrameSizes.of(128),
            traffic_reports.trial(1e4, 1.0),
            balance(1, 1, []),
            Verdict(Outcome.INVALID, "the generator was the limit"),
        ),
        traffic_reports.latency_run(FrameSizes.of(64), 0.5, 1e4),
    ]
    file = tmp_path / "report.xml"
    junit_of(traffic_reports.report(found=found)).write(str(file))
    suite = ET.parse(file).getroot().find("testsuite")
    assert suite is not None
    assert suite.get("time") == "754.0"
    cases = {
        case.get("name"): [r.tag for r in case if r.tag != "system-out"] for case in suite.findall("testcase")
    }
    assert cases["target, 64 bytes"] == ["failure"]
    assert cases["target, 128 bytes"] == ["error"]
    assert cases["latency, 64 bytes"] == []
    assert cases["soak"] == ["skipped"]
    assert "latency" not in cases
    properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert properties["tier"] == "functional"
    failed = next(case for case in suite.findall("testcase") if case.get("name") == "target, 64 bytes")
    assert "add a worker" in (failed.findtext("system-out") or "")


def test_the_page_stands_alone() -> None:
    text = html_of(traffic_reports.report())
    page = Page(text)
    assert {reference[1:] for reference in page.references} <= page.anchors
    assert all(reference.startswith("#") for reference in page.references)
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_the_page_begins_with_the_verdict_and_its_tier() -> None:
    page = html_of(traffic_reports.report())
    text = words(page)
    parts = ("FAIL", "Tier: functional", "packets lost", "nothing about NICs or line rate", "Likely why")
    order = [text.index(part) for part in (*parts, "Summary")]
    assert order == sorted(order)
    headings = re.findall("<h2>(.*?)</h2>", page)
    sizes = ["64 bytes", "1518 bytes", "Imix (7 of 64, 4 of 594, 1 of 1518 bytes)"]
    last = ["Predicted and measured", "Port proof", "Environment", "RFC checklist", "Scenario"]
    assert headings == ["Summary", *sizes, *last]
    assert "the first 3 of 300" in text
    assert "no <route>" in text


@pytest.mark.parametrize("tier", Tier)
def test_every_tier_says_what_it_may_claim(tier: Tier) -> None:
    text = words(html_of(traffic_reports.report(tier=tier)))
    assert f"Tier: {tier.value}" in text
    denied = "nothing about" in text and "line rate" in text
    assert denied is (tier is not Tier.LINE_RATE)


def test_names_cannot_become_markup() -> None:
    report = traffic_reports.report(name=HOSTILE)
    first = report.measurements[0]
    assert isinstance(first, TargetReport)
    hostile = first.model_copy(
        update={
            "culprits": [HOSTILE],
            "sizes": first.sizes.model_copy(update={"label": HOSTILE}),
        }
    )
    text = html_of(report.model_copy(update={"measurements": [hostile, *report.measurements[1:]]}))
    page = Page(text)
    assert "script" not in page.tags
    assert HOSTILE in " ".join(page.words)


def test_a_check_that_measured_nothing_is_reported_all_the_same(tmp_path: Path) -> None:
    ended = Verdict(Outcome.INVALID, "the sender process has ended")
    whole = traffic_reports.checked(proven=False)
    result = replace(
        whole,
        verdict=ended,
        parts=(Part("check", None, ended),),
        measurements=(),
        predictions=(),
        device=None,
    )
    paths = write_reports(result, tmp_path)
    report = read_report(tmp_path)
    assert (report.measurements, report.verdict.outcome) == ([], Outcome.INVALID)
    text = words(paths["html"].read_text())
    assert "The sender process has ended" in text
    assert "Tester and device: tester" in text
    assert "Packet ledger" not in text
    suite = ET.parse(paths["junit"]).getroot()
    assert [error.get("type") for error in suite.iter("error")] == ["INVALID"]
    out = StringIO()
    render_terminal(result, Console(file=out, width=100))
    assert "INVALID" in out.getvalue()


def test_the_verdict_of_many_parts_says_which_one_decided() -> None:
    def part(what: str, frames: str | None, outcome: Outcome) -> Part:
        return Part(what, frames, Verdict(outcome, "so it was", (f"{what}: seen", "late")))

    passed = [part("port proof", None, Outcome.PASS), part("target", "64", Outcome.PASS)]
    assert overall(passed).reason == "so it was; so it was"
    whole = [*passed, part("target", "imix", Outcome.PASS)]
    assert overall(whole).reason == "all 3 parts passed, with frames of 64, imix"
    failed = overall([*whole, part("latency", "64", Outcome.FAIL), part("soak", "64", Outcome.INVALID)])
    assert (failed.outcome, failed.reason) == (Outcome.FAIL, "latency, 64 bytes: so it was")
    several = overall([part("target", str(size), Outcome.FAIL) for size in (64, 128, 256, 512)])
    assert several.reason == (
        "target, 64 bytes: so it was; target, 128 bytes: so it was; and 2 more parts are FAIL"
    )
    assert "port proof: seen" in failed.notes
    assert "target, imix: late" in failed.notes
    assert "not judged: soak, 64 bytes: so it was" in failed.notes


def test_kernel_and_vpp_side_by_side() -> None:
    report = traffic_reports.forwarding()
    text = report_json(report)
    jsonschema.validate(json.loads(text), ForwardingReport.model_json_schema(mode="serialization"))
    assert ForwardingReport.model_validate_json(text) == report
    page = forwarding_html(report)
    seen = words(page)
    assert "10 times the kernel's rate is VPP's with 1,000,000 routes" in seen
    assert Page(page).references == []
    assert "Kernel with 1,000,000 routes varies by 4.00 %" in page


def test_culprits_of_several_measurements_are_named() -> None:
    one = traffic_reports.target(SIZE, 1e4, lost=0.1)
    assert chief_culprits(traffic_reports.report(found=[one])) == list(one.culprits)
    other = replace(one, sizes=FrameSizes.of(128))
    named = chief_culprits(traffic_reports.report(found=[one, other]))
    assert named == [f"target, 64: {one.culprits[0]}", f"target, 128: {one.culprits[0]}"]
