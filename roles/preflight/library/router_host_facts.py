#!/usr/bin/python
"""Facts a router is built on: processors, memory pages, IOMMU, NICs, and which of them must not be touched.

A pure reader of /sys, /proc and `ip -json`, in one remote call; it changes nothing. `HostReader` takes the
root directory and the command runner as arguments, so that tests point it at a recorded tree.
"""

# Copyright: the authors. Apache License 2.0 (see LICENSE).
from __future__ import annotations

import ipaddress
import json
import os
import platform
import re
import socket
import struct
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: router_host_facts
short_description: Facts about processors, memory pages, IOMMU, NICs and their management duties
description:
  - Reads C(/sys), C(/proc) and C(ip -json) in one remote call and changes nothing.
  - Returns them as C(ansible_facts.router_host). A role that needs them after a change reads them again.
options:
  connection_address:
    description:
      - Address or name that Ansible connects to. The interface that holds it is management.
    type: str
    default: ""
  connection_port:
    description:
      - Port of the ssh server that Ansible connects to; 22, those of C(sshd_config) and that of the current
        session are looked at anyway.
    type: int
    default: 22
  management_interfaces:
    description:
      - Further interfaces, by name or PCI address, that are to count as management.
    type: list
    elements: str
    default: []
author:
  - the authors
"""

EXAMPLES = r"""
- name: Read what the host is
  router_host_facts:
    connection_address: "{{ ansible_host | default(inventory_hostname) }}"
    management_interfaces: "{{ router_management_interfaces }}"
"""

RETURN = r"""
ansible_facts:
  description: One key, C(router_host).
  returned: always
  type: dict
  contains:
    router_host:
      description:
        - C(os) {id, version_id, codename}; C(hostname); C(python); C(kernel); C(machine); C(cmdline) (list).
        - C(cpu) {model, flags, cores [{id, package, core, node, online}], isolated (ids)}; C(memory_bytes).
        - C(numa_nodes) [{id, cpus, memory_bytes, hugepages {"2048" {total, free}, "1048576" {total, free}}}].
        - C(iommu) {tables, enabled}; C(noiommu); C(modules) (loaded or built in); C(secure_boot); C(boot_id).
        - C(nics) [{pci, vendor, device, name, driver, override, interface, former_interface (its name before
          the kit took or renamed it), mac, numa_node, iommu_group, group_members (PCI addresses of all but
          bridges), group_others [{pci, name, driver}], speed_mbps, rated_mbps, ceiling_mpps, pcie_mbps,
          carrier, addresses, sriov_total, sriov_count, physical_function, management (reasons, none when
          it is free)}].
        - C(interfaces) {name [addresses]} of all interfaces, other than NICs too.
        - C(management) [{interface, pci, reasons}].
      type: dict
"""

PCI_CLASS_NETWORK = "0x02"
PCI_CLASS_BRIDGE = "0x06"
TCP_ESTABLISHED = "01"
# Default routes of these origins are how the host is reached; those of routing daemons come and go with BGP.
MANAGEMENT_ROUTE_PROTOCOLS = ("boot", "static", "dhcp", "ra", "kernel", "redirect")
SHOWN_PEERS = 3


class NicModel(NamedTuple):
    """What a PCI id stands for.

    `rated_mbps` is the fastest link of one port, 0 where the model does not fix it (virtual devices);
    `ceiling_mpps` the packet rate in million packets/s one port was measured not to exceed, 0 where the link
    is the only limit known (source: NIC limits of FD.io CSIT's performance methodology).
    """

    name: str
    rated_mbps: int = 0
    ceiling_mpps: float = 0.0


# Names and ids: the PCI ID repository (pci-ids.ucw.cz).
NIC_MODELS: dict[str, NicModel] = {
    "8086:100e": NicModel("Intel 82540EM", 1_000),
    "8086:100f": NicModel("Intel 82545EM", 1_000),
    "8086:10c9": NicModel("Intel 82576", 1_000),
    "8086:10ca": NicModel("Intel 82576 virtual function", 1_000),
    "8086:10d3": NicModel("Intel 82574L", 1_000),
    "8086:10ed": NicModel("Intel 82599 virtual function", 10_000),
    "8086:10fb": NicModel("Intel 82599ES", 10_000),
    "8086:124c": NicModel("Intel E823-L backplane"),
    "8086:125b": NicModel("Intel I226-LM", 2_500),
    "8086:125c": NicModel("Intel I226-V", 2_500),
    "8086:150e": NicModel("Intel 82580", 1_000),
    "8086:1515": NicModel("Intel X540 virtual function", 10_000),
    "8086:1520": NicModel("Intel I350 virtual function", 1_000),
    "8086:1521": NicModel("Intel I350", 1_000),
    "8086:1528": NicModel("Intel X540-AT2", 10_000),
    "8086:1533": NicModel("Intel I210", 1_000),
    "8086:1539": NicModel("Intel I211", 1_000),
    "8086:154c": NicModel("Intel 700 Series virtual function"),
    "8086:1557": NicModel("Intel 82599EN", 10_000),
    "8086:1563": NicModel("Intel X550", 10_000),
    "8086:1565": NicModel("Intel X550 virtual function", 10_000),
    "8086:1572": NicModel("Intel X710 10GbE SFP+", 10_000),
    "8086:1581": NicModel("Intel X710 10GbE backplane", 10_000),
    "8086:1583": NicModel("Intel XL710 40GbE QSFP+", 40_000, 18.75),
    "8086:1584": NicModel("Intel XL710 40GbE QSFP+", 40_000, 18.75),
    "8086:1589": NicModel("Intel X710-T4 10GBASE-T", 10_000),
    "8086:158a": NicModel("Intel XXV710 25GbE backplane", 25_000, 18.75),
    "8086:158b": NicModel("Intel XXV710 25GbE SFP28", 25_000, 18.75),
    "8086:1591": NicModel("Intel E810-C backplane", 100_000, 58.5),
    "8086:1592": NicModel("Intel E810-C 100GbE QSFP28", 100_000, 58.5),
    "8086:1593": NicModel("Intel E810-C SFP28", 25_000),
    "8086:1599": NicModel("Intel E810-XXV 25GbE backplane", 25_000),
    "8086:159b": NicModel("Intel E810-XXV 25GbE SFP28", 25_000),
    "8086:15ad": NicModel("Intel X552 10GBASE-T", 10_000),
    "8086:15c4": NicModel("Intel X553 10GbE SFP+", 10_000),
    "8086:15c5": NicModel("Intel X553 virtual function", 10_000),
    "8086:15ce": NicModel("Intel X553 10GbE SFP+", 10_000),
    "8086:15e5": NicModel("Intel X553 1GbE", 1_000),
    "8086:15f2": NicModel("Intel I225-LM", 2_500),
    "8086:15f3": NicModel("Intel I225-V", 2_500),
    "8086:15ff": NicModel("Intel X710-T2L/T4L 10GBASE-T", 10_000),
    "8086:1889": NicModel("Intel adaptive virtual function"),
    "8086:37cd": NicModel("Intel X722 virtual function", 10_000),
    "8086:37d0": NicModel("Intel X722 10GbE SFP+", 10_000),
    "8086:37d2": NicModel("Intel X722 10GBASE-T", 10_000),
    "8086:37d3": NicModel("Intel X722 10GbE SFP+", 10_000),
    "8086:579c": NicModel("Intel E825-C backplane"),
    "15b3:1003": NicModel("NVIDIA ConnectX-3"),
    "15b3:1007": NicModel("NVIDIA ConnectX-3 Pro"),
    "15b3:1013": NicModel("NVIDIA ConnectX-4", 100_000),
    "15b3:1014": NicModel("NVIDIA ConnectX-4 virtual function", 100_000),
    "15b3:1015": NicModel("NVIDIA ConnectX-4 Lx"),
    "15b3:1016": NicModel("NVIDIA ConnectX-4 Lx virtual function"),
    "15b3:1017": NicModel("NVIDIA ConnectX-5", 100_000),
    "15b3:1018": NicModel("NVIDIA ConnectX-5 virtual function", 100_000),
    "15b3:1019": NicModel("NVIDIA ConnectX-5 Ex", 100_000),
    "15b3:101a": NicModel("NVIDIA ConnectX-5 Ex virtual function", 100_000),
    "15b3:101b": NicModel("NVIDIA ConnectX-6"),
    "15b3:101d": NicModel("NVIDIA ConnectX-6 Dx"),
    "15b3:101e": NicModel("NVIDIA ConnectX virtual function"),
    "15b3:101f": NicModel("NVIDIA ConnectX-6 Lx"),
    "15b3:1021": NicModel("NVIDIA ConnectX-7"),
    "15b3:1023": NicModel("NVIDIA ConnectX-8"),
    "15b3:a2d6": NicModel("NVIDIA BlueField-2"),
    "15b3:a2dc": NicModel("NVIDIA BlueField-3"),
    "14e4:1657": NicModel("Broadcom BCM5719", 1_000),
    "14e4:165f": NicModel("Broadcom BCM5720", 1_000),
    "14e4:168e": NicModel("Broadcom BCM57810", 10_000),
    "14e4:16d6": NicModel("Broadcom BCM57412", 10_000),
    "14e4:16d7": NicModel("Broadcom BCM57414", 25_000),
    "14e4:16d8": NicModel("Broadcom BCM57416", 10_000),
    "14e4:16dc": NicModel("Broadcom NetXtreme-E virtual function"),
    "14e4:1750": NicModel("Broadcom BCM57508"),
    "14e4:1751": NicModel("Broadcom BCM57504"),
    "14e4:1752": NicModel("Broadcom BCM57502"),
    "14e4:1806": NicModel("Broadcom BCM5750X virtual function"),
    "1077:1656": NicModel("Marvell QL45000 25GbE", 25_000),
    "1077:8070": NicModel("Marvell QL41000"),
    "10ec:8125": NicModel("Realtek RTL8125", 2_500),
    "10ec:8168": NicModel("Realtek RTL8111/8168", 1_000),
    "1137:0043": NicModel("Cisco VIC"),
    "15ad:07b0": NicModel("VMware VMXNET3"),
    "1af4:1000": NicModel("Virtio network device (transitional)"),
    "1af4:1041": NicModel("Virtio network device"),
    "1d0f:ec20": NicModel("Amazon ENA"),
    "1d6a:07b1": NicModel("Marvell AQC107", 10_000),
    "1d6a:d107": NicModel("Marvell AQC107", 10_000),
    "1dd8:1002": NicModel("AMD Pensando DSC"),
}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Reasons = dict[str, list[str]]


class FactsError(Exception):
    """The host could not be read; the message says what was missing."""


def parse_cpu_list(text: str) -> list[int]:
    """Ids of a kernel CPU list such as "0-3,8,10-11" (Documentation/admin-guide/cputopology.rst)."""
    ids: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        ids.extend(range(int(first), int(last or first) + 1))
    return ids


def parse_cmdline(text: str) -> list[str]:
    """Arguments of the kernel's command line; double quotes may hold blanks."""
    return re.findall(r'(?:[^\s"]|"[^"]*")+', text)


def parse_os_release(text: str) -> dict[str, str]:
    """Keys and values of os-release(5), unquoted."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key: value.strip().strip("\"'") for key, value in pairs}


def parse_proc_address(text: str) -> tuple[Address, int]:
    """Address and port of a field of /proc/net/tcp{,6}: 32-bit words in the host's byte order, port in hex.

    IPv4-mapped IPv6 addresses become IPv4: a socket that listens on :: takes IPv4 sessions too.
    """
    words, port = text.split(":")
    packed = b"".join(
        struct.pack("=I", int(words[start : start + 8], 16)) for start in range(0, len(words), 8)
    )
    address: Address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address, int(port, 16)


def pcie_megabits(speed: str, width: str) -> int | None:
    """Data rate of a PCIe link in Mbit/s after line coding, from sysfs' "8.0 GT/s PCIe" and "8".

    8b/10b coding up to 5 GT/s, 128b/130b above (PCI Express Base Specification). None when it is not known.
    """
    rate = re.match(r"([\d.]+) GT/s", speed)
    if not rate or not width.isdigit() or not 0 < int(width) < 64:
        return None
    transfers = float(rate[1])
    coding = 0.8 if transfers <= 5 else 128 / 130
    return int(transfers * 1000 * coding * int(width))


def run_ip(arguments: list[str], commands: str | None = None) -> str:
    """Standard output of `ip ARGUMENTS`; `commands` is its standard input."""
    environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["ip", *arguments],
            input=commands,
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            timeout=60,
        )
    except FileNotFoundError as error:
        raise FactsError(
            "found no command 'ip', expected iproute2; install the package iproute2 on the host"
        ) from error
    except subprocess.CalledProcessError as error:
        raise FactsError(f"'ip {' '.join(arguments)}' failed: {error.stderr.strip()}") from error
    return done.stdout


class HostReader:
    """Reads one host below `root`; `run` is `run_ip` or its recorded counterpart."""

    def __init__(self, root: Path = Path("/"), run: Callable[[list[str], str | None], str] = run_ip) -> None:
        self.root = root
        self.run = run
        self.sys = root / "sys"
        self.proc = root / "proc"
        self.net = self.sys / "class/net"
        self.pci_devices = self.sys / "bus/pci/devices"

    def read(
        self,
        *,
        connection_address: str = "",
        connection_port: int = 22,
        management_interfaces: Iterable[str] = (),
    ) -> dict[str, Any]:
        """The value of ansible_facts.router_host; its keys are described in RETURN."""
        addresses = self.addresses()
        nics = self.nics(addresses)
        reasons = self.management_reasons(
            addresses, nics, connection_address, connection_port, management_interfaces
        )
        self.assign_management(nics, reasons)
        nodes = self.numa_nodes()
        return {
            "os": self.operating_system(),
            "hostname": self.text(self.proc / "sys/kernel/hostname"),
            "python": ".".join(platform.python_version_tuple()[:2]),
            "kernel": self.text(self.proc / "sys/kernel/osrelease"),
            "machine": self.text(self.proc / "sys/kernel/arch") or os.uname().machine,
            "cmdline": parse_cmdline(self.text(self.proc / "cmdline")),
            "cpu": self.cpu(nodes),
            "memory_bytes": self.memory_bytes(),
            "numa_nodes": nodes,
            "iommu": self.iommu(),
            "noiommu": self.text(self.sys / "module/vfio/parameters/enable_unsafe_noiommu_mode") == "Y",
            "modules": self.modules(),
            "nics": nics,
            "interfaces": addresses,
            "management": [
                {"interface": name, "pci": self.pci_of(name, nics), "reasons": found}
                for name, found in sorted(reasons.items())
            ],
            "secure_boot": self.secure_boot(),
            "boot_id": self.text(self.proc / "sys/kernel/random/boot_id"),
        }

    # Reading of single files

    def text(self, path: Path) -> str:
        """Content without blanks at its ends; "" where there is none (a link that is down has no speed)."""
        try:
            return path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def number(self, path: Path, default: int = 0) -> int:
        """Whole number in a file, decimal or 0x; `default` where there is none."""
        try:
            return int(self.text(path), 0)
        except ValueError:
            return default

    def link_name(self, path: Path) -> str | None:
        """Last part of a symbolic link's target, None where there is no link."""
        try:
            return path.readlink().name
        except OSError:
            return None

    def entries(self, directory: Path, pattern: str = "*") -> list[Path]:
        """Sorted entries of a directory, none where it does not exist."""
        return sorted(directory.glob(pattern)) if directory.is_dir() else []

    # The machine

    def operating_system(self) -> dict[str, str]:
        """{id, version_id, codename}; empty where os-release does not say (testing has no VERSION_ID)."""
        release = parse_os_release(self.text(self.root / "etc/os-release"))
        return {
            "id": release.get("ID", ""),
            "version_id": release.get("VERSION_ID", ""),
            "codename": release.get("VERSION_CODENAME", ""),
        }

    def cpu(self, nodes: list[dict[str, Any]]) -> dict[str, Any]:
        """{model, flags, cores, isolated}; see RETURN."""
        first = self.text(self.proc / "cpuinfo").split("\n\n", 1)[0]
        fields = {
            key.strip(): value.strip()
            for key, _, value in (line.partition(":") for line in first.splitlines())
        }
        node_of = {cpu: node["id"] for node in nodes for cpu in node["cpus"]}
        cores = []
        for directory in self.entries(self.sys / "devices/system/cpu", "cpu[0-9]*"):
            cpu = int(directory.name.removeprefix("cpu"))
            cores.append(
                {
                    "id": cpu,
                    "package": self.number(directory / "topology/physical_package_id"),
                    "core": self.number(directory / "topology/core_id", cpu),
                    "node": node_of.get(cpu, 0),
                    # CPU 0 has no such file where it cannot be taken offline.
                    "online": self.text(directory / "online") != "0",
                }
            )
        return {
            "model": fields.get("model name") or fields.get("CPU part", ""),
            "flags": (fields.get("flags") or fields.get("Features", "")).split(),
            "cores": sorted(cores, key=lambda core: int(core["id"])),
            "isolated": parse_cpu_list(self.text(self.sys / "devices/system/cpu/isolated")),
        }

    def memory_bytes(self) -> int:
        """MemTotal of /proc/meminfo, in bytes."""
        found = re.search(r"^MemTotal:\s+(\d+) kB", self.text(self.proc / "meminfo"), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0

    def numa_nodes(self) -> list[dict[str, Any]]:
        """NUMA nodes by id; one node that holds everything where the kernel has no NUMA."""
        nodes = []
        for directory in self.entries(self.sys / "devices/system/node", "node[0-9]*"):
            total = re.search(r"MemTotal:\s+(\d+) kB", self.text(directory / "meminfo"))
            nodes.append(
                {
                    "id": int(directory.name.removeprefix("node")),
                    "cpus": parse_cpu_list(self.text(directory / "cpulist")),
                    "memory_bytes": int(total[1]) * 1024 if total else 0,
                    "hugepages": self.hugepages(directory / "hugepages"),
                }
            )
        if nodes:
            return sorted(nodes, key=lambda node: int(node["id"]))
        return [
            {
                "id": 0,
                "cpus": parse_cpu_list(self.text(self.sys / "devices/system/cpu/present")),
                "memory_bytes": self.memory_bytes(),
                "hugepages": self.hugepages(self.sys / "kernel/mm/hugepages"),
            }
        ]

    def hugepages(self, directory: Path) -> dict[str, dict[str, int]]:
        """{page size in KiB, as text: {total, free}} in pages."""
        sizes = {}
        for entry in self.entries(directory, "hugepages-*kB"):
            size = entry.name.removeprefix("hugepages-").removesuffix("kB")
            sizes[size] = {
                "total": self.number(entry / "nr_hugepages"),
                "free": self.number(entry / "free_hugepages"),
            }
        return sizes

    def iommu(self) -> dict[str, Any]:
        """{tables: those of the firmware, enabled: the kernel translates}."""
        firmware = self.sys / "firmware/acpi/tables"
        return {
            "tables": [name for name in ("DMAR", "IVRS") if (firmware / name).exists()],
            # The kernel registers an IOMMU here only when it uses it, whatever the command line asks for.
            "enabled": bool(self.entries(self.sys / "class/iommu")),
        }

    def modules(self) -> list[str]:
        """Kernel modules that are loaded or built in, with underscores."""
        loaded = {line.split(" ", 1)[0] for line in self.text(self.proc / "modules").splitlines()}
        return sorted(loaded | {entry.name for entry in self.entries(self.sys / "module")})

    def secure_boot(self) -> bool:
        """Whether UEFI Secure Boot is on: the last byte of its EFI variable (UEFI specification, 3.3)."""
        variable = self.sys / "firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
        try:
            return variable.read_bytes()[-1:] == b"\x01"
        except OSError:
            return False

    # NICs

    def addresses(self) -> dict[str, list[str]]:
        """{interface: its addresses in CIDR notation}."""
        links = json.loads(self.run(["-json", "address", "show"], None) or "[]")
        return {
            link["ifname"]: [
                f"{entry['local']}/{entry['prefixlen']}"
                for entry in link.get("addr_info", [])
                if "local" in entry
            ]
            for link in links
            if "ifname" in link
        }

    def nics(self, addresses: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Every PCI function of class network, by PCI address."""
        functions = self.entries(self.pci_devices)
        single_node = len(self.entries(self.sys / "devices/system/node", "node[0-9]*")) <= 1
        former = self.former_interfaces()
        return [
            self.nic(path, addresses, single_node, former)
            for path in functions
            if self.text(path / "class").startswith(PCI_CLASS_NETWORK)
        ]

    def nic(
        self, path: Path, addresses: dict[str, list[str]], single_node: bool, former: dict[str, str]
    ) -> dict[str, Any]:
        """One NIC; see RETURN. `numa_node` is -1 only where there are several and the firmware is silent."""
        vendor = self.text(path / "vendor").removeprefix("0x")
        device = self.text(path / "device").removeprefix("0x")
        model = NIC_MODELS.get(f"{vendor}:{device}", NicModel(f"{vendor}:{device}"))
        interface = self.interface_of(path)
        override = self.text(path / "driver_override")
        speed = self.number(self.net / interface / "speed", -1) if interface else -1
        numa_node = self.number(path / "numa_node", -1)
        group = self.link_name(path / "iommu_group")
        members = [entry.name for entry in self.entries(self.sys / f"kernel/iommu_groups/{group}/devices")]
        # vfio leaves bridges of a group to their driver (vfio_dev_driver_allowed), so they are no obstacle.
        members = [name for name in members if not self.is_bridge(name)]
        return {
            "pci": path.name,
            "vendor": vendor,
            "device": device,
            "name": model.name,
            "driver": self.link_name(path / "driver"),
            "override": override if override not in ("", "(null)") else None,
            "interface": interface,
            "former_interface": former.get(path.name)
            or (self.predictable_name(interface) if interface else None),
            "mac": self.text(self.net / interface / "address") if interface else None,
            "numa_node": 0 if numa_node < 0 and single_node else numa_node,
            "iommu_group": int(group) if group and group.isdigit() else None,
            "group_members": members,
            "group_others": [self.device(name) for name in members if name != path.name],
            "speed_mbps": speed if speed > 0 else None,
            "rated_mbps": model.rated_mbps or None,
            "ceiling_mpps": model.ceiling_mpps or None,
            "pcie_mbps": pcie_megabits(
                self.text(path / "current_link_speed"), self.text(path / "current_link_width")
            ),
            "carrier": bool(interface) and self.text(self.net / str(interface) / "carrier") == "1",
            "addresses": [
                entry
                for entry in addresses.get(interface or "", [])
                if not ipaddress.ip_interface(entry).is_link_local
            ],
            "sriov_total": self.number(path / "sriov_totalvfs"),
            "sriov_count": self.number(path / "sriov_numvfs"),
            "physical_function": self.link_name(path / "physfn"),
            "management": [],
        }

    def interface_of(self, path: Path) -> str | None:
        """The kernel's interface of a PCI function, None when it has none.

        Virtio puts a device of its own between; a NIC in switchdev mode has representors beside its own
        interface, whose port name is that of a virtual function (pf0vf1).
        """
        found = self.entries(path / "net") + [
            entry for device in self.entries(path, "virtio*") for entry in self.entries(device / "net")
        ]
        own = [
            entry
            for entry in found
            if not re.match(r"(c\d+)?pf\d+(v|s)f", self.text(entry / "phys_port_name"))
        ]
        return own[0].name if own else None

    def is_bridge(self, pci: str) -> bool:
        """Whether a PCI function is a bridge."""
        return self.text(self.pci_devices / pci / "class").startswith(PCI_CLASS_BRIDGE)

    def device(self, pci: str) -> dict[str, Any]:
        """{pci, name, driver} of any PCI function."""
        path = self.pci_devices / pci
        ids = ":".join(self.text(path / part).removeprefix("0x") for part in ("vendor", "device"))
        name = NIC_MODELS[ids].name if ids in NIC_MODELS else ids
        return {"pci": pci, "name": name, "driver": self.link_name(path / "driver")}

    def former_interfaces(self) -> dict[str, str]:
        """{PCI address: interface} of NICs that role vfio took; its record has address, driver, interface."""
        record = self.text(self.root / "etc/pop-router/vfio-devices")
        words = [line.split() for line in record.splitlines() if not line.startswith("#")]
        return {entry[0]: entry[2] for entry in words if len(entry) > 2 and entry[2] != "-"}

    def predictable_name(self, interface: str) -> str | None:
        """Name that udev had chosen for an interface that was renamed since, by its database.

        In the order of systemd.net-naming-scheme(7) and 99-default.link; None where udev says nothing, or the
        interface still has that name.
        """
        index = self.text(self.net / interface / "ifindex")
        database = self.text(self.root / f"run/udev/data/n{index}")
        names = dict(re.findall(r"^E:ID_NET_NAME_(\w+)=(.+)$", database, re.MULTILINE))
        chosen = (names.get(kind) for kind in ("FROM_DATABASE", "ONBOARD", "SLOT", "PATH"))
        first = next(filter(None, chosen), None)
        return None if first == interface else first

    # Management

    def management_reasons(
        self,
        addresses: dict[str, list[str]],
        nics: list[dict[str, Any]],
        connection_address: str,
        connection_port: int,
        listed: Iterable[str],
    ) -> Reasons:
        """{interface: why it is management}; only physical interfaces, and others that rest on none."""
        holder = {
            ipaddress.ip_interface(entry).ip: name for name, entries in addresses.items() for entry in entries
        }
        reasons: Reasons = defaultdict(list)
        for interface, reason in [
            *self.default_routes(),
            *self.connection_reasons(holder, connection_address),
            *self.session_reasons(holder, connection_port),
        ]:
            self.add_reason(reasons, interface, reason)
        for name in listed:
            interface = next((nic["interface"] for nic in nics if nic["pci"] == name), None) or name
            self.add_reason(reasons, interface, "is listed in router_management_interfaces")
        return reasons

    def add_reason(self, reasons: Reasons, interface: str, reason: str) -> None:
        """Give a reason to the physical interfaces that `interface` rests on."""
        for lower in self.physical(interface):
            words = reason if lower == interface else f"{reason} (through {interface})"
            if words not in reasons[lower]:
                reasons[lower].append(words)

    def physical(self, interface: str, seen: frozenset[str] = frozenset()) -> list[str]:
        """What a VLAN, bond or bridge rests on, down to interfaces with nothing below; or itself."""
        below = [entry.name.removeprefix("lower_") for entry in self.entries(self.net / interface, "lower_*")]
        below = [name for name in below if name not in seen]
        if not below:
            return [interface]
        return [name for lower in below for name in self.physical(lower, seen | {interface})]

    def default_routes(self) -> Iterator[tuple[str, str]]:
        """(interface, reason) of each default route that no routing protocol made, in any table.

        The kernel filters by protocol, so this stays cheap beside a full BGP table.
        """
        commands = "".join(f"route show table all protocol {name}\n" for name in MANAGEMENT_ROUTE_PROTOCOLS)
        for flag, family in (("-4", "IPv4"), ("-6", "IPv6")):
            output = self.run(["-json", flag, "-batch", "-"], commands)
            for route in json_arrays(output):
                if route.get("dst") != "default" or route.get("type", "unicast") != "unicast":
                    continue
                for hop in route.get("nexthops") or [route]:
                    if hop.get("dev"):
                        via = hop.get("gateway") or (hop.get("via") or {}).get("host")
                        yield (
                            hop["dev"],
                            f"carries the {family} default route" + (f" via {via}" if via else ""),
                        )

    def connection_reasons(self, holder: dict[Address, str], name: str) -> Iterator[tuple[str, str]]:
        """(interface, reason) where an interface holds what Ansible connects to."""
        for address in resolve(name):
            interface = holder.get(address)
            if interface and not address.is_loopback:
                called = str(address) if str(address) == name else f"{address} ({name})"
                yield interface, f"holds {called}, the address Ansible connects to"

    def session_reasons(self, holder: dict[Address, str], port: int) -> Iterator[tuple[str, str]]:
        """(interface, reason) for established ssh sessions to this host."""
        peers: dict[str, set[Address]] = defaultdict(set)
        for local, remote in self.ssh_sessions(port):
            interface = holder.get(local)
            # A local address of a loopback says nothing about the NIC: ask which way the answers go.
            if interface is None or self.link_is_virtual(interface):
                interface = self.way_to(remote, local) or interface
            if interface and not local.is_loopback:
                peers[interface].add(remote)
        for interface, remotes in sorted(peers.items()):
            shown = ", ".join(str(remote) for remote in sorted(remotes, key=str)[:SHOWN_PEERS])
            more = f" and {len(remotes) - SHOWN_PEERS} more" if len(remotes) > SHOWN_PEERS else ""
            plural = "s" if len(remotes) > 1 else ""
            yield interface, f"carries the ssh session{plural} from {shown}{more}"

    def link_is_virtual(self, interface: str) -> bool:
        """Whether an interface neither is a device nor rests on one (a loopback, a dummy)."""
        return not (self.net / interface / "device").exists() and not self.entries(
            self.net / interface, "lower_*"
        )

    def way_to(self, remote: Address, local: Address) -> str | None:
        """Interface that packets from `local` to `remote` leave through, None when there is no way."""
        try:
            found = json_arrays(self.run(["-json", "route", "get", str(remote), "from", str(local)], None))
        except FactsError:
            return None
        return next((route["dev"] for route in found if "dev" in route), None)

    def ssh_sessions(self, port: int) -> list[tuple[Address, Address]]:
        """(local, remote) addresses of established sessions to a port of the ssh server."""
        current = self.current_session()
        ports = {22, port, *self.configured_ports(), *(entry[1] for entry in current)}
        sessions = [(local, remote) for local, _, remote in current]
        for table in ("tcp", "tcp6"):
            for line in self.text(self.proc / "net" / table).splitlines()[1:]:
                fields = line.split()
                if len(fields) < 4 or fields[3] != TCP_ESTABLISHED:
                    continue
                local, local_port = parse_proc_address(fields[1])
                if local_port in ports:
                    sessions.append((local, parse_proc_address(fields[2])[0]))
        return list(dict.fromkeys(sessions))

    def current_session(self) -> list[tuple[Address, int, Address]]:
        """(local, port, remote) from SSH_CONNECTION of this process or an ancestor: sudo empties our own."""
        process = "self"
        for _ in range(32):
            environment = self.text(self.proc / process / "environ").split("\0")
            found = next((entry for entry in environment if entry.startswith("SSH_CONNECTION=")), "")
            parts = found.removeprefix("SSH_CONNECTION=").split()
            if len(parts) == 4:
                remote, _, local, port = parts
                return [(as_address(local), int(port), as_address(remote))]
            parent = re.search(r"^PPid:\s+(\d+)", self.text(self.proc / process / "status"), re.MULTILINE)
            if not parent or parent[1] == "0":
                break
            process = parent[1]
        return []

    def configured_ports(self) -> set[int]:
        """Ports of sshd_config and its drop-ins."""
        ssh = self.root / "etc/ssh"
        files = [ssh / "sshd_config", *self.entries(ssh / "sshd_config.d", "*.conf")]
        lines = "\n".join(self.text(path) for path in files)
        return {int(port) for port in re.findall(r"^\s*Port[\s=]+(\d+)", lines, re.MULTILINE | re.IGNORECASE)}

    def assign_management(self, nics: list[dict[str, Any]], reasons: Reasons) -> None:
        """Fill `management` of each NIC; a physical function answers for its virtual functions too."""
        by_pci = {nic["pci"]: nic for nic in nics}
        for nic in nics:
            found = reasons.get(nic["interface"] or "", [])
            nic["management"].extend(found)
            parent = by_pci.get(nic["physical_function"] or "")
            if parent is not None:
                parent["management"].extend(
                    f"its virtual function {nic['pci']} ({nic['interface']}) {reason}" for reason in found
                )

    def pci_of(self, interface: str, nics: list[dict[str, Any]]) -> str | None:
        """PCI address of an interface, None for one that is no PCI device."""
        return next((nic["pci"] for nic in nics if nic["interface"] == interface), None)


def json_arrays(output: str) -> list[dict[str, Any]]:
    """All objects of the JSON arrays that `ip -json -batch` prints one after the other."""
    decoder = json.JSONDecoder()
    objects: list[dict[str, Any]] = []
    rest = output.strip()
    while rest:
        array, end = decoder.raw_decode(rest)
        objects.extend(entry for entry in array if entry)
        rest = rest[end:].lstrip()
    return objects


def as_address(text: str) -> Address:
    """Address without zone; IPv4-mapped IPv6 becomes IPv4."""
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def resolve(name: str) -> list[Address]:
    """Addresses a name stands for, none when it is empty or unknown here: ssh sessions tell then."""
    if not name:
        return []
    try:
        return [as_address(name)]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(as_address(str(entry[4][0])) for entry in found))


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "connection_address": {"type": "str", "default": ""},
            "connection_port": {"type": "int", "default": 22},
            "management_interfaces": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        facts = HostReader().read(
            connection_address=module.params["connection_address"],
            connection_port=module.params["connection_port"],
            management_interfaces=module.params["management_interfaces"],
        )
    except FactsError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, ansible_facts={"router_host": facts})


if __name__ == "__main__":
    main()
