#!/usr/bin/python
"""Bring the kernel's interfaces into the state that the files of systemd-networkd describe, at once.

udev gives names when a NIC appears, and systemd-networkd never takes away what it made: both are done here.
"""

# Copyright: the authors of the router kit. Apache License 2.0 (see LICENSE).
from __future__ import annotations

import configparser
import ipaddress
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: kernel_ports
short_description: Name ports, let systemd-networkd configure them, give back those that left
description:
  - Gives each port its name, enables and starts C(systemd-networkd) and lets it read its files, takes away
    devices whose file has gone, and waits until every address is there.
  - An interface that is renamed is down for a moment.
options:
  ports:
    description:
      - The ports, each with its C(name), its C(pci) address or none, and C(device), the name of its interface
        before. Other keys are of no interest here.
    type: list
    elements: dict
    required: true
  addresses:
    description: Interface to the addresses it is to have, with their prefix length.
    type: dict
    required: true
  written:
    description: Files that were written in this run.
    type: list
    elements: str
    default: []
  removed:
    description: Files that were removed in this run, path to text.
    type: dict
    default: {}
  enable:
    description: Whether C(systemd-networkd) is to run. Where not, one that runs anyway reads what changed.
    type: bool
    default: true
  timeout:
    description: Seconds until every address must be there.
    type: int
    default: 30
author:
  - the authors
"""

EXAMPLES = r"""
- name: Bring the ports up
  kernel_ports:
    ports: [{name: uplink, device: "0000:03:00.0", pci: "0000:03:00.0"}]
    addresses: {uplink: [192.0.2.2/30]}
    written: "{{ files.written }}"
    removed: "{{ files.removed }}"
"""

RETURN = r"""
actions:
  description: What was done, or would be, in order.
  returned: always
  type: list
  elements: str
"""

NETWORKD = "systemd-networkd.service"
WAIT_ONLINE_UNIT = "systemd-networkd-wait-online.service"
NETWORKD_CONF = "networkd.conf.d"
POLL_SECONDS = 0.2


class PortError(Exception):
    """A port cannot be brought into its state."""


class Host:
    """The host's interfaces, and the programs that change them.

    Args:
        module: runs commands and knows whether this is check mode.
        root: where /sys is.
    """

    def __init__(self, module: AnsibleModule, root: Path = Path("/")) -> None:
        self._module = module
        self._net = root / "sys/class/net"
        self._pci = root / "sys/bus/pci/devices"
        self.actions: list[str] = []

    @property
    def check_mode(self) -> bool:
        """Whether nothing is to be changed."""
        return bool(self._module.check_mode)

    def interface_of(self, port: Mapping[str, Any]) -> str | None:
        """The present name of a port's interface; None when the kernel has none for it."""
        if port["pci"]:
            device = self._pci / port["pci"]
            found = [path.name for pattern in ("net/*", "virtio*/net/*") for path in device.glob(pattern)]
            return sorted(found)[0] if found else None
        return next((name for name in (port["name"], port["device"]) if self.exists(name)), None)

    def exists(self, name: str) -> bool:
        """Whether there is an interface of this name."""
        return (self._net / name).exists()

    def addresses(self, name: str) -> set[str]:
        """Addresses of an interface, with their prefix length, in their one form."""
        code, out, _ = self._module.run_command(["ip", "-json", "address", "show", "dev", name])
        if code != 0:
            return set()
        return {
            str(ipaddress.ip_interface(f"{entry['local']}/{entry['prefixlen']}"))
            for link in json.loads(out or "[]")
            for entry in link.get("addr_info", [])
        }

    def asks(self, *command: str) -> bool:
        """Whether a command that changes nothing succeeds."""
        code, _, _ = self._module.run_command(list(command))
        return bool(code == 0)

    def does(self, *command: str) -> None:
        """Note a command, and run it unless this is check mode.

        Raises:
            PortError: it fails.
        """
        self.actions.append(" ".join(command))
        if self.check_mode:
            return
        code, out, error = self._module.run_command(list(command))
        if code != 0:
            raise PortError(f"`{' '.join(command)}` failed with status {code}: {(error + out).strip()}")

    def said(self, *command: str) -> str:
        """What a command that changes nothing says; nothing when it fails."""
        code, out, _ = self._module.run_command(list(command))
        return str(out) if code == 0 else ""


def device_of(text: str) -> str | None:
    """Name of the device that a .link or .netdev file makes or names; None for another file."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    for section in ("NetDev", "Link"):
        if parser.has_option(section, "Name"):
            return parser.get(section, "Name")
    return None


def name_ports(host: Host, ports: Sequence[Mapping[str, Any]]) -> None:
    """Give each port its name.

    Raises:
        PortError: there is no interface for a port, or its name belongs to another one.
    """
    for port in ports:
        present = host.interface_of(port)
        if present is None and host.check_mode:
            host.actions.append(f"name {port['device']} {port['name']} once it is on its kernel driver")
            continue
        if present is None:
            raise PortError(
                f"router_ports, {port['name']}: found no interface for {port['device']}, expected the NIC "
                "to be on its kernel driver; is it still bound to vfio-pci, or its kernel driver missing?"
            )
        if present == port["name"]:
            continue
        if host.exists(port["name"]):
            raise PortError(
                f"router_ports, {port['name']}: found another interface of this name, expected it to be free "
                f"for {port['device']} ({present})"
            )
        host.does("ip", "link", "set", "dev", present, "down")
        host.does("ip", "link", "set", "dev", present, "name", port["name"])


def remove_devices(host: Host, written: Sequence[str], removed: Mapping[str, str]) -> None:
    """Delete what was made from a .netdev file that is gone or differs; systemd-networkd would leave it."""
    gone = {name for path, text in removed.items() if path.endswith(".netdev") and (name := device_of(text))}
    for path in written:
        if path.endswith(".netdev") and Path(path).exists() and (name := device_of(Path(path).read_text())):
            gone.add(name)
    for name in sorted(gone):
        if host.exists(name):
            host.does("ip", "link", "delete", "dev", name)


def give_back(host: Host, removed: Mapping[str, str], ports: Sequence[Mapping[str, Any]]) -> None:
    """Take addresses and name from a NIC that is no port any more, and leave it down, as a new one."""
    kept = {port["name"] for port in ports}
    names = {name for path, text in removed.items() if path.endswith(".link") and (name := device_of(text))}
    for name in sorted(names - kept):
        if not host.exists(name):
            continue
        host.does("ip", "link", "set", "dev", name, "nomaster", "down")
        host.does("ip", "address", "flush", "dev", name)
        former = former_name(host, name, removed)
        if former and former != name and not host.exists(former):
            host.does("ip", "link", "set", "dev", name, "name", former)


def former_name(host: Host, name: str, removed: Mapping[str, str]) -> str | None:
    """The name udev gives a NIC by default (systemd.net-naming-scheme(7)), or the one it had in our file."""
    for text in removed.values():
        if device_of(text) == name and "OriginalName=" in text:
            return text.split("OriginalName=", 1)[1].splitlines()[0].strip()
    properties = dict(
        line.split("=", 1)
        for line in host.said("udevadm", "info", "--query=property", f"/sys/class/net/{name}").splitlines()
        if "=" in line
    )
    keys = ("ID_NET_NAME_FROM_DATABASE", "ID_NET_NAME_ONBOARD", "ID_NET_NAME_SLOT", "ID_NET_NAME_PATH")
    return next((properties[key] for key in keys if properties.get(key)), None)


def run_networkd(host: Host, changed: Sequence[str], enable: bool) -> None:
    """Enable and start systemd-networkd as asked, or let it read what changed."""
    if enable and not host.asks("systemctl", "is-enabled", "--quiet", NETWORKD):
        waited = host.asks("systemctl", "is-enabled", "--quiet", WAIT_ONLINE_UNIT)
        host.does("systemctl", "enable", NETWORKD)
        if not waited:
            # It came along, and would hold up each boot until a port has a carrier.
            host.does("systemctl", "disable", WAIT_ONLINE_UNIT)
    if not host.asks("systemctl", "is-active", "--quiet", NETWORKD):
        if enable:
            host.does("systemctl", "start", NETWORKD)
    elif any(NETWORKD_CONF in path for path in changed):
        host.does("systemctl", "restart", NETWORKD)
    elif changed:
        host.does("networkctl", "reload")


def lacking(host: Host, addresses: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Addresses that an interface should have and has not."""
    missing = {name: sorted(set(wanted) - host.addresses(name)) for name, wanted in addresses.items()}
    return {name: left for name, left in missing.items() if left}


def settle(host: Host, addresses: Mapping[str, Sequence[str]], timeout: int) -> None:
    """Have missing addresses put on, and wait until they are there.

    Raises:
        PortError: an address is still missing when the time is over.
    """
    missing = lacking(host, addresses)
    if missing and not host.actions:
        host.does("networkctl", "reconfigure", *sorted(missing))
    if host.check_mode:
        return
    deadline = time.monotonic() + timeout
    while missing := lacking(host, addresses):
        if time.monotonic() > deadline:
            listed = "; ".join(f"{name}: {', '.join(left)}" for name, left in missing.items())
            raise PortError(
                f"found interfaces without addresses they should have after {timeout} s ({listed}), expected "
                "systemd-networkd to put them on; its journal says why it did not"
            )
        time.sleep(POLL_SECONDS)


def run(module: AnsibleModule) -> dict[str, Any]:
    """Bring the ports into their state and return the module's result."""
    host = Host(module)
    ports, removed, written = (module.params[key] for key in ("ports", "removed", "written"))
    addresses, timeout = module.params["addresses"], module.params["timeout"]
    changed = [path for path in (*written, *removed) if "/systemd/network" in path]
    remove_devices(host, written, removed)
    give_back(host, removed, ports)
    name_ports(host, ports)
    run_networkd(host, changed, module.params["enable"])
    settle(host, addresses, timeout)
    return {"changed": bool(host.actions), "actions": host.actions}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "dict", "required": True},
            "addresses": {"type": "dict", "required": True},
            "written": {"type": "list", "elements": "str", "default": []},
            "removed": {"type": "dict", "default": {}},
            "enable": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except PortError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
