"""Namespaces and wires of the lab.

Everything of a lab carries its name, so that several can live at once and a stale one (its process was
killed) is found by name and removed. No interface ever appears in the host's own namespace.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from router_agent.lab.commands import NETNS_DIRECTORY, inside, ip_batch, run, tc_batch
from router_agent.lab.errors import LabError
from router_agent.lab.mirror import mirror_rules
from router_agent.lab.plan import PORTS, Port
from router_agent.model import Address, Family

RUNTIME = Path("/run/router-agent-lab")
"""Parent of the labs' directories: short, because socket paths are limited, and readable by FRR's user."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,23}")
_END_SECONDS = 10.0

_SUFFIXES = ("upstream", "pop1", "pop1-fwd", "tester")

_QUIET = (
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.dad_transmits=0",
    "net.ipv6.conf.default.accept_ra=0",
    "net.ipv6.conf.default.router_solicitations=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv4.conf.all.rp_filter=0",
)
"""Addresses are usable at once, and nothing speaks unless it is asked."""

_LARGE_TABLES = ("net.ipv6.route.max_size=16777216",)
"""Kernels before 6.3 hold 4,096 IPv6 routes by default."""


class Topology:
    """The namespaces of one lab.

    Args:
        name: of the lab: lower-case letters, digits and hyphens, at most 24.

    Raises:
        LabError: the name cannot be used.
    """

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise LabError(f"found lab name {name!r}, expected up to 24 of a-z, 0-9 and '-', a letter first")
        self.name = name
        self.directory = RUNTIME / name

    def namespace(self, suffix: str) -> str:
        """Return the name of a namespace of this lab."""
        return f"{self.name}-{suffix}"

    @property
    def upstream(self) -> str:
        """Namespace of the upstream router."""
        return self.namespace("upstream")

    @property
    def pop(self) -> str:
        """Namespace of the POP's control plane."""
        return self.namespace("pop1")

    @property
    def forwarding(self) -> str:
        """Namespace of the POP's forwarding plane."""
        return self.namespace("pop1-fwd")

    @property
    def tester(self) -> str:
        """Namespace of the sender and the receiver."""
        return self.namespace("tester")

    @property
    def local_addresses(self) -> tuple[Address, ...]:
        """The POP's own addresses on all ports."""
        return tuple(port.address(family).ip for port in PORTS for family in Family)

    def build(self, *, kernel_forwards: bool) -> None:
        """Make namespaces, wires, addresses and mirrors; what a lab of this name left is removed first.

        Args:
            kernel_forwards: the kernel of the forwarding namespace is the FIB; otherwise it drops whatever
                the control plane does not get, because VPP sees the ports too.

        Raises:
            LabError: not root, or the kernel refused something.
        """
        if os.geteuid() != 0:
            raise LabError("found an ordinary user, expected root: namespaces need it")
        self.remove()
        self.directory.mkdir(parents=True, mode=0o755)
        ip_batch(f"netns add {self.namespace(suffix)}" for suffix in _SUFFIXES)
        for suffix in _SUFFIXES:
            self._sysctl(self.namespace(suffix), *_QUIET)
        self._sysctl(self.pop, *_LARGE_TABLES)
        self._build_forwarding(kernel_forwards=kernel_forwards)
        self._build_pop()
        self._build_far_ends()

    def remove(self) -> None:
        """Remove whatever there is of a lab of this name: processes, namespaces, wires, directory."""
        present = [name for name in map(self.namespace, _SUFFIXES) if (NETNS_DIRECTORY / name).exists()]
        for name in present:
            _end_processes(name)
        ip_batch(f"netns del {name}" for name in present)
        if self.directory.exists():
            shutil.rmtree(self.directory)

    @property
    def present(self) -> bool:
        """Whether there is anything of a lab of this name."""
        return self.directory.exists() or any((NETNS_DIRECTORY / self.namespace(s)).exists() for s in _SUFFIXES)

    def set_link(self, port: Port, *, up: bool) -> None:
        """Set the far end of a port up or down: the port and, with it, nothing else loses its carrier."""
        state = "up" if up else "down"
        ip_batch([f"link set dev {port.far_name} {state}"], namespace=self.namespace(port.far_namespace))

    def _build_forwarding(self, *, kernel_forwards: bool) -> None:
        ip_batch(line for port in PORTS for line in self._wires(port))
        switch = int(kernel_forwards)
        self._sysctl(
            self.forwarding,
            *_LARGE_TABLES,
            f"net.ipv4.ip_forward={switch}",
            f"net.ipv6.conf.all.forwarding={switch}",
            "net.ipv4.conf.all.send_redirects=0",
            *(f"net.ipv4.conf.{port.name}.send_redirects=0" for port in PORTS),
            # Who is where is asked by the control plane; an unknown neighbour is unreachable at once.
            *(f"net.ipv4.neigh.{port.name}.{kind}_solicit=0" for port in PORTS for kind in ("ucast", "mcast")),
            *(f"net.ipv6.neigh.{port.name}.{kind}_solicit=0" for port in PORTS for kind in ("ucast", "mcast")),
        )
        ends = [name for port in PORTS for name in (port.name, port.mirror)]
        ip_batch(
            ["link set dev lo up", *(f"link set dev {end} addrgenmode none up" for end in ends)],
            namespace=self.forwarding,
        )
        rules = [
            rule
            for port in PORTS
            for rule in mirror_rules(port, self.local_addresses, drop_rest=not kernel_forwards)
        ]
        tc_batch(rules, namespace=self.forwarding)

    def _wires(self, port: Port) -> Iterator[str]:
        far = self.namespace(port.far_namespace)
        yield (
            f"link add name {port.name} netns {self.forwarding} address {port.mac} type veth "
            f"peer name {port.far_name} netns {far} address {port.far_mac}"
        )
        yield (
            f"link add name {port.mirror} netns {self.forwarding} type veth "
            f"peer name {port.name} netns {self.pop} address {port.mac}"
        )

    def _build_pop(self) -> None:
        lines = ["link set dev lo up"]
        for port in PORTS:
            lines += [f"address add {port.address(family)} dev {port.name}" for family in Family]
            lines.append(f"link set dev {port.name} up")
        ip_batch(lines, namespace=self.pop)
        for port in PORTS:
            _plain_packets(self.pop, port.name)

    def _build_far_ends(self) -> None:
        for suffix in ("upstream", "tester"):
            ends = [port for port in PORTS if port.far_namespace == suffix]
            lines = ["link set dev lo up"]
            for port in ends:
                lines += [f"address add {port.far_address(family)} dev {port.far_name}" for family in Family]
                lines.append(f"link set dev {port.far_name} up")
            ip_batch(lines, namespace=self.namespace(suffix))
            for port in ends:
                _plain_packets(self.namespace(suffix), port.far_name)
        self._make_tester()

    def _make_tester(self) -> None:
        """Send everything to the POP, and take everything that comes in as if it were ours."""
        ports = [port for port in PORTS if port.far_namespace == "tester"]
        self._sysctl(
            self.tester,
            # Packets carry the sender's address, which is ours too.
            *(f"net.ipv4.conf.{port.far_name}.accept_local=1" for port in ports),
            # Two interfaces, two neighbours: each answers for its own address only.
            "net.ipv4.conf.all.arp_ignore=1",
            "net.ipv4.conf.all.arp_announce=2",
        )
        sender = next(port for port in ports if port.far_name == "tx")
        lines = []
        for family, option in ((Family.IPV4, "-4"), (Family.IPV6, "-6")):
            gateway = sender.address(family).ip
            lines.append((option, f"route add default via {gateway} dev {sender.far_name}"))
            lines.append((option, "route add local default dev lo table 100"))
            lines += [(option, f"rule add iif {port.far_name} lookup 100") for port in ports]
        for option in ("-4", "-6"):
            batch = "".join(f"{line}\n" for wanted, line in lines if wanted == option)
            run(["ip", option, "-n", self.tester, "-batch", "-"], stdin=batch)

    def _sysctl(self, namespace: str, *settings: str) -> None:
        run(inside(namespace, "sysctl", "-q", "-w", *settings))


def _plain_packets(namespace: str, interface: str) -> None:
    """Make a virtual interface behave like a wire: whole checksums, no packets beyond the MTU."""
    run(inside(namespace, "ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off"))


def _end_processes(namespace: str) -> None:
    """End every process in a namespace: first politely, then not."""
    deadline = time.monotonic() + _END_SECONDS
    while pids := _pids(namespace):
        overdue = time.monotonic() > deadline
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if overdue else signal.SIGTERM)
        time.sleep(0.1)


def _pids(namespace: str) -> list[int]:
    return [int(pid) for pid in run(["ip", "netns", "pids", namespace]).split() if int(pid) != os.getpid()]
