# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible module: bind PCI devices to vfio-pci by driverctl, for good, and give back those no longer wanted.

driverctl keeps an override for each device in /etc/driverctl.d, which udev applies again at every boot.
Which of them are ours is written to /etc/pop-router/vfio-devices: only those are ever given back.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: driverctl_override
short_description: Bind PCI devices to vfio-pci, and give back those no longer wanted
description:
  - Handles the whole list in one call. Everything is checked for every device before the first one is
    touched.
  - Refuses devices that are protected, whose IOMMU group is shared with a device of a kernel driver, that
    have virtual functions, or that somebody else gave another override.
  - Gives back only devices that this module took, and proves that a kernel driver has them again.
options:
  devices:
    description: PCI addresses of all devices wanted.
    type: list
    elements: str
    required: true
  driver:
    description: Driver they are bound to.
    type: str
    default: vfio-pci
  take:
    description: Bind those that are wanted.
    type: bool
    default: false
  give_back:
    description: Give back those that were taken and are wanted no longer.
    type: bool
    default: false
  protected:
    description: Devices that must not be taken, with the reason, by PCI address.
    type: dict
    default: {}
  allow_no_iommu:
    description: Bind devices without an IOMMU, by vfio's unsafe no-IOMMU mode.
    type: bool
    default: false
  timeout:
    description: Seconds that binding one device may take.
    type: int
    default: 60
author: ["The authors of the router kit"]
"""

RETURN = r"""
taken:
  description: Devices bound in this run.
  type: list
  returned: success
given_back:
  description: Devices given back in this run.
  type: list
  returned: success
"""

#: Drivers that may hold other devices of a group (vfio_dev_driver_allowed in drivers/vfio/vfio_main.c).
HARMLESS_DRIVERS = frozenset({"", "vfio-pci", "pci-stub", "pcieport"})
RECORD_HEADER = "# PCI devices the router kit took from the kernel: address, driver and interface they had.\n"

#: Runs a command within some seconds; returns its exit status and what it wrote to standard error.
Runner = Callable[[Sequence[str], int], tuple[int, str]]


class OverrideError(Exception):
    """What was found, what was expected, and what to do."""


@dataclass(frozen=True)
class Former:
    """What a device was before it was taken; empty where it had no driver or no interface."""

    driver: str = ""
    interface: str = ""


@dataclass
class Plan:
    """What is to be done; `pending` are problems that the next boot may take away."""

    take: list[str] = field(default_factory=list)
    give_back: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)


class Devices:
    """PCI devices of a host as /sys and /etc show them; `root` is / but in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.pci = root / "sys/bus/pci/devices"
        self.record_file = root / "etc/pop-router/vfio-devices"
        self.no_iommu_switch = root / "sys/module/vfio/parameters/enable_unsafe_noiommu_mode"

    def exists(self, device: str) -> bool:
        """Whether the device is on the bus."""
        return (self.pci / device).exists()

    def driver(self, device: str) -> str:
        """Driver the device is bound to, or empty."""
        link = self.pci / device / "driver"
        return link.readlink().name if link.is_symlink() else ""

    def interface(self, device: str) -> str:
        """Network interface of the device, or empty."""
        directory = self.pci / device / "net"
        return min((path.name for path in directory.iterdir()), default="") if directory.is_dir() else ""

    def override_file(self, device: str) -> Path:
        """Where driverctl keeps the override of a device."""
        return self.root / "etc/driverctl.d" / f"pci-{device}"

    def override(self, device: str) -> str:
        """Override that driverctl applies at boot, or empty."""
        path = self.override_file(device)
        return path.read_text().strip() if path.is_file() else ""

    def bound(self, device: str, driver: str) -> bool:
        """Whether the device has the driver now and will have it after a boot."""
        return self.driver(device) == driver and self.override(device) == driver

    def group(self, device: str) -> str:
        """Number of the device's IOMMU group, or empty where the IOMMU is off."""
        link = self.pci / device / "iommu_group"
        return link.readlink().name if link.is_symlink() else ""

    def group_neighbours(self, device: str) -> list[str]:
        """Other devices of the device's IOMMU group, without bridges."""
        members = sorted(path.name for path in (self.pci / device / "iommu_group/devices").glob("*"))
        return [name for name in members if name != device and not self.is_bridge(name)]

    def is_bridge(self, device: str) -> bool:
        """Whether the device is a PCI bridge, which vfio leaves to its driver."""
        path = self.pci / device / "class"
        return path.is_file() and path.read_text().startswith("0x0604")

    def virtual_functions(self, device: str) -> int:
        """How many virtual functions the device has now."""
        path = self.pci / device / "sriov_numvfs"
        return int(path.read_text()) if path.is_file() else 0

    def holders(self, device: str) -> list[str]:
        """Processes that have the device's VFIO group open, in words."""
        group = self.group(device)
        targets = {f"/dev/vfio/{group}", f"/dev/vfio/noiommu-{group}"} if group else set()
        found = []
        for process in sorted(self.root.glob("proc/[0-9]*")):
            if any(target in targets for target in open_files(process)):
                name = (process / "comm").read_text().strip()
                found.append(f"{name} (process {process.name})")
        return found

    def record(self) -> dict[str, Former]:
        """Devices that were taken, and what they were before."""
        lines = self.record_file.read_text().splitlines() if self.record_file.is_file() else []
        words = [line.split() for line in lines if line.strip() and not line.startswith("#")]
        return {
            device: Former(*("" if word == "-" else word for word in former[:2])) for device, *former in words
        }

    def write_record(self, record: Mapping[str, Former]) -> None:
        """Replace the record, whole or not at all."""
        self.record_file.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{device} {was.driver or '-'} {was.interface or '-'}\n" for device, was in record.items()]
        new = self.record_file.with_suffix(".new")
        new.write_text(RECORD_HEADER + "".join(lines))
        new.replace(self.record_file)


def open_files(process: Path) -> list[str]:
    """Targets of a process's file descriptors; none for a process that has ended."""
    try:
        return [str(path.readlink()) for path in (process / "fd").iterdir()]
    except OSError:
        return []


def run_command(command: Sequence[str], timeout: int) -> tuple[int, str]:
    """Exit status and standard error of a command; not 0 when it cannot be run or is too slow."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        return 124, f"{' '.join(command)} did not end within {timeout} s"
    except OSError as error:
        return 127, str(error)
    return run.returncode, run.stderr.strip()


def plan(
    devices: Devices,
    wanted: Sequence[str],
    *,
    driver: str = "vfio-pci",
    take: bool = True,
    give_back: bool = True,
    protected: Mapping[str, str] | None = None,
    allow_no_iommu: bool = False,
) -> Plan:
    """Decide what is to be done for the whole list, and what forbids it."""
    result = Plan()
    record = devices.record()
    if take:
        for device in dict.fromkeys(wanted):
            plan_taking(devices, device, wanted, driver, protected or {}, record, allow_no_iommu, result)
    if give_back:
        result.give_back = [device for device in record if device not in wanted]
        for device in result.give_back:
            if holders := devices.holders(device):
                result.problems.append(
                    f"{device} is to be given back and found in use by {', '.join(holders)}: stop that first"
                )
    return result


def plan_taking(
    devices: Devices,
    device: str,
    wanted: Sequence[str],
    driver: str,
    protected: Mapping[str, str],
    record: Iterable[str],
    allow_no_iommu: bool,
    result: Plan,
) -> None:
    """Add to `result` what one wanted device needs, or why it cannot be had."""
    if not devices.exists(device):
        result.problems.append(
            f"{device} was not found on this host: correct the port, or see whether the NIC is seated"
        )
        return
    if device in protected:
        result.problems.append(f"{device} must not be taken: it {protected[device]}")
        return
    if devices.bound(device, driver):
        return
    result.take.append(device)
    foreign = devices.override(device)
    if foreign and foreign != driver and device not in record:
        result.problems.append(
            f"{device} has an override to {foreign} that this kit did not set "
            f"({devices.override_file(device)}), expected none: remove it with "
            f"`driverctl unset-override {device}` if nobody needs it"
        )
    if count := devices.virtual_functions(device):
        result.problems.append(
            f"{device} has {count} virtual functions, which would go away with its driver: "
            "take those, not the NIC itself"
        )
    if not devices.group(device):
        if not allow_no_iommu:
            result.pending.append(
                f"{device} has no IOMMU group, so the IOMMU is off: turn on VT-d or AMD-Vi in the BIOS "
                "and boot with the kernel arguments of role vfio, or accept unsafe DMA (vfio_allow_no_iommu)"
            )
        return
    for neighbour in devices.group_neighbours(device):
        if neighbour not in wanted and (name := devices.driver(neighbour)) not in HARMLESS_DRIVERS:
            result.problems.append(
                f"{device} shares IOMMU group {devices.group(device)} with {neighbour} (driver {name}), "
                "which would have to be taken too: put the NIC into another slot, or take both"
            )


def enable_no_iommu(devices: Devices, run: Runner, timeout: int) -> None:
    """Switch vfio's no-IOMMU mode on for the running kernel."""
    status, error = run(["modprobe", "vfio"], timeout)
    if not devices.no_iommu_switch.is_file():
        raise OverrideError(
            "vfio_allow_no_iommu is true and found no no-IOMMU mode in this kernel's vfio module, expected "
            "one built with "
            f"CONFIG_VFIO_NOIOMMU: turn the IOMMU on instead{f' ({error})' if status else ''}"
        )
    devices.no_iommu_switch.write_text("Y\n")


def take_device(devices: Devices, device: str, driver: str, run: Runner, timeout: int) -> None:
    """Bind one device; when that fails its former driver gets it again."""
    record = devices.record()
    # Written first: a device may be taken and not in the record at no time.
    record.setdefault(device, Former(devices.driver(device), devices.interface(device)))
    devices.write_record(record)
    status, error = run(["driverctl", "set-override", device, driver], timeout)
    if status == 0 and devices.bound(device, driver):
        return
    found = devices.driver(device) or "none"
    run(["driverctl", "unset-override", device], timeout)
    raise OverrideError(
        f"binding {device} to {driver} failed, found driver {found}: {error or 'driverctl named no cause'}. "
        f"It has been given back (driver {devices.driver(device) or 'none'}); see journalctl -k -g "
        f"'{device}|vfio'"
    )


def give_back_device(devices: Devices, device: str, driver: str, run: Runner, timeout: int) -> None:
    """Remove the override of one device and see that a kernel driver has it again."""
    record = devices.record()
    former = record[device]
    if devices.exists(device) and (devices.override(device) or devices.driver(device) == driver):
        modalias = devices.pci / device / "modalias"
        if modalias.is_file():
            # A probe loads no module. Whether this one did is seen by the driver that is bound in the end.
            run(["modprobe", "-q", "-b", modalias.read_text().strip()], timeout)
        status, error = run(["driverctl", "unset-override", device], timeout)
        found = devices.driver(device)
        expected = former.driver or found
        if status or not found or found == driver or found != expected:
            raise OverrideError(
                f"giving {device} back failed: found driver {found or 'none'}, expected "
                f"{expected or 'a kernel driver'}"
                f"{f': {error}' if error else ''}. See journalctl -k -g '{device}'"
            )
    devices.override_file(device).unlink(missing_ok=True)
    del record[device]
    devices.write_record(record)


def carry_out(
    devices: Devices,
    steps: Plan,
    driver: str,
    *,
    allow_no_iommu: bool = False,
    run: Runner = run_command,
    timeout: int = 60,
) -> None:
    """Do what was planned; give back first, so that a device may go from one use to another.

    Raises:
        OverrideError: a device could not be bound or given back; those before it are done.
    """
    for device in steps.give_back:
        give_back_device(devices, device, driver, run, timeout)
    if allow_no_iommu and any(not devices.group(device) for device in steps.take):
        enable_no_iommu(devices, run, timeout)
    for device in steps.take:
        take_device(devices, device, driver, run, timeout)
    if steps.give_back or steps.take:
        # Interfaces that came back get their names from udev.
        status, error = run(["udevadm", "settle", f"--timeout={timeout}"], timeout + 5)
        if status:
            raise OverrideError(f"udev was still busy after {timeout} s: {error}. See udevadm monitor")


def shown(devices: Devices, names: Iterable[str]) -> str:
    """Devices and their drivers, for a diff."""
    return "".join(f"{name} {devices.driver(name) or 'none'}\n" for name in sorted(set(names)))


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "devices": {"type": "list", "elements": "str", "required": True},
            "driver": {"type": "str", "default": "vfio-pci"},
            "take": {"type": "bool", "default": False},
            "give_back": {"type": "bool", "default": False},
            "protected": {"type": "dict", "default": {}},
            "allow_no_iommu": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    devices, driver = Devices(), module.params["driver"]
    steps = plan(
        devices,
        module.params["devices"],
        driver=driver,
        take=module.params["take"],
        give_back=module.params["give_back"],
        protected=module.params["protected"],
        allow_no_iommu=module.params["allow_no_iommu"],
    )
    problems = steps.problems if module.check_mode else steps.problems + steps.pending
    if problems:
        module.fail_json(msg="; ".join(problems))
    for reason in steps.pending:
        module.warn(reason)
    touched = steps.take + steps.give_back
    record = devices.record()
    before = shown(devices, touched)
    after = "".join(
        f"{name} {driver if name in steps.take else record[name].driver or 'its kernel driver'}\n"
        for name in sorted(touched)
    )
    if touched and not module.check_mode:
        try:
            carry_out(
                devices,
                steps,
                driver,
                allow_no_iommu=module.params["allow_no_iommu"],
                timeout=module.params["timeout"],
            )
        except OverrideError as error:
            module.fail_json(msg=str(error))
        after = shown(devices, touched)
    module.exit_json(
        changed=bool(touched),
        taken=steps.take,
        given_back=steps.give_back,
        diff={"before": before, "after": after, "before_header": "drivers", "after_header": "drivers"},
    )


if __name__ == "__main__":
    main()
