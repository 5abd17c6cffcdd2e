"""What the facts module reads, from trees that look like hosts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from router_host_facts import (
    FactsError,
    HostReader,
    json_arrays,
    parse_cmdline,
    parse_cpu_list,
    parse_os_release,
    parse_proc_address,
    pcie_megabits,
    run_ip,
)

if TYPE_CHECKING:
    from conftest import HostTree


@pytest.mark.parametrize(
    ("text", "ids"),
    [("", []), ("\n", []), ("0\n", [0]), ("0-3,8,10-11", [0, 1, 2, 3, 8, 10, 11])],
)
def test_cpu_lists(text: str, ids: list[int]) -> None:
    assert parse_cpu_list(text) == ids


def test_the_command_line_keeps_quoted_blanks_together() -> None:
    assert parse_cmdline('ro dyndbg="file a.c +p" isolcpus=1-3\n') == [
        "ro",
        'dyndbg="file a.c +p"',
        "isolcpus=1-3",
    ]


def test_os_release_is_unquoted_and_comments_are_not_read() -> None:
    assert parse_os_release("# ID=x\nID=debian\nVERSION_ID=\"12\"\nNAME='A=B'\n") == {
        "ID": "debian",
        "VERSION_ID": "12",
        "NAME": "A=B",
    }


@pytest.mark.skipif(sys.byteorder != "little", reason="written as a little-endian kernel writes it")
@pytest.mark.parametrize(
    ("field", "address", "port"),
    [
        ("02154D0A:0016", "10.77.21.2", 22),
        ("B80D0120000000000000000001000000:08AE", "2001:db8::1", 2222),
        ("0000000000000000FFFF00000B0200C0:0016", "192.0.2.11", 22),
    ],
    ids=["ipv4", "ipv6", "ipv4 mapped"],
)
def test_addresses_of_proc_net_tcp(field: str, address: str, port: int) -> None:
    assert (str(parse_proc_address(field)[0]), parse_proc_address(field)[1]) == (address, port)


@pytest.mark.parametrize(
    ("speed", "width", "expected"),
    [
        ("8.0 GT/s PCIe", "8", 63015),
        ("5.0 GT/s PCIe", "4", 16000),
        ("2.5 GT/s PCIe", "1", 2000),
        ("Unknown", "0", None),
        ("8.0 GT/s PCIe", "255", None),
        ("", "", None),
    ],
)
def test_what_a_pcie_link_carries(speed: str, width: str, expected: int | None) -> None:
    assert pcie_megabits(speed, width) == expected


def test_batches_of_ip_are_several_arrays() -> None:
    assert json_arrays('[]\n[{"dev":"a"},{}]\n\n[{"dev":"b"}]') == [{"dev": "a"}, {"dev": "b"}]


def test_a_machine(pop_host: HostTree) -> None:
    facts = pop_host.facts()
    assert facts["os"] == {"id": "debian", "version_id": "13", "codename": "trixie"}
    assert (facts["kernel"], facts["machine"], facts["hostname"]) == (
        "6.12.48+deb13-amd64",
        "x86_64",
        "ams1-r1",
    )
    assert "intel_iommu=on" in facts["cmdline"]
    assert facts["cpu"]["model"] == "Xeon"
    assert "pdpe1gb" in facts["cpu"]["flags"]
    assert facts["cpu"]["cores"][5] == {"id": 5, "package": 1, "core": 1, "node": 1, "online": True}
    assert [node["cpus"] for node in facts["numa_nodes"]] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert facts["numa_nodes"][0]["memory_bytes"] == 32 << 30
    assert facts["numa_nodes"][0]["hugepages"]["2048"] == {"total": 0, "free": 0}
    assert facts["iommu"] == {"tables": ["DMAR"], "enabled": True}
    assert facts["noiommu"] is False
    assert "vfio_pci" in facts["modules"]


def test_a_cpu_that_is_offline(host_tree: HostTree) -> None:
    host_tree.write("sys/devices/system/cpu/cpu3/online", "0\n")
    assert [core["id"] for core in host_tree.facts()["cpu"]["cores"] if not core["online"]] == [3]


def test_ten_cpus_come_in_order_of_number(host_tree: HostTree) -> None:
    host_tree.processors(nodes=1, cores=12)
    assert [core["id"] for core in host_tree.facts()["cpu"]["cores"]] == list(range(12))


def test_a_kernel_without_numa_has_one_node(tmp_path: Any, host_tree: HostTree) -> None:
    host_tree.root = tmp_path / "flat"
    host_tree.write("sys/devices/system/cpu/present", "0-1\n")
    host_tree.write("proc/meminfo", "MemTotal: 2048 kB\n")
    host_tree.write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "7\n")
    assert host_tree.facts()["numa_nodes"] == [
        {"id": 0, "cpus": [0, 1], "memory_bytes": 2 << 20, "hugepages": {"2048": {"total": 7, "free": 0}}}
    ]


def test_an_iommu_is_on_when_the_kernel_uses_it_not_when_it_was_asked_for(host_tree: HostTree) -> None:
    (host_tree.root / "sys/class/iommu/dmar0/name").unlink()
    (host_tree.root / "sys/class/iommu/dmar0").rmdir()
    assert host_tree.facts()["iommu"] == {"tables": ["DMAR"], "enabled": False}


def test_no_iommu_mode_and_secure_boot(host_tree: HostTree) -> None:
    host_tree.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n")
    variable = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    host_tree.write(variable, "").write_bytes(b"\x06\x00\x00\x00\x01")
    facts = host_tree.facts()
    assert (facts["noiommu"], facts["secure_boot"]) == (True, True)


def test_a_nic(pop_host: HostTree) -> None:
    base = "sys/bus/pci/devices/0000:03:00.0"
    pop_host.write(f"{base}/current_link_speed", "8.0 GT/s PCIe\n")
    pop_host.write(f"{base}/current_link_width", "8\n")
    pop_host.write(f"{base}/sriov_totalvfs", "64\n")
    nic = next(nic for nic in pop_host.facts()["nics"] if nic["pci"] == "0000:03:00.0")
    assert nic == {
        "pci": "0000:03:00.0",
        "vendor": "8086",
        "device": "1572",
        "name": "Intel X710 10GbE SFP+",
        "driver": "i40e",
        "override": None,
        "interface": "enp3s0f0",
        "former_interface": None,
        "mac": "02:00:00:00:00:01",
        "numa_node": 0,
        "iommu_group": 20,
        "group_members": ["0000:03:00.0"],
        "group_others": [],
        "speed_mbps": 10_000,
        "rated_mbps": 10_000,
        "ceiling_mpps": None,
        "pcie_mbps": 63015,
        "carrier": True,
        "addresses": [],
        "sriov_total": 64,
        "sriov_count": 0,
        "physical_function": None,
        "management": [],
    }


def test_a_nic_of_a_model_nobody_knows_is_named_by_its_ids(host_tree: HostTree) -> None:
    host_tree.nic("0000:05:00.0", "eth0", model="1fed:0001", speed=None)
    nic = host_tree.facts()["nics"][0]
    assert (nic["name"], nic["speed_mbps"], nic["rated_mbps"]) == ("1fed:0001", None, None)


def test_devices_that_are_no_nic_are_left_out(host_tree: HostTree) -> None:
    host_tree.nic("0000:00:1f.2", pci_class="0x010601", driver="ahci")
    assert host_tree.facts()["nics"] == []


def test_bridges_are_no_members_of_a_group_that_matter(host_tree: HostTree) -> None:
    host_tree.nic("0000:00:01.0", model="8086:1901", driver="pcieport", group=1, pci_class="0x060400")
    host_tree.nic("0000:01:00.0", "eth0", group=1)
    host_tree.nic("0000:01:00.1", model="8086:a0c8", driver="snd_hda_intel", group=1, pci_class="0x040300")
    nic = host_tree.facts()["nics"][0]
    assert nic["group_members"] == ["0000:01:00.0", "0000:01:00.1"]
    assert nic["group_others"] == [{"pci": "0000:01:00.1", "name": "8086:a0c8", "driver": "snd_hda_intel"}]


def test_virtio_has_a_device_between_nic_and_interface(host_tree: HostTree) -> None:
    base = host_tree.nic("0000:00:03.0", model="1af4:1041", driver="virtio-pci", speed=None)
    host_tree.write(f"{base}/virtio2/net/eth0/address", "")
    assert host_tree.facts()["nics"][0]["interface"] == "eth0"


def test_representors_of_virtual_functions_are_not_the_nics_interface(host_tree: HostTree) -> None:
    base = host_tree.nic("0000:00:03.0", model="15b3:101d", driver="mlx5_core")
    host_tree.write(f"{base}/net/a0rep/phys_port_name", "pf0vf0\n")
    host_tree.write(f"{base}/net/enp3s0/phys_port_name", "p0\n")
    assert host_tree.facts()["nics"][0]["interface"] == "enp3s0"


def test_an_unknown_node_is_the_only_one_or_stays_unknown(host_tree: HostTree) -> None:
    host_tree.nic("0000:00:03.0", "eth0", node=-1)
    assert host_tree.facts()["nics"][0]["numa_node"] == -1
    host_tree.root.joinpath("sys/devices/system/node/node1").rename(host_tree.root / "gone")
    assert host_tree.facts()["nics"][0]["numa_node"] == 0


def test_the_name_a_nic_had_before_vfio_took_it(host_tree: HostTree) -> None:
    host_tree.nic("0000:03:00.0", driver="vfio-pci")
    host_tree.write("sys/bus/pci/devices/0000:03:00.0/driver_override", "vfio-pci\n")
    host_tree.write(
        "etc/pop-router/vfio-devices", "# address, driver, interface\n0000:03:00.0 i40e enp3s0f0\n"
    )
    nic = host_tree.facts()["nics"][0]
    assert (nic["interface"], nic["former_interface"], nic["override"]) == (None, "enp3s0f0", "vfio-pci")


def test_the_name_a_nic_had_before_it_was_renamed(host_tree: HostTree) -> None:
    host_tree.nic("0000:03:00.0", "uplink")
    host_tree.write("run/udev/data/n2", "E:ID_NET_NAME_PATH=enp3s0f0\nE:ID_NET_NAME_ONBOARD=eno1\n")
    assert host_tree.facts()["nics"][0]["former_interface"] == "eno1"


def reasons(tree: HostTree, **options: Any) -> dict[str, list[str]]:
    """{interface: reasons} of the management."""
    return {entry["interface"]: entry["reasons"] for entry in tree.facts(**options)["management"]}


def test_the_three_reasons_of_a_management_nic(pop_host: HostTree) -> None:
    facts = pop_host.facts(connection_address="192.0.2.11")
    expected = [
        "carries the IPv4 default route via 192.0.2.254",
        "holds 192.0.2.11, the address Ansible connects to",
        "carries the ssh session from 192.0.2.200",
    ]
    assert facts["management"] == [{"interface": "eno1", "pci": "0000:01:00.0", "reasons": expected}]
    assert [nic["management"] for nic in facts["nics"]] == [expected, [], []]


def test_default_routes_of_routing_daemons_make_no_management(pop_host: HostTree) -> None:
    pop_host.default_route("enp3s0f0", "198.51.100.1", protocol="bgp")
    assert list(reasons(pop_host)) == ["eno1"]


def test_the_ipv6_default_route_of_router_advertisements(pop_host: HostTree) -> None:
    pop_host.default_route("enp3s0f1", "fe80::fe", protocol="ra")
    assert reasons(pop_host)["enp3s0f1"] == ["carries the IPv6 default route via fe80::fe"]


def test_each_way_of_a_default_route_with_several(pop_host: HostTree) -> None:
    hops = [
        {"gateway": "192.0.2.1", "dev": "enp3s0f0"},
        {"via": {"family": "inet6", "host": "fe80::1"}, "dev": "enp3s0f1"},
    ]
    pop_host.routes["-4"] = [{"dst": "default", "protocol": "boot", "nexthops": hops}]
    found = reasons(pop_host)
    assert found["enp3s0f0"] == ["carries the IPv4 default route via 192.0.2.1"]
    assert found["enp3s0f1"] == ["carries the IPv4 default route via fe80::1"]


def test_a_default_route_that_refuses_is_nobodys(pop_host: HostTree) -> None:
    pop_host.routes["-6"] = [{"type": "unreachable", "dst": "default", "dev": "lo", "protocol": "kernel"}]
    assert list(reasons(pop_host)) == ["eno1"]


def test_a_vlan_on_a_bond_is_management_of_both_members(host_tree: HostTree) -> None:
    host_tree.nic("0000:01:00.0", "eno1")
    host_tree.nic("0000:01:00.1", "eno2")
    host_tree.interface("bond0", lower=["eno1", "eno2"])
    host_tree.interface("bond0.10", ["192.0.2.11/24"], lower=["bond0"])
    host_tree.default_route("bond0.10", "192.0.2.254")
    reason = ["carries the IPv4 default route via 192.0.2.254 (through bond0.10)"]
    assert [nic["management"] for nic in host_tree.facts()["nics"]] == [reason, reason]


def test_a_session_to_a_loopback_is_on_the_nic_its_answers_leave_through(host_tree: HostTree) -> None:
    host_tree.nic("0000:01:00.0", "eno1")
    host_tree.interface("lo1", ["203.0.113.1/32"])
    host_tree.session("203.0.113.1", "192.0.2.200")
    host_tree.way["192.0.2.200"] = "eno1"
    assert reasons(host_tree) == {"eno1": ["carries the ssh session from 192.0.2.200"]}


def test_many_sessions_are_not_all_named(pop_host: HostTree) -> None:
    for last in range(201, 206):
        pop_host.session("192.0.2.11", f"192.0.2.{last}")
    found = reasons(pop_host)["eno1"][-1]
    assert found == "carries the ssh sessions from 192.0.2.200, 192.0.2.201, 192.0.2.202 and 3 more"


@pytest.mark.parametrize("how", ["sshd_config", "drop-in", "option", "environment of an ancestor"])
def test_sessions_to_another_port_of_the_ssh_server(host_tree: HostTree, how: str) -> None:
    host_tree.nic("0000:01:00.0", "eno1", addresses=["192.0.2.11/24"])
    host_tree.session("192.0.2.11", "192.0.2.200", port=2222)
    assert reasons(host_tree) == {}
    options: dict[str, Any] = {}
    if how == "sshd_config":
        host_tree.write("etc/ssh/sshd_config", "#Port 22\nPort 2222\n")
    elif how == "drop-in":
        host_tree.write("etc/ssh/sshd_config.d/port.conf", "port=2222\n")
    elif how == "option":
        options["connection_port"] = 2222
    else:
        # sudo empties the environment of the module, not that of the shell it was started from.
        host_tree.write("proc/self/status", "PPid:\t77\n")
        host_tree.write("proc/77/status", "PPid:\t1\n")
        host_tree.write("proc/77/environ", "A=1\0SSH_CONNECTION=192.0.2.200 5 192.0.2.11 2222\0B=2\0")
    assert reasons(host_tree, **options) == {"eno1": ["carries the ssh session from 192.0.2.200"]}


def test_other_sessions_make_no_management(host_tree: HostTree) -> None:
    host_tree.nic("0000:01:00.0", "eno1", addresses=["192.0.2.11/24"])
    host_tree.session("192.0.2.11", "192.0.2.200", port=179)
    assert reasons(host_tree) == {}


def test_interfaces_listed_by_name_or_pci_address(pop_host: HostTree) -> None:
    found = reasons(pop_host, management_interfaces=["enp3s0f0", "0000:03:00.1"])
    assert found["enp3s0f0"] == found["enp3s0f1"] == ["is listed in router_management_interfaces"]


def test_a_physical_function_answers_for_its_virtual_functions(host_tree: HostTree) -> None:
    host_tree.nic("0000:03:00.0", "enp3s0f0")
    base = host_tree.nic("0000:03:02.0", "enp3s0f0v0", model="8086:154c", driver="iavf")
    host_tree.link(f"{base}/physfn", "sys/bus/pci/devices/0000:03:00.0")
    host_tree.default_route("enp3s0f0v0", "192.0.2.254")
    assert host_tree.facts()["nics"][0]["management"] == [
        "its virtual function 0000:03:02.0 (enp3s0f0v0) carries the IPv4 default route via 192.0.2.254"
    ]


def test_a_management_interface_need_not_be_a_pci_device(host_tree: HostTree) -> None:
    host_tree.interface("host0", ["192.0.2.11/24"])
    host_tree.default_route("host0", "192.0.2.254")
    assert host_tree.facts()["management"][0]["pci"] is None


def test_the_kernel_is_asked_by_protocol_so_that_a_full_table_costs_nothing(host_tree: HostTree) -> None:
    host_tree.facts()
    batches = [commands for arguments, commands in host_tree.commands if "-batch" in arguments]
    assert len(batches) == 2
    assert all(
        line.startswith("route show table all protocol ")
        for batch in batches
        for line in str(batch).splitlines()
    )


def test_a_host_without_iproute2(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*arguments: Any, **options: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("subprocess.run", absent)
    with pytest.raises(FactsError, match="install the package iproute2"):
        run_ip(["-json", "address"])


def test_this_host_can_be_read() -> None:
    facts = HostReader().read(connection_address="127.0.0.1")
    assert facts["memory_bytes"] > 0
    assert facts["cpu"]["cores"]
    assert facts["interfaces"]["lo"]
