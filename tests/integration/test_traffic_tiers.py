"""A scenario file on the software-ceiling tier: a VPP sends through a VPP in memory; the rate is predicted.

generator  west ═══ memif ═══ device (VPP) ═══ memif ═══ east        300 IPv4 prefixes, all by east
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from router_agent.lab.memif import MemifDevice
from router_agent.lab.plane import vpp_available
from router_agent.model import Family, keys_of, prefixes_of
from router_agent.traffic import commands
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.scenario import Tier
from router_agent.traffic.tables.live import TableError
from router_agent.traffic.tables.vpp import read_vpp_table

pytestmark = [
    pytest.mark.root,
    pytest.mark.vpp,
    pytest.mark.timeout(150),
    pytest.mark.skipif(not vpp_available(), reason="vpp is not on PATH"),
]

PREFIXES = [IPv4Network(f"20.{i // 256}.{i % 256}.0/24") for i in range(300)]


@pytest.fixture(scope="module")
def device() -> Iterator[MemifDevice]:
    directory = Path("/tmp", f"trt-{secrets.token_hex(3)}")
    try:
        with MemifDevice(directory, {Family.IPV4: keys_of([*PREFIXES])}, heap="512M") as made:
            yield made
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def scenario(device: MemifDevice, path: Path, goal: str) -> Path:
    west, east = device.endpoints.ports
    path.write_text(f"""\
schema: router-agent/traffic-scenario/1
name: a router in memory
frames: [64]
destinations: {{families: [ipv4]}}
direction: {{from: west}}
goal: {{{goal}, duration: 3 s, unsent_ratio: 0.9}}
tiers:
  software ceiling:
    generator: vpp-pg
    ports:
      west:
        memif: {{socket: {west.interface}, id: 0}}
        mac: "{west.mac}"
        gateway_mac: "{west.gateway_mac}"
        faces: memif1/0
      east:
        memif: {{socket: {east.interface}, id: 1}}
        mac: "{east.mac}"
        faces: memif1/1
    device:
      forwarding: vpp
      stats_socket: {device.stats_socket}
      api_socket: {device.process.api_socket}
""")
    return path


def test_vpps_table_says_where_each_prefix_leaves(device: MemifDevice) -> None:
    table = read_vpp_table(device.process.api_socket)
    keys = table.keys[Family.IPV4]
    assert sorted(map(str, prefixes_of(keys))) == sorted(map(str, PREFIXES))
    assert {table.interfaces[i] for i in table.leaves_by[Family.IPV4]} == {"memif1/1"}
    others = {str(p) for p in prefixes_of(table.others[Family.IPV4])}
    assert {"0.0.0.0/0", "224.0.0.0/4"} <= others


def test_a_vpp_that_is_gone_has_no_table(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"FIB 0 of VPP at .*absent\.sock cannot be read"):
        read_vpp_table(tmp_path / "absent.sock")


def test_the_software_ceiling_is_stamped_and_the_rate_predicted(device: MemifDevice, tmp_path: Path) -> None:
    """The rate is one that a device without a CPU for half a second has room for in its rings."""
    path = scenario(device, tmp_path / "pop.yaml", "rate: 3 kpps")
    result = commands.check(path, tier=None, only=["target"], report=tmp_path)
    assert result.check.tier is Tier.SOFTWARE_CEILING
    assert result.verdict.outcome is Outcome.PASS, result.verdict.reason
    notes = " ".join(result.verdict.notes)
    assert "nothing about NICs and links" in notes
    assert "no port proof: generator vpp-pg counts packets by port" in notes
    assert "device left as found" in notes
    assert result.trial is not None
    assert result.trial.received_by_port[1] == result.trial.received
    (prediction,) = result.predictions
    (limit,) = prediction.limits
    assert limit.what.startswith("1 worker at ")
    assert "cycles a packet" in limit.what
    assert limit.pps > (prediction.measured_pps or 0) > 0
    assert prediction.unknown == ("link of port west: none, or its speed is not known",)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["tier"] == "software ceiling"
    assert report["predictions"][0]["limits"][0]["pps"] == pytest.approx(limit.pps)


def test_a_line_rate_in_memory_is_said_to_be_none(device: MemifDevice, tmp_path: Path) -> None:
    path = scenario(device, tmp_path / "pop.yaml", "rate: 1GbE line rate")
    result = commands.check(path, tier="software-ceiling", only=["target"])
    assert "1GbE line rate is as many packets as such a link carries; there is no link here" in " ".join(
        result.verdict.notes
    )
    path.write_text(path.read_text().replace("software ceiling", "line rate"))
    with pytest.raises(
        commands.CommandError, match="port west is memif, which carries tier 'software cei"
    ) as caught:
        commands.check(path, tier=None)
    assert caught.value.code is commands.Exit.USAGE
