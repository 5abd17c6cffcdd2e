"""A host as /sys, /proc and `ip -json` show it, built below a directory: for code that reads hosts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from router_host_facts import HostReader

# How long an example takes says how busy the machine is, nothing of the code: no test asserts times.
settings.register_profile("router", deadline=None)
settings.load_profile("router")

X86_64_V2 = "fpu cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3 pdpe1gb avx2"
GIB = 1 << 30


class HostTree:
    """Files of one host; starts as a two-socket machine with Debian 13, Intel's IOMMU in use and no NIC."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.addresses: dict[str, list[str]] = {"lo": ["127.0.0.1/8", "::1/128"]}
        self.routes: dict[str, list[dict[str, Any]]] = {"-4": [], "-6": []}
        self.way: dict[str, str] = {}
        self.commands: list[tuple[list[str], str | None]] = []
        self.write("etc/os-release", 'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n')
        self.write("proc/sys/kernel/osrelease", "6.12.48+deb13-amd64\n")
        self.write("proc/sys/kernel/hostname", "ams1-r1\n")
        self.write("proc/sys/kernel/arch", "x86_64\n")
        self.write("proc/sys/kernel/random/boot_id", "0c4b8f0e-8a6e-4a3f-9a49-0b9f6d0e5a11\n")
        self.write("proc/cmdline", "BOOT_IMAGE=/vmlinuz root=UUID=1 ro intel_iommu=on iommu=pt quiet\n")
        self.write("proc/modules", "vfio_pci 16384 0 - Live 0x0\nixgbe 12 0 - Live 0x0\n")
        self.write("proc/net/tcp", "  sl  local_address rem_address   st\n")
        self.write("proc/self/status", "Name:\tpython3\nPPid:\t0\n")
        self.write("sys/firmware/acpi/tables/DMAR", "")
        self.write("sys/class/iommu/dmar0/name", "")
        self.processors(nodes=2, cores=4)

    def write(self, path: str, text: str) -> Path:
        """Write a file, with the directories above it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link to a path below the root."""
        link = self.root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        (self.root / target).mkdir(parents=True, exist_ok=True)
        link.symlink_to(self.root / target)

    def processors(self, *, nodes: int, cores: int, flags: str = X86_64_V2, memory: int = 64 * GIB) -> None:
        """`cores` cores on each of `nodes` nodes, each node with an equal part of the memory (bytes)."""
        self.write(
            "proc/cpuinfo", f"processor\t: 0\nmodel name\t: Xeon\nflags\t\t: {flags}\n\nprocessor\t: 1\n"
        )
        self.write("proc/meminfo", f"MemTotal:       {memory // 1024} kB\nMemFree: 1 kB\n")
        self.write("sys/devices/system/cpu/isolated", "\n")
        for node in range(nodes):
            first, last = node * cores, node * cores + cores - 1
            base = f"sys/devices/system/node/node{node}"
            self.write(f"{base}/cpulist", f"{first}-{last}\n")
            self.write(f"{base}/meminfo", f"Node {node} MemTotal:       {memory // nodes // 1024} kB\n")
            for size in (2048, 1048576):
                self.write(f"{base}/hugepages/hugepages-{size}kB/nr_hugepages", "0\n")
                self.write(f"{base}/hugepages/hugepages-{size}kB/free_hugepages", "0\n")
            for cpu in range(first, last + 1):
                core = f"sys/devices/system/cpu/cpu{cpu}"
                self.write(f"{core}/topology/physical_package_id", f"{node}\n")
                self.write(f"{core}/topology/core_id", f"{cpu - first}\n")

    def nic(
        self,
        pci: str,
        interface: str | None = None,
        *,
        model: str = "8086:1572",
        driver: str | None = "i40e",
        node: int = 0,
        group: int | None = None,
        speed: int | None = 10_000,
        addresses: Sequence[str] = (),
        pci_class: str = "0x020000",
    ) -> str:
        """Add a NIC, or another device by its class; returns its directory below the root."""
        base = f"sys/bus/pci/devices/{pci}"
        vendor, device = model.split(":")
        self.write(f"{base}/class", pci_class)
        self.write(f"{base}/vendor", f"0x{vendor}\n")
        self.write(f"{base}/device", f"0x{device}\n")
        self.write(f"{base}/numa_node", f"{node}\n")
        self.write(f"{base}/driver_override", "(null)\n")
        if driver:
            self.link(f"{base}/driver", f"sys/bus/pci/drivers/{driver}")
        if group is not None:
            (self.root / f"sys/kernel/iommu_groups/{group}/devices/{pci}").mkdir(parents=True)
            self.link(f"{base}/iommu_group", f"sys/kernel/iommu_groups/{group}")
        if interface:
            self.link(f"{base}/net/{interface}", f"sys/class/net/{interface}")
            self.interface(interface, addresses)
            self.link(f"sys/class/net/{interface}/device", base)
            self.write(f"sys/class/net/{interface}/carrier", "1\n")
            self.write(f"sys/class/net/{interface}/speed", f"{speed or -1}\n")
        return base

    def interface(self, name: str, addresses: Sequence[str] = (), lower: Sequence[str] = ()) -> None:
        """Add an interface, on others where it rests on them."""
        self.write(f"sys/class/net/{name}/address", "02:00:00:00:00:01\n")
        self.write(f"sys/class/net/{name}/ifindex", f"{len(self.addresses) + 1}\n")
        for other in lower:
            self.link(f"sys/class/net/{name}/lower_{other}", f"sys/class/net/{other}")
        self.addresses[name] = list(addresses)

    def default_route(self, interface: str, gateway: str, protocol: str = "static") -> None:
        """Add a default route."""
        route = {"dst": "default", "gateway": gateway, "dev": interface, "protocol": protocol, "flags": []}
        self.routes["-6" if ":" in gateway else "-4"].append(route)

    def session(self, local: str, remote: str, port: int = 22) -> None:
        """Add an established TCP session over IPv4."""
        ends = [f"{bytes(map(int, end.split('.')))[::-1].hex().upper()}" for end in (local, remote)]
        with (self.root / "proc/net/tcp").open("a") as file:
            file.write(f"   1: {ends[0]}:{port:04X} {ends[1]}:BB74 01 00000000:00000000 00:00000000\n")

    def run(self, arguments: list[str], commands: str | None = None) -> str:
        """What `ip` would print; `ip -batch` prints an array for each line of its input."""
        self.commands.append((arguments, commands))
        if arguments == ["-json", "address", "show"]:
            return json.dumps([self.link_record(name, entries) for name, entries in self.addresses.items()])
        if "-batch" in arguments:
            routes = self.routes[arguments[1]]
            asked = [line.split()[-1] for line in (commands or "").splitlines()]
            return "\n".join(
                json.dumps([route for route in routes if route["protocol"] == protocol]) for protocol in asked
            )
        if arguments[:3] == ["-json", "route", "get"]:
            return json.dumps([{"dst": arguments[3], "dev": self.way[arguments[3]], "flags": []}])
        raise AssertionError(f"no record of ip {arguments}")

    @staticmethod
    def link_record(name: str, entries: Sequence[str]) -> dict[str, Any]:
        """An interface of `ip -json address`."""
        split = [entry.split("/") for entry in entries]
        return {
            "ifname": name,
            "addr_info": [{"local": ip, "prefixlen": int(length)} for ip, length in split],
        }

    def facts(self, **options: Any) -> dict[str, Any]:
        """What router_host_facts reads here."""
        facts: dict[str, Any] = HostReader(self.root, self.run).read(**options)
        return facts


@pytest.fixture
def host_tree(tmp_path: Path) -> HostTree:
    """A host without NICs, to be completed."""
    return HostTree(tmp_path / "host")


@pytest.fixture
def pop_host(host_tree: HostTree) -> HostTree:
    """A host that inventory/example fits: management on eno1, two ports on node 0, each in its own group."""
    host_tree.nic("0000:01:00.0", "eno1", model="8086:1521", driver="igb", group=10, speed=1000,
                  addresses=["192.0.2.11/24", "fe80::1/64"])  # fmt: skip
    host_tree.nic("0000:03:00.0", "enp3s0f0", group=20)
    host_tree.nic("0000:03:00.1", "enp3s0f1", group=21)
    host_tree.default_route("eno1", "192.0.2.254")
    host_tree.session("192.0.2.11", "192.0.2.200")
    return host_tree
