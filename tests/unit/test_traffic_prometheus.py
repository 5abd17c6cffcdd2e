"""The textfile has every figure in base units, with the tier on each, and is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

import traffic_reports
from router_agent.traffic.report.model import TargetReport
from router_agent.traffic.report.prometheus import textfile_of, write_textfile
from router_agent.traffic.scenario import Tier


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def test_every_figure_has_its_scenario_and_tier() -> None:
    report = traffic_reports.report(tier=Tier.SOFTWARE_CEILING)
    found = samples(textfile_of(report))
    common = {("scenario", "west to east"), ("tier", "software ceiling")}
    assert all(common <= labels for _, labels in found)
    verdicts = {dict(labels)["outcome"]: v for (n, labels), v in found.items() if n.endswith("_verdict")
                and "part" not in dict(labels)}  # fmt: skip
    assert verdicts == {"PASS": 0.0, "FAIL": 1.0, "INVALID": 0.0}
    target = report.measurements[0]
    assert isinstance(target, TargetReport)
    labels = common | {("frames", "64"), ("measurement", "target")}
    assert found["router_agent_traffic_loss_ratio", frozenset(labels)] == target.trial.loss_ratio
    lost = frozenset(labels | {("fate", "received")})
    assert found["router_agent_traffic_trial_packets", lost] == target.trial.received
    assert target.trial.latency is not None
    middle = frozenset(labels | {("quantile", "0.5")})
    seconds = target.trial.latency.percentiles[50.0] / 1e9
    assert found["router_agent_traffic_latency_seconds", middle] == seconds
    ndr = frozenset(common | {("frames", "64"), ("measurement", "NDR")})
    assert found["router_agent_traffic_rate_packets_per_second", ndr] == 800_000.0


def test_names_are_in_base_units() -> None:
    families = list(text_string_to_metric_families(textfile_of(traffic_reports.report())))
    assert {family.type for family in families} == {"gauge"}
    ends = ("_packets", "_prefixes", "_seconds", "_ratio", "_verdict", "_packets_per_second")
    assert all(family.name.endswith(ends) for family in families)
    assert all(family.documentation for family in families)


def test_the_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "router_agent_traffic.prom"
    write_textfile(traffic_reports.report(), path)
    inode = path.stat().st_ino
    write_textfile(traffic_reports.report(tier=Tier.LINE_RATE), path)
    assert path.stat().st_ino != inode
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert 'tier="line rate"' in path.read_text()
