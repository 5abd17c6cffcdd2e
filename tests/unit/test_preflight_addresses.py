"""What preflight says of names, MTU, VLANs, bonds and addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from preflight_addresses import preflight_addresses

if TYPE_CHECKING:
    from conftest import HostTree

UPLINK = {"name": "uplink", "device": "0000:03:00.0", "mtu": 1500, "addresses": ["198.51.100.2/30"]}
LAN = {"name": "lan", "device": "enp3s0f1", "mtu": 9000, "addresses": ["203.0.113.1/26", "2001:db8:1::1/64"]}
LOOPBACK = {"name": "lo1", "addresses": ["203.0.113.200/32", "2001:db8::1/128"]}


def check(tree: HostTree, ports: list[dict[str, Any]], **variables: Any) -> list[dict[str, str]]:
    """Problems with these ports."""
    facts = tree.facts(connection_address="192.0.2.11")
    problems: list[dict[str, str]] = preflight_addresses({"router_ports": ports, **variables}, facts)[
        "problems"
    ]
    return problems


def test_interfaces_that_fit_together(pop_host: HostTree) -> None:
    vlans = [{"id": 100, "mtu": 1500, "addresses": ["198.51.100.9/30"]}, {"id": 4094}]
    bond = {"name": "bond0", "mtu": 1500, "addresses": ["198.51.100.17/31"], "vlans": [{"id": 100}]}
    ports: list[dict[str, Any]] = [
        UPLINK,
        {**LAN, "vlans": vlans},
        {"name": "member", "device": "x", "bond": "bond0"},
    ]
    assert check(pop_host, ports, router_bonds=[bond], router_loopbacks=[LOOPBACK]) == []


@pytest.mark.parametrize(
    ("changes", "variable", "found"),
    [
        ({"name": "a-name-of-16-chr"}, "router_ports[a-name-of-16-chr].name", "16 characters"),
        ({"name": "Uplink"}, "router_ports[Uplink].name", "'Uplink'"),
        ({"name": "up.link"}, "router_ports[up.link].name", "'up.link'"),
        ({"name": "1st"}, "router_ports[1st].name", "'1st'"),
        ({"name": "local0"}, "router_ports[local0].name", "'local0'"),
        ({"name": "lan"}, "router_ports[lan].name", "which router_ports[lan] has too"),
        ({"name": "eno1"}, "router_ports[eno1].name", "(0000:01:00.0)"),
        ({"mtu": 1279}, "router_ports[uplink].mtu", "1279"),
        ({"mtu": 9217}, "router_ports[uplink].mtu", "9217"),
        ({"vlans": [{"id": 0}]}, "router_ports[uplink].vlans[0].id", "0"),
        ({"vlans": [{"id": 4095}]}, "router_ports[uplink].vlans[4095].id", "4095"),
        ({"vlans": [{"id": 5, "mtu": 1600}]}, "router_ports[uplink].vlans[5].mtu", "1600"),
        ({"bond": "bond9", "addresses": []}, "router_ports[uplink].bond", "bond9"),
        ({"addresses": ["198.51.100.2"]}, "router_ports[uplink].addresses[0]", "without a prefix length"),
        ({"addresses": ["198.51.100/24"]}, "router_ports[uplink].addresses[0]", "'198.51.100/24'"),
        ({"addresses": ["198.51.100.0/30"]}, "router_ports[uplink].addresses[0]", "broadcast address"),
        ({"addresses": ["198.51.100.3/30"]}, "router_ports[uplink].addresses[0]", "broadcast address"),
        ({"addresses": ["224.0.0.1/24"]}, "router_ports[uplink].addresses[0]", "224.0.0.1"),
        ({"addresses": ["127.0.0.5/8"]}, "router_ports[uplink].addresses[0]", "127.0.0.5"),
        ({"addresses": ["fe80::1/64"]}, "router_ports[uplink].addresses[0]", "fe80::1"),
        ({"addresses": ["2001:db8:9::/64"]}, "router_ports[uplink].addresses[0]", "2001:db8:9::"),
        ({"addresses": ["203.0.113.1/26"]}, "router_ports[lan].addresses[0]", "router_ports[uplink]"),
        ({"addresses": ["203.0.113.2/25"]}, "router_ports[lan].addresses[0]", "whose subnet overlaps"),
        (
            {"addresses": ["192.0.2.77/24"]},
            "router_ports[uplink].addresses[0]",
            "the management interface eno1",
        ),
    ],
)
def test_a_wrong_interface(pop_host: HostTree, changes: dict[str, Any], variable: str, found: str) -> None:
    problems = check(pop_host, [{**UPLINK, **changes}, LAN])
    assert [problem["variable"] for problem in problems] == [variable]
    assert found in problems[0]["found"]


def test_point_to_point_subnets_have_no_broadcast_address(pop_host: HostTree) -> None:
    assert check(pop_host, [{**UPLINK, "addresses": ["198.51.100.0/31", "2001:db8:9::/127"]}]) == []


def test_two_addresses_of_one_subnet_on_one_port(pop_host: HostTree) -> None:
    assert check(pop_host, [{**UPLINK, "addresses": ["198.51.100.2/24", "198.51.100.3/24"]}]) == []


def test_a_vlan_twice(pop_host: HostTree) -> None:
    problems = check(pop_host, [{**UPLINK, "vlans": [{"id": 7}, {"id": 7}]}])
    assert "VLAN 7, 2 times" in [problem["found"] for problem in problems]


def test_the_name_of_a_vlan_is_too_long_with_its_id(pop_host: HostTree) -> None:
    problems = check(pop_host, [{**UPLINK, "name": "elevenchars", "vlans": [{"id": 4094}]}])
    assert "'elevenchars.4094', 16 characters" in problems[0]["found"]


def test_a_member_of_a_bond_has_nothing_of_its_own(pop_host: HostTree) -> None:
    port = {**UPLINK, "bond": "bond0", "vlans": [{"id": 7}]}
    problems = check(pop_host, [port], router_bonds=[{"name": "bond0"}])
    assert [problem["variable"] for problem in problems] == [
        "router_ports[uplink].addresses",
        "router_ports[uplink].vlans",
    ]


def test_a_bond_without_members(pop_host: HostTree) -> None:
    problems = check(pop_host, [UPLINK], router_bonds=[{"name": "bond0"}])
    assert [problem["variable"] for problem in problems] == ["router_bonds[bond0]"]


def test_a_loopback_is_nobodys_subnet(pop_host: HostTree) -> None:
    problems = check(pop_host, [UPLINK], router_loopbacks=[{"name": "lo1", "addresses": ["203.0.113.1/24"]}])
    assert "203.0.113.1/32" in problems[0]["expected"]


def test_a_port_that_has_its_name_already(pop_host: HostTree) -> None:
    port = {**UPLINK, "name": "enp3s0f0", "device": "enp3s0f0"}
    assert check(pop_host, [port]) == []
    renamed = pop_host.root / "sys/bus/pci/devices/0000:03:00.0/net"
    (renamed / "enp3s0f0").rename(renamed / "uplink")
    assert check(pop_host, [UPLINK]) == []
