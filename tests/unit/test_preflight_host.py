"""What preflight says of the machine: system, processor, memory, NUMA, IOMMU."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from preflight_host import preflight_host

if TYPE_CHECKING:
    from conftest import HostTree

ROUTES = {"ipv4": 1_200_000, "ipv6": 300_000}


def check(tree: HostTree, reserved_mb: int | None = None, **variables: Any) -> dict[str, Any]:
    """Result for these variables."""
    every = {"router_forwarding": "vpp", "router_expected_routes": ROUTES, **variables}
    return preflight_host(every, tree.facts(), ["12", "13"], reserved_mb)


def only(result: dict[str, Any]) -> dict[str, str]:
    """The one problem."""
    assert len(result["problems"]) == 1, result["problems"]
    problem: dict[str, str] = result["problems"][0]
    return problem


def pages(count: int, node: int = 0, size: str = "2M") -> list[dict[str, Any]]:
    """A value of hugepages_per_node."""
    return [{"node": node, "size": size, "count": count}]


def iommu_off(tree: HostTree, *, cmdline: str = "ro quiet") -> None:
    """The firmware has an IOMMU that the kernel does not use."""
    shutil.rmtree(tree.root / "sys/class/iommu")
    tree.write("proc/cmdline", cmdline)


def test_a_good_host(pop_host: HostTree) -> None:
    variables: dict[str, Any] = {
        "hugepages_per_node": pages(1024) + pages(4, node=1, size="1G"),
        "cpu_isolation_workers": [2, 3],
    }
    assert check(pop_host, **variables) == {"problems": [], "notes": []}


@pytest.mark.parametrize(
    ("release", "found"),
    [
        ('ID=ubuntu\nVERSION_ID="24.04"\n', "ubuntu 24.04"),
        ('ID=debian\nVERSION_ID="11"\n', "debian 11"),
        ("ID=debian\nVERSION_CODENAME=forky\n", "debian forky"),
    ],
)
def test_another_system(pop_host: HostTree, release: str, found: str) -> None:
    pop_host.write("etc/os-release", release)
    problem = only(check(pop_host))
    assert (problem["found"], problem["expected"]) == (found, "debian 12 or 13")


def test_another_architecture(pop_host: HostTree) -> None:
    pop_host.write("proc/sys/kernel/arch", "i686\n")
    assert "i686" in only(check(pop_host))["found"]


def test_a_processor_that_vpp_cannot_run_on(pop_host: HostTree) -> None:
    pop_host.processors(nodes=1, cores=4, flags="fpu cx16 lahf_lm popcnt pni ssse3")
    assert "without sse4_1, sse4_2" in only(check(pop_host))["found"]
    assert check(pop_host, router_forwarding="kernel")["problems"] == []


@pytest.mark.parametrize(
    "variables",
    [
        {"hugepages_per_node": pages(1, size="1G")},
        {"hugepages_per_node": pages(1), "hugepages_default_size": "1G"},
    ],
    ids=["asked for", "default size"],
)
def test_pages_of_1g_need_a_flag(pop_host: HostTree, variables: dict[str, Any]) -> None:
    pop_host.processors(nodes=1, cores=4, flags="cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3")
    assert "pdpe1gb" in only(check(pop_host, **variables))["found"]


def test_more_pages_than_the_node_has_memory(pop_host: HostTree) -> None:
    problem = only(check(pop_host, hugepages_per_node=pages(20_000, node=1)))
    assert problem == {
        "variable": "hugepages_per_node",
        "found": "40000 MiB of pages on NUMA node 1",
        "expected": "less than its 32768 MiB of memory",
        "remedy": "ask for fewer pages, expect fewer routes (router_expected_routes), or add memory",
    }


def test_pages_of_both_sizes_are_added_up(pop_host: HostTree) -> None:
    problem = only(check(pop_host, hugepages_per_node=pages(10_000) + pages(13, size="1G")))
    assert "33312 MiB of pages on NUMA node 0" in problem["found"]


def test_pages_on_a_node_that_is_not_there(pop_host: HostTree) -> None:
    problem = only(check(pop_host, hugepages_per_node=pages(1, node=2)))
    assert (problem["found"], problem["expected"]) == ("pages on NUMA node 2", "a node of this host: 0, 1")


def test_pages_leave_room_for_the_routes(pop_host: HostTree) -> None:
    almost_all = pages(16_000) + pages(16_000, node=1)
    problem = only(check(pop_host, hugepages_per_node=almost_all))
    assert problem["found"] == "64000 MiB of pages"
    assert "at most 63524 MiB: 65536 MiB of memory less 2012 MiB" in problem["expected"]
    assert check(pop_host, 1000, hugepages_per_node=almost_all)["problems"] == []
    few = {"ipv4": 10_000, "ipv6": 0}
    assert check(pop_host, hugepages_per_node=almost_all, router_expected_routes=few)["problems"] == []


def test_workers_that_do_not_exist(pop_host: HostTree) -> None:
    pop_host.write("sys/devices/system/cpu/cpu3/online", "0\n")
    problem = only(check(pop_host, cpu_isolation_workers=[2, 3, 9]))
    assert (problem["variable"], problem["found"]) == ("cpu_isolation_workers", "CPU 3, 9")


def test_workers_far_from_the_nic(pop_host: HostTree) -> None:
    ports = [{"name": "uplink", "device": "enp3s0f0"}]
    problem = only(check(pop_host, cpu_isolation_workers=[4, 5], router_ports=ports))
    assert "none of them on NUMA node 0 of 0000:03:00.0" in problem["found"]
    assert "CPU 0, 1, 2, 3" in problem["expected"]
    assert check(pop_host, cpu_isolation_workers=[3, 4], router_ports=ports)["problems"] == []


def test_no_iommu_in_the_firmware(pop_host: HostTree) -> None:
    iommu_off(pop_host)
    (pop_host.root / "sys/firmware/acpi/tables/DMAR").unlink()
    problem = only(check(pop_host))
    assert "neither a DMAR nor an IVRS table" in problem["found"]
    assert "VT-d" in problem["remedy"]
    assert "vfio_allow_no_iommu: true" in problem["remedy"]
    assert check(pop_host, router_forwarding="kernel")["problems"] == []
    asked = check(pop_host, vfio_allow_no_iommu=True)
    assert asked["problems"] == []
    assert "overwrite any memory" in asked["notes"][0]


def test_an_iommu_that_is_off_until_the_next_boot(pop_host: HostTree) -> None:
    iommu_off(pop_host, cmdline="ro intel_iommu=off")
    result = check(pop_host)
    assert result["problems"] == []
    assert "(intel_iommu=off); role kernel_cmdline turns it on" in result["notes"][0]


def test_an_iommu_that_stays_off_though_it_was_asked_for(pop_host: HostTree) -> None:
    iommu_off(pop_host, cmdline="ro intel_iommu=on")
    assert "was started with intel_iommu=on and uses no IOMMU" in only(check(pop_host))["found"]


def test_an_iommu_without_those_tables_will_do(pop_host: HostTree) -> None:
    (pop_host.root / "sys/firmware/acpi/tables/DMAR").unlink()
    assert check(pop_host)["problems"] == []
