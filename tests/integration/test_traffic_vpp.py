"""The ledger of a real VPP: its drops are named from the stats segment."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from router_agent.traffic.counters.source import CounterError, Side
from router_agent.traffic.counters.vpp import VppForwarder
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.check import run_check
from router_agent.traffic.scenario import Destinations, Endpoints, Goal, Port, Scenario
from router_agent.vpp.process import VppProcess

pytestmark = [
    pytest.mark.root,
    pytest.mark.vpp,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("vpp") is None, reason="vpp is not on PATH"),
]

PREFIXES = [IPv4Network(f"20.{i}.0.0/16") for i in range(20)]
EAST_MAC = "02:00:00:00:01:01"


@pytest.fixture(scope="module")
def forwarder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VppProcess, str]]:
    """A VPP with two af_packet ports, and the tester's namespace with their other ends."""
    mark = secrets.token_hex(3)
    tester, device = f"trt-{mark}", f"trd-{mark}"
    directory = Path("/tmp", f"trv-{mark}")
    try:
        for name in (tester, device):
            subprocess.run(["ip", "netns", "add", name], check=True)
        for port, mac in (("west", "02:00:00:00:01:00"), ("east", EAST_MAC)):
            link = ["ip", "link", "add", port, "netns", tester, "address", mac, "type", "veth"]
            subprocess.run([*link, "peer", "name", f"to-{port}", "netns", device], check=True)
            subprocess.run(["ip", "-n", tester, "link", "set", port, "up"], check=True)
            subprocess.run(["ip", "-n", device, "link", "set", f"to-{port}", "up"], check=True)
        with VppProcess(runtime_dir=directory, namespace=device, heap="256M", statseg="32M") as vpp:
            for i, port in enumerate(("west", "east")):
                vpp.cli(f"create host-interface name to-{port} hw-addr 02:00:00:00:02:0{i}")
                vpp.cli(f"set interface state host-to-{port} up")
                vpp.cli(f"set interface ip address host-to-{port} 10.0.{i}.1/24")
            vpp.cli(f"set ip neighbor host-to-east 10.0.1.2 {EAST_MAC}")
            for prefix in PREFIXES:
                vpp.cli(f"ip route add {prefix} via 10.0.1.2 host-to-east")
            yield vpp, tester
    finally:
        for name in (tester, device):
            subprocess.run(["ip", "netns", "del", name], check=False)
        shutil.rmtree(directory, ignore_errors=True)


def scenario() -> Scenario:
    return Scenario(
        "vpp",
        Destinations.of([*PREFIXES], [1] * len(PREFIXES)),
        rate_pps=2_000,
        duration_s=1.0,
        goal=Goal(unsent_ratio=0.3),
        proof_pps=400,
        drain_s=0.4,
    )


def endpoints(tester: str) -> Endpoints:
    return Endpoints((Port("west", "west", tester, "02:00:00:00:02:00"), Port("east", "east", tester)))


def counters(vpp: VppProcess) -> VppForwarder:
    return VppForwarder(vpp.runtime_dir / "stats.sock", vpp.namespace)


def test_vpp_forwards_and_then_drops_by_name(forwarder: tuple[VppProcess, str]) -> None:
    vpp, tester = forwarder
    result = run_check(scenario(), endpoints(tester), [counters(vpp)])
    assert result.verdict.outcome is Outcome.PASS, result.verdict.reason
    assert result.ledger is not None
    assert result.ledger.moved[counters(vpp).name]["/if/tx/host-to-east"] >= result.ledger.sent

    for prefix in PREFIXES[:5]:
        vpp.cli(f"ip route del {prefix}")
    result = run_check(scenario(), endpoints(tester), [counters(vpp)])
    assert result.verdict.outcome is Outcome.FAIL
    assert result.proof is not None
    assert result.ledger is not None
    assert result.trial is not None
    assert len(result.proof.missing) == 5
    assert result.trial.lost == pytest.approx(result.trial.sent / 4, rel=0.02)
    named = result.ledger.dropped(Side.DEVICE)
    stray = 20  # neighbour discovery of the ports' other ends, dropped by VPP too
    assert result.trial.lost <= named <= result.trial.lost + stray
    assert result.ledger.dropped(Side.TESTER) == 0
    assert "dropped by a FIB entry" in result.verdict.reason


def test_a_vpp_that_is_gone_makes_the_check_invalid(
    forwarder: tuple[VppProcess, str], tmp_path: Path
) -> None:
    gone = VppForwarder(tmp_path / "stats.sock")
    with pytest.raises(CounterError, match="stats segment"):
        gone.read()
    result = run_check(replace(scenario(), proof_pps=None), endpoints(forwarder[1]), [gone])
    assert result.verdict.outcome is Outcome.INVALID
    assert "stats segment" in result.verdict.reason
