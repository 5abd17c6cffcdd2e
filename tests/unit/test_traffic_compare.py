"""Two reports side by side: what became worse, and what cannot be told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import traffic_reports
from router_agent.cli import app
from router_agent.traffic.judgement.verdict import Outcome, Verdict
from router_agent.traffic.measurements.results import BackToBack, Measurement
from router_agent.traffic.report.compare import Change, Comparison, Difference, compare
from router_agent.traffic.report.model import TrafficReport, report_json
from router_agent.traffic.scenario import FrameSizes, Tier

SIZE = FrameSizes.of(64)


def of(*found: Measurement) -> TrafficReport:
    return traffic_reports.report(found=found)


def the(comparison: Comparison, figure: str) -> Difference:
    found = [row for row in comparison.differences if row.figure == figure]
    assert len(found) == 1
    return found[0]


def rate(pps: float, *, regular: bool = True) -> TrafficReport:
    return of(traffic_reports.search(SIZE, "NDR", 0.0, pps, regular=regular))


def test_a_report_is_no_worse_than_itself() -> None:
    report = traffic_reports.report()
    found = compare(report, report)
    assert found.context == []
    assert {row.change for row in found.differences} == {Change.SAME}
    assert found.exit_code == 0


@pytest.mark.parametrize(
    ("after", "change", "code"),
    [(0.9e6, Change.WORSE, 1), (0.97e6, Change.SAME, 0), (1.2e6, Change.BETTER, 0)],
)
def test_a_lower_rate_is_worse_beyond_the_tolerance(after: float, change: Change, code: int) -> None:
    found = compare(rate(1e6), rate(after))
    assert the(found, "rate").change is change
    assert found.exit_code == code


def test_the_width_of_a_search_is_no_regression() -> None:
    wide = traffic_reports.search(SIZE, "NDR", 0.0, 1e6)
    wide = replace(wide, found=replace(wide.found, upper_pps=1.3e6))
    found = compare(of(wide), rate(0.8e6), tolerance=0.01)
    assert the(found, "rate").tolerance == pytest.approx((0.3e6**2 + 0.008e6**2) ** 0.5)
    assert the(found, "rate").change is Change.SAME
    assert the(compare(rate(1e6), rate(0.8e6), tolerance=0.01), "rate").change is Change.WORSE


def test_a_rate_that_the_tester_limited_is_only_a_lower_bound() -> None:
    found = compare(rate(1e6), rate(0.5e6, regular=False))
    assert the(found, "rate").change is Change.INCOMPARABLE
    assert (found.exit_code, found.worse) == (2, [])
    assert the(compare(rate(0.5e6, regular=False), rate(1e6)), "rate").change is Change.SAME
    assert the(compare(rate(1e6, regular=False), rate(0.5e6)), "rate").change is Change.WORSE
    assert the(compare(rate(0.5e6), rate(1e6, regular=False)), "rate").change is Change.BETTER


def test_bursts_that_vary_need_a_larger_difference() -> None:
    def bursts(*values: int) -> TrafficReport:
        return of(BackToBack(SIZE, 1e6, values, None, Verdict(Outcome.PASS, "as wanted")))

    steady = compare(bursts(1000, 1001, 999), bursts(900, 901, 899))
    assert the(steady, "mean burst").change is Change.WORSE
    noisy = compare(bursts(1500, 500, 1000), bursts(900, 1400, 400))
    assert the(noisy, "mean burst").change is Change.SAME


def test_any_loss_is_worse_than_none() -> None:
    found = compare(of(traffic_reports.target(SIZE, 1e4)), of(traffic_reports.target(SIZE, 1e4, lost=0.001)))
    assert the(found, "loss ratio").change is Change.WORSE
    verdict = the(found, "verdict")
    assert (verdict.change, found.exit_code) == (Change.WORSE, 1)
    assert verdict.note.startswith("PASS before, FAIL after")


def test_latency_is_compared_where_there_are_packets_enough() -> None:
    first = traffic_reports.latency_run(SIZE, 0.5, 1e4)
    slow = traffic_reports.latency_run(SIZE, 0.9, 1e4)
    found = compare(of(first), of(replace(slow, share=0.5, rate_pps=first.rate_pps)))
    assert the(found, "99 % within").change is Change.WORSE
    # of 20,040 packets twenty are beyond 99.9 %, and two beyond 99.99 %
    target = compare(of(traffic_reports.target(SIZE, 1e4)), of(traffic_reports.target(SIZE, 1e4)))
    assert {row.figure for row in target.differences if "within" in row.figure} == {
        "50 % within",
        "99 % within",
        "99.9 % within",
    }


def test_route_changes_that_cost_more_are_worse() -> None:
    run = replace(traffic_reports.churn(SIZE, 1e4), lost=100)
    slower = replace(run, lost=900, convergence_s=tuple(3 * s for s in run.convergence_s))
    found = compare(of(run), of(slower))
    assert {row.figure for row in found.worse} == {"lost", "99 % of prefixes converged within"}


def test_tiers_are_never_compared() -> None:
    functional = traffic_reports.report()
    found = compare(functional, traffic_reports.report(tier=Tier.LINE_RATE))
    assert found.refused is not None
    assert "'functional'" in found.refused
    assert "'line rate'" in found.refused
    assert (found.differences, found.exit_code) == ([], 2)


def test_what_is_not_in_both_reports_is_not_passed_over() -> None:
    both = of(traffic_reports.target(SIZE, 1e4), traffic_reports.search(SIZE, "NDR", 0.0, 1e6))
    found = compare(both, of(traffic_reports.target(SIZE, 1e4)))
    assert [row.note for row in found.incomparable] == ["not measured in the second report"]
    assert found.exit_code == 2
    nothing = compare(rate(1e6), of(traffic_reports.target(SIZE, 1e4)))
    assert nothing.refused is not None


def test_an_invalid_measurement_says_nothing() -> None:
    target = traffic_reports.target(SIZE, 1e4)
    invalid = replace(target, verdict=Verdict(Outcome.INVALID, "the generator was the limit"))
    search = traffic_reports.search(SIZE, "NDR", 0.0, 1e6)
    found = compare(of(target, search), of(invalid, search))
    assert [row.note for row in found.incomparable] == [
        "INVALID in the second report: the generator was the limit"
    ]
    assert found.exit_code == 2


def test_another_load_is_another_measurement() -> None:
    found = compare(
        of(traffic_reports.target(SIZE, 1e4), *rates()), of(traffic_reports.target(SIZE, 2e4), *rates())
    )
    assert [row.note for row in found.incomparable] == ["offered 10,000 pps before and 20,000 pps after"]


def rates() -> list[Measurement]:
    return [traffic_reports.search(SIZE, "NDR", 0.0, 1e6)]


def test_what_differs_between_the_checks_is_said_first() -> None:
    before, after = traffic_reports.report(), traffic_reports.report()
    assert after.device is not None
    device = after.device.model_copy(
        update={
            "versions": after.device.versions | {"vpp": "25.10"},
            "configurations": {"/etc/vpp/startup.conf": "00" * 32},
            "nics": [after.device.nics[0].model_copy(update={"firmware": "8.30"})],
        }
    )
    scenario = after.scenario.model_copy(update={"sha256": "00" * 32, "destinations_sha256": "11" * 32})
    found = compare(before, after.model_copy(update={"device": device, "scenario": scenario}))
    text = "\n".join(found.context)
    for words in (
        "what was asked for differs",
        "the destinations differ",
        "device: vpp differs: 26.06 before, 25.10 after",
        "device: /etc/vpp/startup.conf differs",
        "device: NIC enp3s0f0 differs",
    ):
        assert words in text
    assert "tester" not in text


def written(directory: Path, name: str, report: TrafficReport) -> str:
    path = directory / name
    path.write_text(report_json(report))
    return str(path)


def test_the_command_says_it_all_and_exits_accordingly(tmp_path: Path) -> None:
    good, bad = written(tmp_path, "a.json", rate(1e6)), written(tmp_path, "b.json", rate(0.5e6))
    runner = CliRunner()
    worse = runner.invoke(app, ["traffic", "compare", good, bad])
    assert worse.exit_code == 1
    assert "-50.0 %" in worse.output
    assert "1 became worse" in worse.output
    assert runner.invoke(app, ["traffic", "compare", good, bad, "--tolerance", "0.6"]).exit_code == 0
    found = runner.invoke(app, ["traffic", "compare", bad, good, "--json"])
    assert found.exit_code == 0
    data = json.loads(found.output)
    assert data["schema"] == "router-agent/traffic-comparison/1"
    assert [row["change"] for row in data["differences"] if row["figure"] == "rate"] == ["better"]
    missing = runner.invoke(app, ["traffic", "compare", good, str(tmp_path / "none.json")])
    assert missing.exit_code == 2
    assert "No such file" in missing.output


def test_every_form_is_made_again_from_the_json(tmp_path: Path) -> None:
    report = traffic_reports.report()
    path = written(tmp_path, "report.json", report)
    runner = CliRunner()
    assert "tier: functional" in runner.invoke(app, ["traffic", "show", path]).output
    again = runner.invoke(app, ["traffic", "show", str(tmp_path), "--json"])
    assert TrafficReport.model_validate_json(again.output) == report
    forms = ["--html", str(tmp_path / "r.html"), "--junit", str(tmp_path / "r.xml")]
    done = runner.invoke(app, ["traffic", "show", path, *forms, "--textfile", str(tmp_path / "r.prom")])
    assert (done.exit_code, done.output) == (0, "")
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
    assert "<testsuite" in (tmp_path / "r.xml").read_text()
    assert "router_agent_traffic_verdict" in (tmp_path / "r.prom").read_text()
    denied = runner.invoke(app, ["traffic", "show", path, "--html", str(tmp_path / "none" / "r.html")])
    assert denied.exit_code == 2
    assert "No such file" in denied.output
