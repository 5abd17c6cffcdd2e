# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible module: make virtual functions (SR-IOV), keep them by udev rules, take back those not wanted.

The file of rules is also the record of the NICs that are ours: only their virtual functions are ever taken
away.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: sriov_virtual_functions
short_description: Make virtual functions of NICs, now and at every boot
description:
  - Writes the udev rules that make virtual functions at boot, and makes them now where they are not as
    wanted.
  - Virtual functions of NICs in the former rules that are wanted no longer are taken away.
options:
  functions:
    description: NICs and their virtual functions, device (PCI address), count, macs, vlan, trust and
    spoof_check each.
    type: list
    elements: dict
    required: true
  content:
    description: Text of the udev rules.
    type: str
    required: true
author: ["The authors of the router kit"]
"""

RETURN = r"""
applied:
  description: NICs whose virtual functions were made or changed.
  type: list
  returned: success
"""

#: Runs a command; returns its exit status, standard output and standard error.
Runner = Callable[[Sequence[str]], tuple[int, str, str]]


class SriovError(Exception):
    """What was found, what was expected, and what to do."""


@dataclass(frozen=True)
class Wanted:
    """Virtual functions of one NIC; `vlan` 0 is none, MAC addresses not given are the driver's own."""

    device: str
    count: int
    macs: tuple[str, ...] = ()
    vlan: int = 0
    trust: bool = False
    spoof_check: bool = True

    @classmethod
    def of(cls, function: Mapping[str, Any]) -> Wanted:
        """From an entry of `sriov_functions`."""
        return cls(
            device=str(function["device"]),
            count=int(function["count"]),
            macs=tuple(str(mac).lower() for mac in function.get("macs") or ()),
            vlan=int(function.get("vlan") or 0),
            trust=bool(function.get("trust", False)),
            spoof_check=bool(function.get("spoof_check", True)),
        )

    def mac(self, index: int) -> str:
        """MAC address of a virtual function, or empty."""
        return self.macs[index] if index < len(self.macs) else ""


def run_command(command: Sequence[str]) -> tuple[int, str, str]:
    """Run a command for a minute at most."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, "", str(error)
    return run.returncode, run.stdout, run.stderr.strip()


class Nics:
    """NICs of a host as /sys and `ip` show them; `root` is / but in tests."""

    def __init__(self, root: Path = Path("/"), run: Runner = run_command) -> None:
        self.root = root
        self.run = run
        self.pci = root / "sys/bus/pci/devices"
        self.rules = root / "etc/udev/rules.d/60-pop-router-sriov.rules"

    def number(self, device: str, name: str) -> int:
        """A number of a NIC's directory in /sys, 0 where there is none."""
        path = self.pci / device / name
        return int(path.read_text()) if path.is_file() else 0

    def interface(self, device: str) -> str:
        """Network interface of a NIC.

        Raises:
            SriovError: it has none.
        """
        directory = self.pci / device / "net"
        names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
        if not names:
            raise SriovError(
                f"{device} has no network interface, expected the kernel's driver on a NIC that makes "
                "virtual functions: "
                "take it out of vfio_devices and router_ports"
            )
        return names[0]

    def settings(self, device: str) -> list[dict[str, Any]]:
        """Settings of the virtual functions there are, as `ip -json link` gives them."""
        status, output, error = self.run(["ip", "-json", "link", "show", "dev", self.interface(device)])
        if status:
            raise SriovError(f"ip link show of {device} failed: {error}")
        links = json.loads(output)
        return list(links[0].get("vfinfo_list", [])) if links else []

    def recorded(self) -> list[str]:
        """NICs in the rules that are there now."""
        text = self.rules.read_text() if self.rules.is_file() else ""
        return list(dict.fromkeys(re.findall(r'KERNELS=="([^"]+)"', text)))

    def users(self, device: str) -> list[str]:
        """Processes that have a virtual function of this NIC open by VFIO, in words."""
        groups = [path / "iommu_group" for path in (self.pci / device).glob("virtfn*")]
        files = {f"/dev/vfio/{group.readlink().name}" for group in groups if group.is_symlink()}
        found = []
        for process in sorted(self.root.glob("proc/[0-9]*")) if files else []:
            try:
                opened = {str(path.readlink()) for path in (process / "fd").iterdir()}
            except OSError:
                continue  # It ended meanwhile.
            if files & opened:
                found.append(f"{(process / 'comm').read_text().strip()} (process {process.name})")
        return found


def differences(wanted: Wanted, settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings of virtual functions that are not as wanted, in words."""
    found = []
    for index, setting in enumerate(settings[: wanted.count]):
        vlans = setting.get("vlan_list") or [{}]
        shown: dict[str, tuple[Any, Any]] = {
            "vlan": (setting.get("vlan", vlans[0].get("vlan")) or 0, wanted.vlan),
            "spoofchk": (setting.get("spoofchk", wanted.spoof_check), wanted.spoof_check),
            "trust": (setting.get("trust", wanted.trust), wanted.trust),
        }
        if wanted.mac(index):
            shown["mac"] = (
                str(setting.get("address") or setting.get("mac") or "").lower(),
                wanted.mac(index),
            )
        found += [
            f"vf {index} {name} {is_now}, expected {to_be}"
            for name, (is_now, to_be) in shown.items()
            if is_now != to_be
        ]
    return found


def check(nics: Nics, wanted: Wanted) -> None:
    """Refuse what a NIC cannot do."""
    if not (nics.pci / wanted.device).exists():
        raise SriovError(f"{wanted.device} was not found on this host: correct sriov_functions")
    total = nics.number(wanted.device, "sriov_totalvfs")
    if wanted.count > total:
        raise SriovError(
            f"{wanted.device}: found {wanted.count} virtual functions wanted, expected at most {total} "
            "(sriov_totalvfs): "
            "ask for fewer, or turn SR-IOV on in the BIOS and in the NIC's firmware"
        )


def as_wanted(nics: Nics, wanted: Wanted) -> bool:
    """Whether a NIC has the virtual functions wanted, with the settings wanted."""
    if nics.number(wanted.device, "sriov_numvfs") != wanted.count:
        return False
    return not wanted.count or not differences(wanted, nics.settings(wanted.device))


def set_count(nics: Nics, device: str, count: int) -> None:
    """Have a NIC make `count` virtual functions. The kernel changes a number by way of 0 only."""
    now = nics.number(device, "sriov_numvfs")
    if now == count:
        return
    if now and (users := nics.users(device)):
        raise SriovError(
            f"{device}: {now} virtual functions are to become {count}, and found in use by "
            f"{', '.join(users)}: stop that first"
        )
    path = nics.pci / device / "sriov_numvfs"
    try:
        if now:
            path.write_text("0\n")
        if count:
            path.write_text(f"{count}\n")
    except OSError as error:
        raise SriovError(
            f"{device} made no {count} virtual functions: {error}. See journalctl -k -g {device}"
        ) from error


def apply(nics: Nics, wanted: Wanted) -> None:
    """Make the virtual functions of one NIC as wanted, and see that they are."""
    set_count(nics, wanted.device, wanted.count)
    if not wanted.count:
        return
    interface = nics.interface(wanted.device)
    for index in range(wanted.count):
        command = ["ip", "link", "set", "dev", interface, "vf", str(index)]
        command += ["mac", wanted.mac(index)] if wanted.mac(index) else []
        command += ["vlan", str(wanted.vlan), "spoofchk", "on" if wanted.spoof_check else "off"]
        command += ["trust", "on" if wanted.trust else "off"]
        status, _, error = nics.run(command)
        if status:
            raise SriovError(
                f"{' '.join(command)} failed: {error}. The driver of {wanted.device} may not know this "
                "setting"
            )
    if left := differences(wanted, nics.settings(wanted.device)):
        raise SriovError(f"{wanted.device} did not take its settings: {'; '.join(left)}")


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "functions": {"type": "list", "elements": "dict", "required": True},
            "content": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    nics = Nics()
    functions = [Wanted.of(function) for function in module.params["functions"]]
    text = module.params["content"] if functions else ""
    before = nics.rules.read_text() if nics.rules.is_file() else ""
    names = {function.device for function in functions}
    functions += [
        Wanted(device, 0)
        for device in nics.recorded()
        if device not in names and (nics.pci / device).exists()
    ]
    try:
        for function in functions:
            check(nics, function)
        to_do = [function for function in functions if not as_wanted(nics, function)]
        if not module.check_mode:
            # Taken away before their NIC leaves the rules, which are the record.
            for function in sorted(to_do, key=lambda function: function.count):
                apply(nics, function)
            if before != text and text:
                nics.rules.write_text(text)
                nics.rules.chmod(0o644)
            elif before != text:
                nics.rules.unlink()
    except SriovError as error:
        module.fail_json(msg=str(error))
    shown = "".join(f"{function.device}: {function.count} virtual functions\n" for function in to_do)
    module.exit_json(
        changed=bool(to_do) or before != text,
        applied=[function.device for function in to_do],
        diff={
            "before": before,
            "after": text + shown,
            "before_header": str(nics.rules),
            "after_header": str(nics.rules),
        },
    )


if __name__ == "__main__":
    main()
