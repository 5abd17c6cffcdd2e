"""What preflight says of ports' NICs, on hosts as /sys shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from preflight_nics import preflight_nics, reach

if TYPE_CHECKING:
    from conftest import HostTree

UPLINK = {"name": "uplink", "device": "0000:03:00.0"}
LAN = {"name": "lan", "device": "enp3s0f1"}


def check(tree: HostTree, *ports: dict[str, Any], **variables: Any) -> dict[str, Any]:
    """Result for these ports; Ansible connects to 192.0.2.11."""
    facts = tree.facts(connection_address="192.0.2.11")
    return preflight_nics({"router_forwarding": "vpp", "router_ports": list(ports), **variables}, facts)


def only(result: dict[str, Any]) -> dict[str, str]:
    """The one problem."""
    assert len(result["problems"]) == 1, result["problems"]
    problem: dict[str, str] = result["problems"][0]
    return problem


def test_a_good_host_by_address_and_by_name(pop_host: HostTree) -> None:
    result = check(pop_host, UPLINK, LAN)
    assert result["problems"] == []
    assert result["nics"] == [
        {
            "port": name,
            "device": pci,
            "nic": "Intel X710 10GbE SFP+",
            "driver": "i40e",
            "node": "0",
            "group": group,
            "link": "10 Gbit/s",
            "at_64_bytes": "14.88 Mpps",
        }
        for name, pci, group in [("uplink", "0000:03:00.0", "20"), ("lan", "0000:03:00.1", "21")]
    ]


@pytest.mark.parametrize("device", ["0000:01:00.0", "eno1"])
@pytest.mark.parametrize("forwarding", ["vpp", "kernel"])
def test_the_management_nic_is_refused_with_all_three_reasons(
    pop_host: HostTree, device: str, forwarding: str
) -> None:
    problem = only(check(pop_host, {"name": "uplink", "device": device}, router_forwarding=forwarding))
    assert problem["variable"] == "router_ports[uplink].device"
    assert problem["found"] == (
        "0000:01:00.0 (eno1, Intel I350), which carries the IPv4 default route via 192.0.2.254; "
        "holds 192.0.2.11, the address Ansible connects to; carries the ssh session from 192.0.2.200"
    )
    assert "lock you out" in problem["remedy"]


def test_a_management_interface_that_is_no_pci_device_is_refused_too(host_tree: HostTree) -> None:
    host_tree.interface("host0", ["192.0.2.11/24"])
    problem = only(check(host_tree, {"name": "uplink", "device": "host0"}, router_forwarding="kernel"))
    assert "the address Ansible connects to" in problem["found"]


def test_a_missing_nic_names_those_that_are_free(pop_host: HostTree) -> None:
    problem = only(check(pop_host, {"name": "uplink", "device": "0000:03:00.2"}))
    assert problem["found"] == "0000:03:00.2, which this host does not have"
    assert "0000:03:00.0 (enp3s0f0, Intel X710 10GbE SFP+)" in problem["expected"]
    assert "eno1" not in problem["expected"]
    assert problem["remedy"].startswith("write 0000:03:00.")


def test_a_shared_iommu_group_names_its_other_devices(pop_host: HostTree) -> None:
    pop_host.nic("0000:03:00.2", model="8086:a0c8", driver="snd_hda_intel", group=20, pci_class="0x040300")
    problem = only(check(pop_host, UPLINK))
    assert problem["variable"] == "router_ports[uplink].device"
    assert "IOMMU group 20 together with 0000:03:00.2 (8086:a0c8, driver snd_hda_intel)" in problem["found"]
    assert "ACS" in problem["remedy"]


@pytest.mark.parametrize(
    ("other_driver", "variables"),
    [
        ("i40e", {"router_forwarding": "kernel"}),
        ("i40e", {"vfio_allow_no_iommu": True}),
        (None, {}),
        ("vfio-pci", {}),
    ],
    ids=["kernel", "no iommu asked for", "no driver", "vfio"],
)
def test_a_shared_group_that_does_no_harm(
    pop_host: HostTree, other_driver: str | None, variables: dict[str, Any]
) -> None:
    pop_host.nic("0000:03:00.2", driver=other_driver, group=20)
    assert check(pop_host, UPLINK, **variables)["problems"] == []


def test_a_group_of_which_every_nic_is_a_port(pop_host: HostTree) -> None:
    pop_host.nic("0000:03:00.2", "enp3s0f2", group=20)
    assert check(pop_host, UPLINK, {"name": "lan", "device": "enp3s0f2"})["problems"] == []


def test_two_ports_on_one_nic(pop_host: HostTree) -> None:
    problem = only(check(pop_host, UPLINK, {"name": "lan", "device": "enp3s0f0"}))
    assert problem["variable"] == "router_ports[lan].device"
    assert "the NIC of uplink too" in problem["found"]


def test_a_nic_that_vfio_holds_is_found_by_its_former_name(pop_host: HostTree) -> None:
    pop_host.nic("0000:04:00.0", driver="vfio-pci", group=30)
    pop_host.write("etc/pop-router/vfio-devices", "0000:04:00.0 i40e enp4s0\n")
    result = check(pop_host, {"name": "uplink", "device": "enp4s0"})
    assert result["problems"] == []
    assert result["nics"][0]["link"] == "10 Gbit/s (rated)"


def test_a_nic_that_was_renamed_to_its_port(pop_host: HostTree) -> None:
    pop_host.nic("0000:04:00.0", "wan", group=30)
    port = {"name": "wan", "device": "eth7"}
    assert check(pop_host, port, router_forwarding="kernel")["problems"] == []


def test_nics_that_forward_through_their_kernel_driver(pop_host: HostTree) -> None:
    pop_host.nic("0000:04:00.0", "enp4s0", model="15b3:1017", driver="mlx5_core", group=30)
    port = {"name": "uplink", "device": "enp4s0"}
    assert "not through vfio-pci" in only(check(pop_host, port))["found"]
    assert check(pop_host, port, router_forwarding="kernel")["problems"] == []


def test_a_nic_without_driver(pop_host: HostTree) -> None:
    pop_host.nic("0000:04:00.0", driver=None, group=30)
    port = {"name": "uplink", "device": "0000:04:00.0"}
    assert "without a driver" in only(check(pop_host, port, router_forwarding="kernel"))["found"]
    assert check(pop_host, port)["problems"] == []


def test_an_interface_that_is_no_nic(pop_host: HostTree) -> None:
    pop_host.interface("veth0")
    port = {"name": "uplink", "device": "veth0"}
    assert "no PCI device" in only(check(pop_host, port))["found"]
    assert check(pop_host, port, router_forwarding="kernel")["problems"] == []


@pytest.mark.parametrize(
    ("keys", "variable"),
    [
        ({"rx_queues": 0}, "rx_queues"),
        ({"tx_queues": 129}, "tx_queues"),
        ({"rx_descriptors": 1000}, "rx_descriptors"),
        ({"tx_descriptors": 32}, "tx_descriptors"),
        ({"vfs": {"count": 65}}, "vfs.count"),
        ({"vfs": {"count": 1, "macs": ["02:00:00:00:00:01", "02:00:00:00:00:02"]}}, "vfs.macs"),
        ({"vfs": {"count": 1, "macs": ["01:00:00:00:00:01"]}}, "vfs.macs[0]"),
        ({"vfs": {"count": 1, "macs": ["2:0:0:0:0:1"]}}, "vfs.macs[0]"),
    ],
)
def test_queues_and_virtual_functions(pop_host: HostTree, keys: dict[str, Any], variable: str) -> None:
    pop_host.write("sys/bus/pci/devices/0000:03:00.0/sriov_totalvfs", "64\n")
    problem = only(check(pop_host, {**UPLINK, **keys}))
    assert problem["variable"] == f"router_ports[uplink].{variable}"


def test_queues_and_virtual_functions_that_are_right(pop_host: HostTree) -> None:
    pop_host.write("sys/bus/pci/devices/0000:03:00.0/sriov_totalvfs", "64\n")
    keys = {"rx_queues": 4, "rx_descriptors": 4096, "vfs": {"count": 1, "macs": ["02:00:00:00:00:01"]}}
    assert check(pop_host, {**UPLINK, **keys})["problems"] == []


def test_notes_of_what_could_be_better(pop_host: HostTree) -> None:
    base = pop_host.nic("0000:04:00.0", "enp4s0", model="8086:1592", node=-1, group=30, speed=100_000)
    pop_host.write(f"{base}/current_link_speed", "8.0 GT/s PCIe\n")
    pop_host.write(f"{base}/current_link_width", "8\n")
    pop_host.write("sys/class/net/enp4s0/carrier", "0\n")
    notes = "\n".join(check(pop_host, {"name": "uplink", "device": "enp4s0"})["notes"])
    assert "no link now" in notes
    assert "which NUMA node" in notes
    assert "carries 63.0 Gbit/s, too little for its 100 Gbit/s" in notes


@pytest.mark.parametrize(
    ("speed", "ceiling", "shown"),
    [
        (10_000, None, "14.88 Mpps"),
        (40_000, 18.75, "18.75 Mpps (NIC; wire 59.52)"),
        (100_000, 58.5, "58.50 Mpps (NIC; wire 148.81)"),
        (1_000, 58.5, "1.49 Mpps"),
        (None, 18.75, "?"),
    ],
)
def test_what_a_nic_reaches_with_the_smallest_frames(
    speed: int | None, ceiling: float | None, shown: str
) -> None:
    assert reach(speed, ceiling) == shown
