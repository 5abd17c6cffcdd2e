"""Huge pages: what VPP needs on each NUMA node, and the kernel arguments that reserve it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest

from hugepages_layout import (
    buffers,
    hugepages_arguments,
    hugepages_default_count,
    hugepages_needed,
    hugepages_problems,
    hugepages_reserved,
)
from vpp_sizing import vpp_buffers, vpp_ports

TEMPLATES = Path(__file__).parents[2] / "templates"
MIB = 1 << 20


def machine(*nodes: int, memory: int = 8192) -> dict[str, Any]:
    """One NIC for each of `nodes`; two NUMA nodes with `memory` MiB each."""
    return {
        "machine": "x86_64",
        "cpu": {"flags": ["pdpe1gb"], "cores": [{"id": cpu, "node": cpu // 4} for cpu in range(8)]},
        "numa_nodes": [{"id": node, "memory_bytes": memory * MIB, "hugepages": {}} for node in (0, 1)],
        "nics": [
            {"pci": f"0000:0{index}:00.0", "interface": f"eth{index}", "numa_node": node}
            for index, node in enumerate(nodes)
        ],
    }


def port(index: int, **options: Any) -> dict[str, Any]:
    return {"name": f"p{index}", "device": f"0000:0{index}:00.0", **options}


def counts(pages: list[dict[str, Any]]) -> dict[int, int]:
    assert {entry["size"] for entry in pages} <= {"2M"}
    return {entry["node"]: entry["count"] for entry in pages}


def test_buffers_by_the_formula() -> None:
    assert buffers([], 0) == 16_384
    # 2.5 x (2 x 4096 + 3 x 1024 + 256 x 2)
    assert buffers([port(0, rx_descriptors=4096)] * 2, 2) == 2.5 * (2 * (2 * 4096 + 3 * 1024) + 512)
    assert buffers([port(0, rx_queues=1, tx_queues=1, rx_descriptors=64, tx_descriptors=64)], 1) == 16_384


@pytest.mark.parametrize("workers", [0, 1, 8])
def test_pages_are_for_the_buffers_that_role_vpp_configures(workers: int) -> None:
    ports = [port(0, rx_descriptors=4096), port(1, rx_queues=2, tx_queues=3)]
    facts = machine(0, 0)
    assert buffers(ports, workers) == vpp_buffers(vpp_ports(ports, facts, workers), workers)


def test_pages_of_a_small_router() -> None:
    # 16,384 buffers of 2,560 bytes are 20 pages; 32 for DPDK beside the port.
    assert counts(hugepages_needed(machine(0), [port(0)], workers=1)) == {0: 52, 1: 20}


def test_every_node_gets_the_buffers_of_the_one_that_needs_most() -> None:
    ports = [port(0, rx_descriptors=8192), port(1)]
    pages = counts(hugepages_needed(machine(1, 0), ports, workers=4))
    most = buffers([ports[0]], 4)
    assert most > 16_384
    expected = -(-most * 2560 // (2 * MIB)) + 32
    assert pages == {0: expected, 1: expected}


def test_the_heap_is_on_the_node_of_the_main_thread() -> None:
    without = counts(hugepages_needed(machine(0), [port(0)], main_core=5))
    with_heap = counts(hugepages_needed(machine(0), [port(0)], main_core=5, heap_bytes=1024 * MIB + 1))
    assert with_heap == {0: without[0], 1: without[1] + 513}


def test_a_nic_without_a_node_counts_for_the_first() -> None:
    assert counts(hugepages_needed(machine(-1), [port(0)])) == {0: 52, 1: 20}


def test_a_nic_that_vfio_has_taken_changes_nothing() -> None:
    facts = machine(1)
    before = hugepages_needed(facts, [{"name": "p", "device": "eth0"}])
    facts["nics"][0] |= {"interface": None, "former_interface": "eth0"}
    assert hugepages_needed(facts, [{"name": "p", "device": "eth0"}]) == before
    assert counts(before)[1] == 52


def test_a_kernel_that_forwards_needs_none() -> None:
    assert hugepages_needed(machine(0), [port(0)], forwarding="kernel") == []


@pytest.mark.parametrize(
    ("pages", "default", "arguments"),
    [
        ([], "2M", []),
        (
            [{"node": 1, "size": "2M", "count": 256}, {"node": 0, "size": "2M", "count": 512}],
            "2M",
            ["default_hugepagesz=2M", "hugepagesz=2M", "hugepages=0:512,1:256"],
        ),
        (
            [{"node": 0, "size": "1G", "count": 4}, {"node": 0, "size": "2M", "count": 64}],
            "1G",
            ["default_hugepagesz=1G", "hugepagesz=2M", "hugepages=0:64", "hugepagesz=1G", "hugepages=0:4"],
        ),
    ],
)
def test_kernel_arguments(pages: list[dict[str, Any]], default: str, arguments: list[str]) -> None:
    assert hugepages_arguments(pages, default) == arguments


def test_the_sysctl_says_the_pages_of_the_default_size() -> None:
    pages = [
        {"node": 0, "size": "2M", "count": 512},
        {"node": 1, "size": "2M", "count": 256},
        {"node": 0, "size": "1G", "count": 4},
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    environment.filters["hugepages_default_count"] = hugepages_default_count
    template = environment.get_template("hugepages.sysctl.conf.j2")
    text = template.render(hugepages_per_node=pages, hugepages_default_size="2M")
    assert [line for line in text.splitlines() if not line.startswith("#")] == ["vm.nr_hugepages = 768"]


def test_pages_that_are_there_now() -> None:
    facts = machine(0)
    assert not hugepages_reserved(facts, "1G")
    facts["numa_nodes"][1]["hugepages"] = {"1048576": {"total": 2, "free": 0}}
    assert hugepages_reserved(facts, "1G")
    assert not hugepages_reserved(facts, "2M")


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([{"node": 3, "size": "2M", "count": 1}], "found node 3, expected one of this host (0, 1)"),
        ([{"node": 0, "size": "2M", "count": 1}] * 2, "found node 0 with 2M twice"),
        ([{"node": 0, "size": "2M", "count": -1}], "found -1 pages on node 0"),
        (
            [{"node": 0, "size": "2M", "count": 2048}, {"node": 0, "size": "1G", "count": 4}],
            "found 8192 MiB on node 0, expected less than its memory of 8192 MiB",
        ),
    ],
)
def test_pages_a_host_cannot_have(pages: list[dict[str, Any]], message: str) -> None:
    assert message in "; ".join(hugepages_problems(machine(0), pages, "2M"))


def test_pages_of_1g_need_a_cpu_that_has_them() -> None:
    facts = machine(0)
    facts["cpu"]["flags"] = []
    assert "no pdpe1gb" in "; ".join(hugepages_problems(facts, [{"node": 0, "size": "1G", "count": 1}], "2M"))
    assert hugepages_problems(facts, [{"node": 0, "size": "2M", "count": 1}], "2M") == []


def test_possible_pages_have_no_problem() -> None:
    facts = machine(0)
    assert hugepages_problems(facts, hugepages_needed(facts, [port(0)], workers=2), "2M") == []
