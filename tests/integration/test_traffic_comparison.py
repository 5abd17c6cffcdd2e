"""Kernel and VPP forwarding compared for real: devices of the lab, the generator vpp-pg for both."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from router_agent.lab.forwarding import Plan, compare_forwarding
from router_agent.lab.forwarding_command import report_of, write
from router_agent.lab.plane import vpp_available
from router_agent.traffic.judgement.verdict import Outcome

pytestmark = [
    pytest.mark.root,
    pytest.mark.vpp,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not vpp_available(), reason="vpp is not on PATH"),
]


def test_both_forward_every_frame_of_the_same_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The highest rates of a busy machine say nothing: a low ceiling keeps the rings of both from overflowing.
    monkeypatch.setattr("router_agent.lab.forwarding._MOST_PPS", {"kernel": 3_000.0, "VPP": 3_000.0})
    monkeypatch.setattr("router_agent.lab.forwarding._FIRST_PPS", {"kernel": 1_500.0, "VPP": 1_500.0})
    before = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    stages: list[str] = []
    found = compare_forwarding(
        Plan(tables=(1, 200), destinations=100, ramp_s=0.5, steady_s=1.0),
        lambda _stage, _done, text: stages.append(text),
    )
    assert [(run.forwarder, run.routes) for run in found.runs] == [
        ("kernel", 1), ("VPP", 1), ("kernel", 200), ("VPP", 200),
    ]  # fmt: skip
    for run in found.runs:
        assert run.trial.sent > 100
        assert (run.trial.lost, run.ledger.unaccounted) == (0, 0)
        assert run.verdict.outcome is not Outcome.FAIL
        assert 0 < run.highest_pps < 5_000
        assert (run.cycles is not None) is (run.forwarder == "VPP")
    assert set(found.gain) == {1, 200}
    write(report_of(found, datetime.now(UTC)), tmp_path)
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["schema"] == "router-agent/traffic-forwarding/1"
    assert sum(data["runs"][1]["trial"]["series"]["received"]) == found.runs[1].trial.received
    assert "kernel" in (tmp_path / "report.html").read_text()
    assert any("VPP with 200 routes is built" in text for text in stages)
    after = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert {n for n in after.split() if n.startswith("cmp")} <= set(before.split())
    assert not list(Path("/tmp").glob("cmpv-*"))
