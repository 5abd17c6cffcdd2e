"""Reasons to reboot: what the running kernel lacks, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from reboot_reasons import reboot_reasons


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "kernel": "6.12.48+deb13-amd64",
        "cmdline": ["quiet", "hugepages=0:512", "iommu=pt"],
        "numa_nodes": [
            {"id": 0, "hugepages": {"2048": {"total": 512, "free": 512}, "1048576": {"total": 0, "free": 0}}},
            {"id": 1, "hugepages": {"2048": {"total": 0, "free": 0}, "1048576": {"total": 0, "free": 0}}},
        ],
        "cpu": {"isolated": [2, 3]},
        "iommu": {"enabled": True},
        **changes,
    }


PAGES = [{"node": 0, "size": "2M", "count": 512}]


def test_a_host_that_is_as_wanted_needs_none() -> None:
    assert reboot_reasons(facts(), ["iommu=pt", "hugepages=0:512"], [], PAGES, [2, 3], True) == []


def test_nothing_wanted_needs_none() -> None:
    assert reboot_reasons(facts(cpu={"isolated": []}, iommu={"enabled": False})) == []


@pytest.mark.parametrize(
    ("changes", "wanted", "reason"),
    [
        ({}, {"arguments": ["quiet", "nohz_full=2"]}, "the running kernel lacks the arguments nohz_full=2"),
        (
            {},
            {"withdrawn": ["iommu=pt", "gone=1"]},
            "the running kernel still has the withdrawn arguments iommu=pt",
        ),
        (
            {},
            {"pages": [{"node": 0, "size": "2M", "count": 256}]},
            "NUMA node 0 has 512 pages of 2M, expected 256",
        ),
        (
            {},
            {"pages": [*PAGES, {"node": 1, "size": "2M", "count": 8}]},
            "NUMA node 1 has 0 pages of 2M, expected 8",
        ),
        (
            {},
            {"pages": [{"node": 1, "size": "2M", "count": 0}]},
            "NUMA node 0 has 512 pages of 2M, expected 0",
        ),
        ({}, {"pages": [{"node": 0, "size": "1G", "count": 2}]}, "NUMA node 0 has 0 pages of 1G, expected 2"),
        (
            {},
            {"pages": [*PAGES, {"node": 7, "size": "2M", "count": 1}]},
            "NUMA node 7 has 0 pages of 2M, expected 1",
        ),
        ({}, {"isolated": [1, 2, 4]}, "CPUs 1, 4 are not isolated"),
        ({"iommu": {"enabled": False}}, {"iommu": True}, "the IOMMU is off"),
        (
            {},
            {"kernel": "6.12.57+deb13-amd64"},
            "kernel 6.12.48+deb13-amd64 runs, expected 6.12.57+deb13-amd64",
        ),
    ],
)
def test_each_reason_is_named(changes: dict[str, Any], wanted: dict[str, Any], reason: str) -> None:
    assert reboot_reasons(facts(**changes), **wanted) == [reason]


def test_all_reasons_come_at_once() -> None:
    found = reboot_reasons(facts(iommu={"enabled": False}), ["a=1"], ["quiet"], [], [5], True)
    assert len(found) == 4


def test_a_withdrawn_argument_that_is_wanted_again_is_no_reason() -> None:
    assert reboot_reasons(facts(), ["iommu=pt"], ["iommu=pt"]) == []


def test_any_kernel_will_do_unless_one_is_named() -> None:
    assert reboot_reasons(facts()) == []
    assert reboot_reasons(facts(), kernel="6.12.48+deb13-amd64") == []
