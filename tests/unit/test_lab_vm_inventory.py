"""The lab's two inventories, and what Ansible prints about a run."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml

from router_agent.lab.errors import LabError
from router_agent.lab.host import Host
from router_agent.lab.plan import ANNOUNCED, POP_AS, UPSTREAM_AS
from router_agent.lab.vm.acceptance import acceptance_variables
from router_agent.lab.vm.image import Image
from router_agent.lab.vm.inventory import STATIC, dynamic_inventory, forwarding_variables, host_of
from router_agent.lab.vm.neighbours import IPV4, IPV6, TESTER_AS, TESTER_IPV4, Neighbours, tables
from router_agent.lab.vm.network import Network
from router_agent.lab.vm.plan import DEVICES, HOST, LAN, MANAGEMENT, PORTS, UPLINK
from router_agent.lab.vm.play import PlayError, PlayResult, parse_output, table_of
from router_agent.model import Family, key_lengths, prefixes_of

OUTPUT = """\
PLAY [Build the routers] ***

TASK [frr : Install FRR] *******************************************************
changed: [pop1-vm]

TASK [frr : Read the state] ****************************************************
ok: [pop1-vm]

RUNNING HANDLER [vpp : Restart VPP] ********************************************
changed: [pop1-vm] => (item=1)

PLAY RECAP *********************************************************************
pop1-vm                    : ok=48   changed=2    unreachable=0    failed=1    skipped=29   rescued=0
"""


@pytest.fixture
def variables() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(STATIC.read_text())["routers"]["hosts"][HOST]
    return found


@pytest.fixture
def host(tmp_path: Path) -> Host:
    image = tmp_path / "image"
    image.mkdir()
    (image / "ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAA root@pop1-vm\n")
    found = host_of(Image(image), ssh_port=2200, directory=tmp_path / "vm", sockets=Path("/run/x"))
    found.configure()
    return found


def test_static_inventory_names_the_nics_and_addresses_of_the_plan(variables: dict[str, Any]) -> None:
    ports = {port["name"]: port for port in variables["router_ports"]}
    assert {name: port["device"] for name, port in ports.items()} == DEVICES
    for port in PORTS:
        assert [ipaddress.ip_interface(text) for text in ports[port.name]["addresses"]] == [
            port.address(family) for family in (Family.IPV4, Family.IPV6)
        ]


def test_static_inventory_names_the_neighbours_of_the_plan(variables: dict[str, Any]) -> None:
    assert variables["router_asn"] == POP_AS
    peers = {
        peer["name"]: (ipaddress.ip_address(peer["address"]), peer["asn"])
        for peer in variables["router_peers"]
    }
    assert peers == {
        "upstream_v4": (UPLINK.gateway(Family.IPV4), UPSTREAM_AS),
        "upstream_v6": (UPLINK.gateway(Family.IPV6), UPSTREAM_AS),
        "tester_v4": (LAN.gateway(Family.IPV4), TESTER_AS),
    }
    assert variables["router_networks"] == {
        "ipv4": [ANNOUNCED[Family.IPV4]],
        "ipv6": [ANNOUNCED[Family.IPV6]],
    }


def test_dynamic_inventory_checks_the_host_key(host: Host) -> None:
    found = yaml.safe_load(dynamic_inventory(host, {"router_forwarding": "kernel"}))
    connection = found["routers"]["hosts"][HOST]
    assert connection["ansible_port"] == 2200
    assert "StrictHostKeyChecking=yes" in connection["ansible_ssh_common_args"]
    assert str(host.known_hosts) in connection["ansible_ssh_common_args"]
    assert host.known_hosts.read_text() == "[127.0.0.1]:2200 ssh-ed25519 AAAA\n"
    assert connection["router_forwarding"] == "kernel"
    assert "StrictHostKeyChecking yes" in host.ssh_config.read_text()


def test_vpp_is_taken_from_a_directory_of_packages(tmp_path: Path) -> None:
    assert forwarding_variables(None) == {"router_forwarding": "kernel"}
    with pytest.raises(LabError, match="found no vpp_"):
        forwarding_variables(tmp_path)
    (tmp_path / "vpp_26.06-release_amd64.deb").touch()
    found = forwarding_variables(tmp_path)
    assert found["router_forwarding"] == "vpp"
    assert found["vpp_package_source"] == {"kind": "directory", "path": str(tmp_path)}


def test_announced_tables_are_acceptable_and_disjoint() -> None:
    upstream, tester = tables()
    assert (len(upstream.ipv4), len(upstream.ipv6), len(tester.ipv4)) == (IPV4, IPV6, TESTER_IPV4)
    assert key_lengths(upstream.ipv4).max() <= 24
    assert key_lengths(upstream.ipv6).max() <= 48
    first = {row.tobytes() for row in upstream.ipv4}
    assert not first & {row.tobytes() for row in tester.ipv4}
    assert not any(
        prefix.overlaps(MANAGEMENT.network)
        for table in (upstream, tester)
        for prefix in prefixes_of(table.ipv4)
    )


def result(status: int = 0, output: str = OUTPUT) -> PlayResult:
    return parse_output(output, playbook="site.yml", status=status, seconds=1.0, log=Path("/l/1.log"))


def test_recap_and_changed_tasks_are_read() -> None:
    found = result()
    assert (found.ok, found.changed, found.unreachable, found.failed) == (48, 2, 0, 1)
    assert found.changed_tasks == ("frr : Install FRR", "vpp : Restart VPP")
    assert found.require_success() is found


def test_failure_is_shown_with_its_place() -> None:
    output = OUTPUT.replace("ok: [pop1-vm]", "fatal: [pop1-vm]: FAILED! => no route")
    with pytest.raises(PlayError, match=r"exit status 2 .*1\.log\n(.*\n)*.*no route"):
        result(2, output).require_success()


def test_output_without_recap_counts_nothing() -> None:
    assert result(4, "ERROR! no inventory").changed == 0


def test_table_of_verification_is_found() -> None:
    shown = "        pop1-vm\n        what  found\n        pages 128\n"
    output = f"ok: [pop1-vm] => \n    msg: |-\n{shown}\nPLAY RECAP\n"
    assert table_of(result(0, output)) == "what  found\npages 128"


def test_acceptance_sends_to_every_announced_prefix_and_expects_its_next_hop(
    host: Host, tmp_path: Path
) -> None:
    network = Network("vm")
    neighbours = Neighbours(network)
    found = acceptance_variables(
        host, network, neighbours, ingress=UPLINK.name, prefixes=10, reports=tmp_path
    )
    by_port = found["acceptance_destinations"]["by_port"]
    assert by_port.keys() == DEVICES.keys()
    listed = [prefix for prefixes in by_port.values() for prefix in prefixes]
    assert len(listed) == len(set(listed)) == IPV4 + IPV6 + TESTER_IPV4
    assert min(map(len, by_port.values())) > 1_000
    specified = yaml.safe_load((STATIC.parents[2] / "roles/acceptance/meta/argument_specs.yml").read_text())
    assert found.keys() <= specified["argument_specs"]["main"]["options"].keys()
