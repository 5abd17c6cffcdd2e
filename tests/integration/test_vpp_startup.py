"""A real VPP with the startup.conf and the vppcfg.yaml that the roles render, in a namespace of its own.

What needs hardware is left out: DPDK's stanza, huge pages, and mirrors (linux-cp wants /dev/vhost-net). The
ports are packet sockets here, under the names that DPDK would give them.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from role_variables import rendered, templated
from router_agent.lab.render import render
from router_agent.vpp.process import VppProcess, VppProcessError

pytestmark = [pytest.mark.root, pytest.mark.vpp]

CORES = [{"id": core, "package": 0, "core": core, "node": 0, "online": True} for core in range(8)]
FACTS = {
    "os": {"codename": "trixie"},
    "cpu": {"cores": CORES},
    "numa_nodes": [{"id": 0}],
    "nics": [
        {"pci": f"0000:03:00.{n}", "interface": None, "numa_node": 0, "rated_mbps": 1000, "speed_mbps": None}
        for n in range(4)
    ],
    "management": [],
}
PORTS: list[dict[str, Any]] = [
    {
        "name": "uplink",
        "device": "0000:03:00.0",
        "addresses": ["198.51.100.2/30", "2001:db8:0:1::2/64"],
        "vlans": [{"id": 100, "addresses": ["192.0.2.129/26"]}, {"id": 200, "mtu": 1400}],
    },
    {"name": "lan_1", "device": "0000:03:00.1", "addresses": ["10.0.0.1/24"], "mtu": 9000},
    {"name": "m1", "device": "0000:03:00.2", "bond": "bond3"},
    {"name": "m2", "device": "0000:03:00.3", "bond": "bond3"},
]
INVENTORY: dict[str, Any] = {
    "router_forwarding": "vpp",
    "router_expected_routes": {"ipv4": 200_000, "ipv6": 50_000},
    "router_ports": PORTS,
    "router_bonds": [{"name": "bond3", "addresses": ["10.1.0.1/24"], "vlans": [{"id": 7}]}],
    "router_loopbacks": [{"name": "lo1", "addresses": ["192.0.2.1/32", "2001:db8::1/128"]}],
    "ansible_facts": {"router_host": FACTS},
    "interfaces_facts": {"router_advertisements": [], "configured_elsewhere": []},
    "interfaces_mirrored": False,
    "vpp_plugins": ["af_packet", "linux_cp", "tap", "lacp"],
    "vpp_buffer_page_size": "4k",
    "vpp_main_core": min(os.sched_getaffinity(0)),
    "vpp_workers": [],
    "vpp_poll_sleep_usec": 100,
}


def startup_conf(directory: Path, **variables: Any) -> str:
    """The role's startup.conf, with its sockets in `directory` and for a group that is there."""
    files = rendered(templated("vpp", "vpp_files", INVENTORY | variables))
    text = files["/etc/vpp/startup.conf"].replace("/run/vpp", str(directory)).replace("gid vpp", "gid root")
    return text.replace("prefix vpp", f"prefix {directory.name}")


def vppcfg_yaml(**variables: Any) -> str:
    files = rendered(templated("interfaces", "interfaces_vpp_files", INVENTORY | variables))
    return files["/etc/vpp/vppcfg.yaml"]


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"v{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vpp-") as path:
        yield Path(path)


@pytest.fixture
def vpp(namespace: str, directory: Path) -> Iterator[VppProcess]:
    with VppProcess(runtime_dir=directory, namespace=namespace, config=startup_conf(directory)) as process:
        yield process


def test_vpp_takes_the_sizes_that_were_computed(vpp: VppProcess) -> None:
    computed = templated("vpp", "vpp_computed", INVENTORY)
    heap = vpp.cli("show memory main-heap")
    assert re.search(rf"base 0x\w+, size {computed['heap_bytes'] >> 20}m", heap), heap
    stats = vpp.cli("show memory stats-segment")
    assert f"total: {computed['stats_bytes'] >> 20}" in stats, stats
    pool = next(
        line.split() for line in vpp.cli("show buffers").splitlines() if line.startswith("default-numa-0")
    )
    # No buffer lies across two pages, and small pages leave more over than huge ones do.
    assert 0.9 * 16_384 < int(pool[5]) <= 16_384


def test_vpp_runs_what_was_asked_for_and_nothing_else(vpp: VppProcess) -> None:
    plugins = set(re.findall(r"(\w+)_plugin\.so", vpp.cli("show plugins")))
    assert plugins == {"af_packet", "linux_cp", "tap", "lacp"}
    mirrors = vpp.cli("show lcp")
    assert "lcp lcp-sync on" in mirrors
    assert "lcp lcp-auto-subint off" in mirrors, (
        "vppcfg makes the mirrors of VLANs, and would find them there"
    )


@pytest.mark.parametrize(
    ("good", "bad"),
    [("ip4-mtrie-pool-size", "ip4-tree-pool-size"), ("lcp-sync", "lcp-sinc"), ("hash-buckets", "buckets")],
)
def test_vpp_refuses_what_it_does_not_know(directory: Path, namespace: str, good: str, bad: str) -> None:
    """So the tests above mean something: no line of startup.conf is passed over."""
    config = startup_conf(directory).replace(good, bad)
    with pytest.raises(VppProcessError, match="ended with status"):
        VppProcess(runtime_dir=directory, namespace=namespace, config=config).start()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_workers_run_where_they_were_put(directory: Path, namespace: str) -> None:
    main, worker = sorted(os.sched_getaffinity(0))[:2]
    config = startup_conf(directory, vpp_main_core=main, vpp_workers=[worker])
    with VppProcess(runtime_dir=directory, namespace=namespace, config=config) as process:
        rows = [line.split() for line in process.cli("show threads").splitlines()]
    placed = {row[1]: row for row in rows if len(row) > 4 and row[1].startswith("vpp_")}
    assert str(main) in placed["vpp_main"]
    assert str(worker) in placed["vpp_wk_0"]


class Interfaces:
    """The role's vpp-interfaces, with vppcfg where there is one."""

    def __init__(self, process: VppProcess, directory: Path) -> None:
        found = shutil.which("vppcfg") or shutil.which("vppcfg", path=str(Path(sys.executable).parent))
        if found is None:
            pytest.skip("vppcfg is not installed")
        self._python = str(Path(found).with_name("python3"))
        self._socket = str(process.api_socket)
        self._config = directory / "vppcfg.yaml"
        self._program = directory / "vpp-interfaces"
        self._program.write_text(render("vpp-interfaces.j2", python=self._python, api_socket="/nowhere"))

    def _run(self, action: str, text: str) -> subprocess.CompletedProcess[str]:
        self._config.write_text(text)
        command = [self._python, str(self._program), action, str(self._config), "--api-socket", self._socket]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def plan(self, text: str) -> list[str]:
        done = self._run("plan", text)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    def apply(self, text: str) -> None:
        done = self._run("apply", text)
        assert (done.returncode, done.stderr) == (0, "")

    def refusal(self, text: str) -> str:
        done = self._run("apply", text)
        assert done.returncode == 1
        return done.stderr


def give_ports(process: VppProcess, names: Sequence[str]) -> None:
    for name in names:
        assert process.namespace is not None
        link = f"ip -netns {process.namespace} link add h-{name} type veth peer name f-{name}"
        subprocess.run(link.split(), check=True)
        for end in ("h", "f"):
            up = f"ip -netns {process.namespace} link set {end}-{name} mtu 9000 up"
            subprocess.run(up.split(), check=True)
        process.cli(f"create host-interface name h-{name}")
        process.cli(f"set interface name host-h-{name} {name}")


def addresses(process: VppProcess) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in process.cli("show interface address").splitlines():
        if line.endswith(":"):
            found[line.split()[0]] = []
        elif line.strip().startswith("L3 "):
            list(found.values())[-1].append(line.split()[1])
    return found


def test_vppcfg_brings_this_vpp_into_its_state_and_keeps_it_there(vpp: VppProcess, directory: Path) -> None:
    interfaces = Interfaces(vpp, directory)
    give_ports(vpp, [port["name"] for port in PORTS])
    text = vppcfg_yaml()
    assert interfaces.plan(text)
    interfaces.apply(text)
    assert interfaces.plan(text) == []
    found = addresses(vpp)
    assert found["uplink"] == ["198.51.100.2/30", "2001:db8:0:1::2/64"]
    assert found["uplink.100"] == ["192.0.2.129/26"]
    assert found["BondEthernet3"] == ["10.1.0.1/24"]
    assert found["loop1"] == ["192.0.2.1/32", "2001:db8::1/128"]
    bond = vpp.cli("show bond details")
    assert "m1" in bond
    assert "m2" in bond
    mac = re.search(r'mac: "(\S+)"', text)
    assert mac is not None
    assert mac[1] in vpp.cli("show hardware-interfaces BondEthernet3"), "the mirror in Linux was made with it"

    # A bond that has to be made anew keeps its address, though that is deleted and added in one plan.
    other_mode = vppcfg_yaml(
        router_bonds=[{"name": "bond3", "mode": "xor", "addresses": ["10.1.0.1/24"], "vlans": [{"id": 7}]}]
    )
    interfaces.apply(other_mode)
    assert interfaces.plan(other_mode) == []
    assert addresses(vpp)["BondEthernet3"] == ["10.1.0.1/24"]

    smaller = vppcfg_yaml(
        router_ports=[{**PORTS[0], "addresses": ["198.51.100.6/30"], "vlans": []}, *PORTS[1:]],
        router_loopbacks=[],
    )
    assert interfaces.plan(smaller)
    interfaces.apply(smaller)
    assert interfaces.plan(smaller) == []
    found = addresses(vpp)
    assert found["uplink"] == ["198.51.100.6/30"]
    assert "uplink.100" not in found
    assert "loop1" not in found


def test_after_a_restart_everything_is_planned_again(vpp: VppProcess, directory: Path) -> None:
    interfaces = Interfaces(vpp, directory)
    text = vppcfg_yaml(router_ports=[], router_bonds=[])
    interfaces.apply(text)
    assert interfaces.plan(text) == []
    vpp.kill()
    vpp.start()
    assert interfaces.plan(text)
    interfaces.apply(text)
    assert addresses(vpp)["loop1"] == ["192.0.2.1/32", "2001:db8::1/128"]


def test_what_vpp_refuses_is_said(vpp: VppProcess, directory: Path) -> None:
    interfaces = Interfaces(vpp, directory)
    unknown = vppcfg_yaml(router_ports=PORTS[:1], router_bonds=[])
    assert "VPP has not got every port of the configuration" in interfaces.refusal(unknown)
    give_ports(vpp, ["uplink"])
    assert "ports that are not in the configuration" in interfaces.refusal(
        vppcfg_yaml(router_ports=[], router_bonds=[])
    )
    mirrored = vppcfg_yaml(router_ports=PORTS[:1], router_bonds=[], interfaces_mirrored=True)
    if not Path("/dev/vhost-net").exists():
        assert "VPP refused some of it" in interfaces.refusal(mirrored)
    assert "refuses" in interfaces.refusal(unknown.replace("mtu: 1400", "mtu: 9001"))
