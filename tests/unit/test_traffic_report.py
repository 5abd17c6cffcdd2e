"""Reports hold what was measured, parse as what they claim to be, and load nothing."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from html.parser import HTMLParser
from io import StringIO
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from router_agent.traffic.counters.source import DropClass, Side
from router_agent.traffic.generators.generator import ByDestination, Series, TrialResult
from router_agent.traffic.judgement.ledger import balance
from router_agent.traffic.judgement.proof import Deviation, Deviations, Proof
from router_agent.traffic.judgement.verdict import Outcome, Verdict, combine, judge_proof, judge_trial
from router_agent.traffic.measurements.check import CheckResult, Part
from router_agent.traffic.measurements.results import Measurement, RateSearch, Target
from router_agent.traffic.measurements.search import SearchResult, SearchTrial
from router_agent.traffic.report.environment import this_host
from router_agent.traffic.report.files import write_reports
from router_agent.traffic.report.model import TrafficReport, json_schema, report_json, report_of
from router_agent.traffic.report.plots import Curve, bars, lines
from router_agent.traffic.report.terminal import render_terminal
from router_agent.traffic.scenario import Check, Destinations, Endpoints, Port, Scenario, Tier

HOSTILE = '<script>alert("x")</script>'


def column(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


def checked(*, name: str = "west to east", whole: bool = True) -> CheckResult:
    scenario = Scenario(name, Destinations.of([IPv4Network("192.0.2.0/24")], [1]), rate_pps=100, duration_s=2)
    started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    endpoints = Endpoints((Port("west", "a", None, "02:00:00:00:00:01"), Port("east", "b")))
    failed = Verdict(Outcome.INVALID, "the sender process has ended")
    parts = [Part("check", None, failed)]
    proof = None
    measurements: tuple[Measurement, ...] = ()
    if whole:
        series = Series(
            0.5, column(50, 50, 50, 50), column(50, 50, 50, 50), column(50, 40, 50, 50), column(0, 10, 0, 0)
        )
        trial = TrialResult(
            100.0,
            2.0,
            2.0,
            200,
            200,
            190,
            (0, 190),
            series,
            by_destination=ByDestination(column(200), column(0, 190)[:, None]),
        )
        ledger = balance(
            200, 190, [DropClass("no <route>", 7, Side.DEVICE, "InNoRoutes")], {"kernel": {"InNoRoutes": 7}}
        )
        wrong = Deviations(300, (Deviation("10.0.0.0/8", "east", "west"),))
        proof = Proof(1000, 0, 699, wrong, Deviations(1, ()), Deviations(), {"west": 300, "east": 699}, 100.0)
        search = SearchResult(
            Outcome.PASS, "met up to 90 pps", 90.0, 95.0, (SearchTrial(90.0, 1.0, 90, 0, 0, True),)
        )
        met = Verdict(Outcome.PASS, "met up to 90 pps")
        target = Target(scenario.sizes, trial, ledger, judge_trial(trial, ledger, scenario.goal))
        measurements = (target, RateSearch("NDR", scenario.sizes, 0.0, 1.0, search, met))
        parts = [
            Part("port proof", None, judge_proof(proof)),
            Part("target", "64", target.verdict),
            Part("NDR", "64", met),
        ]
    return CheckResult(
        check=Check((scenario,), Tier.FUNCTIONAL),
        endpoints=endpoints,
        verdict=combine(*(part.verdict for part in parts)),
        parts=tuple(parts),
        proof=proof,
        measurements=measurements,
        predictions=(),
        environment=this_host(),
        started=started,
        ended=started.replace(second=9),
        reports={},
    )


class Page(HTMLParser):
    """Collects tags, what they refer to, and text; wants every element closed in order."""

    VOID = frozenset({"meta", "line", "polyline", "rect", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [
            v or "" for k, v in attrs if k in ("src", "href", "srcset", "xlink:href", "action")
        ]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_json_holds_the_measurement_and_fits_its_schema() -> None:
    report = report_of(checked())
    data: dict[str, Any] = json.loads(report_json(report))
    assert data["schema"] == "router-agent/traffic-check/1"
    assert data["verdict"]["outcome"] == "FAIL"
    assert data["trial"]["lost"] == 10
    assert data["trial"]["per_second"]["lost"] == [10, 0]
    assert data["ledger"]["unaccounted"] == 3
    assert (data["proof"]["wrong"], len(data["proof"]["wrong_list"])) == (300, 1)
    assert TrafficReport.model_validate(data) == report
    schema = json_schema()
    assert set(data) == set(schema["properties"])
    json.dumps(schema)


def test_a_check_that_could_not_run_is_reported_all_the_same(tmp_path: Path) -> None:
    paths = write_reports(checked(whole=False), tmp_path)
    data = json.loads(paths["json"].read_text())
    assert (data["trial"], data["verdict"]["outcome"]) == (None, "INVALID")
    words = " ".join(Page(paths["html"].read_text()).words)
    assert "the sender process has ended" in words
    assert "Packet ledger" not in words


def test_junit_maps_fail_to_failure_and_invalid_to_error(tmp_path: Path) -> None:
    root = ET.parse(write_reports(checked(), tmp_path)["junit"]).getroot()
    suite = root.find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "2", "0")
    assert suite.get("time") == "4.0"
    assert {
        c.get("name"): [r.tag for r in c if r.tag != "system-out"] for c in suite.findall("testcase")
    } == {
        "port proof": ["failure"],
        "target, 64 bytes": ["failure"],
        "NDR, 64 bytes": [],
    }
    void = ET.parse(write_reports(checked(whole=False), tmp_path)["junit"]).getroot()
    assert [e.get("type") for e in void.iter("error")] == ["INVALID"]


def test_the_page_stands_alone(tmp_path: Path) -> None:
    text = write_reports(checked(), tmp_path)["html"].read_text()
    page = Page(text)
    assert page.references == []
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", text)
    assert page.tags.count("svg") == 2
    assert "prefers-color-scheme: dark" in text


def test_the_page_begins_with_the_verdict(tmp_path: Path) -> None:
    text = write_reports(checked(), tmp_path)["html"].read_text()
    words = " ".join(" ".join(Page(text.partition("<body>")[2].partition("</body>")[0]).words).split())
    order = [
        words.index(part) for part in ("FAIL", "Parts", "Trial over time", "Packet ledger", "One packet to")
    ]
    assert order == sorted(order)
    assert words.startswith("Traffic check: west to east")
    assert "the first 1 of 300" in words
    assert "no <route>" in words


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    text = write_reports(checked(name=HOSTILE), tmp_path)["html"].read_text()
    assert "script" not in Page(text).tags
    assert HOSTILE in " ".join(Page(text).words)
    assert HOSTILE not in lines(HOSTILE, [Curve("x", HOSTILE, [1.0])], interval_s=1, unit=HOSTILE)


def test_plots_stay_inside_their_frame() -> None:
    values = [0.0, 5.0, 1e9, 3.0]
    for plot in (
        lines("a", [Curve("x", "sent", values), Curve("y", "lost", [])], interval_s=0.1, unit="pps"),
        bars("b", Curve("x", "lost", values), interval_s=0.1, unit="packets"),
        lines("none", [], interval_s=0.1, unit="pps"),
        bars("none", Curve("x", "lost", []), interval_s=0.1, unit="packets"),
    ):
        svg = ET.fromstring(plot)
        assert svg.get("role") == "img"
        for line in svg.iter("polyline"):
            for point in (line.get("points") or "").split():
                x, y = (float(number) for number in point.split(","))
                assert 0 <= x <= 760
                assert 0 <= y <= 220
        for bar in svg.iter("rect"):
            assert float(bar.get("height") or -1) >= 0


@pytest.mark.parametrize("whole", [True, False])
def test_the_terminal_shows_the_verdict(whole: bool) -> None:
    out = StringIO()
    render_terminal(checked(whole=whole), Console(file=out, width=100))
    text = out.getvalue()
    assert ("FAIL" if whole else "INVALID") in text
    assert ("unaccounted" in text) is whole
