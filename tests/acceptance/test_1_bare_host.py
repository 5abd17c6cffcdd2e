"""A host that the kit has not touched: what is wrong is said first, and looking changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from router_agent.lab.vm.plan import (
    DEVICES,
    HOST,
    MANAGEMENT,
    MANAGEMENT_DEVICE,
    MANAGEMENT_INTERFACE,
    MISSING_DEVICE,
    SHARED_GROUP_DEVICES,
    SRIOV_DEVICE,
)
from router_agent.lab.vm.pop import VirtualPop

from .conftest import BARE, go_back, power_cycle
from .manifest import differences, manifest
from .problems import problems

GOOD_PORT = {
    "name": "uplink",
    "device": DEVICES["uplink"],
    "addresses": ["198.18.1.1/24", "2001:db8:0:1::1/64"],
}
PEER = {"name": "upstream_v4", "address": "198.18.1.2", "asn": 64496, "maximum_prefixes": 20000}


def port(device: str) -> dict[str, Any]:
    return {"name": "lan", "device": device, "addresses": ["198.18.2.1/24"]}


@dataclass(frozen=True)
class Wrong:
    """Variables that are wrong, and the problem that they are.

    Attributes:
        variables: extra variables of the run.
        variable: what the message names.
        found, expected: words of the message.
    """

    variables: dict[str, Any]
    variable: str
    found: tuple[str, ...]
    expected: tuple[str, ...]


WRONG = {
    "management NIC in the port list": Wrong(
        {"router_ports": [GOOD_PORT, port(MANAGEMENT_DEVICE)]},
        "router_ports[lan].device",
        (MANAGEMENT_DEVICE, MANAGEMENT_INTERFACE, "default route", "ssh session"),
        ("not managed through",),
    ),
    "more pages than memory": Wrong(
        {"hugepages_per_node": [{"node": 0, "size": "2M", "count": 100_000}]},
        "hugepages_per_node",
        ("200000 MiB", "node 0"),
        ("MiB of memory",),
    ),
    "missing NIC": Wrong(
        {"router_ports": [GOOD_PORT, port(MISSING_DEVICE)]},
        "router_ports[lan].device",
        (MISSING_DEVICE,),
        (DEVICES["lan"],),
    ),
    "shared IOMMU group": Wrong(
        {"router_forwarding": "vpp", "router_ports": [GOOD_PORT, port(SHARED_GROUP_DEVICES[0])]},
        "router_ports[lan].device",
        ("IOMMU group", *SHARED_GROUP_DEVICES),
        ("group",),
    ),
    "unknown variable": Wrong(
        {"router_prots": []},
        "router_prots",
        ("no role knows",),
        ("router_ports",),
    ),
    "broken peer definition": Wrong(
        {"router_peers": [PEER | {"address": "198.18.1.300"}]},
        "router_peers[upstream_v4].address",
        ("198.18.1.300",),
        ("address",),
    ),
    "VPP repository unreachable": Wrong(
        {
            "router_forwarding": "vpp",
            "vpp_package_source": {
                "kind": "repository",
                # The gateway's discard port, where nobody listens.
                "url": f"http://{MANAGEMENT.client}:9/fdio/",
                "suite": "trixie",
                "components": "main",
            },
        },
        "vpp_package_source.url",
        (f"http://{MANAGEMENT.client}:9/fdio", "cannot read"),
        ("repository that answers",),
    ),
}


def require_problem(output: str, variable: str, found: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """Expect one message that names the host and the variable, what was found and what was expected."""
    listed = problems(output)
    of_variable = [problem for problem in listed if (problem.host, problem.variable) == (HOST, variable)]
    assert of_variable, f"found {listed}, expected one of {variable}"
    assert any(
        all(word in problem.found for word in found) and all(word in problem.expected for word in expected)
        for problem in of_variable
    ), f"found {of_variable}, expected {found}, {expected}"


def test_iommu_switched_off_is_refused(pop: VirtualPop) -> None:
    pop.boot(pop.hardware.without_iommu())
    result = pop.playbooks.run("preflight.yml", {"router_forwarding": "vpp"})
    pop.host.disconnect()
    pop.machine.pull_the_plug()
    assert result.status != 0
    assert result.changed == 0
    wrong = [problem for problem in problems(result.output) if "IOMMU" in problem.found + problem.expected]
    assert wrong, result.tail
    assert {problem.host for problem in wrong} == {HOST}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_by_name(bare: VirtualPop, wrong: Wrong) -> None:
    result = bare.site(wrong.variables, allow_reboot=True)
    assert result.status != 0
    assert (result.changed, result.failed) == (0, 1)
    require_problem(result.output, wrong.variable, wrong.found, wrong.expected)


def test_check_mode_writes_nothing(bare: VirtualPop) -> None:
    before, boots = manifest(bare.host), bare.boots()
    interfaces = bare.host.run("ip -br address")
    result = bare.site({}, "--check", "--diff", allow_reboot=True).require_success()
    assert result.changed > 0, "a bare host needs everything"
    assert not differences(before, manifest(bare.host))
    assert bare.boots() == boots
    assert bare.host.run("ip -br address") == interfaces


def test_reboot_without_permission_is_refused(bare: VirtualPop) -> None:
    boots = bare.boots()
    try:
        result = bare.site({}, "--tags", "host")
        assert result.status != 0
        assert "reboot required" in result.output
        assert "allow_reboot=true" in result.output
        assert bare.boots() == boots
    finally:
        go_back(bare, BARE)


@pytest.fixture
def igb(pop: VirtualPop) -> None:
    """A NIC that makes virtual functions."""
    if not pop.hardware.igb:
        pytest.skip("needs QEMU 8.0 or later: this one has no igb, so no virtual function can be made")


@pytest.mark.usefixtures("igb")
def test_virtual_functions_are_made_bound_kept_and_taken_away(bare: VirtualPop) -> None:
    macs = ["02:00:00:00:20:11", "02:00:00:00:20:12"]
    wanted = {"device": SRIOV_DEVICE, "count": 2, "macs": macs, "trust": True, "driver": "vfio-pci"}
    only = ("--tags", "host,binding")
    try:
        made = bare.site({"sriov_functions": [wanted]}, *only, allow_reboot=True).require_success()
        assert made.changed > 0
        assert virtual_functions(bare) == ["vfio-pci", "vfio-pci"]
        named = bare.host.run(f"ip link show $(ls /sys/bus/pci/devices/{SRIOV_DEVICE}/net)")
        assert all(mac in named for mac in macs), named
        again = bare.site({"sriov_functions": [wanted]}, *only, allow_reboot=True).require_success()
        assert again.changed == 0

        power_cycle(bare)
        assert virtual_functions(bare) == ["vfio-pci", "vfio-pci"]

        bare.site({"sriov_functions": []}, *only, allow_reboot=True).require_success()
        assert virtual_functions(bare) == []
    finally:
        go_back(bare, BARE)


def virtual_functions(pop: VirtualPop) -> list[str]:
    """Return the drivers of the virtual functions of the NIC that can make some."""
    found = f"/sys/bus/pci/devices/{SRIOV_DEVICE}/virtfn*/driver"
    return pop.host.run(f"for link in {found}; do [ ! -e $link ] || basename $(readlink $link); done").split()
