"""NICs for VFIO: what is refused before anything is touched, what is taken, and what is given back.

The tree is that of /sys of a q35 machine with two e1000e NICs, cut down to what is read. `Kernel` answers the
commands as the kernel and driverctl 0.111 do: an override is written after the driver has been bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from driverctl_override import Devices, Former, OverrideError, carry_out, plan, run_command
from vfio_devices import (
    iommu_arguments,
    protected,
    to_come,
    to_give_back,
    to_take,
    unresolved,
    vfio_devices,
)

UPLINK, LAN, BRIDGE, OTHER = "0000:01:00.0", "0000:02:00.0", "0000:00:1c.0", "0000:03:00.0"


class Kernel:
    """A host below `root`, and what its commands do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands: list[list[str]] = []
        self.refuses = ""
        (root / "proc").mkdir()
        (root / "sys/bus/pci/drivers").mkdir(parents=True)

    def device(
        self, pci: str, driver: str, *, group: int | None, interface: str = "", kind: str = "0x020000"
    ) -> Path:
        path = self.root / "sys/bus/pci/devices" / pci
        path.mkdir(parents=True)
        (path / "class").write_text(f"{kind}\n")
        (path / "modalias").write_text("pci:v00008086d000010D3\n")
        (path / "native").write_text(driver)
        if group is not None:
            self.join(pci, group)
        self.bind(pci, driver, interface)
        return path

    def join(self, pci: str, group: int) -> None:
        members = self.root / f"sys/kernel/iommu_groups/{group}/devices"
        members.mkdir(parents=True, exist_ok=True)
        (members / pci).touch()
        (self.root / "sys/bus/pci/devices" / pci / "iommu_group").symlink_to(members.parent)

    def bind(self, pci: str, driver: str, interface: str = "") -> None:
        path = self.root / "sys/bus/pci/devices" / pci
        (path / "driver").unlink(missing_ok=True)
        if (path / "net").is_dir():
            for entry in (path / "net").iterdir():
                entry.rmdir()
            (path / "net").rmdir()
        if driver:
            (path / "driver").symlink_to(self.root / "sys/bus/pci/drivers" / driver)
        if interface:
            (path / "net" / interface).mkdir(parents=True)

    def run(self, command: Sequence[str], timeout: int) -> tuple[int, str]:
        self.commands.append(list(command))
        if list(command[:2]) == ["driverctl", "set-override"]:
            _, _, pci, driver = command
            if driver == self.refuses:
                self.bind(pci, "")
                return 1, f"driverctl: failed to bind device {pci} to driver {driver}"
            self.bind(pci, driver)
            self.write_override(pci, driver)
        if list(command[:2]) == ["driverctl", "unset-override"]:
            native = (self.root / "sys/bus/pci/devices" / command[2] / "native").read_text()
            if native == self.refuses:
                self.bind(command[2], "")
                return 1, "driverctl: failed to bind device"
            self.bind(command[2], native, "enp1s0")
            (self.root / f"etc/driverctl.d/pci-{command[2]}").unlink(missing_ok=True)
        return 0, ""

    def write_override(self, pci: str, driver: str) -> None:
        directory = self.root / "etc/driverctl.d"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"pci-{pci}").write_text(f"{driver}\n")


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    kernel = Kernel(tmp_path)
    kernel.device(UPLINK, "e1000e", group=14, interface="enp1s0")
    kernel.device(LAN, "e1000e", group=15, interface="enp2s0")
    kernel.device(BRIDGE, "pcieport", group=15, kind="0x060400")
    return kernel


def take(kernel: Kernel, *wanted: str, **options: Any) -> Devices:
    devices = Devices(kernel.root)
    steps = plan(devices, wanted, **options)
    assert steps.problems + steps.pending == []
    carry_out(devices, steps, "vfio-pci", run=kernel.run)
    return devices


def test_devices_are_bound_for_good_and_remembered(kernel: Kernel) -> None:
    devices = take(kernel, UPLINK, LAN)
    assert devices.bound(UPLINK, "vfio-pci")
    assert devices.bound(LAN, "vfio-pci")
    assert devices.record() == {UPLINK: Former("e1000e", "enp1s0"), LAN: Former("e1000e", "enp2s0")}
    assert devices.record_file.read_text().splitlines()[1:] == [
        f"{UPLINK} e1000e enp1s0",
        f"{LAN} e1000e enp2s0",
    ]


def test_a_second_run_does_nothing(kernel: Kernel) -> None:
    devices = take(kernel, UPLINK)
    steps = plan(devices, [UPLINK])
    assert (steps.take, steps.give_back) == ([], [])


def test_a_binding_that_a_boot_would_lose_is_made_again(kernel: Kernel) -> None:
    devices = take(kernel, UPLINK)
    devices.override_file(UPLINK).unlink()
    assert plan(devices, [UPLINK]).take == [UPLINK]
    take(kernel, UPLINK)
    assert devices.record() == {UPLINK: Former("e1000e", "enp1s0")}


def test_a_port_that_goes_gets_its_kernel_driver_back(kernel: Kernel) -> None:
    devices = take(kernel, UPLINK, LAN)
    take(kernel, LAN)
    assert (devices.driver(UPLINK), devices.override(UPLINK)) == ("e1000e", "")
    assert devices.driver(LAN) == "vfio-pci"
    assert list(devices.record()) == [LAN]
    assert ["modprobe", "-q", "-b", "pci:v00008086d000010D3"] in kernel.commands
    assert kernel.commands[-1][:2] == ["udevadm", "settle"]


def test_overrides_of_others_are_neither_taken_over_nor_given_back(kernel: Kernel) -> None:
    kernel.bind(UPLINK, "vfio-pci")
    kernel.write_override(UPLINK, "vfio-pci")
    kernel.write_override(LAN, "uio_pci_generic")
    devices = Devices(kernel.root)
    assert plan(devices, []).give_back == []
    assert plan(devices, [UPLINK]).take == []
    assert "override to uio_pci_generic that this kit did not set" in plan(devices, [LAN]).problems[0]
    assert devices.record() == {}


def test_take_and_give_back_are_apart_when_asked_for_apart(kernel: Kernel) -> None:
    devices = take(kernel, UPLINK)
    assert plan(devices, [LAN], give_back=False).give_back == []
    assert plan(devices, [LAN], take=False).take == []
    assert plan(devices, [LAN], take=False).give_back == [UPLINK]


@pytest.mark.parametrize(
    ("wanted", "options", "message"),
    [
        ("0000:09:00.0", {}, "0000:09:00.0 was not found on this host"),
        (
            LAN,
            {"protected": {LAN: "carries the default route (enp2s0)"}},
            f"{LAN} must not be taken: it carries the default route",
        ),
    ],
)
def test_what_must_not_be_taken_stops_everything(
    kernel: Kernel, wanted: str, options: dict[str, Any], message: str
) -> None:
    steps = plan(Devices(kernel.root), [UPLINK, wanted], **options)
    assert message in "; ".join(steps.problems)


def test_a_shared_group_is_refused_and_named(kernel: Kernel) -> None:
    kernel.device(OTHER, "nvme", group=14)
    devices = Devices(kernel.root)
    assert plan(devices, [LAN]).problems == []
    assert plan(devices, [UPLINK]).problems == [
        f"{UPLINK} shares IOMMU group 14 with {OTHER} (driver nvme), which would have to "
        "be taken too: put the NIC into another slot, or take both"
    ]
    assert plan(devices, [UPLINK, OTHER]).problems == []
    kernel.bind(OTHER, "")
    assert plan(devices, [UPLINK]).problems == []


def test_a_nic_with_virtual_functions_is_refused(kernel: Kernel) -> None:
    (kernel.root / "sys/bus/pci/devices" / UPLINK / "sriov_numvfs").write_text("2\n")
    assert "has 2 virtual functions" in plan(Devices(kernel.root), [UPLINK]).problems[0]


def test_without_iommu_the_next_boot_may_help(kernel: Kernel) -> None:
    (kernel.root / "sys/bus/pci/devices" / UPLINK / "iommu_group").unlink()
    devices = Devices(kernel.root)
    steps = plan(devices, [UPLINK])
    assert steps.problems == []
    assert "the IOMMU is off" in steps.pending[0]
    assert plan(devices, [UPLINK], allow_no_iommu=True).pending == []


def test_no_iommu_mode_is_switched_on_or_said_to_be_missing(kernel: Kernel) -> None:
    (kernel.root / "sys/bus/pci/devices" / UPLINK / "iommu_group").unlink()
    devices = Devices(kernel.root)
    steps = plan(devices, [UPLINK], allow_no_iommu=True)
    with pytest.raises(OverrideError, match="CONFIG_VFIO_NOIOMMU"):
        carry_out(devices, steps, "vfio-pci", allow_no_iommu=True, run=kernel.run)
    assert devices.driver(UPLINK) == "e1000e"
    devices.no_iommu_switch.parent.mkdir(parents=True)
    devices.no_iommu_switch.write_text("N\n")
    carry_out(devices, steps, "vfio-pci", allow_no_iommu=True, run=kernel.run)
    assert devices.no_iommu_switch.read_text() == "Y\n"


def test_a_device_in_use_is_not_given_back_and_its_user_is_named(kernel: Kernel) -> None:
    devices = take(kernel, UPLINK)
    process = kernel.root / "proc/4711"
    (process / "fd").mkdir(parents=True)
    (process / "comm").write_text("vpp_main\n")
    (process / "fd/9").symlink_to("/dev/vfio/14")
    assert plan(devices, []).problems == [
        f"{UPLINK} is to be given back and found in use by vpp_main (process 4711): stop that first"
    ]
    (process / "fd/9").unlink()
    assert plan(devices, []).problems == []


def test_a_failed_binding_is_undone_and_said(kernel: Kernel) -> None:
    kernel.refuses = "vfio-pci"
    devices = Devices(kernel.root)
    with pytest.raises(
        OverrideError, match=r"binding 0000:01:00\.0 to vfio-pci failed.*failed to bind device"
    ):
        carry_out(devices, plan(devices, [UPLINK]), "vfio-pci", run=kernel.run)
    assert (devices.driver(UPLINK), devices.override(UPLINK)) == ("e1000e", "")


def test_a_failed_return_is_said_and_stays_on_record(kernel: Kernel) -> None:
    devices = take(kernel, UPLINK)
    kernel.refuses = "e1000e"
    with pytest.raises(OverrideError, match=r"found driver none, expected e1000e.*failed to bind"):
        carry_out(devices, plan(devices, []), "vfio-pci", run=kernel.run)
    assert UPLINK in devices.record()
    kernel.refuses = ""
    take(kernel)
    assert devices.driver(UPLINK) == "e1000e"
    assert devices.record() == {}


def test_a_nic_that_was_pulled_out_is_forgotten(kernel: Kernel) -> None:
    devices = take(kernel, UPLINK)
    path = kernel.root / "sys/bus/pci/devices" / UPLINK
    path.rename(kernel.root / "pulled")
    take(kernel)
    assert not devices.override_file(UPLINK).exists()
    assert devices.record() == {}


def test_commands_that_fail_or_hang_say_so() -> None:
    assert run_command(["sh", "-c", "echo no >&2; exit 3"], 10) == (3, "no")
    assert run_command(["no-such-command"], 10)[0] == 127
    assert run_command(["sleep", "5"], 0)[0] == 124


# Filters


def nic(pci: str, interface: str | None, **more: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "driver": "e1000e",
        "override": None,
        "management": [],
        "physical_function": None,
        "former_interface": None,
    }
    return {"pci": pci, "interface": interface, **known, **more}


TAKEN = {"driver": "vfio-pci", "override": "vfio-pci"}
FACTS = {
    "nics": [
        nic("0000:00:02.0", "enp0s2", management=["carries the IPv4 default route", "holds 10.0.2.15"]),
        nic(UPLINK, None, **TAKEN, former_interface="enp1s0"),
        nic(LAN, "enp2s0"),
        nic("0000:02:10.2", None, **TAKEN, physical_function=LAN),
        nic("0000:02:10.0", "enp2s0v0", physical_function=LAN),
    ],
    "iommu": {"tables": ["DMAR"], "enabled": True},
}


def test_ports_become_addresses_whatever_they_are_called() -> None:
    ports = [
        {"name": "up", "device": "enp1s0"},
        {"name": "lan", "device": LAN},
        {"name": "gone", "device": "enp7s0"},
    ]
    devices = vfio_devices(FACTS, ports)
    assert devices == [UPLINK, LAN, "enp7s0"]
    assert unresolved(devices) == ["enp7s0"]
    assert vfio_devices(FACTS, [{"name": "enp2s0", "device": "eth7"}]) == [LAN]
    assert vfio_devices(FACTS, ports, forwarding="kernel") == []


def test_virtual_functions_that_ask_for_it_are_taken_in_order() -> None:
    functions = [{"device": LAN, "count": 2, "driver": "vfio-pci"}]
    assert vfio_devices(FACTS, [], functions=functions) == ["0000:02:10.0", "0000:02:10.2"]
    assert vfio_devices(FACTS, [], functions=[{"device": LAN, "count": 2, "driver": ""}]) == []


def test_virtual_functions_that_are_not_there_yet_are_counted() -> None:
    there = {"device": LAN, "count": 2, "driver": "vfio-pci"}
    assert to_come(FACTS, [there]) == 0
    assert to_come(FACTS, [{**there, "count": 5}]) == 3
    assert to_come(FACTS, [{**there, "device": UPLINK}]) == 2
    assert to_come(FACTS, [{"device": UPLINK, "count": 4}]) == 0


def test_management_is_protected_with_its_reasons() -> None:
    assert protected(FACTS) == {"0000:00:02.0": "carries the IPv4 default route and holds 10.0.2.15 (enp0s2)"}
    assert protected(FACTS, ["enp2s0"])[LAN] == "is listed in router_management_interfaces (enp2s0)"


def test_what_is_left_to_do() -> None:
    assert to_take(FACTS, [UPLINK, LAN], "vfio-pci") == [LAN]
    assert to_give_back(FACTS, [LAN], "vfio-pci") == [UPLINK, "0000:02:10.2"]
    assert to_give_back(FACTS, [UPLINK, "0000:02:10.2"], "vfio-pci") == []


@pytest.mark.parametrize(
    ("tables", "arguments"),
    [(["DMAR"], ["intel_iommu=on", "iommu=pt"]), (["IVRS"], ["iommu=pt"]), ([], [])],
)
def test_the_firmware_says_which_iommu(tables: list[str], arguments: list[str]) -> None:
    assert iommu_arguments({"iommu": {"tables": tables}}) == arguments
