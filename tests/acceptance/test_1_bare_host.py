"""A host that the kit has not touched: what is wrong is said first, and looking changes nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest

from router_agent.lab.vm.plan import (
    DEVICES,
    HOST,
    MANAGEMENT_DEVICE,
    MANAGEMENT_INTERFACE,
    MISSING_DEVICE,
    SHARED_GROUP_DEVICES,
)
from router_agent.lab.vm.pop import VirtualPop

from .conftest import BARE, go_back
from .manifest import differences, manifest

GOOD_PORT = {
    "name": "uplink",
    "device": DEVICES["uplink"],
    "addresses": ["198.18.1.1/24", "2001:db8:0:1::1/64"],
}
PEER = {"name": "upstream_v4", "address": "198.18.1.2", "asn": 64496, "maximum_prefixes": 20000}


def port(device: str) -> dict[str, Any]:
    return {"name": "lan", "device": device, "addresses": ["198.18.2.1/24"]}


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "management NIC in the port list": (
        {"router_ports": [GOOD_PORT, port(MANAGEMENT_DEVICE)]},
        ("router_ports", MANAGEMENT_DEVICE, MANAGEMENT_INTERFACE, "default route"),
    ),
    "more pages than memory": (
        {"hugepages_per_node": [{"node": 0, "size": "2M", "count": 100_000}]},
        ("hugepages_per_node", "100000", "memory"),
    ),
    "missing NIC": (
        {"router_ports": [GOOD_PORT, port(MISSING_DEVICE)]},
        ("router_ports", MISSING_DEVICE, DEVICES["lan"]),
    ),
    "shared IOMMU group": (
        {"router_forwarding": "vpp", "router_ports": [GOOD_PORT, port(SHARED_GROUP_DEVICES[0])]},
        ("router_ports", *SHARED_GROUP_DEVICES, "group"),
    ),
    "unknown variable": ({"router_prots": []}, ("router_prots", "router_ports")),
    "broken peer definition": (
        {"router_peers": [PEER | {"address": "198.18.1.300", "asn": 0}]},
        ("router_peers", "198.18.1.300", "address", "asn"),
    ),
    "VPP repository unreachable": (
        {
            "router_forwarding": "vpp",
            "vpp_package_source": {
                "kind": "repository",
                # The gateway's discard port, where nobody listens.
                "url": "http://198.20.0.2:9/fdio/",
                "suite": "trixie",
                "components": "main",
                "key": "http://198.20.0.2:9/key",
            },
        },
        ("vpp_package_source", "198.20.0.2:9"),
    ),
}


def require_refusal(output: str, words: tuple[str, ...]) -> None:
    """Expect one message that names the host, the variable, what was found and what was expected."""
    lines = [line for line in output.splitlines() if HOST in line and words[0] in line and "expected" in line]
    assert lines, output[-4000:]
    assert any(all(word in line for word in words) for line in lines), "\n".join(lines)
    assert all(re.search(r"\bfound\b", line) for line in lines), "\n".join(lines)


def test_iommu_switched_off_is_refused(pop: VirtualPop) -> None:
    pop.boot(pop.hardware.without_iommu())
    result = pop.playbooks.run("preflight.yml", {"router_forwarding": "vpp"})
    pop.host.disconnect()
    pop.machine.pull_the_plug()
    assert result.status != 0
    assert result.changed == 0
    lines = [line for line in result.output.splitlines() if "IOMMU" in line and HOST in line]
    assert any(re.search(r"found .*expected", line) for line in lines), result.tail


@pytest.mark.parametrize(("variables", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_by_name(
    bare: VirtualPop, variables: dict[str, Any], words: tuple[str, ...]
) -> None:
    result = bare.site(variables, allow_reboot=True)
    assert result.status != 0
    assert (result.changed, result.failed) == (0, 1)
    require_refusal(result.output, words)


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
