"""The lab with real daemons: it comes up, carries a table to the FIB, survives its faults, leaves nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from router_agent.lab import run, scenario
from router_agent.lab.commands import NETNS_DIRECTORY
from router_agent.lab.daemon import wait_until
from router_agent.lab.errors import LabError
from router_agent.lab.lab import FibKind, Lab, SpeakerKind
from router_agent.lab.plan import PORTS, UPLINK
from router_agent.lab.plane import VppPlane
from router_agent.lab.table import generated_table
from router_agent.lab.topology import FRR_RUNTIME, RUNTIME, SHARED_MEMORY, Topology
from router_agent.model import Family
from router_agent.traffic import commands
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.check import CheckResult, run_check
from router_agent.traffic.scenario import Scenario

pytestmark = [pytest.mark.root, pytest.mark.daemons]

TABLE = generated_table(2000, 500)


@pytest.fixture(scope="module")
def lab(module_lab_name: str) -> Iterator[Lab]:
    """FRR and a kernel FIB, converged; shared, so each test puts back what it changed."""
    with Lab(module_lab_name, table=TABLE) as lab:
        lab.start()
        lab.wait_settled()
        yield lab


def proof(lab: Lab) -> CheckResult:
    """Send a packet to each prefix, and a few more; again when this machine was too busy to send them."""
    sent = Scenario("test", lab.destinations(), rate_pps=2000.0, duration_s=0.5, proof_pps=4000.0)
    for _ in range(3):
        result = run_check(sent, lab.endpoints, lab.counters())
        if result.verdict.outcome is not Outcome.INVALID:
            break
    return result


def assert_forwards(lab: Lab) -> None:
    assert lab.agent.drift() == 0
    result = proof(lab)
    assert result.verdict.outcome is Outcome.PASS, result.verdict.reason
    assert result.proof is not None
    assert result.proof.right == len(lab.table)
    assert all(result.proof.by_port.values())
    assert result.trial is not None
    assert result.trial.duplicates == 0


def assert_vpp_drops_what_is_for_the_control_plane(lab: Lab) -> None:
    assert isinstance(lab.plane, VppPlane)
    assert "l3 mac mismatch" in lab.plane.process.cli("show errors")
    for family in Family:
        address = UPLINK.address(family).ip
        ip = "ip" if family is Family.IPV4 else "ip6"
        entry = lab.plane.process.cli(f"show {ip} fib {address}/{address.max_prefixlen}")
        hits = re.search(r"to:\[(\d+):\d+\]", entry)
        assert "dpo-drop" in entry
        assert hits is not None
        assert int(hits[1]) > 0, entry


def assert_nothing_left(name: str) -> None:
    assert not [path for path in NETNS_DIRECTORY.glob(f"{name}-*") if path.exists()]
    assert not list(RUNTIME.glob(f"{name}*"))
    assert not (FRR_RUNTIME / f"{name}-pop1").exists()
    assert not list(SHARED_MEMORY.glob(f"*{name}*"))
    assert not [
        path for path in Path("/proc").glob("[0-9]*/cmdline") if f"/{name}/".encode() in _cmdline(path)
    ]


def _cmdline(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_frr_carries_the_table_to_the_fib_and_each_prefix_leaves_by_its_port(lab: Lab) -> None:
    assert lab.bgp_routes() == {Family.IPV4: 2001, Family.IPV6: 501}
    assert lab.frr is not None
    assert {family: lab.frr.accepted(family) for family in Family} == lab.table_sizes
    assert_forwards(lab)


def test_a_kept_lab_has_a_scenario_that_checks_it(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    scenario.write(lab, path)
    data = yaml.safe_load(path.read_text())
    data["goal"]["unsent_ratio"] = 0.5
    data["destinations"]["count"] = 500
    data["tiers"]["functional"]["duration"] = "1 s"
    path.write_text(yaml.safe_dump(data))
    for _ in range(3):
        result = commands.check(path, tier=None, only=["target"], report=tmp_path)
        if result.verdict.outcome is not Outcome.INVALID:
            break
    assert result.verdict.outcome is Outcome.PASS, result.verdict.reason
    assert result.proof is not None
    assert result.proof.right == result.proof.prefixes >= 490
    assert set(result.proof.by_port) == {"uplink", "downlink"}
    assert all(result.proof.by_port.values())
    assert "the goal itself is not tested" in " ".join(result.verdict.notes)


def test_the_pop_announces_its_own_prefixes_and_nothing_else(lab: Lab) -> None:
    wait_until(
        lambda: all(lab.upstream.imported(family) == 1 for family in Family),
        "the POP's prefixes at the upstream",
        seconds=20,
        found=lab.upstream.sessions,
    )


def test_ports_have_no_address_and_neighbours_come_from_the_control_plane(lab: Lab) -> None:
    def shown(*command: str) -> list[dict[str, object]]:
        argv = ["ip", "-n", lab.topology.forwarding, "-j", *command]
        answer: list[dict[str, object]] = json.loads(subprocess.check_output(argv) or b"[]")
        return answer

    for link in shown("address", "show"):
        assert link["ifname"] == "lo" or not link["addr_info"], link
    neighbours = shown("neighbour", "show")
    assert {entry["dst"] for entry in neighbours if entry["state"] == ["PERMANENT"]} >= {
        str(port.gateway(family)) for port in PORTS for family in Family
    }


def test_withdrawn_prefixes_leave_the_fib_and_come_back(lab: Lab) -> None:
    gone = lab.upstream.withdraw(600)
    assert sum(gone.values()) >= 600
    assert all(gone.values())
    lab.wait_settled(seconds=30)
    assert lab.agent.drift() == 0
    assert lab.upstream.announce_again() == gone
    lab.wait_settled(seconds=30)
    assert_forwards(lab)


def test_more_than_there_is_cannot_be_withdrawn(lab: Lab) -> None:
    with pytest.raises(LabError, match="found 2,500 prefixes announced, expected 5,000 to withdraw"):
        lab.upstream.withdraw(5000)


def test_the_uplink_flaps(lab: Lab) -> None:
    lab.topology.set_link(UPLINK, up=False)
    lab.topology.set_link(UPLINK, up=True)
    lab.upstream.restart_sessions()
    lab.wait_established()
    lab.wait_settled(seconds=60)
    assert_forwards(lab)


def test_zebra_is_killed_and_started(lab: Lab) -> None:
    assert lab.frr is not None
    lab.frr.zebra.kill()
    lab.frr.restart()
    lab.wait_established()
    lab.wait_settled(seconds=60)
    assert_forwards(lab)


def test_the_agent_is_killed_and_started(lab: Lab) -> None:
    lab.agent.kill()
    lab.agent.start()
    lab.wait_settled(seconds=30)
    pipeline = lab.agent.pipeline()
    assert pipeline is not None
    assert (pipeline.writes.added, pipeline.writes.replaced, pipeline.writes.deleted) == (0, 0, 0)
    assert_forwards(lab)


def test_the_forwarding_plane_is_unplugged_and_plugged_in(lab: Lab) -> None:
    lab.plane.kill()
    lab.plane.start()
    lab.meet_neighbours()
    lab.wait_established()
    lab.wait_settled(seconds=60)
    assert_forwards(lab)


def test_exabgp_carries_the_table_to_the_fib(lab_name: str) -> None:
    with Lab(lab_name, table=TABLE, speaker=SpeakerKind.EXABGP) as lab:
        lab.start()
        lab.wait_settled(seconds=60)
        assert lab.bgp_routes() == lab.table_sizes
        assert_forwards(lab)
    assert_nothing_left(lab_name)


@pytest.mark.vpp
def test_vpp_forwards_and_comes_back_after_a_crash(lab_name: str) -> None:
    with Lab(lab_name, table=TABLE, fib=FibKind.VPP) as lab:
        lab.start()
        lab.wait_settled(seconds=60)
        assert_forwards(lab)
        assert_vpp_drops_what_is_for_the_control_plane(lab)
        lab.plane.kill()
        lab.plane.start()
        lab.agent.wait_holds(lab.fib_sizes, seconds=60)
        assert_forwards(lab)
    assert_nothing_left(lab_name)


def test_two_labs_live_at_once_and_one_name_has_one_owner(lab: Lab, lab_name: str) -> None:
    with Lab(lab_name, table=TABLE) as other:
        other.meet_neighbours()
        with pytest.raises(LabError, match=f"found a lab '{lab_name}' that another process is running"):
            Lab(lab_name, table=TABLE).__enter__()
    assert_nothing_left(lab_name)
    lab.meet_neighbours()


def test_a_daemon_that_dies_is_told_with_its_log(lab_name: str) -> None:
    with Lab(lab_name, table=TABLE) as lab:
        lab.configure()
        lab.upstream.daemon.log.write_text("last words\n")
        config = lab.upstream.directory / "bird.conf"
        config.write_text("nonsense;\n")
        with pytest.raises(LabError, match=r"(?s)bird is not running \(status 1\).*last words"):
            lab.upstream.start()
    assert_nothing_left(lab_name)


def test_a_lab_runs_to_its_verdict_with_one_command(lab_name: str, tmp_path: Path) -> None:
    arguments = [
        "--name",
        lab_name,
        "--fib",
        "kernel",
        "--speaker",
        "exabgp",
        "--ipv4",
        "300",
        "--ipv6",
        "50",
    ]
    report = tmp_path / "report"
    assert run.main([*arguments, "--rate", "2000", "--seconds", "0.5", "--report", str(report)]) == 0
    assert {"report.html", "report.json", "report.xml", "lab.json"} <= {
        path.name for path in report.iterdir()
    }
    summary = json.loads((report / "lab.json").read_text())
    assert summary["outcome"] == "PASS"
    assert summary["drift"] == 0
    accepted = json.loads((report / "acceptance" / f"{lab_name}-pop1" / "result.json").read_text())
    assert (accepted["outcome"], accepted["as_found"]) == ("PASS", True)
    assert_nothing_left(lab_name)


def started(name: str, tmp_path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a lab as a process of its own, and return once its daemons run."""
    argv = [sys.executable, "-m", "router_agent.lab", "--name", name, "--fib", "kernel", *arguments]
    argv += ["--ipv4", "200", "--ipv6", "20", "--seconds", "60", "--report", str(tmp_path)]
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    bird = RUNTIME / name / "upstream" / "bird.ctl"
    wait_until(lambda: bird.is_socket() or process.poll() is not None, "BIRD in the lab", seconds=30)
    assert process.poll() is None, (tmp_path / "output").read_text()
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: signal.Signals(n).name)
def test_an_interrupted_lab_is_taken_down(lab_name: str, tmp_path: Path, number: signal.Signals) -> None:
    process = started(lab_name, tmp_path)
    os.killpg(process.pid, number)
    assert process.wait(30) == 128 + number
    assert_nothing_left(lab_name)


def test_what_a_killed_lab_left_is_removed_by_the_next(lab_name: str, tmp_path: Path) -> None:
    process = started(lab_name, tmp_path)
    process.kill()
    process.wait()
    topology = Topology(lab_name)
    assert topology.present
    with Lab(lab_name, table=TABLE) as lab:
        assert not (lab.topology.directory / "upstream").exists()
        lab.meet_neighbours()
    assert_nothing_left(lab_name)


def test_a_kept_lab_stays_and_is_taken_down_by_name(
    lab_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--name",
        lab_name,
        "--fib",
        "kernel",
        "--ipv4",
        "100",
        "--ipv6",
        "10",
        "--keep",
        "--no-acceptance",
    ]
    arguments += ["--speaker", "exabgp", "--rate", "1000", "--seconds", "0.3", "--report", str(tmp_path)]
    assert run.main(arguments) == 0
    said = capsys.readouterr().out
    control = RUNTIME / lab_name / "agent" / "control.sock"
    assert f"show status --socket {control}" in said
    status = [sys.executable, "-m", "router_agent.cli", "show", "status", "--socket", str(control)]
    assert subprocess.run(status, capture_output=True, check=False, timeout=30).returncode == 0
    assert run.main(["down", "--name", lab_name]) == 0
    assert_nothing_left(lab_name)
