"""The virtual hardware as QEMU's command line, and what the plan promises about it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from router_agent.lab.errors import LabError
from router_agent.lab.vm import plan
from router_agent.lab.vm.hardware import Hardware, Wiring, command_line, parse_version
from router_agent.lab.vm.kvm import probe_command
from router_agent.model import Family

WIRING = Wiring(
    overlay=Path("/b/disk.qcow2"),
    serial_log=Path("/b/serial.log"),
    qmp=Path("/r/qmp.sock"),
    pid_file=Path("/r/qemu.pid"),
    ssh_port=2222,
    taps={"uplink": 7, "lan": 9},
)


def values(option: str, hardware: Hardware = Hardware()) -> list[str]:  # noqa: B008 (frozen)
    argv = command_line(hardware, WIRING)
    return [value for name, value in pairwise(argv) if name == option]


def test_data_nics_hang_on_the_taps_given_and_sit_where_the_inventory_says() -> None:
    assert "tap,id=uplink,fd=7,vhost=off" in values("-netdev")
    assert "tap,id=lan,fd=9,vhost=off" in values("-netdev")
    assert f"e1000e,netdev=uplink,mac={plan.UPLINK.mac},romfile=,addr=0x5" in values("-device")
    assert f"vmxnet3,netdev=lan,mac={plan.LAN.mac},romfile=,addr=0x6" in values("-device")
    assert plan.DEVICES == {"uplink": "0000:00:05.0", "lan": "0000:00:06.0"}


def test_ssh_is_reached_on_loopback_alone() -> None:
    (management,) = [value for value in values("-netdev") if value.startswith("user,")]
    assert "hostfwd=tcp:127.0.0.1:2222-198.20.0.15:22" in management


def test_iommu_is_there_unless_switched_off() -> None:
    iommu = "intel-iommu,intremap=on,caching-mode=on"
    assert iommu in values("-device")
    assert iommu not in values("-device", Hardware().without_iommu())
    # It must come before the devices behind it.
    assert values("-device").index(iommu) < values("-device").index("virtio-blk-pci,drive=disk,addr=0x10")


def test_two_spare_nics_share_a_bridge() -> None:
    behind = [value for value in values("-device") if "bus=bridge" in value]
    assert [value.rpartition("addr=")[2] for value in behind] == ["0x1", "0x2"]


def test_igb_is_added_where_qemu_has_it() -> None:
    assert not [value for value in values("-device") if value.startswith("igb,")]
    assert [value for value in values("-device", Hardware(igb=True)) if value.startswith("igb,")]


def test_processor_is_emulated_unless_kvm_works() -> None:
    assert (values("-accel"), values("-cpu")) == (["tcg,thread=multi"], ["max,avx2=off"])
    kvm = Hardware(kvm=True)
    assert (values("-accel", kvm), values("-cpu", kvm)) == (["kvm"], ["host"])


def test_no_pci_slot_is_given_twice() -> None:
    slots = [
        value.rpartition("addr=")[2]
        for value in values("-device")
        if "addr=" in value and "bus=" not in value
    ]
    assert len(slots) == len(set(slots))


def test_kvm_probe_ends_by_itself() -> None:
    command = probe_command(Path("/b/vmlinuz"), Path("/t/console"))
    assert "-no-reboot" in command
    assert command[command.index("-append") + 1].endswith("panic=-1")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright", (7, 2)),
        ("QEMU emulator version 10.0.3 (Debian 1:10.0.3+ds-0+deb13u1)", (10, 0)),
    ],
)
def test_version_is_read(text: str, found: tuple[int, int]) -> None:
    assert parse_version(text) == found


def test_version_that_is_none_is_refused() -> None:
    with pytest.raises(LabError, match=r"expected 'version N\.N'"):
        parse_version("command not found")


def test_management_network_can_be_covered_by_a_neighbour() -> None:
    management = plan.MANAGEMENT
    assert management.client in management.covering
    assert management.covering.subnet_of(management.network)
    assert management.covering != management.network
    assert management.covering.prefixlen <= 24


def test_ports_have_addresses_of_their_own() -> None:
    addresses = [
        str(address)
        for port in plan.PORTS
        for family in Family
        for address in (port.address(family), port.far_address(family))
    ]
    assert len(addresses) == len(set(addresses)) == 8
